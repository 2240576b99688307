//! What happens when something is missing (security.md, SEC-2): a node in this process, whose clock the test holds, on the folder
//! of a server that ran before. Where a room's own tests hold a line of that table, it is not repeated here.

use crate::http::{Answer, Client};
use crate::stores;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use systemprompt_api::services::server::api_server;
use systemprompt_config::{ProcessEnvironment, ProfileLocation};
use systemprompt_database::{Db, on_tx};
use systemprompt_models::{Clock, ManualClock, SystemClock};
use systemprompt_runtime::AppContext;
use systemprompt_runtime::boot::BootOptions;
use systemprompt_tests::{Options, Server};
use tower::ServiceExt;

/// A node of this process.
struct Node {
    context: AppContext,
    router: Router,
    clock: ManualClock,
    /// The database, past the node.
    db: Db,
    user: String,
    admin: String,
    /// Holds the folder.
    _server: Server,
}

impl Node {
    async fn boot(options: Options) -> Self {
        let mut server = options.start().unwrap();
        let (user, admin) = (server.user_token().to_owned(), server.admin_token().to_owned());
        // It may not have come to listening for signals yet, and ends then at once.
        server.terminate().unwrap();
        let here = server.data_dir();
        let location = ProfileLocation::discover(Some(here), None, here, &ProcessEnvironment).unwrap();
        let clock = ManualClock::at(SystemClock.now());
        let mut options = BootOptions { watch: false, ..BootOptions::new(location) };
        options.clock = Arc::new(clock.clone());
        if server.database_url().starts_with("postgres") {
            options.flags.push(("database.type".to_owned(), "postgres".to_owned()));
        }
        let context = AppContext::boot(options).await.unwrap();
        let router = api_server::router(&context).unwrap();
        context.set_ready();
        let db = stores::open(&server).await;
        Self { context, router, clock, db, user, admin, _server: server }
    }

    /// A request from an address.
    async fn ask(&self, from: &str, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(SocketAddr::new(from.parse().unwrap(), 40_000));
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("127.0.0.1", "GET", path, "", &Value::Null).await
    }

    async fn govern(&self) -> Answer {
        let event = json!({"hook_event_name": "PreToolUse", "tool_name": "Read", "tool_input": {}});
        self.ask("127.0.0.1", "POST", "/api/v1/hooks/govern?plugin_id=demo", &self.user, &event).await
    }

    async fn model(&self) -> Answer {
        let body =
            json!({"model": "claude-demo", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]});
        self.ask("127.0.0.1", "POST", "/v1/messages", &self.user, &body).await
    }

    /// Takes a table away, as a database does that answers nothing about it, or gives it back.
    async fn rename(&self, from: &'static str, to: &'static str) {
        let statement = match (from, to) {
            ("ban_epoch", _) => "ALTER TABLE ban_epoch RENAME TO gone",
            (_, "ban_epoch") => "ALTER TABLE gone RENAME TO ban_epoch",
            ("authz_epoch", _) => "ALTER TABLE authz_epoch RENAME TO gone",
            (_, "authz_epoch") => "ALTER TABLE gone RENAME TO authz_epoch",
            ("oauth_jti_revocations", _) => "ALTER TABLE oauth_jti_revocations RENAME TO gone",
            (_, "oauth_jti_revocations") => "ALTER TABLE gone RENAME TO oauth_jti_revocations",
            ("governance_rate", _) => "ALTER TABLE governance_rate RENAME TO gone",
            _ => "ALTER TABLE gone RENAME TO governance_rate",
        };
        stores::change(&self.db, statement).await;
    }

    async fn close(self) {
        self.db.close().await;
        self.context.close().await;
    }
}

/// Asks until an answer is as wanted; what is followed in the background takes a moment.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !is_so().await {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_13_a_ban_outlives_the_database_and_then_nobody_is_served() {
    for options in stores::engines().await {
        let node = Node::boot(options).await;
        let ban = json!({"network": "203.0.113.7"});
        let made = node.ask("127.0.0.1", "POST", "/api/v1/admin/bans", &node.admin, &ban).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let banned = async || node.ask("203.0.113.7", "GET", "/v1/models", "", &Value::Null).await;
        let other = async || node.ask("203.0.113.8", "GET", "/v1/models", "", &Value::Null).await;
        assert_eq!((banned().await.status, other().await.status), (403, 401));
        assert_eq!(node.get("/health/ready").await.status, 200);

        node.rename("ban_epoch", "gone").await;
        // What was under way may still confirm the list once.
        tokio::time::sleep(Duration::from_secs(2)).await;
        // All else is confirmed again soon after the jump.
        node.clock.advance(58_000);
        until("readiness", async || node.get("/health/ready").await.status == 200).await;
        node.clock.advance(4_000);
        let ready = node.get("/health/ready").await;
        assert_eq!(ready.status, 503, "{}", ready.body);
        assert!(ready.body.contains("ban_list_unavailable"), "{}", ready.body);
        node.clock.advance(236_000);
        assert_eq!((banned().await.status, other().await.status), (403, 401));
        node.clock.advance(4_000);
        let everybody = [banned().await, other().await, node.get("/health").await, node.govern().await];
        let statuses: Vec<u16> = everybody.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [503, 503, 503, 200]);
        assert!(
            everybody.iter().all(|answer| answer.body.contains("ban_list_unavailable")
                || answer.body.contains("who is banned cannot be told")),
            "{everybody:?}"
        );
        assert_eq!(everybody[3].header("x-systemprompt-decision"), "deny");
        assert_eq!(node.get("/health/live").await.status, 200);

        node.rename("gone", "ban_epoch").await;
        until("the list of bans", async || other().await.status == 401).await;
        assert_eq!(banned().await.status, 403);
        until("readiness", async || node.get("/health/ready").await.status == 200).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_confirmed_for_a_minute_allow_nothing() {
    for options in stores::engines().await {
        let node = Node::boot(options).await;
        assert_eq!(node.model().await.status, 200);
        node.rename("authz_epoch", "gone").await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        node.clock.advance(58_000);
        until("all but the rules", async || node.model().await.status == 200).await;
        node.clock.advance(4_000);
        let denied = node.model().await;
        assert_eq!(denied.status, 400, "{}", denied.body);
        assert!(denied.body.contains("authz_stale"), "{}", denied.body);
        node.rename("gone", "authz_epoch").await;
        until("the rules", async || node.model().await.status == 200).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_that_cannot_be_confirmed_for_half_a_minute_let_nobody_in() {
    for options in stores::engines().await {
        let node = Node::boot(options).await;
        assert_eq!(node.model().await.status, 200);
        node.rename("oauth_jti_revocations", "gone").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        node.clock.advance(28_000);
        assert_eq!(node.model().await.status, 200);
        node.clock.advance(4_000);
        let refused = node.model().await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        let hook = node.govern().await;
        assert!(hook.status == 200 && hook.body.contains("revocation_unavailable"), "{}", hook.body);
        node.rename("gone", "oauth_jti_revocations").await;
        until("the revocations", async || node.model().await.status == 200).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_counted_is_denied_as_a_fault_of_the_limit() {
    let node = Node::boot(stores::postgres().await).await;
    assert_eq!(node.govern().await.header("x-systemprompt-decision"), "allow");
    node.rename("governance_rate", "gone").await;
    let denied = node.govern().await;
    assert_eq!(denied.header("x-systemprompt-decision"), "deny");
    assert!(denied.body.contains("Denied by rate_limit"), "{}", denied.body);
    let chains = stores::texts(
        &node.db,
        "SELECT CAST(evaluated_rules AS TEXT) FROM governance_decisions WHERE policy = 'rate_limit'",
    )
    .await;
    assert!(chains.iter().all(|chain| chain.contains("\"fault\"")) && chains.len() == 1, "{chains:?}");
    node.rename("gone", "governance_rate").await;
    assert_eq!(node.govern().await.header("x-systemprompt-decision"), "allow");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_denied_in_time_while_the_ledger_waits() {
    let node = Node::boot(stores::postgres().await).await;
    assert_eq!(node.govern().await.header("x-systemprompt-decision"), "allow");
    let mut held = node.db.write_tx().await.unwrap();
    let lock = "LOCK TABLE ledger_entries IN ACCESS EXCLUSIVE MODE";
    on_tx!(held, conn => sqlx::query(lock).execute(&mut *conn).await.map(drop)).unwrap();
    let began = Instant::now();
    let denied = node.govern().await;
    assert_eq!((denied.status, denied.header("x-systemprompt-decision")), (200, "deny"), "{}", denied.body);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    held.rollback().await.unwrap();
    until("the ledger", async || node.govern().await.header("x-systemprompt-decision") == "allow").await;
    node.close().await;
}

#[tokio::test]
async fn without_a_block_that_names_who_decides_everything_is_denied() {
    let server = stores::sqlite().start().unwrap();
    let file = server.data_dir().join("profiles/default/profile.yaml");
    let profile = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, profile.replace("mode: rules", "mode: disabled")).unwrap();
    let token = server.user_token().to_owned();
    let server = server.restart().unwrap();
    let client = Client::new(&server);
    let body =
        json!({"model": "claude-demo", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]});
    let bearer = format!("Bearer {token}");
    let denied = client.post("/v1/messages", &[("authorization", &bearer)], &body).await;
    assert_eq!(denied.status, 400, "{}", denied.body);
    assert!(denied.body.contains("authz_disabled"), "{}", denied.body);
}
