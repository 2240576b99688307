//! Case A27, the part of people: two nodes behind one address, on one PostgreSQL. A ceremony that begins on one of them ends on the
//! other, and what is ended on one is over on the other.

use crate::http::{Answer, Client};
use crate::oauth_tokens::second;
use crate::people::{SoftAuthenticator, cookie, setup, value};
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use systemprompt_tests::Server;

const BASE: &str = "/api/v1/core/oauth/webauthn";
const ME: &str = "/api/v1/core/users/me";
/// Within what an end on one node is seen on the other.
const BOUND: Duration = Duration::from_secs(2);

struct Nodes {
    clients: [Client; 2],
    origin: String,
    setup: String,
    _servers: [Server; 2],
}

/// A ceremony that waits for its end: what the authenticator is asked, and the browser's flow cookie.
struct Begun {
    name: &'static str,
    challenge_id: Value,
    options: Value,
    flow: String,
}

impl Nodes {
    async fn start() -> Self {
        let first = stores::postgres().await.without_limits().start().unwrap();
        let second = second(&first);
        // Each start prints a link, and the newest one counts.
        let (origin, setup) = setup(&second);
        let clients = [&first, &second].map(Client::without_redirects);
        Self { clients, origin, setup, _servers: [first, second] }
    }

    async fn begin(&self, node: usize, name: &'static str, body: Value, session: Option<&str>) -> Begun {
        let mut headers = vec![("origin", self.origin.as_str())];
        headers.extend(session.map(|session| ("cookie", session)));
        let begun = self.clients[node].post(&format!("{BASE}/{name}/start"), &headers, &body).await;
        assert_eq!(begun.status, 200, "{name} on {node}: {}", begun.body);
        let flow = value(&cookie(&begun, "sp_flow").unwrap()).to_owned();
        let shown = begun.json();
        Begun { name, challenge_id: shown["challenge_id"].clone(), options: shown["options"].clone(), flow }
    }

    async fn finish(
        &self,
        node: usize,
        begun: &Begun,
        credential: &Value,
        (extra, session): (Value, Option<&str>),
    ) -> Answer {
        let (path, headers, body) = self.ending(begun, credential, extra, session);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.clients[node].post(&path, &headers, &body).await
    }

    fn ending(
        &self,
        begun: &Begun,
        credential: &Value,
        extra: Value,
        session: Option<&str>,
    ) -> (String, Vec<(&'static str, String)>, Value) {
        let mut body = json!({"challenge_id": begun.challenge_id, "credential": credential});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let cookies: Vec<&str> = [begun.flow.as_str()].into_iter().chain(session).collect();
        let headers = vec![("origin", self.origin.clone()), ("cookie", cookies.join("; "))];
        (format!("{BASE}/{}/finish", begun.name), headers, body)
    }

    /// The first administrator with a passkey, who began on one node and ended on the other; and their session.
    async fn administrator(&self, begins: usize, ends: usize) -> (SoftAuthenticator, String) {
        let mut device = SoftAuthenticator::new(&self.origin);
        let body = json!({"username": "root", "email": "root@example.com", "token": self.setup});
        let begun = self.begin(begins, "register", body, None).await;
        let credential = device.create(&begun.options);
        let done = self.finish(ends, &begun, &credential, (json!({"token": self.setup}), None)).await;
        assert_eq!(done.status, 200, "{}", done.body);
        (device, value(&cookie(&done, "access_token").unwrap()).to_owned())
    }

    async fn sign_in(&self, device: &mut SoftAuthenticator, begins: usize, ends: usize) -> String {
        let begun = self.begin(begins, "auth", json!({}), None).await;
        let credential = device.get(&begun.options);
        let done = self.finish(ends, &begun, &credential, (json!({}), None)).await;
        assert_eq!(done.status, 200, "{begins} to {ends}: {}", done.body);
        value(&cookie(&done, "access_token").unwrap()).to_owned()
    }

    async fn who(&self, node: usize, session: &str) -> Answer {
        self.clients[node].get(ME, &[("cookie", session)]).await
    }
}

#[tokio::test]
async fn a27_a_registration_begins_on_one_node_and_ends_on_the_other() {
    let nodes = Nodes::start().await;
    let (mut device, session) = nodes.administrator(0, 1).await;
    for node in 0..2 {
        assert_eq!(nodes.who(node, &session).await.json()["username"], "root", "{node}");
    }
    // Whoever is invited takes the other way.
    let headers = [("cookie", session.as_str()), ("origin", nodes.origin.as_str())];
    let invite = json!({"email": "eve@example.com", "roles": ["user"]});
    let made = nodes.clients[0].post("/api/v1/admin/setup-link", &headers, &invite).await;
    let link = made.json()["setup_url"].as_str().unwrap().to_owned();
    let token = json!({"token": link.split_once("#token=").unwrap().1});
    let mut body = json!({"username": "eve", "email": "eve@example.com"});
    body.as_object_mut().unwrap().extend(token.as_object().unwrap().clone());
    let begun = nodes.begin(1, "register", body, None).await;
    let mut eve = SoftAuthenticator::new(&nodes.origin);
    let credential = eve.create(&begun.options);
    let done = nodes.finish(0, &begun, &credential, (token.clone(), None)).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let again = nodes.finish(1, &begun, &credential, (token, None)).await;
    assert_eq!((again.status, &again.json()["error"]), (400, &json!("invalid_request")));
    nodes.sign_in(&mut eve, 0, 0).await;
    nodes.sign_in(&mut device, 1, 1).await;
}

#[tokio::test]
async fn a27_a_sign_in_begins_on_one_node_and_ends_on_the_other() {
    let nodes = Nodes::start().await;
    let (mut device, _) = nodes.administrator(1, 0).await;
    for (begins, ends) in [(0, 1), (1, 0)] {
        let session = nodes.sign_in(&mut device, begins, ends).await;
        for node in 0..2 {
            assert_eq!(nodes.who(node, &session).await.json()["username"], "root", "{node}");
        }
    }
    // A mail that was named on one node holds on the other.
    let begun = nodes.begin(0, "auth", json!({"email": "root@example.com"}), None).await;
    assert_eq!(begun.options["publicKey"]["allowCredentials"][0]["id"], device.id().as_str());
    let credential = device.get(&begun.options);
    assert_eq!(nodes.finish(1, &begun, &credential, (json!({}), None)).await.status, 200);
}

#[tokio::test]
async fn a27_a_second_passkey_is_begun_on_one_node_and_added_on_the_other() {
    let nodes = Nodes::start().await;
    let (_, session) = nodes.administrator(0, 0).await;
    let begun = nodes.begin(0, "link", json!({}), Some(&session)).await;
    let mut second = SoftAuthenticator::new(&nodes.origin);
    let credential = second.create(&begun.options);
    let done = nodes.finish(1, &begun, &credential, (json!({}), Some(&session))).await;
    assert_eq!(done.status, 200, "{}", done.body);
    nodes.sign_in(&mut second, 1, 0).await;
}

#[tokio::test]
async fn a27_of_32_ends_of_one_ceremony_on_two_nodes_one_signs_in() {
    let nodes = Nodes::start().await;
    let (mut device, _) = nodes.administrator(0, 0).await;
    let begun = nodes.begin(0, "auth", json!({}), None).await;
    let credential = device.get(&begun.options);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..32 {
        let client = nodes.clients[n % 2].clone();
        let (path, headers, body) = nodes.ending(&begun, &credential, json!({}), None);
        tasks.spawn(async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.post(&path, &headers, &body).await
        });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    let mut others = answers.iter().filter(|answer| answer.status != 200);
    assert!(others.all(|a| a.status == 400 && a.json()["error"] == "invalid_request"));
}

#[tokio::test]
async fn a27_a_session_that_is_ended_on_one_node_is_over_on_the_other_within_two_seconds() {
    let nodes = Nodes::start().await;
    let (mut device, _) = nodes.administrator(0, 1).await;
    for (ends, sees) in [(0, 1), (1, 0)] {
        let lost = nodes.sign_in(&mut device, 0, 1).await;
        let own = nodes.sign_in(&mut device, 1, 0).await;
        assert_eq!(nodes.who(sees, &lost).await.status, 200, "it is remembered there");
        let listed = nodes.clients[ends].get(&format!("{ME}/sessions"), &[("cookie", &lost)]).await.json();
        let listed = listed["items"].as_array().unwrap().clone();
        let current = listed.iter().find(|session| session["current"] == true).unwrap()["id"].clone();
        let headers = [("cookie", own.as_str()), ("origin", nodes.origin.as_str())];
        let path = format!("{ME}/sessions/{}", current.as_str().unwrap());
        let ended = nodes.clients[ends].send(Method::DELETE, &path, &headers, None).await.unwrap();
        assert_eq!(ended.status, 204, "{}", ended.body);
        let at = Instant::now();
        assert_eq!(nodes.who(ends, &lost).await.status, 401, "here it is over at once");
        while nodes.who(sees, &lost).await.status != 401 {
            assert!(at.elapsed() <= BOUND, "it lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
