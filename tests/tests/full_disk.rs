//! A store that is full (AUD-18, AUD-16), through the real server on both engines: every guarded call is refused in the words of
//! its surface, nothing takes effect, and once there is room again the node goes on by itself and closes what was open.
//!
//! SQLite stands on a small file system of its own, which is filled to the last byte; PostgreSQL raises the error of a full disk
//! from triggers. The file system is mounted in a mount namespace of the test's own process.

use crate::http::{Answer, Client};
use crate::stores;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::{Router, routing};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use systemprompt_tests::{Options, Server};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// Says that the process has a mount namespace of its own.
const IN_NAMESPACE: &str = "SYSTEMPROMPT_TEST_IN_NAMESPACE";
const DISK_BYTES: u64 = 64 * 1024 * 1024;
/// How long a node may take to notice, and to recover.
const SOON: Duration = Duration::from_secs(15);

/// What PostgreSQL says when it cannot extend a file, from the statements of the ledger's writer alone.
const FILL: [&str; 3] = [
    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$",
    "CREATE TRIGGER full_disk BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION full_disk()",
    "CREATE TRIGGER full_disk BEFORE UPDATE ON ledger_streams FOR EACH ROW EXECUTE FUNCTION full_disk()",
];
const EMPTY: [&str; 2] =
    ["DROP TRIGGER full_disk ON ledger_streams", "DROP TRIGGER full_disk ON ledger_entries"];

#[test]
fn a_full_disk_refuses_every_call_and_heals_on_sqlite() {
    with_mounts("full_disk::a_full_disk_refuses_every_call_and_heals_on_sqlite", || async {
        let disk = Disk::new();
        full_store(&disk, stores::sqlite(), Filling::Disk).await;
    });
}

#[test]
fn a_full_disk_refuses_every_call_and_heals_on_postgres() {
    with_mounts("full_disk::a_full_disk_refuses_every_call_and_heals_on_postgres", || async {
        let disk = Disk::new();
        full_store(&disk, stores::postgres().await, Filling::Triggers).await;
    });
}

#[test]
fn a_disk_that_is_nearly_full_refuses_what_is_new_and_closes_what_is_open_on_sqlite() {
    with_mounts(
        "full_disk::a_disk_that_is_nearly_full_refuses_what_is_new_and_closes_what_is_open_on_sqlite",
        || async {
            let disk = Disk::new();
            low_disk(&disk, stores::sqlite()).await;
        },
    );
}

#[test]
fn a_disk_that_is_nearly_full_refuses_what_is_new_and_closes_what_is_open_on_postgres() {
    with_mounts(
        "full_disk::a_disk_that_is_nearly_full_refuses_what_is_new_and_closes_what_is_open_on_postgres",
        || async {
            let disk = Disk::new();
            low_disk(&disk, stores::postgres().await).await;
        },
    );
}

/// Runs a test in a process that may mount: this one run again under `unshare`, with rights of root or in a user namespace.
/// Where neither is allowed there is nothing to run.
fn with_mounts<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    #[expect(clippy::disallowed_methods, reason = "how the test finds that it is run again")]
    let inside = std::env::var_os(IN_NAMESPACE).is_some();
    if inside {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(body());
    }
    let may = |flags: &str| {
        Command::new("unshare").args([flags, "true"]).output().is_ok_and(|o| o.status.success())
    };
    let Some(flags) = ["-m", "-Urm"].into_iter().find(|flags| may(flags)) else {
        #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
        {
            eprintln!("skipped: this machine allows no mount namespace");
        }
        return;
    };
    let this = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.arg(flags).arg(this).args(["--exact", test, "--nocapture"]).env(IN_NAMESPACE, "1");
    let output = again.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    assert!(said(&output.stdout).contains("1 passed"), "no test has the name {test}");
}

/// A small file system, and the file that fills it.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("systemprompt-disk-").tempdir().unwrap();
        let size = format!("size={DISK_BYTES},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).status();
        assert!(mounted.unwrap().success(), "tmpfs could not be mounted");
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn reserve(&self) -> PathBuf {
        self.data().join("ledger.reserve")
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(self.folder.path()).unwrap();
        stat.blocks_available() as u64 * stat.fragment_size() as u64
    }

    /// Fills the disk until so many bytes are left.
    fn fill(&self, left: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        let mut surplus = self.free().saturating_sub(left);
        while surplus > 0 {
            let block = vec![0_u8; usize::try_from(surplus.min(64 * 1024)).unwrap()];
            if file.write_all(&block).is_err() {
                break;
            }
            surplus = self.free().saturating_sub(left);
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// How the store is made full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filling {
    Disk,
    Triggers,
}

impl Filling {
    /// Makes the store full, so that it stays so: of the disk also what the ledger gives up of its reserve.
    async fn fill(self, disk: &Disk, node: &Node) {
        match self {
            Self::Triggers => {
                let db = stores::open(&node.server).await;
                for statement in FILL {
                    stores::change(&db, statement).await;
                }
                db.close().await;
                assert!(!node.hook().await.body.contains("allow"));
            }
            Self::Disk => {
                // The log that is there is written over before it grows, so it takes some calls.
                for _ in 0..2000 {
                    disk.fill(0);
                    let _ = node.hook().await;
                    if !disk.reserve().exists() && disk.free() == 0 && !node.is_ready().await {
                        return;
                    }
                }
                panic!("the disk does not become full:\n{}", node.server.log());
            }
        }
    }

    async fn empty(self, disk: &Disk, node: &Node) {
        match self {
            Self::Disk => disk.empty(),
            Self::Triggers => {
                let db = stores::open(&node.server).await;
                for statement in EMPTY {
                    stores::change(&db, statement).await;
                }
                db.close().await;
            }
        }
    }
}

/// A model upstream that counts the requests that reached it and answers when it is told to.
struct Upstream {
    url: String,
    seen: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
    _serving: JoinSet<()>,
}

impl Upstream {
    async fn start() -> Self {
        let (seen, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let state = (Arc::clone(&seen), Arc::clone(&answers));
        let router = Router::new().route("/v1/messages", routing::post(answer)).with_state(state);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, answers, _serving: serving }
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    fn answer(&self, count: usize) {
        self.answers.add_permits(count);
    }
}

async fn answer(State((seen, answers)): State<(Arc<AtomicUsize>, Arc<Semaphore>)>) -> impl IntoResponse {
    seen.fetch_add(1, Ordering::SeqCst);
    answers.acquire().await.unwrap().forget();
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "fixture", "stop_reason": "end_turn",
        "stop_sequence": null, "content": [{"type": "text", "text": "done"}], "usage": {"input_tokens": 4, "output_tokens": 1}});
    ([("content-type", "application/json")], message.to_string())
}

/// A server whose data folder is on the disk, and those who call it.
struct Node {
    server: Server,
    client: Client,
    ada: String,
    bob: String,
    upstream: Upstream,
}

impl Node {
    async fn start(disk: &Disk, options: Options, min_free: &str) -> Self {
        let upstream = Upstream::start().await;
        let provider =
            json!([{"name": "upstream", "type": "anthropic", "base_url": upstream.url, "auth": "none"}]);
        let routes = json!([{"name": "demo", "model": "*", "targets": [{"provider": "upstream"}]}]);
        let server = options
            .env("SYSTEMPROMPT__GATEWAY__PROVIDERS", &provider.to_string())
            .env("SYSTEMPROMPT__GATEWAY__ROUTES", &routes.to_string())
            .env("SYSTEMPROMPT__GATEWAY__DEFAULT_ROUTE", "demo")
            .env("SYSTEMPROMPT__AUDIT__MIN_FREE_BYTES", min_free)
            .without_limits()
            .data_dir(&disk.data())
            .start()
            .unwrap();
        let (ada, bob) =
            (format!("Bearer {}", server.admin_token()), format!("Bearer {}", server.user_token()));
        Self { client: Client::new(&server), server, ada, bob, upstream }
    }

    async fn hook(&self) -> Answer {
        let event = json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": "Bash",
            "tool_input": {"command": "ls"}});
        let headers = [("authorization", self.bob.as_str())];
        self.client.post("/api/v1/hooks/govern?plugin_id=demo", &headers, &event).await
    }

    async fn model(&self) -> Answer {
        model(&self.client, &self.bob).await
    }

    /// A call that the upstream has got and does not answer yet.
    async fn held_model(&self) -> JoinHandle<Answer> {
        let (client, bob, before) = (self.client.clone(), self.bob.clone(), self.upstream.seen());
        #[expect(clippy::disallowed_methods, reason = "a call beside the test")]
        let call = tokio::spawn(async move { model(&client, &bob).await });
        until("the upstream gets the call", async || self.upstream.seen() > before).await;
        call
    }

    /// A tool call that takes some seconds.
    async fn held_tool(&self, seconds: u32) -> JoinHandle<Answer> {
        let (client, bob) = (self.client.clone(), self.bob.clone());
        let opened = self.records("tool.opened").await;
        #[expect(clippy::disallowed_methods, reason = "a call beside the test")]
        let call =
            tokio::spawn(
                async move { tool(&client, &bob, "slow_report", json!({"seconds": seconds})).await },
            );
        until("the tool is called", async || self.records("tool.opened").await > opened).await;
        call
    }

    async fn tool(&self) -> Answer {
        tool(&self.client, &self.bob, "whoami", json!({})).await
    }

    async fn records(&self, kind: &'static str) -> i64 {
        let db = stores::open(&self.server).await;
        let query = match kind {
            "tool.opened" => "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'tool.opened'",
            "inference.closed" => "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'inference.closed'",
            _ => "SELECT COUNT(*) FROM ledger_entries",
        };
        let count = stores::count(&db, query).await;
        db.close().await;
        count
    }

    /// Rows of calls that are not closed.
    async fn open_calls(&self) -> i64 {
        let db = stores::open(&self.server).await;
        let models = stores::count(&db, "SELECT COUNT(*) FROM ai_requests WHERE ledger_closed IS NULL").await;
        let tools =
            stores::count(&db, "SELECT COUNT(*) FROM mcp_tool_executions WHERE ledger_closed IS NULL").await;
        db.close().await;
        models + tools
    }

    async fn is_ready(&self) -> bool {
        self.client.get("/health/ready", &[]).await.status == 200
    }

    /// Every surface refuses, each in its own words, and nothing happens.
    async fn refuses(&self, code: &str) {
        let (seen, records) = (self.upstream.seen(), self.records("").await);
        let refused = self.model().await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert_eq!(refused.header("retry-after"), "5");
        let error = &refused.json()["error"];
        assert_eq!(error["type"], "api_error");
        let message = "the audit record could not be written; the request was not sent";
        assert_eq!(error["message"], message);

        let refused = self.hook().await;
        let said = refused.json()["hookSpecificOutput"].clone();
        assert_eq!((refused.status, said["permissionDecision"].as_str()), (200, Some("deny")));
        assert!(said["permissionDecisionReason"].as_str().unwrap().contains(code), "{said}");

        let refused = self.tool().await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.body);
        let error = &refused.json()["error"];
        assert_eq!((&error["code"], &error["data"]["code"]), (&json!(5030), &json!(code)));

        let rule = json!({"entity_type": "gateway_route", "entity_id": "demo", "rule_type": "role",
            "rule_value": "auditor", "access": "allow", "justification": "a test"});
        let headers = [("authorization", self.ada.as_str())];
        let refused = self.client.post("/api/v1/admin/rules", &headers, &rule).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some(code)), "{}", refused.body);
        assert_eq!(refused.header("content-type"), "application/problem+json");

        // The look whether there is room again needs less of it than a call: at the very brim it may succeed between two calls.
        until("the node is not ready", async || {
            self.hook().await;
            let ready = self.client.get("/health/ready", &[]).await;
            let checks = ready.json()["checks"].clone();
            ready.status == 503 && checks.as_array().unwrap().iter().any(|check| check["code"] == code)
        })
        .await;

        let list = self.client.get("/api/v1/admin/rules", &headers).await;
        assert!(!list.body.contains("auditor"), "the refused rule counts");
        assert_eq!(self.upstream.seen(), seen, "a refused request was sent");
        assert_eq!(self.records("").await, records, "a refused call left a record");
    }

    /// Recovers by itself, closes what was open, and what it wrote is whole.
    async fn heals(mut self) {
        until("the node is ready again", async || self.is_ready().await).await;
        until("calls are taken again", async || self.hook().await.body.contains("\"allow\"")).await;
        until("what was open is closed", async || self.open_calls().await == 0).await;
        self.upstream.answer(1);
        assert_eq!(self.model().await.status, 200);
        assert_eq!(self.tool().await.status, 200);
        assert!(self.server.terminate().unwrap().success());
        let db = stores::open(&self.server).await;
        let opened =
            stores::count(&db, "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'inference.opened'").await;
        assert_eq!(opened, self.upstream.seen() as i64, "each request that was sent has its record");
        db.close().await;
        self.server.succeed(&["audit", "verify"]).unwrap();
    }
}

async fn model(client: &Client, token: &str) -> Answer {
    let body = json!({"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]});
    client.post("/v1/messages", &[("authorization", token)], &body).await
}

async fn tool(client: &Client, token: &str, name: &str, arguments: Value) -> Answer {
    let params = json!({"name": name, "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let headers = [
        ("authorization", token),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    client.post("/api/v1/mcp/demo/mcp", &headers, &body).await
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn full_store(disk: &Disk, options: Options, filling: Filling) {
    let node = Node::start(disk, options, "0").await;
    node.upstream.answer(1);
    assert_eq!((node.model().await.status, node.tool().await.status), (200, 200));
    let (model, tool) = (node.held_model().await, node.held_tool(2).await);

    filling.fill(disk, &node).await;
    node.refuses("ledger_unavailable").await;

    // What was sent before is answered; its end waits for room. A tool's answer is withheld with it.
    node.upstream.answer(1);
    assert_eq!(model.await.unwrap().status, 200);
    assert_eq!(tool.await.unwrap().status, 503);
    assert_eq!(node.open_calls().await, 2);
    node.refuses("ledger_unavailable").await;

    filling.empty(disk, &node).await;
    until("the reserve is made again", async || disk.reserve().exists()).await;
    node.heals().await;
}

async fn low_disk(disk: &Disk, options: Options) {
    let node = Node::start(disk, options, "8 MiB").await;
    node.upstream.answer(1);
    assert_eq!((node.model().await.status, node.tool().await.status), (200, 200));
    let (model, tool) = (node.held_model().await, node.held_tool(3).await);

    disk.fill(6 * 1024 * 1024);
    until("the node notices", async || !node.is_ready().await).await;
    node.refuses("ledger_disk_low").await;

    let closed = node.records("inference.closed").await;
    node.upstream.answer(1);
    assert_eq!((model.await.unwrap().status, tool.await.unwrap().status), (200, 200));
    until("what was open is closed", async || node.open_calls().await == 0).await;
    assert_eq!(node.records("inference.closed").await, closed + 1);
    node.refuses("ledger_disk_low").await;

    disk.empty();
    node.heals().await;
}

/// The measure of the tests above.
#[test]
fn a_disk_is_filled_and_emptied_as_said() {
    with_mounts("full_disk::a_disk_is_filled_and_emptied_as_said", || async {
        let disk = Disk::new();
        let whole = disk.free();
        disk.fill(1024 * 1024);
        assert_eq!(disk.free(), 1024 * 1024);
        disk.fill(0);
        assert_eq!(disk.free(), 0);
        assert!(std::fs::write(disk.folder.path().join("more"), b"x").is_err());
        disk.empty();
        assert!(disk.free() + 64 * 1024 > whole);
    });
}
