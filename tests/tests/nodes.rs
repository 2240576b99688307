//! Two real nodes on one PostgreSQL database: what changes on one holds on the other within a second; with notifications cut it
//! holds after the next poll; a node that cannot confirm its rules denies.

use crate::http::Client;
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use systemprompt_database::Db;
use systemprompt_tests::{Options, Server};

/// Number of a request for TLS, which PostgreSQL clients send first.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Stands between a node and the database, and can cut the connection that listens for notifications.
pub struct Wire {
    url: String,
    cut: Arc<AtomicBool>,
    listening: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    /// A way to `url` that can be cut.
    pub fn to(url: &str) -> Self {
        let (before, after) = url.split_once('@').unwrap();
        let (server, database) = after.split_once('/').unwrap();
        let (server, cut) = (server.to_owned(), Arc::new(AtomicBool::new(false)));
        let listening = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{before}@{}/{database}", listener.local_addr().unwrap());
        let (is_cut, streams) = (Arc::clone(&cut), Arc::clone(&listening));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, is_cut, streams) = (server.clone(), Arc::clone(&is_cut), Arc::clone(&streams));
                std::thread::spawn(move || pass(client, &server, &is_cut, &streams));
            }
        });
        Self { url, cut, listening }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on no notification arrives.
    pub fn cut_notifications(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in self.listening.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(
    mut client: TcpStream,
    server: &str,
    cut: &AtomicBool,
    listening: &Mutex<Vec<TcpStream>>,
) -> Option<()> {
    let mut head = packet(&mut client)?;
    if head.get(4..8) == Some(&SSL_REQUEST) {
        client.write_all(b"N").ok()?;
        head = packet(&mut client)?;
    }
    let name = systemprompt_database::notify::LISTENER_NAME.as_bytes();
    if head.windows(name.len()).any(|part| part == name) {
        if cut.load(Ordering::SeqCst) {
            return None;
        }
        listening.lock().unwrap().push(client.try_clone().ok()?);
    }
    let mut database = TcpStream::connect(server).ok()?;
    database.write_all(&head).ok()?;
    let (mut from, mut to) = (database.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut database);
    let _ = database.shutdown(Shutdown::Both);
    Some(())
}

/// A packet of the start: its length, which counts itself, and the rest.
fn packet(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0_u8; 4];
    client.read_exact(&mut length).ok()?;
    let mut packet = length.to_vec();
    packet.resize(u32::from_be_bytes(length) as usize, 0);
    client.read_exact(packet.get_mut(4..)?).ok()?;
    Some(packet)
}

/// A node, with the administrator's token that counts on both.
pub struct Node {
    pub server: Server,
    pub client: Client,
    pub ada: String,
}

impl Node {
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> crate::http::Answer {
        self.client.send(method, path, &[("authorization", &self.ada)], body).await.unwrap()
    }

    /// What a hook of the plugin is told: allowed or not, and why.
    async fn hook(&self) -> (bool, String) {
        let event = json!({"hook_event_name": "PreToolUse", "tool_name": "Read", "tool_input": {}});
        let answer =
            self.ask(Method::POST, "/api/v1/hooks/govern?plugin_id=shared", Some(&event)).await.json();
        let output = &answer["hookSpecificOutput"];
        let reason = output["permissionDecisionReason"].as_str().unwrap_or_default();
        (output["permissionDecision"] == "allow", reason.to_owned())
    }

    /// How long it takes until hooks are allowed, or not.
    async fn until(&self, allowed: bool) -> Duration {
        let start = Instant::now();
        while self.hook().await.0 != allowed {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", self.server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }

    async fn change_rule(&self, id: &str, access: &str) {
        let path = format!("/api/v1/admin/rules/{id}");
        let etag = self.ask(Method::GET, &path, None).await.header("etag").to_owned();
        let headers = [("authorization", self.ada.as_str()), ("if-match", &*etag)];
        let changed =
            self.client.send(Method::PATCH, &path, &headers, Some(&json!({"access": access}))).await.unwrap();
        assert_eq!(changed.status, 200, "{}", changed.body);
    }
}

/// Two nodes of one deployment: the same database, issuer and secrets. The second one's way to the database can be cut.
pub async fn pair(more: impl Fn(Options) -> Options) -> (Node, Node, Wire, Db) {
    let first =
        more(stores::postgres().await.without_limits()).env("SYSTEMPROMPT__SERVER__INSTANCE_ID", "node-a");
    let first = first.start().unwrap();
    let wire = Wire::to(&first.database_url());
    let second = more(Options::demo().unwrap().postgres(wire.url()).without_limits())
        .secret("jwt_secret", &first.secret("jwt_secret").unwrap())
        .secret("oauth_at_rest_pepper", &first.secret("oauth_at_rest_pepper").unwrap())
        .env("SYSTEMPROMPT__SECURITY__JWT_ISSUER", first.url())
        .env("SYSTEMPROMPT__SERVER__INSTANCE_ID", "node-b")
        .start()
        .unwrap();
    let db = stores::open(&first).await;
    let ada = format!("Bearer {}", first.admin_token());
    let node = |server: Server| Node { client: Client::new(&server), ada: ada.clone(), server };
    (node(first), node(second), wire, db)
}

#[tokio::test(flavor = "multi_thread")]
async fn case_20_a_rule_changed_on_one_node_holds_on_the_other_and_unconfirmed_rules_deny() {
    let (a, b, wire, db) =
        pair(|options| options.env("SYSTEMPROMPT__GOVERNANCE__AUTHZ__MAX_STALENESS_S", "10")).await;
    let entity = "/api/v1/admin/entities/plugin/shared";
    assert_eq!(a.ask(Method::PUT, entity, Some(&json!({}))).await.status, 201);
    let rule = json!({"entity_type": "plugin", "entity_id": "shared", "rule_type": "role", "rule_value": "user",
        "access": "allow"});
    let made = a.ask(Method::POST, "/api/v1/admin/rules", Some(&rule)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert!(a.hook().await.0, "in force on its own node at once");
    b.until(true).await;

    // The poll comes every five seconds: over several changes the notification shows.
    let mut slowest = Duration::ZERO;
    for access in ["deny", "allow", "deny", "allow"] {
        a.change_rule(&id, access).await;
        slowest = slowest.max(b.until(access == "allow").await);
    }
    println!("with notifications: {} ms at most", slowest.as_millis());
    assert!(slowest <= Duration::from_secs(1), "{slowest:?}");

    wire.cut_notifications();
    let mut slowest = Duration::ZERO;
    for access in ["deny", "allow"] {
        a.change_rule(&id, access).await;
        slowest = slowest.max(b.until(access == "allow").await);
    }
    println!("by polling alone: {} ms at most", slowest.as_millis());
    assert!(slowest > Duration::from_millis(100) && slowest <= Duration::from_secs(6), "{slowest:?}");

    // Who has seen the change is served by it at once, on any node.
    a.change_rule(&id, "deny").await;
    let version = a.ask(Method::GET, entity, None).await.header("x-policy-version").to_owned();
    let headers = [("authorization", b.ada.as_str()), ("x-policy-version", &*version)];
    let served = b.client.send(Method::GET, entity, &headers, None).await.unwrap();
    assert_eq!((served.status, served.header("x-policy-version")), (200, &*version));
    assert!(!b.hook().await.0);
    a.change_rule(&id, "allow").await;
    b.until(true).await;

    // The rows of the rules are out of reach, the ledger is not: after its time the node denies, and says why.
    stores::change(&db, "ALTER TABLE authz_epoch RENAME TO authz_epoch_away").await;
    let start = Instant::now();
    b.until(false).await;
    let (allowed, reason) = b.hook().await;
    println!("stale after {} ms", start.elapsed().as_millis());
    assert!(!allowed && reason.contains("authz_stale"), "{reason}");
    assert!(start.elapsed() <= Duration::from_secs(12), "{:?}", start.elapsed());
    let health = b.client.get("/health/ready", &[]).await;
    assert!(health.body.contains("authz_stale"), "{}", health.body);
    stores::change(&db, "ALTER TABLE authz_epoch_away RENAME TO authz_epoch").await;
    assert!(b.until(true).await <= Duration::from_secs(6));
}
