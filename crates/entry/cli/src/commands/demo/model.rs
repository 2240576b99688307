//! Model requests: answered, streamed, and refused because of what somebody pasted.

use super::planted::Planted;
use super::stage::Stage;
use super::step::{Outcome, Step};
use crate::client::Ask;
use crate::exit::CliError;
use serde_json::{Value, json};

const PATH: &str = "/v1/messages";
const DECISION: &str = "governance.decision";

fn body(text: &str, stream: bool) -> Value {
    json!({
        "model": "claude-demo", "max_tokens": 64, "stream": stream,
        "messages": [{"role": "user", "content": text}],
    })
}

/// A request of bob.
pub fn ask<'a>(stage: &'a Stage, text: &str, stream: bool) -> Ask<'a> {
    Ask::post(PATH, &body(text, stream)).token(&stage.bob).header("anthropic-version", "2023-06-01")
}

pub async fn answered(stage: &Stage) -> Step {
    let step = Step::new("model request", "200 and an answer");
    step.came_out(allowed(stage, false).await)
}

pub async fn streamed(stage: &Stage) -> Step {
    let step = Step::new("streamed model request", "200 and events to message_stop");
    step.came_out(allowed(stage, true).await)
}

async fn allowed(stage: &Stage, stream: bool) -> Result<Outcome, CliError> {
    let (trace, answer) = stage.send(ask(stage, "Say hello to the demo", stream)).await?;
    let text = answer.text();
    let (ok, got) = if stream {
        let events = text.lines().filter(|line| line.starts_with("event:")).count();
        let whole = text.contains("event: message_stop");
        (whole, format!("{} and {events} events", answer.status))
    } else {
        let said = answer.json().pointer("/content/0/text").and_then(Value::as_str).map(str::to_owned);
        let said = said.unwrap_or_default();
        (!said.is_empty(), format!("{}: {:.40}", answer.status, said))
    };
    let wanted = [(DECISION, "allow"), ("inference.opened", "opened"), ("inference.closed", "ok")];
    let record = stage.recorded(&trace, &wanted).await?;
    Ok(record.outcome(ok && answer.status == 200, got, "inference.opened"))
}

pub async fn planted(stage: &Stage, planted: &Planted) -> Step {
    let expected = format!("400 by secret_scan ({})", planted.rule);
    let step = Step::new(format!("model request with {}", planted.name), expected);
    step.came_out(refused(stage, planted).await)
}

async fn refused(stage: &Stage, planted: &Planted) -> Result<Outcome, CliError> {
    let text = format!("Please use this for the deployment:\n{}\nThank you.", planted.value);
    let (trace, answer) = stage.send(ask(stage, &text, false)).await?;
    let body = answer.json();
    let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    let record = stage.recorded(&trace, &[(DECISION, "deny")]).await?;
    if let Some(id) = record.decision("id") {
        stage.remember(id);
    }
    let ok = answer.status == 400
        && message.contains("Denied by secret_scan")
        && message.contains(planted.rule)
        && record.entry("inference.opened", "opened").is_none()
        && !stage.needles.are_in(&answer.text());
    Ok(record.outcome(ok, format!("{}: {:.60}", answer.status, message), DECISION))
}
