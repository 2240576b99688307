//! Limits and rules while the server runs: a session that calls too often, and a rule that is made and taken back.

use super::model;
use super::planted::Planted;
use super::stage::Stage;
use super::step::{Outcome, Step};
use crate::client::{Answer, Ask};
use crate::exit::{CliError, Exit};
use serde_json::{Value, json};
use std::time::Duration;

const DECISION: &str = "governance.decision";
const VERDICT: &str = "x-systemprompt-decision";
/// Calls after which a limit of 300 must have held.
const MAX_CALLS: usize = 1000;
const PAUSE: Duration = Duration::from_millis(200);

/// A coding agent asks whether it may write `content`.
fn event<'a>(token: &'a str, content: &str) -> Ask<'a> {
    let event = json!({
        "hook_event_name": "PreToolUse", "session_id": "demo", "tool_name": "Write",
        "tool_input": {"file_path": "notes.txt", "content": content},
    });
    Ask::post("/api/v1/hooks/govern", &event).token(token).query("plugin_id", Some("demo"))
}

fn reason(answer: &Answer) -> String {
    let body = answer.json();
    let reason = body.pointer("/hookSpecificOutput/permissionDecisionReason").and_then(Value::as_str);
    reason.unwrap_or_default().to_owned()
}

/// The hook of a coding agent that is about to write a secret into a file.
pub async fn hook(stage: &Stage, planted: &Planted) -> Step {
    let expected = format!("refused by secret_scan ({})", planted.rule);
    let step = Step::new(format!("hook event with {}", planted.name), expected);
    let outcome = async {
        let (trace, answer) = stage.send(event(&stage.bob, &planted.value)).await?;
        let reason = reason(&answer);
        let record = stage.recorded(&trace, &[(DECISION, "deny")]).await?;
        let ok = answer.status == 200
            && answer.header(VERDICT) == Some("deny")
            && reason.contains("Denied by secret_scan")
            && reason.contains(planted.rule)
            && !stage.needles.are_in(&answer.text());
        Ok(record.outcome(ok, format!("{reason:.60}"), DECISION))
    };
    step.came_out(outcome.await)
}

/// ada calls the decision endpoint until her session's limit says no. Only this session is affected.
pub async fn rate(stage: &Stage) -> Step {
    let step = Step::new("a session that calls too often", "allowed, then refused by rate_limit");
    step.came_out(until_refused(stage).await)
}

async fn until_refused(stage: &Stage) -> Result<Outcome, CliError> {
    let mut allowed = 0;
    for _ in 0..MAX_CALLS {
        let (trace, answer) = stage.send(event(&stage.ada, "a note")).await?;
        if answer.header(VERDICT) == Some("allow") {
            allowed += 1;
            continue;
        }
        let reason = reason(&answer);
        if allowed == 0 && reason.contains("rate_limit") {
            // Demos in quick succession come up against the limit of all of ada's sessions.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let record = stage.recorded(&trace, &[(DECISION, "deny")]).await?;
        let ok = allowed > 0 && reason.contains("Denied by rate_limit");
        return Ok(record.outcome(ok, format!("{allowed} allowed, then {reason:.40}"), DECISION));
    }
    Err(CliError::new(Exit::Failure, format!("{MAX_CALLS} calls were allowed")))
}

/// Denies bob the demo's model, and takes that back; each counts from the next call on.
pub async fn rule(stage: &Stage) -> [Step; 2] {
    let denied = Step::new("a rule against bob, live", "the next request is refused by user_deny");
    let allowed = Step::new("the rule taken back, live", "the next request is answered");
    let rule = stage.make_rule(("gateway_route", "demo"), ("user", &stage.bob_id), "deny").await;
    let rule = match rule {
        Ok(rule) => rule,
        Err(error) => {
            let again = CliError::new(Exit::Failure, "there was no rule to take back");
            return [denied.came_out(Err(error)), allowed.came_out(Err(again))];
        }
    };
    let refused = next(stage, |answer, policy| answer.status == 400 && policy == "user_deny").await;
    // Whatever came out: the rule goes.
    let dropped = stage.drop_rule(&rule).await;
    let answered = match dropped {
        Ok(()) => next(stage, |answer, _| answer.status == 200).await,
        Err(error) => Err(error),
    };
    [denied.came_out(refused), allowed.came_out(answered)]
}

/// bob's next request.
async fn next(stage: &Stage, fits: impl Fn(&Answer, &str) -> bool) -> Result<Outcome, CliError> {
    let (trace, answer) = stage.send(model::ask(stage, "Am I still welcome?", false)).await?;
    // What the rules deny is not examined any further.
    let (kind, decision) =
        if answer.status == 200 { (DECISION, "allow") } else { ("authz.decision", "deny") };
    let record = stage.recorded(&trace, &[(kind, decision)]).await?;
    let policy = record.decision("policy").unwrap_or_default().to_owned();
    let ok = fits(&answer, &policy);
    Ok(record.outcome(ok, format!("{} by {policy}", answer.status), kind))
}
