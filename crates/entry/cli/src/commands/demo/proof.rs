//! What is left when the calls are over: an explanation, a search for the secrets, a chain that verifies.

use super::stage::Stage;
use super::step::{Outcome, Step};
use crate::client::{Ask, encoded};
use crate::exit::{CliError, Exit};
use crate::paging::Paging;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const VERIFY: Duration = Duration::from_mins(10);

pub async fn explained(stage: &Stage) -> Step {
    let step = Step::new("explain of a denial", "denied by secret_scan, records intact");
    step.came_out(explain(stage).await)
}

async fn explain(stage: &Stage) -> Result<Outcome, CliError> {
    let id =
        stage.remembered().ok_or_else(|| CliError::new(Exit::Failure, "no denial is there to explain"))?;
    let (_, answer) = stage.send(Ask::get(&format!("/api/v1/explain/{}", encoded(&id)))).await?;
    let found = answer.json();
    let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is = |pointer: &str, wanted: &str| found.pointer(pointer).and_then(Value::as_str) == Some(wanted);
    let evaluated = found.pointer("/decision/evaluated_rules").and_then(Value::as_array);
    let ok = answer.status == 200
        && is("/decision/id", &id)
        && is("/decision/decision", "deny")
        && is("/decision/policy", "secret_scan")
        && evaluated.is_some_and(|rules| !rules.is_empty())
        && found.get("intact") == Some(&json!(true));
    let got = format!(
        "{} by {}: {}",
        text("/decision/decision"),
        text("/decision/policy"),
        text("/decision/reason")
    );
    Ok(Outcome { ok, got, ledger_id: Some(text("/decision/ledger_opened")), decision_id: Some(id) })
}

/// Searches every answer of this run, its ledger entries and decision rows, and the logs.
pub async fn nowhere(stage: &Stage) -> Step {
    let step = Step::new("search for the secrets", "in no answer, row, record or log");
    step.came_out(search(stage).await)
}

async fn search(stage: &Stage) -> Result<Outcome, CliError> {
    let what = "the records of this run cannot be read";
    let since = || Ask::get("/api/v1/admin/audit").query("since", Some(stage.since));
    let records = Paging::of(100_000).read(&stage.client, what, 500, since).await?;
    let rows =
        Paging::of(1000).read(&stage.client, what, 200, || Ask::get("/api/v1/admin/decisions")).await?;
    let count = |page: &Value| page.get("items").and_then(Value::as_array).map_or(0, Vec::len);
    let (entries, decisions) = (count(&records), count(&rows));
    stage.hear(records.to_string());
    stage.hear(rows.to_string());
    let logs = logs(stage)?;
    let (answers, found) = stage.search();
    let got = if found {
        "A SECRET".to_owned()
    } else {
        format!("none in {answers} answers, {entries} entries, {decisions} rows, {logs} logs")
    };
    Ok(Outcome { ok: !found && entries > 0 && decisions > 0, got, ..Outcome::default() })
}

/// Hears the logs of tool servers, and that of the server if the demo has started it. Returns how many there were.
fn logs(stage: &Stage) -> Result<usize, CliError> {
    let mut files = Vec::new();
    collect(&stage.location.data_dir.join("logs"), &mut files)?;
    files.extend(stage.log.clone());
    for file in &files {
        stage.hear(String::from_utf8_lossy(&std::fs::read(file)?).into_owned());
    }
    Ok(files.len())
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<(), CliError> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

pub async fn verified(stage: &Stage) -> Step {
    let step = Step::new("audit verify", "intact");
    let outcome = async {
        let ask = Ask::post("/api/v1/admin/audit/verify", &json!({})).timeout(VERIFY);
        let report = stage.client.json("the ledger was not verified", ask).await?;
        let ok = report.get("intact") == Some(&json!(true));
        let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let got = format!(
            "{}, {} records, {} rows",
            if ok { "intact" } else { "NOT INTACT" },
            number("/report/records"),
            number("/report/rows")
        );
        Ok(Outcome { ok, got, ..Outcome::default() })
    };
    step.came_out(outcome.await)
}
