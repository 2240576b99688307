//! `audit verify`: by the server, or on the database when no server runs. Reading takes nothing away from a running one. With
//! `--proof` one proof is checked with nothing else at hand.

use crate::client::{Ask, Client};
use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, cell, line, note, rows};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use systemprompt_audit::note::{self as notes, Note, VerifierKey};
use systemprompt_audit::proof::InclusionProof;
use systemprompt_audit::verify::offline::OfflineScope;
use systemprompt_audit::verify::{LIMITS, Scope, VerifyError, verify};
use systemprompt_audit::{LedgerReader, ReadError};
use systemprompt_config::Loaded;
use systemprompt_database::Db;
use systemprompt_models::span::{Moment, parse_moment};
use systemprompt_models::{Clock, Millis, SystemClock};
use systemprompt_runtime::checkpoints::trust;
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
    /// Records from this moment on: 2026-11-22, 2026-11-22T04:06:17Z, or 15m (ago)
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Moment>,
    /// A public key to trust, `<name>+<8 hex digits>+<base64>`; for the streams that keys name, no other counts
    #[arg(long, value_name = "VKEY")]
    key: Vec<VerifierKey>,
    /// A file of checkpoints that was kept elsewhere
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Verifies this file of `audit export` and nothing else; keys come from --key, never from the file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "since", "proof"])]
    export: Option<PathBuf>,
    /// With --export: only that the file fits itself, whoever made it
    #[arg(long, requires = "export", conflicts_with = "key")]
    structure_only: bool,
    /// Checks this proof of `audit proof` with the keys alone
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with_all = ["stream", "from", "to", "since", "checkpoint"])]
    proof: Option<PathBuf>,
    /// Says what verification shows and what it cannot show
    #[arg(long, conflicts_with_all = ["stream", "from", "to", "since", "key", "checkpoint", "export", "structure_only", "proof"])]
    explain: bool,
}

impl Args {
    /// In epoch milliseconds.
    fn since(&self) -> Option<Millis> {
        self.since.map(|moment| moment.at(SystemClock.now()))
    }
}

/// A long ledger takes its time.
const TIMEOUT: Duration = Duration::from_hours(1);
/// Largest file of checkpoints or proof that is read.
const MAX_FILE: u64 = 4 << 20;

pub async fn run(globals: &Globals, out: Output, offline: bool, args: Args) -> Result<Exit, CliError> {
    if args.explain {
        line(LIMITS.trim_end())?;
        return Ok(Exit::Ok);
    }
    if let Some(file) = &args.proof {
        return proof(out, file, &args.key);
    }
    let kept = args.checkpoint.iter().map(|file| read_notes(file)).collect::<Result<Vec<_>, _>>()?;
    if let Some(file) = &args.export {
        let notes = kept.into_iter().flat_map(|(_, notes)| notes).collect();
        let (stream, keys, structure_only) = (args.stream.clone(), args.key.clone(), args.structure_only);
        return super::offline::run(out, file, &OfflineScope { stream, keys, notes, structure_only });
    }
    let answered = if offline { None } else { Some(by_server(globals, &args, &kept).await) };
    let report = match answered {
        None => on_database(globals, &args, &kept).await?,
        // Only where the database is the one that was meant.
        Some(Err(error)) if error.exit == Exit::Unreachable && globals.url.is_none() => {
            note("no server answers")?;
            on_database(globals, &args, &kept).await?
        }
        Some(report) => report?,
    };
    out.document(&report, &text(&report))?;
    let intact = report.get("intact").and_then(Value::as_bool).unwrap_or_default();
    Ok(if intact { Exit::Ok } else { Exit::Invalid })
}

/// The text of a file with what it holds.
fn read_file(file: &Path) -> Result<String, CliError> {
    let unreadable = |why: &dyn std::fmt::Display| {
        CliError::new(Exit::Failure, format!("{} cannot be read", file.display())).why(why)
    };
    let meta = file.metadata().map_err(|error| unreadable(&error))?;
    if meta.len() > MAX_FILE {
        return Err(unreadable(&"it has more than 4 MiB"));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(&error))
}

fn read_notes(file: &Path) -> Result<(String, Vec<Note>), CliError> {
    let text = read_file(file)?;
    match notes::split(&text) {
        Ok(found) => Ok((text, found)),
        Err(error) => {
            Err(CliError::new(Exit::Failure, format!("{} holds no checkpoints", file.display())).why(error))
        }
    }
}

/// Checks a proof; it needs no profile, no database and no server.
fn proof(out: Output, file: &Path, keys: &[VerifierKey]) -> Result<Exit, CliError> {
    let text = read_file(file)?;
    let proof: InclusionProof = serde_json::from_str(&text).map_err(|error| {
        CliError::new(Exit::Failure, format!("{} holds no proof", file.display())).why(error)
    })?;
    match proof.verify(keys) {
        Ok(checkpoint) => {
            let (size, seq) = (checkpoint.size, proof.leaf_index + 1);
            let document = json!({"intact": true, "origin": checkpoint.origin, "seq": seq, "size": size});
            let text = format!("intact: record {seq} of the {size} that {} has signed", checkpoint.origin);
            out.document(&document, &text)?;
            Ok(Exit::Ok)
        }
        Err(fault) => {
            let why = fault.to_string();
            out.document(&json!({"intact": false, "why": why}), &format!("NOT INTACT: {why}"))?;
            Ok(Exit::Invalid)
        }
    }
}

async fn by_server(globals: &Globals, args: &Args, kept: &[(String, Vec<Note>)]) -> Result<Value, CliError> {
    let keys: Vec<String> = args.key.iter().map(ToString::to_string).collect();
    let texts: Vec<&str> = kept.iter().map(|(text, _)| text.as_str()).collect();
    let ask = Ask::post("/api/v1/admin/audit/verify", &json!({"keys": keys, "checkpoints": texts}))
        .query("stream", args.stream.as_ref())
        .query("from", args.from)
        .query("to", args.to)
        .query("since", args.since());
    let answer = Client::connect(globals)?.json("the ledger was not verified", ask.timeout(TIMEOUT)).await;
    // What the server would not take was asked for wrongly; 7 is for a ledger that is not intact.
    answer.map_err(
        |error| if error.exit == Exit::Invalid { CliError { exit: Exit::Usage, ..error } } else { error },
    )
}

async fn on_database(
    globals: &Globals,
    args: &Args,
    kept: &[(String, Vec<Note>)],
) -> Result<Value, CliError> {
    let loaded = database::load(globals)?;
    let db = database::open(&loaded).await?;
    note("verifying the database directly")?;
    let report = read(&loaded, &db, args, kept).await;
    db.close().await;
    report
}

async fn read(
    loaded: &Loaded,
    db: &Db,
    args: &Args,
    kept: &[(String, Vec<Note>)],
) -> Result<Value, CliError> {
    let what = "the ledger was not verified";
    let unreadable = |cause: ReadError| {
        CliError::new(Exit::Failure, what)
            .why(cause)
            .fix("`systemprompt db status` shows whether the schema is there")
    };
    let rooms = registry(&loaded.profile.extensions.disabled)
        .map_err(|e| CliError::new(Exit::Invalid, what).why(e))?;
    let reader = LedgerReader::new(db.clone());
    let (own, outside) = trust(loaded, &reader).await.map_err(unreadable)?;
    let (mut notes, is_copy_altered) = (outside.notes, outside.is_copy_altered);
    let given = |key: &VerifierKey| args.key.iter().any(|given| given.name() == key.name());
    let keys = args.key.iter().cloned().chain(own.into_iter().filter(|key| !given(key))).collect();
    notes.extend(kept.iter().flat_map(|(_, notes)| notes.iter().cloned()));
    let (stream, from, to, since) = (args.stream.clone(), args.from, args.to, args.since());
    let scope = Scope { stream, from, to, since, keys, notes, is_copy_altered };
    let report = verify(&reader, &rooms.tables(), &scope).await;
    let report = report.map_err(|error| match error {
        VerifyError::NoSuchStream(_) => CliError::new(Exit::NotFound, what).why(error),
        VerifyError::EmptyRange | VerifyError::BehindEnd { .. } => {
            CliError::new(Exit::Usage, what).why(error)
        }
        VerifyError::Read(cause) => unreadable(cause),
    })?;
    Ok(json!({"intact": report.is_intact(), "report": report}))
}

pub(super) fn text(report: &Value) -> String {
    let of = |pointer: &str| report.pointer(pointer).map(cell).unwrap_or_default();
    let size = format!(
        "{} records in {} streams, {} rows beside them, {} checkpoints",
        of("/report/records"),
        of("/report/streams"),
        of("/report/rows"),
        of("/report/checkpoints")
    );
    let findings = report.pointer("/report/findings").and_then(Value::as_array);
    let findings = findings.map(Vec::as_slice).unwrap_or_default();
    if findings.is_empty() {
        return format!("intact: {size}{}{}", payloads(report), signed(report));
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

/// What is kept beside the records, and what is gone by a record's own word.
fn payloads(report: &Value) -> String {
    let of =
        |name: &str| report.pointer(&format!("/report/{name}")).and_then(Value::as_u64).unwrap_or_default();
    let (kept, erased, expired, pruned) = (of("payloads"), of("erased"), of("expired"), of("pruned"));
    if kept + erased + expired + pruned == 0 {
        return String::new();
    }
    // An export holds no payloads.
    if kept + erased + expired == 0 {
        return format!("\n  {pruned} records pruned, as records of retention say");
    }
    format!(
        "\n  {kept} payloads as their records say; {erased} erased, {expired} expired, {pruned} records pruned"
    )
}

/// Up to where the signatures vouch, and for what it takes to believe them.
fn signed(report: &Value) -> String {
    let streams = report.pointer("/report/signed").and_then(Value::as_array).into_iter().flatten();
    let lines = streams.map(|signed| {
        let of = |name: &str| signed.get(name).map(cell).unwrap_or_default();
        let is_trusted = signed.get("trusted").and_then(Value::as_bool).unwrap_or_default();
        let key = if is_trusted { "a trusted key" } else { "a key that only the database names" };
        format!("\n  {} is signed up to {} with {key}", of("stream"), of("size"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[arg(long, global = true, env = "SYSTEMPROMPT_TESTED_DATA_DIR")]
        data_dir: Option<String>,
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_limits_are_told_beside_global_options_and_times_are_read_as_elsewhere() {
        let told = Line::try_parse_from(["verify", "--data-dir", "d", "--explain"]).unwrap();
        assert!(told.args.explain && told.data_dir.is_some());
        assert!(Line::try_parse_from(["verify", "--explain", "--stream", "s"]).is_err());
        let since =
            |text: &str| Line::try_parse_from(["verify", "--since", text]).map(|line| line.args.since());
        assert_eq!(since("1970-01-02").unwrap(), Some(86_400_000));
        assert!(since("1h").unwrap().is_some_and(|at| at < SystemClock.now()));
        assert!(since("soon").is_err());
    }

    #[test]
    fn a_report_says_intact_or_what_was_found_where() {
        let report = |findings: Value| {
            json!({"report": {"records": 3, "streams": 1, "rows": 2, "checkpoints": 1, "more": 0, "findings": findings,
                "signed": [{"stream": "s", "size": 2, "trusted": true}]}})
        };
        assert_eq!(
            text(&report(json!([]))),
            "intact: 3 records in 1 streams, 2 rows beside them, 1 checkpoints\n  s is signed up to 2 with a trusted key"
        );
        let finding = json!({"check": "gap", "stream": "s", "seq": 2, "expected": "seq 2", "found": "seq 3"});
        let found = text(&report(json!([finding])));
        assert!(found.starts_with("gap  s 2  expected seq 2  found seq 3\nNOT INTACT"), "{found}");
    }
}
