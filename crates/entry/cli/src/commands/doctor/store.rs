//! The database, its durability, its schema, the end of the ledger, and whether the clock went back.

use super::{Check, State};
use crate::database;
use systemprompt_audit::repository::streams::Stream;
use systemprompt_audit::verify::{COPY, Scope, verify};
use systemprompt_audit::{Filter, LedgerReader};
use systemprompt_config::Loaded;
use systemprompt_database::{Db, durability, status};
use systemprompt_models::clock::iso8601;
use systemprompt_models::{Clock, SystemClock};
use systemprompt_runtime::{checkpoints, rooms};

/// Records of each stream that are verified.
const TAIL: i64 = 1024;
/// The oldest PostgreSQL that is supported.
const POSTGRES: i64 = 150_000;
/// How long a witness may lack a checkpoint.
const WITNESS_LAG_MS: i64 = 3_600_000;
/// Age of a record that a sink has not taken from which on it is told.
const SINK_LAG_S: u64 = 300;
/// Difference of clocks that says nothing.
const CLOCK_SLACK_MS: i64 = 2_000;

pub(super) async fn check(loaded: &Loaded, checks: &mut Vec<Check>) {
    let db = match database::open(loaded).await {
        Ok(db) => db,
        Err(error) => {
            let why = error.why.map_or_else(String::new, |why| format!(": {why}"));
            let fix = error.fix.unwrap_or_else(|| "systemprompt up".to_owned());
            checks.push(Check::fail("database", format!("{}{why}", error.what), fix));
            let rest = ["durability", "schema", "ledger", "witnesses", "sinks", "clock"];
            checks.extend(rest.map(|name| Check::skip(name, "the database cannot be opened")));
            return;
        }
    };
    checks.push(match db.ping().await {
        Ok(()) => Check::pass("database", db.engine().as_str()),
        Err(error) => Check::fail("database", error, "check whether the database runs"),
    });
    durable(&db, checks).await;
    let current = schema(&db, checks).await;
    if current {
        ledger(loaded, &db, checks).await;
        witnesses(loaded, &db, checks).await;
        sinks(loaded, &db, checks).await;
        clock(&db, checks).await;
    } else {
        checks.extend(
            ["ledger", "witnesses", "sinks", "clock"]
                .map(|name| Check::skip(name, "the schema is not current")),
        );
    }
    db.close().await;
}

async fn durable(db: &Db, checks: &mut Vec<Check>) {
    const CHECK: &str = "durability";
    let settings = match durability(db).await {
        Ok(settings) => settings,
        Err(error) => return checks.push(Check::fail(CHECK, error, "check whether the database runs")),
    };
    let before = checks.len();
    for (name, value) in &settings {
        let detail = format!("{name} is {value}");
        match (name.as_str(), value.as_str()) {
            ("fsync" | "full_page_writes", "off") => {
                let fix = format!("ALTER SYSTEM SET {name} = on; then reload PostgreSQL");
                checks.push(Check::fail(CHECK, format!("{detail}: a crash loses what was promised"), fix));
            }
            ("synchronous_commit", "off") => checks.push(Check::fail(
                CHECK,
                format!("{detail}: a crash loses decisions that were acknowledged"),
                "ALTER SYSTEM SET synchronous_commit = on; then reload PostgreSQL",
            )),
            ("server_version_num", number) if number.parse().is_ok_and(|n: i64| n < POSTGRES) => {
                checks.push(Check::fail(CHECK, detail, "use PostgreSQL 15 or newer"));
            }
            ("quick_check", found) if found != "ok" => {
                checks.push(Check::fail(CHECK, format!("the file is damaged: {found}"), "restore a backup"));
            }
            ("journal_mode", mode) if mode != "wal" => {
                checks.push(Check::fail(CHECK, detail, "move the data folder to a local file system"));
            }
            _ => {}
        }
    }
    if checks.len() == before {
        let list: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        checks.push(Check::pass(CHECK, list.join(", ")));
    }
}

/// Whether the schema has every step.
async fn schema(db: &Db, checks: &mut Vec<Check>) -> bool {
    let steps = status(db, &rooms::migrations()).await;
    let (check, current) = match steps {
        Err(error) => (Check::fail("schema", error, "use the binary that made it, or a newer one"), false),
        Ok(steps) => {
            let missing = steps.iter().filter(|step| !step.applied).count();
            let detail = format!("{} of {} steps applied", steps.len() - missing, steps.len());
            let wrong = (missing > 0).then(|| (State::Fail, "systemprompt db migrate".to_owned()));
            (Check::of("schema", detail, wrong), missing == 0)
        }
    };
    checks.push(check);
    current
}

async fn ledger(loaded: &Loaded, db: &Db, checks: &mut Vec<Check>) {
    const CHECK: &str = "ledger";
    let reader = LedgerReader::new(db.clone());
    let streams = match reader.streams().await {
        Ok(streams) => streams,
        Err(error) => return checks.push(Check::fail(CHECK, error, "check whether the database runs")),
    };
    let (keys, outside) = checkpoints::trust(loaded, &reader).await.unwrap_or_default();
    let fix = "`systemprompt audit verify` shows all of it; keep the file as evidence";
    if outside.is_copy_altered {
        checks.push(Check::fail(CHECK, format!("checkpoint_altered in {COPY}"), fix));
    }
    for orphan in reader.orphan_streams().await.unwrap_or_default() {
        let detail = format!("stream_missing: entries of {orphan} have lost their stream");
        checks.push(Check::fail(CHECK, detail, fix));
    }
    let mut records = 0;
    // A stream that a repair has opened has no record before the next start.
    for stream in streams.iter().filter(|stream| stream.head_seq > 0) {
        let from = Some((stream.head_seq - TAIL + 1).max(1));
        let scope = Scope {
            stream: Some(stream.stream.clone()),
            from,
            to: Some(stream.head_seq),
            keys: keys.clone(),
            ..Scope::default()
        };
        match verify(&reader, &[], &scope).await {
            Err(error) => checks.push(Check::fail(CHECK, error, "check whether the database runs")),
            Ok(report) => {
                records += report.records;
                let found = report.findings.first().map(|f| format!("{} at {} {}", f.check, f.stream, f.seq));
                let found = match found {
                    None => cut(&reader, stream).await,
                    found => found,
                };
                checks.extend(found.map(|detail| Check::fail(CHECK, detail, fix)));
            }
        }
    }
    if !checks.iter().any(|check| check.name == CHECK) {
        let detail = format!("the last {records} records of {} streams verify", streams.len());
        checks.push(Check::pass(CHECK, detail));
    }
}

/// Whether the record is gone that a stream's head names, or is another one. A server may write meanwhile: what stands behind the
/// head as it was read is not looked at.
async fn cut(reader: &LedgerReader, stream: &Stream) -> Option<String> {
    if stream.head_seq == 0 {
        return None;
    }
    let last = match reader.page(&stream.stream, stream.head_seq - 1, 1).await {
        Ok(rows) => rows.into_iter().find(|row| row.seq == stream.head_seq),
        Err(error) => return Some(format!("the last record of {} cannot be read: {error}", stream.stream)),
    };
    match last {
        Some(last) if last.hash == stream.head_hash => None,
        Some(_) => {
            Some(format!("chain_broken at {} {}: not the head's hash", stream.stream, stream.head_seq))
        }
        None => Some(format!("tail_missing at {} {}", stream.stream, stream.head_seq)),
    }
}

/// Whether the witnesses have what they should (AUD-44).
async fn witnesses(loaded: &Loaded, db: &Db, checks: &mut Vec<Check>) {
    const CHECK: &str = "witnesses";
    checks.push(match checkpoints::unwitnessed_ms(loaded, &LedgerReader::new(db.clone())).await {
        Err(error) => Check::fail(CHECK, error, "check whether the database runs"),
        Ok(None) => Check::pass(CHECK, "none: checkpoints are kept on this machine alone (audit.witness)"),
        Ok(Some(age)) if age > WITNESS_LAG_MS => {
            let detail = format!("a checkpoint has not reached every witness for {} min", age / 60_000);
            Check::warn(CHECK, detail, "the log names the witness that fails, and why")
        }
        Ok(Some(age)) => Check::pass(CHECK, format!("the oldest that one lacks is {} s old", age / 1000)),
    });
}

/// Whether the sinks have what they should (AUD-63).
async fn sinks(loaded: &Loaded, db: &Db, checks: &mut Vec<Check>) {
    const CHECK: &str = "sinks";
    let lags = match systemprompt_runtime::sinks::lags(loaded, &LedgerReader::new(db.clone())).await {
        Ok(lags) => lags,
        Err(error) => return checks.push(Check::fail(CHECK, error, "check whether the database runs")),
    };
    if lags.is_empty() {
        return checks.push(Check::pass(CHECK, "none: records stay in the database (audit.sinks)"));
    }
    for lag in lags {
        let why = lag.last_error.map_or_else(String::new, |error| format!(": {error}"));
        let detail =
            format!("{} lacks {} records, the oldest is {} s old{why}", lag.name, lag.records, lag.seconds);
        let fix = "see to the other side; the records are kept and come as soon as it takes them".to_owned();
        let wrong = (lag.seconds > SINK_LAG_S).then_some((State::Warn, fix));
        checks.push(Check::of(CHECK, detail, wrong));
    }
}

/// A clock behind the last record was set back: times of records would stand still until it catches up.
async fn clock(db: &Db, checks: &mut Vec<Check>) {
    let last = LedgerReader::new(db.clone()).filtered(&Filter::default(), None, 1).await;
    let last = last.ok().and_then(|rows| rows.first().map(|row| row.at));
    let now = SystemClock.now();
    checks.push(match last {
        Some(at) if at > now + CLOCK_SLACK_MS => {
            let detail = format!("{} is before the last record ({})", iso8601(now), iso8601(at));
            Check::fail("clock", detail, "let NTP set the clock")
        }
        _ => Check::pass("clock", iso8601(now)),
    });
}
