//! A tool call that goes on with marks in place of secrets (SEC-87). A client takes changed content in one place alone, the input of a
//! tool that is about to be used, and only as a whole; everywhere else, and where the operator does not trust his clients to take
//! it, the call is refused.

use serde::Serialize;
use serde_json::value::RawValue;
use systemprompt_config::profile::governance::{HookOnAllow, HookOnRedact};
use systemprompt_models::hook::PRE_TOOL_USE;
use systemprompt_models::json::check_object;
use systemprompt_security::governance::Redaction;
use systemprompt_security::plane::Judgement;

/// Deepest nesting of an input; policies refuse what is deeper.
const MAX_DEPTH: usize = 64;

/// The input that the tool is to be used with, where a policy replaces secrets in it. Settles what becomes of the call.
pub(super) fn input(
    judgement: &mut Judgement,
    event: &str,
    has_input: bool,
    on_redact: HookOnRedact,
) -> Option<Box<RawValue>> {
    if judgement.redactions().is_empty() {
        return None;
    }
    let input = match (event, on_redact) {
        (PRE_TOOL_USE, HookOnRedact::Rewrite) => rewritten(judgement.redactions(), has_input),
        (PRE_TOOL_USE, HookOnRedact::Refuse) => {
            Err("it is refused because `governance.hooks.on_redact` is `refuse` here")
        }
        _ => Err("it is refused because a hook cannot change what this event tells of"),
    };
    match input {
        Ok(input) => {
            judgement.accept_redactions();
            Some(input)
        }
        Err(why) => {
            judgement.refuse_redactions(why);
            None
        }
    }
}

/// The input is the first part of what was judged, if there is one.
fn rewritten(redactions: &[Redaction], has_input: bool) -> Result<Box<RawValue>, &'static str> {
    let [Redaction { segment: 0, json }] = redactions else {
        return Err("it is refused because a hook can change nothing but the tool's input");
    };
    let text = std::str::from_utf8(json).ok().filter(|_| has_input && check_object(json, MAX_DEPTH).is_ok());
    let input = text.and_then(|text| serde_json::from_str(text).ok());
    input.ok_or("it is refused because marks in its place leave no input to use the tool with")
}

/// The answer that gives a client the changed input. Its numbers stay as they were written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rewrite<'a> {
    hook_specific_output: Output<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    hook_event_name: &'static str,
    permission_decision: &'static str,
    permission_decision_reason: &'a str,
    updated_input: &'a RawValue,
}

impl<'a> Rewrite<'a> {
    /// A client takes a changed input only beside a decision, so that its own question is asked for where it is wanted.
    pub(super) fn new(input: &'a RawValue, reason: &'a str, on_allow: HookOnAllow) -> Self {
        let output = Output {
            hook_event_name: PRE_TOOL_USE,
            permission_decision: match on_allow {
                HookOnAllow::Allow => "allow",
                HookOnAllow::None => "ask",
            },
            permission_decision_reason: reason,
            updated_input: input,
        };
        Self { hook_specific_output: output }
    }
}
