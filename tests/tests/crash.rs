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

const ROUNDS: u64 = 20;
const CALLERS: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_decision_is_lost_by_a_kill_on_sqlite() {
    kill_again_and_again(stores::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_decision_is_lost_by_a_kill_on_postgres() {
    kill_again_and_again(stores::postgres().await).await;
}

async fn kill_again_and_again(options: Options) {
    let upstream = Upstream::start().await;
    let options = upstream.serve(options).without_limits();
    let mut server = options.start().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let callers = call(&server, round);
        // Rounds end at different moments of a batch.
        tokio::time::sleep(Duration::from_millis(60 + round * 37 % 190)).await;
        server.kill().unwrap();
        acknowledged.extend(callers.join_all().await.into_iter().flatten());
        server = server.restart().unwrap();
    }
    assert!(acknowledged.len() as u64 > ROUNDS * CALLERS, "the load was {} calls", acknowledged.len());
    assert!(upstream.seen().len() as u64 > ROUNDS, "the upstream saw {} calls", upstream.seen().len());

    server.terminate().unwrap();
    let db = open(&server).await;
    let recorded = texts(&db, "SELECT trace_id FROM ledger_entries WHERE trace_id LIKE 'crash-%'").await;
    let lost: Vec<_> = acknowledged.difference(&recorded).collect();
    assert!(lost.is_empty(), "{} acknowledged calls have no record: {lost:?}", lost.len());
    let opened = texts(&db, "SELECT trace_id FROM ledger_entries WHERE kind = 'inference.opened'").await;
    let unrecorded: Vec<_> = upstream.seen().into_iter().filter(|mark| !opened.contains(mark)).collect();
    assert!(unrecorded.is_empty(), "the upstream saw calls without a record: {unrecorded:?}");
    let open = count(&db, "SELECT COUNT(*) FROM ai_requests WHERE ledger_closed IS NULL").await;
    assert_eq!(open, 0, "requests that no start has closed");
    db.close().await;
    server.succeed(&["audit", "verify"]).unwrap();
}

/// Starts the callers. Each returns the trace ids of the calls that it was given an answer to.
fn call(server: &Server, round: u64) -> JoinSet<Vec<String>> {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (client, token) = (Client::new(server), server.user_token().to_owned());
        callers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let trace = format!("crash-{round:04}-{caller:04}-{number:06}");
                let is_model = number % 2 == 0;
                let sent = if is_model {
                    model(&client, &token, &trace).await
                } else {
                    hook(&client, &token, &trace).await
                };
                match sent {
                    Some(Ok(())) => acknowledged.push(trace),
                    Some(Err(refusal)) => panic!("{trace} was refused: {refusal}"),
                    None => break,
                }
            }
            acknowledged
        });
    }
    callers
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
