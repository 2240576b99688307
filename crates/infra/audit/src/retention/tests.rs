use super::*;
use crate::erase::Erasure;
use crate::export::{ExportRequest, Exporter, Format};
use crate::payload::Payload;
use crate::repository::companions;
use crate::testing;
use crate::unit::{Cell, Col, OpenRow, Table};
use crate::verify::offline::{OfflineScope, verify_export};
use crate::verify::{Report, Scope, verify};
use crate::{Filter, Role};
use std::sync::Arc;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{Db, Migration, on_tx};
use systemprompt_models::ids::{EntryId, McpExecutionId, UserId};
use systemprompt_models::{ManualClock, Principal, Tasks, UserType};

const T0: Millis = 1_700_006_400_000;
const CALLS: &str = "CREATE TABLE calls (id TEXT NOT NULL PRIMARY KEY, ledger_opened TEXT NOT NULL)";

static TABLE: Table = Table {
    name: "calls",
    key: "id",
    open: &[Col::text("id"), Col::text("ledger_opened")],
    close: &[],
    opened_by: Some(EntryKind::ToolOpened),
    mirror: &[],
    mirror_closed: &[],
};

struct Opened(EntryId);

impl OpenRow for Opened {
    const TABLE: &'static Table = &TABLE;
    fn cells(self) -> Vec<Cell> {
        vec![McpExecutionId::generate().as_str().into(), (&self.0).into()]
    }
}

fn by(user: &str) -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.user_id = UserId::new(user);
    principal.user_type = UserType::User;
    RequestContext::new(Arc::new(principal), "trace-of-the-test".into())
}

async fn stores() -> [TestDb; 2] {
    let mut migrations = testing::migrations();
    migrations.push(Migration { version: 9001, name: "calls", sqlite: CALLS, postgres: CALLS });
    databases(&migrations).await
}

async fn started(db: &Db, clock: &ManualClock) -> Ledger {
    let mut options = testing::options(db);
    options.payloads.rules.tool = crate::payload::Mode::Full;
    Ledger::start(db, Vec::leak(vec![&TABLE]), options, Arc::new(clock.clone()), &Tasks::default())
        .await
        .unwrap()
}

async fn tool_call(ledger: &Ledger, user: &str) {
    let mut unit = Unit::new();
    let draft = Draft::new(EntryKind::ToolOpened, &by(user), "opened");
    let opened = unit.record(draft.with_payload(Payload::text(Role::Arguments, format!("of {user}"))));
    unit.open(Opened(opened));
    ledger.append(unit).await.unwrap();
}

async fn day(ledger: &Ledger) {
    tool_call(ledger, "usr_a").await;
    tool_call(ledger, "usr_b").await;
    let mut unit = Unit::new();
    let mut from = by("usr_b");
    from.client_ip = Some("192.0.2.7".parse().unwrap());
    unit.record(Draft::new(EntryKind::OauthSessionCreated, &from, "ok"));
    let change =
        Draft::new(EntryKind::AdminUserChanged, &by("usr_admin"), "ok").with_subject("user", "usr_a");
    let change = change.with_payload(Payload::text(Role::Before, "name before").about("usr_a"));
    unit.record(change.with_payload(Payload::text(Role::After, "name after").about("usr_a")));
    ledger.append(unit).await.unwrap();
}

async fn checked(ledger: &Ledger) -> Report {
    verify(&ledger.reader(), ledger.tables(), &Scope::default()).await.unwrap()
}

/// An export, verified for its structure.
async fn exported(ledger: &Ledger) -> Report {
    let request = ExportRequest::all(Format::Jsonl);
    let mut exporter = Exporter::open(ledger.reader(), ledger.lookup().cloned(), request).await.unwrap();
    let mut text = String::new();
    while let Some(piece) = exporter.next().await.unwrap() {
        text.push_str(&piece);
    }
    let scope = OfflineScope { structure_only: true, ..OfflineScope::default() };
    verify_export(text.as_bytes(), &scope).unwrap()
}

async fn execute(db: &Db, sql: &'static str) -> u64 {
    let mut tx = db.write_tx().await.unwrap();
    let done =
        on_tx!(tx, conn => sqlx::query(sql).execute(&mut *conn).await.map(|done| done.rows_affected()));
    tx.commit().await.unwrap();
    done.unwrap()
}

async fn count(db: &Db, sql: &'static str) -> i64 {
    use systemprompt_database::on;
    on!(db, pool => sqlx::query_scalar(sql).fetch_one(pool).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn case_13_erasure_and_retention_over_500_days_leave_the_proof_whole() {
    for db in stores().await {
        let clock = ManualClock::at(T0);
        let ledger = started(&db, &clock).await;
        for number in 0..500 {
            clock.set(T0 + number * DAY_MS + DAY_MS / 2);
            day(&ledger).await;
        }
        clock.set(T0 + 500 * DAY_MS);
        let before = checked(&ledger).await;
        assert!(before.is_intact(), "{before:?}");
        assert_eq!((before.records, before.payloads, before.rows), (2000, 2500, 1000));

        let erasure =
            Erasure { subject_user: "usr_a".into(), classes: BTreeSet::new(), reason: "asked for".into() };
        let erased = ledger.erase(&by("usr_admin"), &erasure).await.unwrap();
        assert_eq!(erased.counts, [(Class::Tool, 500), (Class::Change, 1000)].into());
        let after = checked(&ledger).await;
        assert!(after.is_intact(), "{after:?}");
        // What is left: the tool calls and sign-ins of the other, and the reason of the erasure.
        assert_eq!((after.erased, after.payloads), (1500, 1001));
        let left = count(
            &db,
            "SELECT COUNT(*) FROM ledger_payloads WHERE subject_user = 'usr_a'
            AND (salt IS NOT NULL OR body IS NOT NULL)",
        )
        .await;
        assert_eq!(left, 0);

        let rules = RetentionRules::default();
        let done = ledger.retain_now(&rules, &by("usr_admin")).await.unwrap();
        assert_eq!(done.payloads, [(Class::Tool, 820), (Class::Client, 470)].into());
        let records = [("oauth.session.created".to_owned(), 100), ("tool.opened".to_owned(), 200)];
        assert_eq!((done.records, done.rows, done.covered_by), (records.into(), 200, 2));
        let report = checked(&ledger).await;
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.records, report.rows, report.pruned), (2003, 800, 300));
        // Of records that are left: tool calls of 310 days by two, sign-ins of 370 days.
        assert_eq!((report.expired, report.erased, report.payloads), (2 * 310 + 370, 90 + 1000, 90 + 30 + 1));
        let named = count(
            &db,
            "SELECT COUNT(*) FROM ledger_entries WHERE record IS NULL AND
            (actor_id IS NOT NULL OR trace_id IS NOT NULL OR outcome IS NOT NULL)",
        )
        .await;
        assert_eq!(named, 0, "a stub names nobody");

        // Again: nothing is due.
        let again = ledger.retain_now(&rules, &by("usr_admin")).await.unwrap();
        assert_eq!((again.covered_by, again.rows), (0, 0));
        ledger.stop().await;
        let ledger = started(&db, &clock).await;
        assert!(ledger.condition().is_ready(), "{:?}", ledger.condition());
        day(&ledger).await;
        assert!(checked(&ledger).await.is_intact());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_came_behind_an_erasure_passes_for_erased_although_retention_took_some_of_its_rows() {
    for db in stores().await {
        let clock = ManualClock::at(T0);
        let ledger = started(&db, &clock).await;
        tool_call(&ledger, "usr_a").await;
        clock.set(T0 + 100 * DAY_MS);
        tool_call(&ledger, "usr_a").await;
        let erasure =
            Erasure { subject_user: "usr_a".into(), classes: BTreeSet::new(), reason: "asked for".into() };
        let erased = ledger.erase(&by("usr_admin"), &erasure).await.unwrap();
        assert_eq!(erased.counts, [(Class::Tool, 2)].into());
        // In the same millisecond, and not part of the erasure.
        tool_call(&ledger, "usr_a").await;
        let done = ledger.retain_now(&RetentionRules::default(), &by("usr_admin")).await.unwrap();
        assert_eq!(done.payloads, [(Class::Tool, 1)].into());
        let before = checked(&ledger).await;
        assert!(before.is_intact(), "{before:?}");
        assert_eq!((before.erased, before.expired), (1, 1));
        let changed = execute(
            &db,
            "UPDATE ledger_payloads SET salt = NULL, body = NULL,
                 erased_at = (SELECT MAX(e.erased_at) FROM ledger_payloads e),
                 erased_by = (SELECT MAX(e.erased_by) FROM ledger_payloads e)
             WHERE class = 'tool' AND erased_by IS NULL",
        )
        .await;
        assert_eq!(changed, 1);
        let found: Vec<_> = checked(&ledger).await.findings.iter().map(|f| (f.check, f.seq)).collect();
        assert_eq!(found, [("payload_missing", 4)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stub_that_is_younger_than_its_cutoff_or_not_in_the_list_is_tampering() {
    for db in stores().await {
        let clock = ManualClock::at(T0);
        let ledger = started(&db, &clock).await;
        for number in [0, 1, 2, 300] {
            clock.set(T0 + number * DAY_MS);
            day(&ledger).await;
        }
        clock.set(T0 + 402 * DAY_MS);
        ledger.retain_now(&RetentionRules::default(), &by("usr_admin")).await.unwrap();
        let report = checked(&ledger).await;
        assert!(report.is_intact() && report.pruned == 6, "{report:?}");
        // A record that was kept is emptied under the name of a true retention record.
        let emptied = execute(
            &db,
            "UPDATE ledger_entries SET record = NULL, actor_kind = NULL, actor_id = NULL, trace_id = NULL, outcome = NULL,
                 pruned_by = (SELECT MIN(e.pruned_by) FROM ledger_entries e) WHERE seq = 13",
        );
        assert_eq!(emptied.await, 1);
        let found = checked(&ledger).await.findings;
        assert!(found.iter().any(|f| (f.check, f.seq) == ("stub_unexplained", 13)), "{found:?}");
        execute(&db, "UPDATE ledger_entries SET pruned_by = NULL, record = '{}' WHERE seq = 13").await;
        // And one of the list is moved in time, which its hash does not show any more.
        execute(&db, "UPDATE ledger_entries SET at = at - 1 WHERE seq = 1").await;
        let found = checked(&ledger).await.findings;
        assert!(found.iter().any(|f| (f.check, f.seq) == ("stub_unexplained", 1)), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cut_off_verifies_and_the_next_one_finishes_it() {
    for db in stores().await {
        let clock = ManualClock::at(T0);
        let ledger = started(&db, &clock).await;
        for _ in 0..20 {
            day(&ledger).await;
        }
        clock.set(T0 + 500 * DAY_MS);
        let rules = RetentionRules::default();
        let (epoch, _) = ledger.claim_retention(Millis::MAX).await.unwrap().unwrap();
        assert!(matches!(ledger.retain_now(&rules, &by("usr_admin")).await, Err(RetentionError::Held)));
        let now = ledger.now();
        let report = RetentionReport::default();
        let mut run = Run { ledger: &ledger, rules: &rules, by: None, epoch, now, report };
        let mut plan = Plan::new(ledger.stream());
        let members = rows::members(&db, ledger.stream(), 0, 1000).await.unwrap();
        for member in members.iter().filter(|member| rules.days(&member.kind) == Some(400)) {
            plan.add(member, RetentionRules::cutoff(now, 400));
        }
        let draft = run
            .draft()
            .with("scope", "records")
            .with("stream", plan.stream.as_str())
            .with("from", plan.from)
            .with("to", plan.to)
            .with("cutoffs", serde_json::to_value(&plan.cutoffs).unwrap())
            .with("count", plan.count)
            .with("sha256", plan.digest.finish());
        plan.by = run.tell(draft).await.unwrap();
        let report = checked(&ledger).await;
        assert!(report.is_intact(), "announced and not begun: {report:?}");
        run.renew(Some(&serde_json::to_string(&plan).unwrap())).await.unwrap();
        run.prune(&plan, &members[..30]).await.unwrap();
        let report = checked(&ledger).await;
        assert!(report.is_intact() && report.pruned > 0 && report.pruned < plan.count, "{report:?}");
        let file = exported(&ledger).await;
        assert!(file.is_intact() && file.pruned == report.pruned, "{file:?}");
        // The process is gone; its lease runs out.
        clock.advance(LEASE_MS + 1);
        let done = ledger.retain_now(&rules, &by("usr_admin")).await.unwrap();
        let report = checked(&ledger).await;
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.pruned, report.rows), (60, 0), "{done:?}");
        let file = exported(&ledger).await;
        assert!(file.is_intact() && file.pruned == 60, "{file:?}");
        assert!(companions::key_prefix(&db, &TABLE).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daily_run_is_due_once_and_by_one_node() {
    for db in stores().await {
        let clock = ManualClock::at(T0 + 3 * 3_600_000);
        assert_eq!(last_due(clock_now(&clock)), T0 - DAY_MS + DUE_MS);
        clock.set(T0 + DUE_MS);
        assert_eq!(last_due(clock_now(&clock)), T0 + DUE_MS);
        let ledger = started(&db, &clock).await;
        let rules = RetentionRules::default();
        assert!(ledger.retain_if_due(&rules).await.unwrap().is_some());
        clock.advance(3_600_000);
        assert!(ledger.retain_if_due(&rules).await.unwrap().is_none());
        clock.advance(DAY_MS);
        let both = tokio::join!(ledger.retain_if_due(&rules), ledger.retain_if_due(&rules));
        let ran = [both.0.unwrap(), both.1.unwrap()].into_iter().flatten().count();
        assert_eq!(ran, 1);
        let state = ledger.retention_state().await.unwrap();
        assert!(state.result.is_some() && state.held_until == 0 && state.pending.is_none());
    }
}

fn clock_now(clock: &ManualClock) -> Millis {
    systemprompt_models::Clock::now(clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_reach_back_to_what_an_earlier_run_has_left() {
    for db in stores().await {
        let clock = ManualClock::at(T0);
        let ledger = started(&db, &clock).await;
        day(&ledger).await;
        clock.set(T0 + 500 * DAY_MS);
        let mut rules = RetentionRules::default();
        rules.kinds.insert("tool.*".into(), 600);
        let done = ledger.retain_now(&rules, &by("usr_admin")).await.unwrap();
        assert_eq!(done.records, [("oauth.session.created".to_owned(), 1)].into());
        rules.kinds.remove("tool.*");
        let done = ledger.retain_now(&rules, &by("usr_admin")).await.unwrap();
        assert_eq!(done.records, [("tool.opened".to_owned(), 2)].into());
        let report = checked(&ledger).await;
        assert!(report.is_intact() && report.pruned == 3, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_look_up_file_forgets_who_a_stub_was_about() {
    for db in stores().await {
        let clock = ManualClock::at(T0);
        let ledger = started(&db, &clock).await;
        day(&ledger).await;
        let filter = Filter { actor: Some("usr_b".into()), ..Filter::default() };
        assert_eq!(ledger.query(&filter, None, 10).await.unwrap().rows.len(), 2);
        clock.set(T0 + 500 * DAY_MS);
        ledger.retain_now(&RetentionRules::default(), &by("usr_admin")).await.unwrap();
        assert_eq!(ledger.query(&filter, None, 10).await.unwrap().rows.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_where_a_run_goes_on_is_found_by_time() {
    for db in stores().await {
        let clock = ManualClock::at(T0);
        let ledger = started(&db, &clock).await;
        for number in 0..7 {
            clock.set(T0 + number * DAY_MS);
            day(&ledger).await;
        }
        let first = async |at| rows::first_since(&db, ledger.stream(), 28, at).await.unwrap();
        assert_eq!((first(0).await, first(T0).await, first(T0 + 1).await), (1, 1, 5));
        assert_eq!((first(T0 + 6 * DAY_MS).await, first(T0 + 6 * DAY_MS + 1).await), (25, 29));
    }
}

#[test]
fn system_records_are_kept_for_ever_and_families_have_their_own_time() {
    let rules = RetentionRules::default();
    assert_eq!(rules.days("system.checkpoint"), None);
    assert_eq!(rules.days("admin.audit.erase"), Some(1100));
    assert_eq!(rules.days("tool.opened"), Some(400));
}
