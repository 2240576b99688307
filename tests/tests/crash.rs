//! `kill -9` under load, again and again: what was acknowledged or took effect is in the ledger, the chain verifies, and the
//! next start closes what the crash left open.

use crate::http::Client;
use crate::stores::{self, count, open, texts};
use crate::upstream::{MARK, Upstream};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use systemprompt_tests::{Options, Server};
use tokio::task::JoinSet;

/// What `cargo xtask accept crash` sets for its long campaign.
const ROUNDS: &str = "SYSTEMPROMPT_TEST_CRASH_ROUNDS";
const CALLERS: &str = "SYSTEMPROMPT_TEST_CRASH_CALLERS";

/// How often the server is killed, and how many callers it has.
#[derive(Clone, Copy)]
struct Campaign {
    rounds: u64,
    callers: u64,
}

impl Campaign {
    #[expect(clippy::disallowed_methods, reason = "a test's size is no setting of the product")]
    fn of_this_run() -> Self {
        let size = |name, usual| {
            std::env::var(name)
                .map_or(usual, |set| set.parse().unwrap_or_else(|_| panic!("{name} is no number")))
        };
        Self { rounds: size(ROUNDS, 20), callers: size(CALLERS, 16) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_decision_is_lost_by_a_kill_on_sqlite() {
    kill_again_and_again(stores::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_decision_is_lost_by_a_kill_on_postgres() {
    kill_again_and_again(stores::postgres().await).await;
}

#[expect(clippy::print_stdout, reason = "the figures of the campaign")]
async fn kill_again_and_again(options: Options) {
    let upstream = Upstream::start().await;
    let options = upstream.serve(options).without_limits();
    let mut server = options.start().unwrap();
    let campaign = Campaign::of_this_run();
    let mut acknowledged = BTreeSet::new();
    for round in 0..campaign.rounds {
        let callers = call(&server, round, campaign.callers);
        // Rounds end at different moments of a batch.
        tokio::time::sleep(Duration::from_millis(60 + round * 37 % 190)).await;
        server.kill().unwrap();
        acknowledged.extend(callers.join_all().await.into_iter().flatten());
        server = server.restart().unwrap();
    }
    let (given, sent) = (acknowledged.len() as u64, upstream.seen().len() as u64);
    assert!(given > campaign.rounds * campaign.callers, "the load was {given} calls");
    assert!(sent > campaign.rounds, "the upstream saw {sent} calls");
    for kind in KINDS {
        let calls = acknowledged.iter().filter(|trace| trace.ends_with(kind)).count();
        assert!(calls as u64 > campaign.rounds, "{calls} calls of the kind {kind}");
    }

    server.terminate().unwrap();
    let db = open(&server).await;
    let recorded = texts(&db, "SELECT trace_id FROM ledger_entries WHERE trace_id LIKE 'crash-%'").await;
    let lost: Vec<_> = acknowledged.difference(&recorded).collect();
    assert!(lost.is_empty(), "{} acknowledged calls have no record: {lost:?}", lost.len());
    let opened = texts(&db, "SELECT trace_id FROM ledger_entries WHERE kind = 'inference.opened'").await;
    let unrecorded: Vec<_> = upstream.seen().into_iter().filter(|mark| !opened.contains(mark)).collect();
    assert!(unrecorded.is_empty(), "the upstream saw calls without a record: {unrecorded:?}");
    for (rows, still_open) in [
        ("model requests", "SELECT COUNT(*) FROM ai_requests WHERE ledger_closed IS NULL"),
        ("tool calls", "SELECT COUNT(*) FROM mcp_tool_executions WHERE ledger_closed IS NULL"),
        ("leases", "SELECT COUNT(*) FROM secret_leases WHERE ledger_closed IS NULL"),
    ] {
        assert_eq!(count(&db, still_open).await, 0, "{rows} that no start has closed");
    }
    db.close().await;
    server.succeed(&["audit", "verify"]).unwrap();
    println!(
        "{} kills under {} callers: {given} calls acknowledged, none lost; {sent} seen upstream, none unrecorded",
        campaign.rounds, campaign.callers
    );
}

/// How the trace id of a call ends: what it asked for.
const KINDS: [&str; 3] = ["model", "hook", "tool"];

/// Starts the callers. Each returns the trace ids of the calls that it was given an answer to.
fn call(server: &Server, round: u64, callers: u64) -> JoinSet<Vec<String>> {
    let mut set = JoinSet::new();
    for caller in 0..callers {
        let (client, token) = (Client::new(server), server.user_token().to_owned());
        set.spawn(async move {
            let mut acknowledged = Vec::new();
            for (number, kind) in KINDS.iter().cycle().skip(caller as usize % KINDS.len()).enumerate() {
                let trace = format!("crash-{round:04}-{caller:04}-{number:06}-{kind}");
                let sent = match *kind {
                    "model" => model(&client, &token, &trace).await,
                    "hook" => hook(&client, &token, &trace).await,
                    _ => tool(&client, &token, &trace).await,
                };
                match sent {
                    Some(Ok(())) => acknowledged.push(trace),
                    // One principal has only so many slots of a tool server; nothing was decided on such a call.
                    Some(Err(refusal)) if refusal.contains("the server is busy") => {}
                    Some(Err(refusal)) => panic!("{trace} was refused: {refusal}"),
                    None => break,
                }
            }
            acknowledged
        });
    }
    set
}

/// What the call was answered, if not with what was asked for; nothing when the server is gone.
async fn model(client: &Client, token: &str, trace: &str) -> Option<Result<(), String>> {
    let text = format!("please answer {MARK}{trace}");
    let body = json!({ "model": "m", "max_tokens": 8, "messages": [{ "role": "user", "content": text }] });
    let headers = [("x-api-key", token), ("x-trace-id", trace), ("anthropic-version", "2023-06-01")];
    let answer = client.send(Method::POST, "/v1/messages", &headers, Some(&body)).await.ok()?;
    Some(if answer.status == 200 { Ok(()) } else { Err(answer.body) })
}

async fn hook(client: &Client, token: &str, trace: &str) -> Option<Result<(), String>> {
    let body = json!({
        "hook_event_name": "PreToolUse", "session_id": &trace[..15], "tool_name": "Bash",
        "tool_input": { "command": "ls" }, "tool_use_id": trace,
    });
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("x-trace-id", trace)];
    let path = "/api/v1/hooks/govern?plugin_id=demo";
    let answer = client.send(Method::POST, path, &headers, Some(&body)).await.ok()?;
    let is_decided = answer.status == 200 && !answer.header("x-systemprompt-decision").is_empty();
    Some(if is_decided { Ok(()) } else { Err(answer.body) })
}

async fn tool(client: &Client, token: &str, trace: &str) -> Option<Result<(), String>> {
    let params = json!({ "name": "crm_lookup", "arguments": { "customer_id": "c-1001" } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-trace-id", trace),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let answer = client.send(Method::POST, "/api/v1/mcp/demo/mcp", &headers, Some(&body)).await.ok()?;
    let is_answered = answer.status == 200 && answer.body.contains("\"isError\":false");
    Some(if is_answered { Ok(()) } else { Err(answer.body) })
}
