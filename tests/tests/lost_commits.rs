//! The connection to PostgreSQL is lost around COMMIT, again and again: before the server has it, or before its answer is back.
//! Whoever is told "allow" has a record, and nothing stands in the ledger twice (AUD-15).

use crate::http::Client;
use crate::stores::{open, postgres, postgres_through, texts};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use systemprompt_tests::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CALLERS: u64 = 16;
const CUTS: u64 = 24;
/// A cut at every so many commits.
const EVERY: u64 = 40;
const AT_MOST: Duration = Duration::from_mins(1);

/// Passes everything on to PostgreSQL, and cuts a connection at some of its commits.
struct Cutter {
    address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    /// Nothing is cut before the server has started.
    is_armed: AtomicBool,
    commits: AtomicU64,
    /// Cut after COMMIT had gone on to the database, and before.
    after: AtomicU64,
    before: AtomicU64,
}

impl Cutter {
    async fn start(database: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, counts) = (listener.local_addr().unwrap(), Arc::new(Counts::default()));
        let seen = Arc::clone(&counts);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (database, seen) = (database.clone(), Arc::clone(&seen));
                connections.spawn(async move {
                    if let Ok(server) = TcpStream::connect(database).await {
                        pass(client, server, &seen).await;
                    }
                });
            }
        });
        Self { address, counts, _tasks: tasks }
    }

    fn cuts(&self) -> (u64, u64) {
        (self.counts.before.load(Ordering::Relaxed), self.counts.after.load(Ordering::Relaxed))
    }
}

/// Ends, and with it both connections, when either side does or a commit is cut.
async fn pass(mut client: TcpStream, mut server: TcpStream, counts: &Counts) {
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut commits = Commits::default();
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let sent = &from_client[..length];
                if commits.are_in(sent) && counts.is_armed.load(Ordering::Relaxed) {
                    let number = counts.commits.fetch_add(1, Ordering::Relaxed);
                    if number % (2 * EVERY) == 2 * EVERY - 1 {
                        counts.before.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    if number % (2 * EVERY) == EVERY - 1 {
                        counts.after.fetch_add(1, Ordering::Relaxed);
                        let _ = server.write_all(sent).await;
                        // Long enough for the database to commit, or not; its answer never comes back.
                        tokio::time::sleep(Duration::from_millis(number % 7)).await;
                        return;
                    }
                }
                if server.write_all(sent).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads what a client of PostgreSQL sends, message by message (frontend/backend protocol 3.0).
#[derive(Default)]
struct Commits {
    rest: Vec<u8>,
    is_started: bool,
    /// Name of the prepared statement.
    prepared: Option<Vec<u8>>,
}

impl Commits {
    fn are_in(&mut self, sent: &[u8]) -> bool {
        self.rest.extend_from_slice(sent);
        let mut found = false;
        while let Some((kind, body)) = self.message() {
            let mut texts = body.split(|byte| *byte == 0);
            match (kind, texts.next(), texts.next()) {
                (b'Q', Some(b"COMMIT"), _) => found = true,
                (b'P', Some(name), Some(b"COMMIT")) => self.prepared = Some(name.to_vec()),
                (b'B', _, Some(name)) if self.prepared.as_deref() == Some(name) => found = true,
                _ => {}
            }
        }
        found
    }

    /// The next whole message. The first ones have no kind: the request for TLS, then the start of the session.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = usize::from(self.is_started);
        let length = self.rest.get(head..head + 4)?;
        let end = head + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let message: Vec<u8> = self.rest.get(..end)?.to_vec();
        self.rest.drain(..end);
        let kind = if self.is_started { message[0] } else { 0 };
        self.is_started |= end > 8;
        Some((kind, message[head + 4..].to_vec()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_8_a_connection_lost_around_commit_allows_nothing_without_its_record() {
    let mut cutter = None;
    let options = postgres_through(async |database| {
        let started = Cutter::start(database).await;
        let address = started.address;
        cutter = Some(started);
        address
    })
    .await;
    let cutter = cutter.unwrap();
    let server = options.without_limits().start().unwrap();
    cutter.counts.is_armed.store(true, Ordering::Relaxed);
    let end = Instant::now() + AT_MOST;
    let (mut allowed, mut refused, mut round) = (BTreeSet::new(), 0_u64, 0);
    while cutter.cuts().0 + cutter.cuts().1 < CUTS && Instant::now() < end {
        let (told, not) = call(&server, round).await;
        allowed.extend(told);
        refused += not;
        round += 1;
    }
    let (before, after) = cutter.cuts();
    assert!(before >= CUTS / 3 && after >= CUTS / 3, "{before} cuts before COMMIT, {after} after");
    assert!(allowed.len() as u64 > CUTS * CALLERS, "{} calls were allowed, {refused} refused", allowed.len());

    cutter.counts.is_armed.store(false, Ordering::Relaxed);
    assert_recorded(server, &allowed).await;
}

/// How long the load lasts while `cargo xtask accept crash` stops and starts its PostgreSQL.
const SECONDS: &str = "SYSTEMPROMPT_TEST_OUTAGE_SECONDS";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL that is stopped meanwhile: `cargo xtask accept crash`"]
#[expect(clippy::disallowed_methods, reason = "a test's size is no setting of the product")]
async fn case_8_postgres_that_comes_and_goes_allows_nothing_without_its_record() {
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap();
    let server = postgres().await.without_limits().start().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut allowed, mut refused, mut round) = (BTreeSet::new(), 0_u64, 0);
    let mut last = 0;
    while Instant::now() < end || (last > 0 && Instant::now() < end + AT_MOST) {
        let (told, not) = call(&server, round).await;
        allowed.extend(told);
        refused += not;
        last = not;
        round += 1;
    }
    println!("{} calls allowed, {refused} refused while PostgreSQL was away", allowed.len());
    assert!(refused > 0, "PostgreSQL was never away");
    assert_eq!(last, 0, "the node did not recover");
    assert_recorded(server, &allowed).await;
}

/// Stops the server and looks for the record of each call; the whole ledger verifies.
async fn assert_recorded(mut server: Server, allowed: &BTreeSet<String>) {
    server.terminate().unwrap();
    let db = open(&server).await;
    let recorded = texts(&db, "SELECT trace_id FROM ledger_entries WHERE trace_id LIKE 'cut-%'").await;
    let lost: Vec<_> = allowed.difference(&recorded).collect();
    assert!(lost.is_empty(), "{} allowed calls have no record: {lost:?}", lost.len());
    db.close().await;
    server.succeed(&["audit", "verify"]).unwrap();
}

/// Each caller asks twenty times: the trace ids of what was allowed, and how many calls were not.
async fn call(server: &Server, round: u64) -> (BTreeSet<String>, u64) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (client, token) = (Client::new(server), server.user_token().to_owned());
        callers.spawn(async move {
            let (mut allowed, mut refused) = (BTreeSet::new(), 0);
            for number in 0..20 {
                let trace = format!("cut-{round:06}-{caller:04}-{number:04}");
                if is_allowed(&client, &token, &trace).await {
                    allowed.insert(trace);
                } else {
                    refused += 1;
                }
            }
            (allowed, refused)
        });
    }
    let both = callers.join_all().await;
    let refused = both.iter().map(|(_, refused)| refused).sum();
    (both.into_iter().flat_map(|(allowed, _)| allowed).collect(), refused)
}

async fn is_allowed(client: &Client, token: &str, trace: &str) -> bool {
    let body = json!({
        "hook_event_name": "PreToolUse", "session_id": "cut", "tool_name": "Bash",
        "tool_input": { "command": "ls" }, "tool_use_id": trace,
    });
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("x-trace-id", trace)];
    let path = "/api/v1/hooks/govern?plugin_id=demo";
    let answer = client.send(Method::POST, path, &headers, Some(&body)).await.unwrap();
    answer.status == 200 && answer.header("x-systemprompt-decision") == "allow"
}
