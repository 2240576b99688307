//! `bench ledger`: `Ledger::commit` in process, callers and writer on the same cores, every commit on disk.

use crate::load::Outcome;
use crate::machine;
use crate::options::{Engine, Options, database_url};
use crate::report::{Report, finished, median};
use anyhow::{Result, ensure};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use systemprompt_audit::payload::PayloadPolicy;
use systemprompt_audit::{Draft, EntryKind, GroupOptions, Ledger, LedgerOptions, MIGRATIONS, Unit};
use systemprompt_database::{Db, migrate};
use systemprompt_events::Hub;
use systemprompt_leak::Scanner;
use systemprompt_models::{SystemClock, Tasks};
use tokio::task::JoinSet;
use xtask::process::target;

pub fn bench(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(target())?;
    let mut report = Report::new(
        "ledger",
        "Ledger",
        &machine::describe(folder.path())?,
        "`Ledger::commit` in process, one record of about 600 bytes a unit, callers and writer on the same cores, full sync. \
         Each caller commits its next unit when it holds the permit for the last one. Records counted afterwards.",
        "50 and 256 callers: 25,000 a second on SQLite, 15,000 on PostgreSQL, p99 at most 10 ms, at most 20 µs CPU a record; \
         1 caller: p50 at most 1.3 × one fdatasync.",
    );
    let mut rows = Vec::new();
    for engine in &options.engines {
        for callers in options.connections_or(&[1, 16, 50, 256]) {
            rows.push(finished(measure(*engine, callers, options)?));
        }
    }
    let head = ["engine", "callers", "units/s", "p50 ms", "p99 ms", "CPU µs/unit", "records = units"];
    report.table(&head, &rows);
    report.publish(options)
}

fn measure(engine: Engine, callers: usize, options: &Options) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..options.runs_or(3) {
        let folder = tempfile::tempdir_in(target())?;
        let server = engine.server()?;
        let url = database_url(server.as_ref(), folder.path());
        let run = runtime.block_on(run(&url, folder.path(), callers, options))?;
        let values = [run.outcome.rate(), run.outcome.millis(50.0), run.outcome.millis(99.0), run.cpu_micros];
        figures.iter_mut().zip(values).for_each(|(list, value)| list.push(value));
    }
    let [rate, p50, p99, cpu] = figures.map(median);
    Ok(vec![
        engine.name().to_owned(),
        callers.to_string(),
        format!("{rate:.0}"),
        format!("{p50:.2}"),
        format!("{p99:.2}"),
        format!("{cpu:.1}"),
        "yes".to_owned(),
    ])
}

struct Run {
    outcome: Outcome,
    /// Callers, writer and, on PostgreSQL, the client side of the connection.
    cpu_micros: f64,
}

async fn run(url: &str, folder: &Path, callers: usize, options: &Options) -> Result<Run> {
    let db = Db::connect(url, 4).await?;
    migrate(&db, MIGRATIONS).await?;
    let tasks = Tasks::default();
    let ledger = Ledger::start(&db, &[], self::options(folder, &db), Arc::new(SystemClock), &tasks).await?;
    let warm_up =
        if db.engine() == systemprompt_database::Engine::Postgres { options.run } else { options.warm_up() };
    commit_until(&ledger, callers, Instant::now() + warm_up).await?;
    reuse_log(&db).await?;
    let cpu = machine::cpu(std::process::id())?;
    let (before, start) = (ledger.metrics().records, Instant::now());
    let mut outcome = commit_until(&ledger, callers, start + options.run).await?;
    outcome.elapsed = start.elapsed();
    let used = machine::cpu(std::process::id())?.saturating_sub(cpu);
    let written = ledger.metrics().records - before;
    ensure!(written == outcome.measured, "{} units, but {written} records", outcome.measured);
    ledger.stop().await;
    tasks.drain(Duration::from_secs(5)).await;
    db.close().await;
    Ok(Run { cpu_micros: used.as_secs_f64() * 1e6 / outcome.measured.max(1) as f64, outcome })
}

/// Makes PostgreSQL keep the log files that the warm-up filled, as a server does that has run for minutes. A new cluster has
/// none to reuse and writes 16 MiB of zeros for each, with every caller waiting for it.
async fn reuse_log(db: &Db) -> Result<()> {
    if let Db::Postgres(pool) = db {
        sqlx::query("CHECKPOINT").execute(pool).await?;
    }
    Ok(())
}

/// A ledger in `folder` that is not stopped by a full disk and makes no checkpoints.
pub fn options(folder: &Path, db: &Db) -> LedgerOptions {
    LedgerOptions {
        node_id: "bench".to_owned(),
        origin_host: "localhost".to_owned(),
        data_dir: folder.to_path_buf(),
        min_free_bytes: 0,
        group: GroupOptions::for_engine(db.engine()),
        hub: Hub::default(),
        leak: Scanner::default(),
        payloads: PayloadPolicy::default(),
        checkpoints: None,
    }
}

async fn commit_until(ledger: &Ledger, callers: usize, end: Instant) -> Result<Outcome> {
    let mut set = JoinSet::new();
    for caller in 0..callers {
        let ledger = ledger.clone();
        set.spawn(async move {
            let mut outcome = Outcome::new()?;
            while Instant::now() < end {
                let mut unit = Unit::new();
                unit.record(draft(caller));
                let start = Instant::now();
                let permit = ledger.commit(unit).await?;
                outcome.latency.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
                outcome.measured += 1;
                drop(permit);
            }
            anyhow::Ok(outcome)
        });
    }
    let mut total = Outcome::new()?;
    while let Some(outcome) = set.join_next().await {
        total.add(&outcome??)?;
    }
    Ok(total)
}

/// A decision of about 600 bytes in canonical form.
fn draft(caller: usize) -> Draft {
    Draft::system(EntryKind::AuthzDecision, "allow")
        .with_subject("mcp_server", "demo")
        .with_reason("rule_allows")
        .with_policy("authz")
        .with("caller", caller as i64)
        .with("roles", vec!["user", "engineering", "platform"])
        .with("department", "engineering")
        .with("rule_id", "0199a1c2-7f3e-7c55-9b1f-5c2d8a4e6b10")
        .with("set_hash", "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9")
        .with("bands", vec!["deny", "user", "role", "department", "default"])
}
