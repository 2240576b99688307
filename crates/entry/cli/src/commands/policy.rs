//! `policy test|replay`: rules that are tried before they are put in force.

use crate::client::{Ask, Client};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, cell, note, rows};
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use systemprompt_config::diagnostic::Diagnostics;
use systemprompt_config::services::draft::{PolicyDraft, read_cases, read_draft};
use systemprompt_models::span::{Moment, parse_moment};
use systemprompt_models::{Clock, SystemClock};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Works on the database directly; for when no server runs
    #[arg(long, global = true)]
    offline: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whether cases come out as expected; 7 when one does not
    Test {
        /// YAML: `cases`, a list of {name, principal, entity, expect, reason, rule}
        file: PathBuf,
        /// A draft of rules to lay over those in force
        #[arg(long, value_name = "FILE")]
        draft: Option<PathBuf>,
    },
    /// What a draft of rules and governance policies would have changed about recorded decisions
    Replay {
        /// YAML: `base`, `entities`, `rules`, `policies`
        #[arg(long, value_name = "FILE")]
        draft: PathBuf,
        /// From this moment on: 2026-11-22, 2026-11-22T04:06:17Z, or 15m (ago)
        #[arg(long, value_name = "TIME", value_parser = parse_moment, default_value = "24h")]
        since: Moment,
        /// 7 when a decision came out otherwise, or could not be decided
        #[arg(long)]
        fail_on_flip: bool,
    },
}

/// A replay of a million decisions takes its time.
const TIMEOUT: Duration = Duration::from_mins(10);

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let out = Output::new(globals);
    match args.command {
        Command::Test { file, draft } => {
            let cases = read_cases(&file).map_err(|faults| unreadable(&file, &faults))?;
            let draft = draft.as_deref().map(read).transpose()?;
            let body = json!({"cases": cases.cases, "draft": draft});
            test(globals, out, args.offline, &body).await
        }
        Command::Replay { draft, since, fail_on_flip } => {
            let draft = read(&draft)?;
            let body = json!({"draft": draft, "since": since.at(SystemClock.now())});
            replay(globals, out, args.offline, &body, fail_on_flip).await
        }
    }
}

fn read(file: &Path) -> Result<PolicyDraft, CliError> {
    read_draft(file).map_err(|faults| unreadable(file, &faults))
}

fn unreadable(file: &Path, faults: &Diagnostics) -> CliError {
    let told: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
    CliError::new(Exit::Invalid, format!("{} is not valid", file.display())).why(told.join("\n"))
}

async fn test(globals: &Globals, out: Output, offline: bool, body: &Value) -> Result<Exit, CliError> {
    let ask = || Ask::post("/api/v1/admin/rules/simulate", body).timeout(TIMEOUT);
    let done =
        Client::with(globals, offline, async |client| client.json("the cases were not tried", ask()).await);
    let done = done.await?;
    let number = |name: &str| done.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (passed, failed) = (number("passed"), number("failed"));
    out.document(&done, &format!("{}{passed} passed, {failed} failed", failures(&done)))?;
    warn(&done)?;
    Ok(if failed == 0 { Exit::Ok } else { Exit::Invalid })
}

/// What cases and draft name that is not there, as when a rule is made.
fn warn(done: &Value) -> Result<(), CliError> {
    let warnings = done.get("warnings").and_then(Value::as_array).map(Vec::as_slice);
    let mut warnings = warnings.unwrap_or_default().iter().filter_map(Value::as_str);
    warnings.try_for_each(|text| note(&format!("warning: {text}")))
}

/// A line a case that did not come out as expected.
fn failures(done: &Value) -> String {
    let cases = done.get("cases").and_then(Value::as_array).into_iter().flatten();
    let failed: Vec<Vec<String>> = cases
        .filter(|case| case.get("passed") != Some(&json!(true)))
        .map(|case| {
            let of = |name: &str| case.get(name).map(cell).unwrap_or_default();
            vec!["FAIL".to_owned(), of("name"), of("why"), of("decided_on")]
        })
        .collect();
    if failed.is_empty() { String::new() } else { format!("{}\n", rows(failed)) }
}

async fn replay(
    globals: &Globals,
    out: Output,
    offline: bool,
    body: &Value,
    fail_on_flip: bool,
) -> Result<Exit, CliError> {
    let ask = || Ask::post("/api/v1/admin/rules/replay", body).timeout(TIMEOUT);
    let done =
        Client::with(globals, offline, async |client| client.json("nothing was replayed", ask()).await);
    let done = done.await?;
    out.document(&done, &told(&done))?;
    warn(&done)?;
    let number = |pointer: &str| done.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let differs =
        number("/newly_denied/count") + number("/newly_allowed/count") + number("/unreplayable") > 0;
    Ok(if fail_on_flip && differs { Exit::Invalid } else { Exit::Ok })
}

fn told(report: &Value) -> String {
    let of = |pointer: &str| report.pointer(pointer).map(cell).unwrap_or_default();
    let mut lines = vec![format!("{} decisions, {} unchanged", of("/decisions"), of("/unchanged"))];
    for (name, title) in [("newly_denied", "allow -> deny"), ("newly_allowed", "deny -> allow")] {
        lines.push(format!("{title}: {}", of(&format!("/{name}/count"))));
        let groups = report.pointer(&format!("/{name}/groups")).and_then(Value::as_array);
        let groups: Vec<Vec<String>> = groups
            .into_iter()
            .flatten()
            .map(|group| {
                let of = |name: &str| group.get(name).map(cell).unwrap_or_default();
                let by = [of("matched_by"), of("rule_id")];
                let by: Vec<String> = by.into_iter().filter(|name| !name.is_empty()).collect();
                let by = format!("{} -> {}", of("before"), by.join(" "));
                vec![format!("  {}", of("count")), of("entity"), of("principal"), by, of("examples")]
            })
            .collect();
        if !groups.is_empty() {
            lines.push(rows(groups));
        }
        let other = report.pointer(&format!("/{name}/other")).and_then(Value::as_u64).unwrap_or_default();
        if other > 0 {
            lines.push(format!("  and {other} of groups that are not listed"));
        }
    }
    lines.push(
        format!("unreplayable: {} {}", of("/unreplayable"), of("/unreplayable_examples"))
            .trim_end()
            .to_owned(),
    );
    let counted = |pointer: &str| report.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    for (why, count) in counted("/unreplayable_why") {
        lines.push(format!("  {}: {}", cell(count), reason(why)));
    }
    for (policy, taken) in counted("/taken_over") {
        let of = |name: &str| taken.get(name).map(cell).unwrap_or_default();
        lines.push(format!(
            "{policy} was not decided again: its outcome stands for {} decisions, {} of them refused; {} never came to it",
            of("recorded"),
            of("refused"),
            of("not_asked")
        ));
    }
    if report.get("arguments_alone").and_then(Value::as_u64).unwrap_or_default() > 0 {
        lines.push(format!(
            "{} decisions had not come to a policy over content: it looked at their arguments, what stood beside them is not kept",
            of("/arguments_alone")
        ));
    }
    if report.get("more") == Some(&json!(true)) {
        lines.push(
            "there are more decisions than one replay looks at: narrow the time with --since".to_owned(),
        );
    }
    lines.join("\n")
}

/// Why a decision cannot be replayed, in words.
fn reason(why: &str) -> &str {
    match why {
        "arguments_gone" => "the arguments are gone, by retention or erasure",
        "arguments_cut" => "the arguments were too long to be kept whole",
        "arguments_redacted" => "the arguments are kept redacted",
        "arguments_not_kept" => "the arguments are not kept (`audit.payloads`)",
        "arguments_altered" => {
            "the arguments are not those that the record names: run `systemprompt audit verify`"
        }
        "content_not_kept" => "the content of model requests and prompts is not kept with their decision",
        "conversation_not_kept" => "whether a block was refused before in its conversation is not kept",
        "names_not_kept" => "a name was cut or hidden when it was recorded",
        "roles_not_kept" => "more roles than a record keeps",
        "permissions_not_kept" => "an older record, without the permissions of the call",
        "record_pruned" => "the record was pruned by retention",
        "row_missing" => "the row beside the record is gone",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_told_by_direction_with_examples() {
        let report = json!({
            "decisions": 9, "unchanged": 7, "unreplayable": 0, "unreplayable_examples": [], "more": true,
            "newly_denied": {"count": 2, "other": 1, "groups": [{"entity": "mcp_tool:demo/x", "principal": "usr_1",
                "matched_by": "role_deny", "rule_id": "draft[0]/role:user", "before": "default_included", "count": 1, "examples": ["led_1"]}]},
            "newly_allowed": {"count": 0, "other": 0, "groups": []},
            "unreplayable_why": {"arguments_gone": 2},
            "taken_over": {"rate_limit": {"recorded": 9, "refused": 1, "not_asked": 3}}, "arguments_alone": 4,
        });
        let text = told(&report);
        assert!(text.starts_with("9 decisions, 7 unchanged\nallow -> deny: 2\n"), "{text}");
        assert!(text.contains("draft[0]/role:user") && text.contains("led_1"), "{text}");
        assert!(text.contains("default_included -> role_deny draft[0]/role:user"), "{text}");
        assert!(text.contains("2: the arguments are gone"), "{text}");
        assert!(
            text.contains("rate_limit was not decided again: its outcome stands for 9 decisions, 1 of them"),
            "{text}"
        );
        assert!(text.contains("4 decisions had not come"), "{text}");
        assert!(text.contains("and 1 of groups") && text.contains("narrow the time"), "{text}");
    }

    #[test]
    fn only_failed_cases_are_listed() {
        let done = json!({"cases": [{"name": "a", "passed": true}, {"name": "b", "passed": false, "why": "it is deny, not allow"}]});
        let text = failures(&done);
        assert!(text.contains("FAIL  b") && text.contains("it is deny") && !text.contains("  a"), "{text}");
    }
}
