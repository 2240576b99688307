//! `explain ID`: why a request, a decision or a tool call came out as it did.

use crate::client::{Ask, Client, encoded};
use crate::commands::admin::users::actor_of;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, cell, rows};
use serde_json::Value;
use systemprompt_models::clock::iso8601;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of a decision (dec_…), a ledger entry (led_…), a model request (air_…), a token (jti_…), or a trace id
    id: String,
    /// Only what this user did: name or id. Clients choose their trace ids, so several may share one
    #[arg(long, value_name = "USER")]
    actor: Option<String>,
    /// Works on the database directly; for when no server runs
    #[arg(long)]
    offline: bool,
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let what = format!("`{}` cannot be explained", args.id);
    let path = format!("/api/v1/explain/{}", encoded(&args.id));
    let found = Client::with(globals, args.offline, async |client| {
        let actor = match &args.actor {
            Some(actor) => Some(actor_of(client, actor).await?),
            None => None,
        };
        client.json(&what, Ask::get(&path).query("actor", actor)).await
    });
    let found = found.await?;
    Output::new(globals).document(&found, &text(&found))?;
    Ok(Exit::Ok)
}

/// For each who acted the decision in words, then what was recorded.
fn text(found: &Value) -> String {
    let list = |name: &str| found.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of = |name: &str| found.get(name).map(cell).unwrap_or_default();
    let (actors, entries) = (list("actors"), list("entries"));
    let mut parts = Vec::new();
    if actors.len() > 1 {
        parts.push(format!(
            "{} actors used the trace id {}, which clients choose themselves; each is shown apart",
            actors.len(),
            of("trace_id")
        ));
    }
    parts.extend(found.get("token").filter(|token| token.is_object()).map(token));
    for actor in actors {
        if actors.len() > 1 {
            parts.push(format!("== {}", name_of(actor)));
        }
        parts.extend(actor.get("decision").filter(|decision| decision.is_object()).map(summary));
        let own = actor.get("entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        parts.push(recorded(
            entries.iter().filter(|entry| entry.get("id").is_some_and(|id| own.contains(id))),
        ));
    }
    let proof = match found.get("intact").and_then(Value::as_bool) {
        Some(true) => "every record has the hash that the chain holds",
        _ => "A RECORD DOES NOT HAVE THE HASH THAT THE CHAIN HOLDS: run `systemprompt audit verify`",
    };
    parts.push(format!("trace {}; {proof}", of("trace_id")));
    if found.get("more").and_then(Value::as_bool).unwrap_or_default() {
        parts.push(
            "there are more records under this id: --actor narrows, `audit query --trace-id` lists all"
                .to_owned(),
        );
    }
    parts.join("\n\n")
}

/// What a token rests on, part by part, each with its entry.
fn token(token: &Value) -> String {
    let parts = ["grant", "consent", "parent_session"];
    let lines = |part: &Value, prefix: &str| -> Vec<Vec<String>> {
        let members = part.as_object().into_iter().flatten();
        let told = members.filter(|(name, value)| !value.is_null() && !parts.contains(&name.as_str()));
        told.map(|(name, value)| vec![format!("{prefix}{}", name.replace('_', " ")), words(value)]).collect()
    };
    let mut all = lines(token, "");
    for part in parts {
        if let Some(member) = token.get(part) {
            all.extend(lines(member, &format!("{}: ", part.replace('_', " "))));
        }
    }
    rows(all)
}

/// A value on one line; members of an object with what they hold.
fn words(value: &Value) -> String {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| format!("{name}: {}", cell(value)))
            .collect::<Vec<_>>()
            .join("; "),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        value => cell(value),
    }
}

fn name_of(actor: &Value) -> String {
    let of = |name: &str| actor.get(name).map(cell).unwrap_or_default();
    match of("name") {
        name if name.is_empty() => format!("{} {}", of("kind"), of("id")),
        name => format!("{} {name} ({})", of("kind"), of("id")),
    }
}

fn recorded<'a>(entries: impl Iterator<Item = &'a Value>) -> String {
    rows(entries.map(|entry| {
        let of = |name: &str| entry.get(name).map(cell).unwrap_or_default();
        vec![of("at_iso"), of("kind"), of("outcome"), of("policy"), of("reason"), of("id")]
    }))
}

fn summary(decision: &Value) -> String {
    let of = |name: &str| decision.get(name).map(cell).unwrap_or_default();
    let joined = |names: [&str; 2]| {
        names.map(of).into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(":")
    };
    let mut lines = vec![
        vec!["decision".to_owned(), format!("{} ({})", of("decision"), of("id"))],
        vec!["policy".to_owned(), of("policy")],
        vec!["reason".to_owned(), of("reason")],
        vec!["who".to_owned(), of("user_id")],
        vec!["what".to_owned(), joined(["entity_type", "entity_id"])],
        vec!["tool".to_owned(), of("tool_name")],
        vec!["door".to_owned(), of("origin")],
        vec![
            "when".to_owned(),
            decision.get("created_at").and_then(Value::as_i64).map(iso8601).unwrap_or_default(),
        ],
    ];
    let list = |name: &str| decision.get(name).and_then(Value::as_array).into_iter().flatten();
    for rule in list("evaluated_rules") {
        let of = |name: &str| rule.get(name).map(cell).unwrap_or_default();
        lines.push(vec![
            "evaluated".to_owned(),
            format!("{}: {} ({} µs)", of("policy_id"), of("result"), of("elapsed_us")),
        ]);
    }
    for finding in list("findings") {
        lines.push(vec!["found".to_owned(), cell(finding)]);
    }
    lines.retain(|line| line.iter().all(|part| !part.is_empty()));
    rows(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn actors_who_share_a_trace_id_are_shown_apart() {
        let entry = |id: &str| json!({"id": id, "kind": "governance.decision", "outcome": "allow"});
        let actor = |name: &str, entry: &str| json!({"kind": "user", "id": format!("usr_{name}"), "name": name, "entries": [entry]});
        let found = json!({
            "trace_id": "t-1", "intact": true, "more": false,
            "actors": [actor("ada", "led_1"), actor("bob", "led_2")],
            "entries": [entry("led_1"), entry("led_2")],
        });
        let told = text(&found);
        assert!(told.starts_with("2 actors used the trace id t-1"), "{told}");
        let (ada, bob) = told.split_once("== user bob (usr_bob)").unwrap();
        assert!(ada.contains("led_1") && !ada.contains("led_2"), "{told}");
        assert!(bob.contains("led_2") && !bob.contains("led_1"), "{told}");

        let mut one = found;
        one["actors"].as_array_mut().unwrap().pop();
        assert!(!text(&one).contains("=="), "one actor needs no heading");
    }
}
