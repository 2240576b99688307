//! `bench decide`: what one decision on a tool call costs in process: entity rule and all policies, then with its record put
//! before the ledger's writer.

use crate::machine;
use crate::options::Options;
use crate::report::{Report, finished};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde_json::json;
use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use systemprompt_audit::{Ledger, Unit};
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_config::services::governance::GovernanceConfig;
use systemprompt_database::{Db, migrate};
use systemprompt_events::Bridge;
use systemprompt_extension::Extension as _;
use systemprompt_models::ids::{CallId, SessionId, TraceId, UserId};
use systemprompt_models::{Clock, Permission, Principal, RequestContext, SystemClock, Tasks};
use systemprompt_security::authz::{
    Access, AuthzExtension, EntityKind, EntityRef, RuleHook, RuleStore, RuleType, UpsertRuleParams,
};
use systemprompt_security::governance::{Parts, Pipeline, RateLimiter, SecretScanner};
use systemprompt_security::plane::{Call, DecisionPlane, Origin, Segment};
use xtask::process::target;

/// Decisions of one pass; each has an id and, in turns, a session of its own.
const CALLS: usize = 20_000;
const SESSIONS: usize = 1_000;
const BYTES: usize = 1024;

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "decide",
        "One decision in process",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "`DecisionPlane::judge` on a tool call with {BYTES} bytes of arguments (prose and code without a finding), one thread: \
             entity rule, then every policy with its defaults but for the limits of calls, which are raised. *Recorded* adds the \
             unit: drafts, rows and their rendering, up to the ledger's queue; it does not wait for the commit."
        ),
        "at most 60 µs p50; the record adds at most 5 µs.",
    );
    let folder = tempfile::tempdir_in(target())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let rows = runtime.block_on(measure(folder.path(), options))?;
    report.table(&["what", "p50 µs", "p99 µs", "mean µs"], &rows);
    report.publish(options)
}

async fn measure(folder: &std::path::Path, options: &Options) -> Result<Vec<Vec<String>>> {
    let db = Db::connect(&format!("sqlite:{}", folder.join("decide.db").display()), 4).await?;
    let migrations: Vec<_> =
        systemprompt_audit::MIGRATIONS.iter().copied().chain(AuthzExtension.migrations()).collect();
    migrate(&db, &migrations).await?;
    let tasks = Tasks::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tables: &'static [_] = Vec::leak(AuthzExtension.tables());
    let settings = crate::ledger::options(folder, &db);
    let ledger = Ledger::start(&db, tables, settings, Arc::clone(&clock), &tasks).await?;
    let plane = plane(&db, &ledger, &clock).await?;
    let contexts: Vec<RequestContext> = (0..SESSIONS).map(context).collect();
    let arguments = arguments();
    let mut rows = Vec::new();
    for recorded in [false, true] {
        let mut times = Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3)?;
        for run in 0..options.runs_or(3) {
            let mut units = Vec::new();
            for (number, context) in contexts.iter().cycle().take(CALLS).enumerate() {
                let start = Instant::now();
                let judgement =
                    plane.judge(call(context, &arguments, &format!("{recorded}-{run}-{number}"))).await;
                ensure!(judgement.is_allow(), "{judgement:?}");
                if recorded {
                    let mut unit = Unit::new();
                    judgement.record(&mut unit);
                    units.push(ledger.append(unit));
                }
                black_box(&judgement);
                times.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
                // The queue is bounded, and its wait is no part of this.
                if units.len() == 64 {
                    for unit in units.drain(..) {
                        unit.await?;
                    }
                }
            }
        }
        let micros = |nanos: u64| format!("{:.1}", nanos as f64 / 1e3);
        rows.push(finished(vec![
            if recorded { "recorded" } else { "decided" }.to_owned(),
            micros(times.value_at_percentile(50.0)),
            micros(times.value_at_percentile(99.0)),
            format!("{:.1}", times.mean() / 1e3),
        ]));
    }
    ledger.stop().await;
    tasks.drain(Duration::from_secs(5)).await;
    db.close().await;
    Ok(rows)
}

async fn plane(db: &Db, ledger: &Ledger, clock: &Arc<dyn Clock>) -> Result<DecisionPlane> {
    let store = RuleStore::load(db.clone(), ledger.clone(), Arc::clone(clock), Bridge::default()).await?;
    let by = context(0);
    store.put_entity(&by, EntityKind::McpServer, "crm", None, false, "seed").await?;
    let rule = UpsertRuleParams {
        entity_type: EntityKind::McpServer,
        entity_id: "crm".to_owned(),
        is_pattern: false,
        rule_type: RuleType::Role,
        rule_value: "user".to_owned(),
        access: Access::Allow,
        justification: None,
        source: "seed",
        created_by: "bench".to_owned(),
    };
    store.put_rule(&by, &rule).await?;
    let scanner = Arc::new(SecretScanner::builtin().context("the secret rules")?);
    let parts = Parts::new(scanner, Arc::new(RateLimiter::new()), Arc::clone(clock));
    let raised = json!({"limit": 10_000_000, "window_s": 60, "per_user_factor": 1000});
    let config: GovernanceConfig =
        serde_json::from_value(json!({"policies": [{"id": "rate_limit", "params": raised}]}))?;
    let pipeline = Pipeline::from_config(&config, &parts)?;
    let hook = Arc::new(RuleHook::new(store, ActorCheck::DenyOnly));
    Ok(DecisionPlane::new(hook, pipeline, ledger.clone(), Arc::clone(clock)))
}

fn context(number: usize) -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.user_id = UserId::new(format!("usr_bench_{}", number % 50));
    principal.session_id = SessionId::new(format!("ses_bench_{number}"));
    principal.permissions = vec![Permission::User];
    principal.roles = vec!["user".to_owned()];
    RequestContext::new(Arc::new(principal), TraceId::generate())
}

fn call<'a>(context: &'a RequestContext, arguments: &'a [Segment<'a>], id: &str) -> Call<'a> {
    Call {
        call_id: CallId::new(id),
        origin: Origin::Mcp,
        context,
        entities: vec![EntityRef::new(EntityKind::McpServer, "crm")],
        tool: Some("crm_lookup"),
        server: Some("crm"),
        plugin: None,
        agent: None,
        agent_scope: None,
        content: arguments,
        counted: true,
    }
}

/// One object with text of about [`BYTES`] bytes, as arguments of tools are.
fn arguments() -> [Segment<'static>; 1] {
    let prose =
        "Find the customer whose order 4711 was delivered to the wrong address, and say what we promised. ";
    let code = "fn total(lines: &[Line]) -> u64 { lines.iter().map(|line| line.price * line.count).sum() } ";
    let text: String = prose.chars().chain(code.chars()).cycle().take(BYTES - 60).collect();
    let json = json!({"customer_id": "c-1042", "question": text}).to_string().into_bytes();
    [Segment { pointer: Cow::Borrowed(""), json: json.leak() }]
}
