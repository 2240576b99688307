//! Tool calls: one that uses a secret, others that try to give it away, arguments with secrets, a blocked tool, a server that
//! is not for everyone.

use super::planted::Planted;
use super::stage::Stage;
use super::step::{Outcome, Step};
use crate::client::{Answer, Ask, encoded};
use crate::exit::CliError;
use serde_json::{Value, json};

/// In which forms the secret is asked for.
pub const ENCODINGS: [&str; 6] = ["plain", "base64", "base64url", "hex", "url", "json"];
/// Longest argument that `crm_lookup` takes.
pub const LONGEST: usize = 64;
const DECISION: &str = "governance.decision";
const REDACTED: &str = "[redacted:demo_crm_token]";

/// A tool call of bob, and its trace id.
async fn call(
    stage: &Stage,
    server: &str,
    tool: &str,
    arguments: Value,
) -> Result<(String, Answer), CliError> {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    });
    let ask = Ask::post(&format!("/api/v1/mcp/{}/mcp", encoded(server)), &body).token(&stage.bob);
    stage.send(ask.header("accept", "application/json, text/event-stream")).await
}

/// The text of a tool's result, and whether it is one of an error.
fn result(answer: &Answer) -> (String, bool) {
    let body = answer.json();
    let text = ["/result/content/0/text", "/error/message"]
        .into_iter()
        .find_map(|pointer| body.pointer(pointer)?.as_str().map(str::to_owned));
    let failed = body.pointer("/result/isError") != Some(&json!(false));
    (text.unwrap_or_default(), failed)
}

pub async fn looked_up(stage: &Stage) -> Step {
    let step = Step::new("tool call with a secret behind it", "the customer, without the secret");
    let outcome = async {
        let (trace, answer) = call(stage, "demo", "crm_lookup", json!({"customer_id": "c-1001"})).await?;
        let (text, failed) = result(&answer);
        let wanted = [(DECISION, "allow"), ("tool.opened", "opened"), ("tool.closed", "ok")];
        let record = stage.recorded(&trace, &wanted).await?;
        let ok = !failed && text.contains("c-1001") && !stage.needles.are_in(&answer.text());
        Ok(record.outcome(ok, format!("{text:.60}"), "tool.opened"))
    };
    step.came_out(outcome.await)
}

pub async fn leaked(stage: &Stage, encoding: &str) -> Step {
    let step = Step::new(format!("secret asked for ({encoding})"), "not shown");
    step.came_out(hidden(stage, "leak_secret", json!({"encoding": encoding})).await)
}

pub async fn environment(stage: &Stage) -> Step {
    let step = Step::new("environment of the tool server", "not shown");
    step.came_out(hidden(stage, "echo_environment", json!({})).await)
}

/// A call whose result would hold the secret.
async fn hidden(stage: &Stage, tool: &str, arguments: Value) -> Result<Outcome, CliError> {
    let (trace, answer) = call(stage, "demo", tool, arguments).await?;
    let (text, _) = result(&answer);
    let record = stage.recorded(&trace, &[(DECISION, "allow"), ("tool.opened", "opened")]).await?;
    let shown = stage.needles.are_in(&answer.text());
    // The mark shows that the tool did try.
    let ok = answer.status == 200 && !shown && text.contains(REDACTED);
    let got = if shown { "THE SECRET".to_owned() } else { format!("{text:.52}") };
    Ok(record.outcome(ok, got, "tool.opened"))
}

pub async fn planted(stage: &Stage, planted: &Planted) -> Step {
    let expected = format!("refused by secret_scan ({})", planted.rule);
    let step = Step::new(format!("tool arguments with {}", planted.name), expected);
    let arguments = json!({"customer_id": planted.value});
    step.came_out(refused(stage, "crm_lookup", arguments, "secret_scan", planted.rule).await)
}

pub async fn blocked(stage: &Stage) -> Step {
    let step = Step::new("destructive tool", "refused by tool_blocklist");
    let arguments = json!({"customer_id": "c-1001"});
    step.came_out(refused(stage, "delete_customer", arguments, "tool_blocklist", "").await)
}

/// A call that a policy refuses before the tool sees it.
async fn refused(
    stage: &Stage,
    tool: &str,
    arguments: Value,
    policy: &str,
    word: &str,
) -> Result<Outcome, CliError> {
    let (trace, answer) = call(stage, "demo", tool, arguments).await?;
    let (text, failed) = result(&answer);
    let record = stage.recorded(&trace, &[(DECISION, "deny")]).await?;
    let ok = failed
        && text.contains(&format!("Denied by {policy}"))
        && text.contains(word)
        && record.entry("tool.opened", "opened").is_none()
        && !stage.needles.are_in(&answer.text());
    Ok(record.outcome(ok, format!("{text:.60}"), DECISION))
}

pub async fn out_of_scope(stage: &Stage) -> Step {
    let step = Step::new("server that is for administrators", "403");
    let outcome = async {
        let (trace, answer) = call(stage, "systemprompt-admin", "version", json!({})).await?;
        let (text, failed) = result(&answer);
        let record = stage.recorded(&trace, &[("authz.decision", "deny")]).await?;
        let ok = answer.status == 403 && failed && record.entry("tool.opened", "opened").is_none();
        Ok(record.outcome(ok, format!("{}: {text:.50}", answer.status), "authz.decision"))
    };
    step.came_out(outcome.await)
}
