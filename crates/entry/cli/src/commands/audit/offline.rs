//! `audit verify --export FILE`: an export, with nothing else at hand than keys and checkpoints that somebody kept.

use super::verify::text;
use crate::exit::{CliError, Exit};
use crate::output::Output;
use serde_json::json;
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
    out.document(&document, &words)?;
    Ok(if intact { Exit::Ok } else { Exit::Invalid })
}
