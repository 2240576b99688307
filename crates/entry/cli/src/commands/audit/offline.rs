//! `audit verify --export FILE`: an export, with nothing else at hand than keys and checkpoints that somebody kept.

use super::verify::text;
use crate::exit::{CliError, Exit};
use crate::output::{Output, cell};
use serde_json::{Value, json};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use systemprompt_audit::verify::offline::{ExportError, OfflineScope, verify_export};

/// How much of the file is read at once.
const BUFFER: usize = 1 << 20;

pub(super) fn run(out: Output, file: &Path, scope: &OfflineScope) -> Result<Exit, CliError> {
    let unreadable = |why: &dyn std::fmt::Display, exit| {
        CliError::new(exit, format!("{} cannot be verified", file.display())).why(why)
    };
    let opened = File::open(file).map_err(|error| unreadable(&error, Exit::Failure))?;
    let report = verify_export(BufReader::with_capacity(BUFFER, opened), scope).map_err(|error| {
        let exit = if matches!(error, ExportError::NoSuchStream(_)) { Exit::NotFound } else { Exit::Failure };
        unreadable(&error, exit)
    })?;
    let intact = report.is_intact();
    let document =
        json!({"intact": intact, "origin_proven": intact && !scope.structure_only, "report": report});
    let mut words = text(&document);
    if intact && scope.structure_only {
        words = format!("consistent, origin not proven: {}", words.trim_start_matches("intact: "));
    }
    words.push_str(&selections(&document));
    out.document(&document, &words)?;
    Ok(if intact { Exit::Ok } else { Exit::Invalid })
}

/// A line for each stream of which the file does not claim to hold everything.
fn selections(document: &Value) -> String {
    let exported = document.pointer("/report/exported").and_then(Value::as_array).into_iter().flatten();
    let is = |exported: &Value, name: &str| exported.get(name).and_then(Value::as_bool).unwrap_or_default();
    let lines = exported.filter(|exported| !is(exported, "complete")).map(|exported| {
        let of = |name: &str| exported.get(name).map(cell).unwrap_or_default();
        let what = if is(exported, "filtered") { "some records of" } else { "records" };
        format!(
            "\n  {}: {what} {} to {}, a selection: proves what is in it, not that nothing was left out",
            of("stream"),
            of("from"),
            of("to")
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_called_one() {
        let part = |complete, filtered| json!({"stream": "s", "from": 2, "to": 9, "complete": complete, "filtered": filtered});
        let told = |parts: Value| selections(&json!({"report": {"exported": parts}}));
        assert_eq!(told(json!([part(true, false)])), "");
        let both = told(json!([part(false, true), part(false, false)]));
        let lines: Vec<&str> = both.lines().skip(1).collect();
        let rest = "2 to 9, a selection: proves what is in it, not that nothing was left out";
        assert_eq!(lines, [format!("  s: some records of {rest}"), format!("  s: records {rest}")]);
    }
}
