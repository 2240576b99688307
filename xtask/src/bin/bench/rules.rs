//! `bench authz-reload` and `bench authz-list`: a node's whole rule set, read again and swapped while it decides, and lists.

use crate::machine;
use crate::options::Options;
use crate::report::{Report, finished, median};
use anyhow::{Context, Result};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use systemprompt_audit::{Ledger, MIGRATIONS};
use systemprompt_database::{Db, migrate, on_tx};
use systemprompt_events::Bridge;
use systemprompt_extension::Extension;
use systemprompt_models::ids::UserId;
use systemprompt_models::{Principal, SystemClock, Tasks};
use systemprompt_security::authz::hook::ActorCheck;
use systemprompt_security::authz::{
    AuthzDecisionHook, AuthzExtension, AuthzRequest, EntityKind, EntityRef, RuleHook, RuleStore,
};
use xtask::process::target;

const RULES: usize = 100_000;
/// Rules of one entity: a role, a department and two users, one of them denied.
const RULES_PER_ENTITY: usize = 4;
const USERS: usize = 5_000;
const LIST: usize = 1_000;

pub fn reload(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(target())?;
    let mut report = Report::new(
        "authz-reload",
        "Rule set, read again",
        &machine::describe(folder.path())?,
        "100,000 rules on 25,000 entities in a SQLite file. *refresh* is what a node does when it learns of a change: rows read, \
         compiled beside the requests, swapped. *slowest* is the longest decision of a thread that decides all the while.",
        "compiling and swapping at most 50 ms (column *rebuild* of `bench authz`), no decision slower than 1 ms.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut refresh, mut slowest) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let (db, store) = store(folder.path()).await?;
        for _ in 0..options.runs_or(5) {
            let (took, worst) = refreshed(&db, &store).await?;
            refresh.push(took.as_secs_f64() * 1e3);
            slowest.push(worst as f64 / 1e3);
        }
        anyhow::Ok(())
    })?;
    let row = vec![RULES.to_string(), format!("{:.1}", median(refresh)), format!("{:.0}", median(slowest))];
    report.table(&["rules", "refresh ms", "slowest decision µs"], &[finished(row)]);
    report.publish(options)
}

pub fn list(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(target())?;
    let mut report = Report::new(
        "authz-list",
        "Filtered lists",
        &machine::describe(folder.path())?,
        "`decide_many` of the rule hook over 1,000 entities for one principal, among 100,000 rules: what a list of tools or models \
         costs before it is rendered.",
        "at most 100 µs.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (_db, store) = runtime.block_on(store(folder.path()))?;
    let hook = RuleHook::new(store, ActorCheck::DenyOnly);
    let entities: Vec<EntityRef> = (0..LIST).map(|n| reference(n * 25)).collect();
    let times: Vec<f64> = (0..options.runs_or(3) * 200)
        .map(|number| {
            let who = principal(number);
            let start = Instant::now();
            black_box(hook.decide_many(&who, &entities));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    report.table(
        &["entities", "median µs"],
        &[finished(vec![LIST.to_string(), format!("{:.0}", median(times))])],
    );
    report.publish(options)
}

/// One refresh after a change by somebody else, and the slowest decision meanwhile in nanoseconds.
async fn refreshed(db: &Db, store: &RuleStore) -> Result<(Duration, u64)> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query("UPDATE authz_epoch SET epoch = epoch + 1, set_hash = NULL")
        .execute(&mut *conn).await.map(drop))?;
    tx.commit().await?;
    let (stop, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (hook, ended, worst) =
        (RuleHook::new(store.clone(), ActorCheck::DenyOnly), Arc::clone(&stop), Arc::clone(&slowest));
    let decider = std::thread::spawn(move || {
        let (who, mut number) = (principal(7), 0_usize);
        while !ended.load(Ordering::Relaxed) {
            let entity = reference(number);
            let start = Instant::now();
            black_box(hook.decide(AuthzRequest::new(&who, &entity)));
            worst.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            number = (number + 977) % (RULES / RULES_PER_ENTITY);
        }
    });
    let start = Instant::now();
    store.refresh().await?;
    let took = start.elapsed();
    // The old set is freed beside the decisions too.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.store(true, Ordering::Relaxed);
    decider.join().map_err(|_| anyhow::anyhow!("the deciding thread panicked"))?;
    Ok((took, slowest.load(Ordering::Relaxed)))
}

async fn store(folder: &Path) -> Result<(Db, RuleStore)> {
    let db = Db::connect(&format!("sqlite:{}", folder.join("rules.db").display()), 4).await?;
    let mut migrations = MIGRATIONS.to_vec();
    migrations.extend(AuthzExtension.migrations());
    migrate(&db, &migrations).await?;
    fill(&db).await?;
    let settings = crate::ledger::options(folder, &db);
    let clock = Arc::new(SystemClock);
    let ledger = Ledger::start(&db, &[], settings, clock.clone(), &Tasks::default()).await?;
    let store = RuleStore::load(db.clone(), ledger, clock, Bridge::default()).await;
    Ok((db, store.context("the rules of the bench")?))
}

async fn fill(db: &Db) -> Result<()> {
    let mut tx = db.write_tx().await?;
    for number in 0..RULES {
        let (entity, spread) = (number / RULES_PER_ENTITY, number.wrapping_mul(2_654_435_761) % RULES);
        let (rule_type, value, access) = match number % RULES_PER_ENTITY {
            0 => ("role", format!("role-{}", spread % 40), "allow"),
            1 => ("department", format!("department-{}", spread % 60), "allow"),
            2 => ("user", format!("user-{}", spread % USERS), "allow"),
            _ => ("user", format!("user-{}", (spread + 1) % USERS), "deny"),
        };
        let id = format!("server-{entity:06}");
        if number % RULES_PER_ENTITY == 0 {
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO access_control_entities (entity_type, entity_id, default_included, source, created_at, updated_at)
                 VALUES ('mcp_server', $1, 0, 'bench', 0, 0)"
            ).bind(&id).execute(&mut *conn).await.map(drop))?;
        }
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO access_control_rules (id, entity_type, entity_id, is_pattern, rule_type, rule_value, access, source,
                 created_by, created_at, updated_at, version)
             VALUES ($1, 'mcp_server', $2, 0, $3, $4, $5, 'bench', 'bench', 0, 0, 1)"
        ).bind(format!("rule-{spread:06}-{number}")).bind(&id).bind(rule_type).bind(value).bind(access)
            .execute(&mut *conn).await.map(drop))?;
    }
    tx.commit().await?;
    Ok(())
}

fn reference(number: usize) -> EntityRef {
    EntityRef::new(EntityKind::McpServer, format!("server-{number:06}"))
}

fn principal(number: usize) -> Principal {
    let mut principal = Principal::anonymous();
    principal.user_id = UserId::new(format!("user-{number}"));
    principal.roles = [1, 7, 13].map(|step| format!("role-{}", (number * step) % 40)).to_vec();
    principal.department = Some(format!("department-{}", number % 60));
    principal
}
