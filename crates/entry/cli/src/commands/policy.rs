//! `policy test|replay`: rules that are tried before they are put in force.

use crate::client::{Ask, Client};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, cell, note, rows};
use crate::span::{Moment, parse_moment};
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use systemprompt_config::diagnostic::Diagnostics;
use systemprompt_config::services::draft::{PolicyDraft, read_cases, read_draft};
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
    /// What a draft of rules would have changed about recorded decisions
    Replay {
        /// YAML: `base`, `entities`, `rules`
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
                let by = if of("rule_id").is_empty() { of("matched_by") } else { of("rule_id") };
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
    if report.get("more") == Some(&json!(true)) {
        lines.push(
            "there are more decisions than one replay looks at: narrow the time with --since".to_owned(),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_told_by_direction_with_examples() {
        let report = json!({
            "decisions": 9, "unchanged": 7, "unreplayable": 0, "unreplayable_examples": [], "more": true,
            "newly_denied": {"count": 2, "other": 1, "groups": [{"entity": "mcp_tool:demo/x", "principal": "usr_1",
                "matched_by": "role_deny", "rule_id": "draft[0]/role:user", "count": 1, "examples": ["led_1"]}]},
            "newly_allowed": {"count": 0, "other": 0, "groups": []},
        });
        let text = told(&report);
        assert!(text.starts_with("9 decisions, 7 unchanged\nallow -> deny: 2\n"), "{text}");
        assert!(text.contains("draft[0]/role:user") && text.contains("led_1"), "{text}");
        assert!(text.contains("and 1 of groups") && text.contains("narrow the time"), "{text}");
    }

    #[test]
    fn only_failed_cases_are_listed() {
        let done = json!({"cases": [{"name": "a", "passed": true}, {"name": "b", "passed": false, "why": "it is deny, not allow"}]});
        let text = failures(&done);
        assert!(text.contains("FAIL  b") && text.contains("it is deny") && !text.contains("  a"), "{text}");
    }
}
