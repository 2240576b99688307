//! `audit payload|erase|retention`: what is kept beside the records, for how long, and its end.

use crate::client::{Ask, Client, encoded};
use crate::commands::admin::users::actor_of;
use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::output::{Output, line};
use serde_json::{Value, json};
use std::time::Duration;
use systemprompt_audit::erase::is_principal;

/// A run over a long ledger takes its time.
const TIMEOUT: Duration = Duration::from_hours(4);

#[derive(Debug, clap::Args)]
pub struct PayloadArgs {
    /// Id of the entry, `led_…`
    id: String,
    /// What the payload is of its record, such as `arguments`, `result`, `before`, `after`, `client`
    role: String,
}

#[derive(Debug, clap::Args)]
pub struct EraseArgs {
    /// Name or id of the user; of one who was deleted, the id
    user: String,
    /// Why; kept as a payload of the erasure's own record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only this class of payloads; repeatable [default: all]
    #[arg(long, value_name = "CLASS", value_parser = ["inference", "tool", "change", "client", "note"])]
    class: Vec<String>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, clap::Subcommand)]
pub enum Retention {
    /// For how long what is kept, and what the last run did
    Show,
    /// Applies the retention now instead of at 03:20 UTC
    Run,
}

pub async fn payload(client: &Client, out: Output, args: PayloadArgs) -> Result<Exit, CliError> {
    let ask =
        Ask::get(&format!("/api/v1/admin/audit/{}", encoded(&args.id))).query("payload", Some(&args.role));
    let body = client.json(&format!("the payload `{}` cannot be read", args.role), ask).await?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    if out.is_text() {
        line(text("text").or(text("base64")).unwrap_or_default())?;
    } else {
        out.document(&body, "")?;
    }
    Ok(Exit::Ok)
}

pub async fn erase(client: &Client, out: Output, args: EraseArgs) -> Result<Exit, CliError> {
    let user =
        if is_principal(&args.user) { args.user.clone() } else { actor_of(client, &args.user).await? };
    if !is_principal(&user) {
        let what = format!("the payloads of {user} were not erased");
        return Err(CliError::new(Exit::Usage, what).why("it is neither the name nor the id of a user"));
    }
    args.confirm.ask(&format!("erase the payloads of {user}, which cannot be taken back"), &args.user)?;
    let body = json!({"subject_user": user, "classes": args.class, "reason": args.reason});
    let ask = Ask::post("/api/v1/admin/audit/erasures", &body).timeout(TIMEOUT);
    let erased = client.json(&format!("the payloads of {user} were not erased"), ask).await?;
    let entries = erased.get("entries").and_then(Value::as_array);
    let entries: Vec<&str> = entries.into_iter().flatten().filter_map(Value::as_str).collect();
    let what = match counts(erased.get("counts"), "").as_str() {
        "" => "nothing was kept of this user".to_owned(),
        what => format!("erased {what}"),
    };
    out.document(&erased, &format!("{what}\nrecorded as {}", entries.join(", ")))?;
    Ok(Exit::Ok)
}

pub async fn retention(client: &Client, out: Output, command: Retention) -> Result<Exit, CliError> {
    let path = "/api/v1/admin/audit/retention";
    match command {
        Retention::Show => {
            let status = client.json("the retention cannot be read", Ask::get(path)).await?;
            out.document(&status, &shown(&status))?;
        }
        Retention::Run => {
            let ask = Ask::post(path, &json!({})).timeout(TIMEOUT);
            let report = client.json("the retention was not applied", ask).await?;
            out.document(&report, &done(&report))?;
        }
    }
    Ok(Exit::Ok)
}

fn shown(status: &Value) -> String {
    let of = |pointer: &str| status.pointer(pointer).map(Value::to_string).unwrap_or_default();
    let list = |pointer: &str, unit: &str| {
        let members = status.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
        members.map(|(name, days)| format!("{name} {days}{unit}")).collect::<Vec<_>>().join(", ")
    };
    let last = match status.get("last") {
        Some(report @ Value::Object(_)) => done(report),
        _ => "no run has ended yet".to_owned(),
    };
    format!(
        "records   {} days; {}; system.* for ever\npayloads  {}\nnext run  {}\n{last}",
        of("/rules/default_days"),
        list("/rules/kinds", " days"),
        list("/rules/payloads", " days"),
        status.get("next_due_iso").and_then(Value::as_str).unwrap_or_default(),
    )
}

/// What a run did, in a line or two.
fn done(report: &Value) -> String {
    let rows = report.get("rows").and_then(Value::as_u64).unwrap_or_default();
    let failed = report.get("failed").and_then(Value::as_str);
    let failed = failed.map(|why| format!("\nended early: {why}")).unwrap_or_default();
    format!(
        "deleted payloads: {}\npruned records: {}, and {rows} rows beside them{failed}",
        counts(report.get("payloads"), "none"),
        counts(report.get("records"), "none"),
    )
}

fn counts(counts: Option<&Value>, none: &str) -> String {
    let counts = counts.and_then(Value::as_object).into_iter().flatten();
    let lines: Vec<String> = counts.map(|(name, count)| format!("{count} {name}")).collect();
    if lines.is_empty() { none.to_owned() } else { lines.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_with_its_counts_and_why_it_ended_early() {
        let report =
            json!({"payloads": {"tool": 3, "client": 1}, "records": {}, "rows": 0, "failed": "stopping"});
        assert_eq!(
            done(&report),
            "deleted payloads: 1 client, 3 tool\npruned records: none, and 0 rows beside them\nended early: stopping"
        );
    }

    #[test]
    fn the_rules_are_shown_in_days() {
        let status = json!({"rules": {"default_days": 400, "kinds": {"admin.*": 1100}, "payloads": {"tool": 90}},
            "next_due_iso": "2026-11-23T03:20:00.000Z", "last": null});
        let text = shown(&status);
        assert!(
            text.starts_with(
                "records   400 days; admin.* 1100 days; system.* for ever\npayloads  tool 90 days\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("no run has ended yet"), "{text}");
    }
}
