//! `can PRINCIPAL ENTITY`: asks the rules, without anything taking effect. 0 allowed, 3 denied, 5 unknown.

use crate::client::{Ask, Client};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, rows};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A user's name, or user:NAME, role:NAME, department:NAME
    principal: String,
    /// KIND:ID, such as `mcp_server:demo`
    entity: String,
    /// Works on the database directly; for when no server runs
    #[arg(long)]
    offline: bool,
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let principal =
        if args.principal.contains(':') { args.principal } else { format!("user:{}", args.principal) };
    let body = json!({"principal": principal, "entity": args.entity});
    let what = format!("it cannot be told whether {principal} may use {}", args.entity);
    let answer = Client::with(globals, args.offline, async |client| {
        client.json(&what, Ask::post("/api/v1/admin/rules/can", &body)).await
    });
    let answer = answer.await?;
    let exit = verdict(&answer);
    Output::new(globals).document(&answer, &text(&principal, &answer))?;
    Ok(exit)
}

fn verdict(answer: &Value) -> Exit {
    let is = |name: &str, value: &Value| answer.get(name) == Some(value);
    if !is("known", &json!(true)) {
        Exit::NotFound
    } else if is("decision", &json!("allow")) {
        Exit::Ok
    } else {
        Exit::Denied
    }
}

fn text(principal: &str, answer: &Value) -> String {
    let field = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let word = if field("decision") == "allow" { "may" } else { "may not" };
    let sentence =
        format!("{principal} {word} use {}: {} ({})", field("entity"), field("reason"), field("matched_by"));
    let (asked, decided) = (field("entity"), field("decided_on"));
    let sentence = match decided == asked || decided.is_empty() {
        true => sentence,
        false if field("decision") == "allow" => {
            format!("{sentence}\nno rule names the tool itself, so that of its server decides: {decided}")
        }
        false => format!("{sentence}\na tool call is decided on its server first: {decided}"),
    };
    let rules = answer.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if rules.is_empty() {
        return sentence;
    }
    let of = |rule: &Value, name: &str| rule.get(name).map(crate::output::cell).unwrap_or_default();
    let lines = rules.iter().map(|rule| {
        let subject = format!("{}:{}", of(rule, "rule_type"), of(rule, "rule_value"));
        vec![format!("  {}", of(rule, "rule_id")), subject, of(rule, "access"), of(rule, "why")]
    });
    format!("{sentence}\n{}", rows(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_no_rule_names_is_told_to_follow_its_server() {
        let answer = |decision: &str, decided_on: &str| {
            let answer = json!({"entity": "mcp_tool:demo/x", "decided_on": decided_on, "decision": decision,
                "reason": "a rule", "matched_by": "role_allow", "known": true});
            text("user:bob", &answer)
        };
        assert!(answer("allow", "mcp_server:demo").contains("no rule names the tool itself"));
        assert!(answer("deny", "mcp_server:demo").contains("decided on its server first: mcp_server:demo"));
        assert_eq!(answer("allow", "mcp_tool:demo/x").lines().count(), 1);
    }

    #[test]
    fn the_exit_code_tells_allowed_denied_and_unknown_apart() {
        for (known, decision, exit) in
            [(true, "allow", Exit::Ok), (true, "deny", Exit::Denied), (false, "deny", Exit::NotFound)]
        {
            assert_eq!(verdict(&json!({"known": known, "decision": decision})), exit);
        }
        assert_eq!(verdict(&Value::Null), Exit::NotFound, "an answer that says nothing allows nothing");
    }
}
