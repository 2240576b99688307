//! `audit verify`: by the server, or on the database when no server runs. Reading takes nothing away from a running one.

use crate::client::{Ask, Client};
use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, cell, note, rows};
use serde_json::{Value, json};
use std::time::Duration;
use systemprompt_audit::LedgerReader;
use systemprompt_audit::verify::{Scope, VerifyError, verify};
use systemprompt_database::Db;
use systemprompt_runtime::rooms::registry;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this stream
    #[arg(long)]
    stream: Option<String>,
    /// First sequence number
    #[arg(long, value_name = "SEQ")]
    from: Option<i64>,
    /// Last sequence number
    #[arg(long, value_name = "SEQ")]
    to: Option<i64>,
}

/// A long ledger takes its time.
const TIMEOUT: Duration = Duration::from_hours(1);

pub async fn run(globals: &Globals, out: Output, offline: bool, args: Args) -> Result<Exit, CliError> {
    let answered = if offline { None } else { Some(by_server(globals, &args).await) };
    let report = match answered {
        None => on_database(globals, &args).await?,
        // Only where the database is the one that was meant.
        Some(Err(error)) if error.exit == Exit::Unreachable && globals.url.is_none() => {
            note("no server answers")?;
            on_database(globals, &args).await?
        }
        Some(report) => report?,
    };
    out.document(&report, &text(&report))?;
    let intact = report.get("intact").and_then(Value::as_bool).unwrap_or_default();
    Ok(if intact { Exit::Ok } else { Exit::Invalid })
}

async fn by_server(globals: &Globals, args: &Args) -> Result<Value, CliError> {
    let ask = Ask::post("/api/v1/admin/audit/verify", &json!({}))
        .query("stream", args.stream.as_ref())
        .query("from", args.from)
        .query("to", args.to);
    Client::connect(globals)?.json("the ledger was not verified", ask.timeout(TIMEOUT)).await
}

async fn on_database(globals: &Globals, args: &Args) -> Result<Value, CliError> {
    let loaded = database::load(globals)?;
    let db = database::open(&loaded).await?;
    note("verifying the database directly")?;
    let report = read(&db, &loaded.profile.extensions.disabled, args).await;
    db.close().await;
    report
}

async fn read(db: &Db, disabled: &[String], args: &Args) -> Result<Value, CliError> {
    let what = "the ledger was not verified";
    let rooms = registry(disabled).map_err(|e| CliError::new(Exit::Invalid, what).why(e))?;
    let scope = Scope { stream: args.stream.clone(), from: args.from, to: args.to };
    let report = verify(&LedgerReader::new(db.clone()), &rooms.tables(), &scope).await;
    let report = report.map_err(|error| match error {
        VerifyError::NoSuchStream(_) => CliError::new(Exit::NotFound, what).why(error),
        VerifyError::Read(cause) => CliError::new(Exit::Failure, what)
            .why(cause)
            .fix("`systemprompt db status` shows whether the schema is there"),
    })?;
    Ok(json!({"intact": report.is_intact(), "report": report}))
}

fn text(report: &Value) -> String {
    let of = |pointer: &str| report.pointer(pointer).map(cell).unwrap_or_default();
    let size = format!(
        "{} records in {} streams, {} rows beside them",
        of("/report/records"),
        of("/report/streams"),
        of("/report/rows")
    );
    let findings = report.pointer("/report/findings").and_then(Value::as_array);
    let findings = findings.map(Vec::as_slice).unwrap_or_default();
    if findings.is_empty() {
        return format!("intact: {size}");
    }
    let lines = findings.iter().map(|finding| {
        let of = |name: &str| finding.get(name).map(cell).unwrap_or_default();
        let place = format!("{} {}", of("stream"), of("seq"));
        vec![of("check"), place, format!("expected {}", of("expected")), format!("found {}", of("found"))]
    });
    let more = report.pointer("/report/more").and_then(Value::as_u64).unwrap_or_default();
    let rest = if more > 0 { format!("\nand {more} more") } else { String::new() };
    format!("{}{rest}\nNOT INTACT: {size}", rows(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_intact_or_what_was_found_where() {
        let report = |findings: Value| json!({"report": {"records": 3, "streams": 1, "rows": 2, "more": 0, "findings": findings}});
        assert_eq!(text(&report(json!([]))), "intact: 3 records in 1 streams, 2 rows beside them");
        let finding = json!({"check": "gap", "stream": "s", "seq": 2, "expected": "seq 2", "found": "seq 3"});
        let found = text(&report(json!([finding])));
        assert!(found.starts_with("gap  s 2  expected seq 2  found seq 3\nNOT INTACT"), "{found}");
    }
}
