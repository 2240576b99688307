//! `explain ID`: why a request, a decision or a tool call came out as it did.

use crate::client::{Ask, Client, encoded};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, cell, rows};
use serde_json::Value;
use systemprompt_models::clock::iso8601;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of a decision (dec_…), a ledger entry (led_…), a model request (air_…), or a trace id
    id: String,
    /// Works on the database directly; for when no server runs
    #[arg(long)]
    offline: bool,
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let what = format!("`{}` cannot be explained", args.id);
    let path = format!("/api/v1/explain/{}", encoded(&args.id));
    let found = Client::with(globals, args.offline, async |client| client.json(&what, Ask::get(&path)).await);
    let found = found.await?;
    Output::new(globals).document(&found, &text(&found))?;
    Ok(Exit::Ok)
}

/// The decision in words, then what was recorded.
fn text(found: &Value) -> String {
    let mut parts = Vec::new();
    let decision = found.get("decision").filter(|decision| decision.is_object());
    if let Some(decision) = decision {
        parts.push(summary(decision));
    }
    let entries = found.get("entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of = |entry: &Value, name: &str| entry.get(name).map(cell).unwrap_or_default();
    parts.push(rows(entries.iter().map(|entry| {
        vec![
            of(entry, "at_iso"),
            of(entry, "kind"),
            of(entry, "outcome"),
            of(entry, "policy"),
            of(entry, "reason"),
            of(entry, "id"),
        ]
    })));
    let proof = match found.get("intact").and_then(Value::as_bool) {
        Some(true) => "every record has the hash that the chain holds",
        _ => "A RECORD DOES NOT HAVE THE HASH THAT THE CHAIN HOLDS: run `systemprompt audit verify`",
    };
    parts.push(format!("trace {}; {proof}", of(found, "trace_id")));
    parts.join("\n\n")
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
