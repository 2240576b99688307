//! `bench replay`: a million recorded decisions against a draft of rules. `bench ledger-verify`: an export of a million records,
//! verified with nothing else at hand.

use crate::machine;
use crate::options::{Engine, Options, database_url};
use crate::report::{Report, finished, median};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use systemprompt_audit::export::{ExportRequest, Exporter, Format};

use systemprompt_audit::signing_key::{Signers, make};
use systemprompt_audit::verify::offline::{OfflineScope, verify_export};
use systemprompt_audit::{
    CheckpointOptions, Draft, EntryKind, Ledger, LedgerOptions, MIGRATIONS, Unit, Witnesses,
};
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_config::services::governance::GovernanceConfig;
use systemprompt_database::{Db, migrate};
use systemprompt_models::ids::RuleId;
use systemprompt_models::{Millis, SystemClock, Tasks};
use systemprompt_security::authz::draft::Tried;
use systemprompt_security::authz::replay::{ReplayScope, ReplaySource, replay};
use systemprompt_security::authz::{
    Access, AccessRule, Entity, EntityKind, GovernanceDecisionRepository, RuleSet, RuleType,
};
use systemprompt_security::governance::replay::TriedPolicies;
use systemprompt_security::governance::{Parts, RateLimiter, SecretScanner};
use tokio::task::JoinSet;
use xtask::process::target;

const RECORDS: usize = 1_000_000;
/// Records of a unit, and units that wait at once while the ledger is filled.
const UNIT: usize = 16;
const WRITERS: usize = 64;
const SERVERS: usize = 50;
const USERS: usize = 500;

pub fn bench_replay(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(target())?;
    let mut report = Report::new(
        "replay",
        "Replay of a policy",
        &machine::describe(folder.path())?,
        &format!(
            "{RECORDS} recorded decisions of {USERS} users on {SERVERS} servers, decided anew with a draft that denies one server \
             to one role; in process, one task. Memory is the peak above what was resident before."
        ),
        "a million decisions in at most 10 s and 64 MiB.",
    );
    let mut rows = Vec::new();
    for engine in &options.engines {
        rows.push(finished(measure_replay(*engine, options)?));
    }
    report.table(&["engine", "decisions", "flips", "seconds", "decisions/s", "memory MiB"], &rows);
    report.publish(options)
}

pub fn bench_verify(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(target())?;
    let mut report = Report::new(
        "ledger-verify",
        "Verification of an export",
        &machine::describe(folder.path())?,
        &format!(
            "A `jsonl` export of {RECORDS} records with its checkpoints, verified from the file with the key alone, one core: \
             canonical form, hash, chain, sequence, time, tree, signatures. Memory is the peak above what was resident before."
        ),
        "a million records in at most 8 s and 64 MiB.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
    let (file, key) = runtime.block_on(async {
        let filled = Filled::new(&url, folder.path()).await?;
        let key = filled.ledger.vkey().context("a key")?;
        let path = folder.path().join("ledger.jsonl");
        let mut out = BufWriter::new(File::create(&path)?);
        let request = ExportRequest::all(Format::Jsonl);
        let mut exporter = Exporter::open(filled.ledger.reader(), None, request).await?;
        while let Some(piece) = exporter.next().await? {
            out.write_all(piece.as_bytes())?;
        }
        out.flush()?;
        filled.stop().await;
        anyhow::Ok((path, key))
    })?;
    let size = file.metadata()?.len();
    let (mut seconds, mut memory, mut records) = (Vec::new(), Vec::new(), 0);
    for _ in 0..options.runs_or(3) {
        let scope = OfflineScope { keys: vec![key.clone()], ..OfflineScope::default() };
        let before = reset_peak()?;
        let start = Instant::now();
        let report = verify_export(BufReader::with_capacity(1 << 20, File::open(&file)?), &scope)?;
        seconds.push(start.elapsed().as_secs_f64());
        memory.push(peak_above(before)?);
        ensure!(report.is_intact(), "{report:?}");
        records = report.records;
    }
    let (seconds, memory) = (median(seconds), median(memory));
    let row = finished(vec![
        records.to_string(),
        format!("{:.0}", size as f64 / f64::from(1 << 20)),
        format!("{seconds:.2}"),
        format!("{:.2}", seconds * 1e6 / records as f64),
        format!("{memory:.1}"),
    ]);
    report.table(&["records", "file MiB", "seconds", "µs a record", "memory MiB"], &[row]);
    report.publish(options)
}

fn measure_replay(engine: Engine, options: &Options) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir_in(target())?;
    let server = engine.server()?;
    let url = database_url(server.as_ref(), folder.path());
    runtime.block_on(async {
        let filled = Filled::new(&url, folder.path()).await?;
        let (reader, tried) = (filled.ledger.reader(), draft());
        let decisions = GovernanceDecisionRepository::new(filled.db.clone());
        let source = ReplaySource { reader: &reader, decisions: &decisions };
        let scanner = Arc::new(SecretScanner::builtin()?);
        let parts = Parts::new(scanner, Arc::new(RateLimiter::new()), Arc::new(SystemClock));
        let policies = TriedPolicies::of(&GovernanceConfig::default(), &[], &parts)?;
        let scope = ReplayScope { since: 0, until: Millis::MAX, actors: ActorCheck::DenyOnly };
        let (mut seconds, mut memory, mut counted) = (Vec::new(), Vec::new(), (0, 0));
        for _ in 0..options.runs_or(3) {
            let before = reset_peak()?;
            let start = Instant::now();
            let report = replay(source, &tried, &policies, scope).await?;
            seconds.push(start.elapsed().as_secs_f64());
            memory.push(peak_above(before)?);
            counted = (report.decisions, report.flips());
        }
        filled.stop().await;
        let (decisions, flips) = counted;
        ensure!(decisions == RECORDS as u64 && flips > 0, "{decisions} decisions, {flips} flips");
        let (seconds, memory) = (median(seconds), median(memory));
        Ok(vec![
            engine.name().to_owned(),
            decisions.to_string(),
            flips.to_string(),
            format!("{seconds:.2}"),
            format!("{:.0}", decisions as f64 / seconds),
            format!("{memory:.1}"),
        ])
    })
}

/// A ledger of a million decisions, signed.
struct Filled {
    ledger: Ledger,
    tasks: Tasks,
    db: Db,
}

impl Filled {
    async fn new(url: &str, folder: &Path) -> Result<Self> {
        let db = Db::connect(url, 4).await?;
        migrate(&db, MIGRATIONS).await?;
        let tasks = Tasks::default();
        let settings = LedgerOptions {
            checkpoints: Some(CheckpointOptions {
                signers: Signers::of(make(&folder.join("keys/ledger.ed25519"))?),
                records: 1000,
                every: Duration::from_secs(10),
                heartbeat: Duration::from_hours(1),
                witnesses: Witnesses::default(),
            }),
            ..crate::ledger::options(folder, &db)
        };
        let ledger = Ledger::start(&db, &[], settings, Arc::new(SystemClock), &tasks).await?;
        let mut set = JoinSet::new();
        for writer in 0..WRITERS {
            let ledger = ledger.clone();
            set.spawn(async move {
                for first in (writer * UNIT..RECORDS).step_by(WRITERS * UNIT) {
                    let mut unit = Unit::new();
                    for number in first..(first + UNIT).min(RECORDS) {
                        unit.record(decision(number));
                    }
                    ledger.append(unit).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = set.join_next().await {
            done??;
        }
        ledger.make_checkpoint().await?;
        Ok(Self { ledger, tasks, db })
    }

    async fn stop(self) {
        self.ledger.stop().await;
        self.tasks.drain(Duration::from_secs(5)).await;
        self.db.close().await;
    }
}

/// A decision as the plane records it.
fn decision(number: usize) -> Draft {
    let server = format!("server-{}", number % SERVERS);
    let entity = format!("mcp_server:{server}");
    let mut draft = Draft::system(EntryKind::GovernanceDecision, "allow")
        .with_subject("mcp_server", server)
        .with_policy("default_included")
        .with_reason("everyone whom no rule names may use it")
        .with("call_id", format!("call_{number:032}"))
        .with("origin", "mcp")
        .with("source", "governance")
        .with("tool", "crm_lookup")
        .with("matched", serde_json::json!([{"entity": entity, "matched_by": "default_included"}]))
        .with("roles", vec!["user".to_owned(), format!("role-{}", number % 7)])
        .with("permissions", vec!["user".to_owned()])
        .with(
            "chain",
            serde_json::json!([
                {"policy_id": "scope_check", "result": "pass", "elapsed_us": 1},
                {"policy_id": "secret_scan", "result": "pass", "elapsed_us": 1},
                {"policy_id": "tool_blocklist", "result": "pass", "elapsed_us": 1},
                {"policy_id": "rate_limit", "result": "pass", "elapsed_us": 1},
                {"policy_id": "pii", "result": "pass", "elapsed_us": 1},
                {"policy_id": "prompt_injection", "result": "pass", "elapsed_us": 1},
            ]),
        )
        .with("department", format!("department-{}", number % 20))
        .with("rule_epoch", 1)
        .with("set_hash", "b94d27b9934d3e08");
    draft.actor_id = format!("usr_{:032}", number % USERS).into();
    draft
}

fn draft() -> Tried {
    let entity = |number: usize| Entity {
        kind: EntityKind::McpServer,
        id: format!("server-{number}"),
        display_name: None,
        default_included: true,
        source: "bench".to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    };
    let entities: Vec<Entity> = (0..SERVERS).map(entity).collect();
    let rows = vec![AccessRule {
        id: RuleId::new("rul_1"),
        entity_type: EntityKind::McpServer,
        entity_id: "server-3".to_owned(),
        is_pattern: false,
        rule_type: RuleType::Role,
        rule_value: "role-2".to_owned(),
        access: Access::Deny,
        justification: None,
        source: "bench".to_owned(),
        created_by: "bench".to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }];
    Tried { rules: RuleSet::build(1, &entities, &rows), rows }
}

/// Lets the peak begin anew; returns what is resident, in KiB.
fn reset_peak() -> Result<u64> {
    std::fs::write("/proc/self/clear_refs", "5").context("resetting the peak of resident memory")?;
    Ok(machine::memory(std::process::id())?.0)
}

/// MiB of the peak above what was resident.
fn peak_above(before: u64) -> Result<f64> {
    let (_, peak) = machine::memory(std::process::id())?;
    Ok(peak.saturating_sub(before) as f64 / 1024.0)
}
