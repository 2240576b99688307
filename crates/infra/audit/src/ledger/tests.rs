#![expect(clippy::disallowed_methods, reason = "tests run callers beside each other")]

mod contention;

use crate::repository::entries::Filter;
use crate::testing;
use crate::unit::{Cell, CloseRow, Col, Guard, OpenRow, Table, Unit};
use crate::verify::{Scope, verify};
use crate::{Condition, Draft, EntryKind, Ledger, LedgerError};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{Db, Migration, on_tx};
use systemprompt_models::ids::{EntryId, SessionId};
use systemprompt_models::{ManualClock, Principal, RequestContext, Tasks};

const CALLS: &str =
    "CREATE TABLE calls (id TEXT NOT NULL PRIMARY KEY, tool TEXT NOT NULL CHECK (tool <> 'bad'),
    status TEXT, args JSONB, note TEXT, ledger_opened TEXT NOT NULL, ledger_closed TEXT);
    CREATE TABLE quota (id TEXT NOT NULL PRIMARY KEY, used BIGINT NOT NULL);";
const CALLS_SQLITE: &str =
    "CREATE TABLE calls (id TEXT NOT NULL PRIMARY KEY, tool TEXT NOT NULL CHECK (tool <> 'bad'),
    status TEXT, args TEXT, note TEXT, ledger_opened TEXT NOT NULL, ledger_closed TEXT) STRICT;
    CREATE TABLE quota (id TEXT NOT NULL PRIMARY KEY, used INTEGER NOT NULL) STRICT;";

static TABLE: Table = Table {
    name: "calls",
    key: "id",
    open: &[
        Col::text("id"),
        Col::text("tool"),
        Col::json("args"),
        Col::text("note"),
        Col::text("ledger_opened"),
    ],
    close: &[Col::text("status"), Col::text("ledger_closed")],
    opened_by: Some(EntryKind::ToolOpened),
    mirror: &[("tool", "/detail/tool")],
    mirror_closed: &[("status", "/outcome")],
};

#[expect(clippy::struct_field_names, reason = "columns have these names")]
struct Opened {
    id: String,
    tool: &'static str,
    ledger_opened: EntryId,
}

impl OpenRow for Opened {
    const TABLE: &'static Table = &TABLE;
    fn cells(self) -> Vec<Cell> {
        let args = "{\"b\": [1, 2.50],  \"a\": \"\u{e9}\"}";
        vec![self.id.into(), self.tool.into(), args.into(), Cell::Null, (&self.ledger_opened).into()]
    }
}

struct Closed {
    id: String,
    ledger_closed: EntryId,
}

impl CloseRow for Closed {
    const TABLE: &'static Table = &TABLE;
    fn key(&self) -> &str {
        &self.id
    }
    fn cells(self) -> Vec<Cell> {
        vec!["ok".into(), (&self.ledger_closed).into()]
    }
}

fn context() -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.session_id = SessionId::new("ses_1");
    RequestContext::new(Arc::new(principal), "trace-of-the-test".into())
}

fn opening(id: &str, tool: &'static str) -> Unit {
    let mut unit = Unit::new();
    let draft = Draft::new(EntryKind::ToolOpened, &context(), "opened").with("tool", tool);
    let ledger_opened = unit.record(draft.with_subject("mcp_tool", format!("demo/{tool}")));
    unit.open(Opened { id: id.into(), tool, ledger_opened });
    unit
}

fn closing(id: &str) -> Unit {
    let mut unit = Unit::new();
    let ledger_closed = unit.record(Draft::new(EntryKind::ToolClosed, &context(), "ok"));
    unit.close(Closed { id: id.into(), ledger_closed });
    unit
}

async fn stores() -> [TestDb; 2] {
    let mut migrations = testing::migrations();
    migrations.push(Migration { version: 9001, name: "calls", sqlite: CALLS_SQLITE, postgres: CALLS });
    databases(&migrations).await
}

async fn execute(db: &Db, sql: &'static str) {
    let mut tx = db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query(sql).execute(&mut *conn).await.map(drop)).unwrap();
    tx.commit().await.unwrap();
}

async fn checks(ledger: &Ledger) -> Vec<&'static str> {
    let report = verify(&ledger.reader(), &[&TABLE], &Scope::default()).await.unwrap();
    report.findings.iter().map(|f| f.check).collect()
}

async fn filled(db: &Db) -> Ledger {
    let ledger = testing::ledger(db, &[&TABLE]).await;
    for i in 0..5 {
        let id = format!("call-{i}");
        let permit = ledger.commit(opening(&id, "lookup")).await.unwrap();
        assert_eq!(permit.receipt().seq, i * 2 + 1);
        ledger.append(closing(&id)).await.unwrap();
    }
    ledger
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_rows_are_chained_and_verify() {
    for db in stores().await {
        let ledger = filled(&db).await;
        let report = verify(&ledger.reader(), &[&TABLE], &Scope::default()).await.unwrap();
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.records, report.rows), (10, 5));
        ledger.stop().await;
        let again = testing::ledger(&db, &[&TABLE]).await;
        assert!(again.condition().is_ready());
        assert_eq!(again.stream(), ledger.stream());
        again.append(opening("call-9", "lookup")).await.unwrap();
        assert_eq!(checks(&again).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_being_written_verifies() {
    for db in stores().await {
        let ledger = filled(&db).await;
        let writer = ledger.clone();
        let writing = tokio::spawn(async move {
            for i in 0.. {
                writer.append(opening(&format!("later-{i}"), "lookup")).await.unwrap();
            }
        });
        let mut seen = 0;
        for _ in 0..8 {
            let report = verify(&ledger.reader(), &[&TABLE], &Scope::default()).await.unwrap();
            assert!(report.is_intact(), "{report:?}");
            assert!(report.records >= seen, "what was committed before is seen");
            seen = report.records;
        }
        assert!(seen > 10, "nothing was written meanwhile");
        writing.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tampering_has_its_finding() {
    for (sql, expected) in [
        (
            "UPDATE ledger_entries SET record = REPLACE(record, 'lookup', 'lookUp') WHERE seq = 3",
            "record_altered",
        ),
        ("UPDATE ledger_entries SET outcome = 'denied' WHERE seq = 3", "column_altered"),
        ("UPDATE ledger_entries SET session_id = NULL, trace_id = 'x' WHERE seq = 3", "column_altered"),
        ("DELETE FROM ledger_entries WHERE seq = 4", "gap"),
        ("UPDATE ledger_entries SET prev_hash = hash WHERE seq = 4", "chain_broken"),
        ("DELETE FROM ledger_entries WHERE seq > 8", "tail_missing"),
        ("DELETE FROM ledger_streams", "stream_missing"),
        (
            "UPDATE ledger_streams SET head_seq = 8, head_hash = (SELECT hash FROM ledger_entries WHERE seq = 8)",
            "behind_head",
        ),
        ("DELETE FROM calls WHERE id = 'call-2'", "row_missing"),
        ("UPDATE calls SET tool = 'other' WHERE id = 'call-2'", "row_differs"),
        ("UPDATE calls SET status = 'error' WHERE id = 'call-2'", "row_differs"),
        ("UPDATE calls SET id = 'call-2b' WHERE id = 'call-2'", "row_differs"),
        ("UPDATE calls SET note = 'forged' WHERE id = 'call-2'", "row_differs"),
        ("UPDATE calls SET args = '[]' WHERE id = 'call-2'", "row_differs"),
    ] {
        for db in stores().await {
            let ledger = filled(&db).await;
            execute(&db, sql).await;
            let found = checks(&ledger).await;
            assert!(found.contains(&expected), "{sql}: {found:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_end_refuses_guarded_calls_and_still_reads() {
    for db in stores().await {
        filled(&db).await.stop().await;
        execute(&db, "UPDATE ledger_entries SET record = REPLACE(record, 'lookup', 'lookUp') WHERE seq = 9")
            .await;
        let ledger = testing::ledger(&db, &[&TABLE]).await;
        assert!(matches!(*ledger.condition(), Condition::Damaged(_)));
        assert!(matches!(ledger.commit(opening("x", "lookup")).await, Err(LedgerError::Damaged(_))));
        assert_eq!(ledger.reader().page(ledger.stream(), 0, 100).await.unwrap().len(), 10);
        ledger.stop().await;
        // Without its stream's row nobody could tell that the entries are there.
        execute(&db, "DELETE FROM ledger_streams").await;
        let ledger = testing::ledger(&db, &[&TABLE]).await;
        assert!(matches!(*ledger.condition(), Condition::Damaged(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_sinks_its_own_unit_alone() {
    for db in stores().await {
        let ledger = testing::ledger(&db, &[&TABLE]).await;
        let units = (0..40).map(|i| {
            let ledger = ledger.clone();
            let tool = if i % 10 == 3 { "bad" } else { "lookup" };
            async move { ledger.append(opening(&format!("call-{i:02}"), tool)).await }
        });
        let results = futures_join(units).await;
        for (i, result) in results.iter().enumerate() {
            match result {
                Ok(_) => assert_ne!(i % 10, 3),
                Err(error) => assert!(
                    i % 10 == 3 && matches!(error, LedgerError::Row { table: "calls", .. }),
                    "{error}"
                ),
            }
        }
        let report = verify(&ledger.reader(), &[&TABLE], &Scope::default()).await.unwrap();
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.records, report.rows), (36, 36));
    }
}

async fn futures_join<F: std::future::Future + Send + 'static>(
    futures: impl Iterator<Item = F>,
) -> Vec<F::Output>
where
    F::Output: Send + 'static,
{
    let mut set = tokio::task::JoinSet::new();
    for (i, future) in futures.enumerate() {
        set.spawn(async move { (i, future.await) });
    }
    let mut results = set.join_all().await;
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_closed_once() {
    for db in stores().await {
        let ledger = testing::ledger(&db, &[&TABLE]).await;
        ledger.append(opening("call-1", "lookup")).await.unwrap();
        ledger.append(closing("call-1")).await.unwrap();
        assert!(matches!(ledger.append(closing("call-1")).await, Err(LedgerError::Row { .. })));
        assert_eq!(checks(&ledger).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_does_not_hold_refuses_its_unit_alone() {
    for db in stores().await {
        execute(&db, "INSERT INTO quota (id, used) VALUES ('q', 0)").await;
        let ledger = testing::ledger(&db, &[&TABLE]).await;
        let units = (0..20).map(|i| {
            let ledger = ledger.clone();
            async move {
                let mut unit = opening(&format!("call-{i:02}"), "lookup");
                unit.require(Guard {
                    name: "quota",
                    sql: "UPDATE quota SET used = used + $2 WHERE id = $1 AND used + $2 <= 7",
                    cells: vec!["q".into(), 1.into()],
                });
                ledger.commit(unit).await.map(drop)
            }
        });
        let results = futures_join(units).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 7);
        assert!(
            results.iter().filter_map(|r| r.as_ref().err()).all(|e| matches!(e, LedgerError::Guard("quota")))
        );
        let report = verify(&ledger.reader(), &[&TABLE], &Scope::default()).await.unwrap();
        assert_eq!((report.is_intact(), report.records), (true, 7), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_gives_no_permit() {
    for db in stores().await {
        let ledger = testing::ledger(&db, &[&TABLE]).await;
        let denial = || {
            let mut unit = Unit::new();
            unit.record(Draft::new(EntryKind::AuthzDecision, &context(), "deny").with_policy("not_assigned"));
            unit
        };
        assert!(matches!(ledger.commit(denial()).await, Err(LedgerError::Denial)));
        ledger.append(denial()).await.unwrap();
        assert_eq!(ledger.metrics().records, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_openings_first() {
    for db in stores().await {
        let mut options = testing::options(&db);
        options.group.queue_max = 8;
        options.group.append_timeout = std::time::Duration::from_secs(20);
        let ledger = Ledger::start(
            &db,
            Vec::leak(vec![&TABLE]),
            options,
            Arc::new(systemprompt_models::SystemClock),
            &Tasks::default(),
        )
        .await
        .unwrap();
        ledger.append(opening("call-0", "lookup")).await.unwrap();
        // A foreign write transaction holds the store, so that nothing is taken off the queue but the batch under way.
        let blocker = Blocker::hold(&db).await;
        let first = ledger.clone();
        let first = tokio::spawn(async move { first.append(opening("call-first", "lookup")).await });
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(
            ledger.metrics().queue_depth,
            0,
            "the writer holds the first unit and waits for the store"
        );
        let caller = ledger.clone();
        let stuck = (1..=12).map(move |i| {
            let ledger = caller.clone();
            async move { ledger.append(opening(&format!("call-{i:02}"), "lookup")).await }
        });
        let pending = tokio::spawn(futures_join(stuck));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let closer = ledger.clone();
        let closed = tokio::spawn(async move { closer.append(closing("call-0")).await });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let refused = ledger.append(opening("call-99", "lookup")).await;
        assert!(matches!(refused, Err(LedgerError::Busy)), "{refused:?}");
        blocker.release().await;
        let closed = closed.await.unwrap();
        assert!(closed.is_ok(), "a closing record finds room: {closed:?}");
        let results = pending.await.unwrap();
        assert_eq!(results.iter().filter(|r| matches!(r, Err(LedgerError::Busy))).count(), 6);
        assert_eq!(checks(&ledger).await, Vec::<&str>::new());
        let rows = ledger.query(&Filter::default(), None, 500).await.unwrap().rows;
        let opened = rows.iter().filter(|r| r.kind == "tool.opened").count();
        assert!(first.await.unwrap().is_ok());
        assert_eq!(opened, 2 + results.iter().filter(|r| r.is_ok()).count(), "a refused unit left a record");
    }
}

/// Keeps the ledger from writing.
struct Blocker(systemprompt_database::WriteTx);

impl Blocker {
    async fn hold(db: &Db) -> Self {
        let mut tx = db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query("UPDATE ledger_streams SET head_seq = head_seq").execute(&mut *conn).await.map(drop))
            .unwrap();
        Self(tx)
    }

    async fn release(self) {
        self.0.rollback().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_fences_the_first() {
    for db in stores().await {
        let first = testing::ledger(&db, &[&TABLE]).await;
        first.append(opening("call-1", "lookup")).await.unwrap();
        let second = testing::ledger(&db, &[&TABLE]).await;
        second.append(opening("call-2", "lookup")).await.unwrap();
        assert!(matches!(first.append(opening("call-3", "lookup")).await, Err(LedgerError::Fenced)));
        assert!(matches!(*first.condition(), Condition::Fenced));
        second.append(opening("call-4", "lookup")).await.unwrap();
        assert_eq!(checks(&second).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_back_is_noted_and_time_never_falls() {
    for db in stores().await {
        let clock = ManualClock::at(1_000_000);
        let ledger = Ledger::start(
            &db,
            Vec::leak(vec![&TABLE]),
            testing::options(&db),
            Arc::new(clock.clone()),
            &Tasks::default(),
        )
        .await
        .unwrap();
        ledger.append(opening("call-1", "lookup")).await.unwrap();
        clock.set(400_000);
        ledger.append(opening("call-2", "lookup")).await.unwrap();
        let rows = ledger.reader().page(ledger.stream(), 0, 10).await.unwrap();
        assert_eq!(rows[1].at, 1_000_000);
        let record: Value = serde_json::from_str(rows[1].record.as_deref().unwrap()).unwrap();
        assert_eq!(record["detail"]["clock_back_ms"], json!(600_000));
        assert_eq!(checks(&ledger).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_by_session_trace_and_kind_and_pages_continue() {
    for db in stores().await {
        let ledger = filled(&db).await;
        for filter in [
            Filter { trace_id: Some("trace-of-the-test".into()), ..Filter::default() },
            Filter { kind: Some("tool.*".into()), ..Filter::default() },
            Filter { kind: Some("tool.*".into()), ascending: true, ..Filter::default() },
        ] {
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let page = ledger.query(&filter, after.as_ref(), 3).await.unwrap();
                assert!(page.rows.iter().all(|row| row.record.is_some()));
                seen.extend(page.rows.into_iter().map(|row| row.seq));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            let mut expected: Vec<i64> = (1..=10).collect();
            if !filter.ascending {
                expected.reverse();
            }
            assert_eq!(seen, expected, "{filter:?}");
        }
        let none = Filter { session_id: Some("other".into()), ..Filter::default() };
        assert!(ledger.query(&none, None, 10).await.unwrap().rows.is_empty());
        let wild = Filter { kind: Some("tool_opened".into()), ..Filter::default() };
        assert!(ledger.query(&wild, None, 10).await.unwrap().rows.is_empty());
    }
}

proptest! {
    #[test]
    fn the_joined_text_is_canonical(
        actor in ".{0,20}", reason in proptest::option::of(".{0,40}"), policy in proptest::option::of(".{0,20}"),
        stream in "[a-z0-9-]{1,20}", seq in 1_i64..1_000_000_000, at in 0_i64..4_000_000_000_000,
        session in proptest::option::of(".{0,30}"), chain in proptest::collection::vec(".{0,10}", 0..5),
        key in ".{0,12}", value in ".{0,60}", number in -9_007_199_254_740_991_i64..=9_007_199_254_740_991,
        subject in proptest::option::of((".{0,10}", ".{0,30}")),
    ) {
        let mut draft = Draft::system(EntryKind::ToolOpened, "opened").with(&key, value).with("n", number);
        draft.actor_id = actor.into();
        draft.act_chain = chain;
        draft.session_id = session.map(SessionId::from);
        draft.reason = reason.map(Into::into);
        draft.policy = policy.map(Into::into);
        draft.subject = subject.map(|(kind, id)| (kind.into(), id.into()));
        let rendered = draft.render(EntryId::generate()).unwrap();
        let text = rendered.join(&stream, seq, at, &"a".repeat(64));
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_json_canonicalizer::to_string(&value).unwrap(), text);
    }
}

#[test]
fn a_record_over_its_bounds_is_refused_whole() {
    use crate::record::RecordError as E;
    let draft = || Draft::system(EntryKind::ToolOpened, "opened");
    let refused = |draft: Draft| draft.render(EntryId::generate()).unwrap_err();
    assert_eq!(refused(draft().with("x", 1.5)), E::Float("/x".into()));
    assert_eq!(refused(draft().with("x", json!({"a": [u64::MAX]}))), E::IntegerRange("/x/a/0".into()));
    assert_eq!(refused(draft().with("x", 1_i64 << 53)), E::IntegerRange("/x".into()));
    assert_eq!(refused(draft().with("x", "é".repeat(257))), E::StringTooLong("/x".into()));
    assert!(draft().with("x", "é".repeat(256)).render(EntryId::generate()).is_ok());
    let many =
        (0..100).map(|i| (format!("k{i}"), Value::from("v".repeat(200)))).collect::<serde_json::Map<_, _>>();
    assert!(matches!(refused(draft().with("x", many)), E::DetailTooLarge(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_in_use_reaches_neither_record_nor_row() {
    for db in stores().await {
        let mut options = testing::options(&db);
        options.leak = systemprompt_leak::Scanner::new();
        let value = systemprompt_models::Secret::from("s3cr3t-Value-0123456789");
        let _held = options.leak.hold("crm", &value).unwrap();
        let clock = Arc::new(systemprompt_models::SystemClock);
        let ledger =
            Ledger::start(&db, Vec::leak(vec![&TABLE]), options, clock, &Tasks::default()).await.unwrap();
        let mut unit = Unit::new();
        let draft = Draft::new(EntryKind::ToolOpened, &context(), "opened")
            .with("tool", "lookup")
            .with("note", "x s3cr3t-Value-0123456789 y")
            .with_subject("mcp_tool", "demo/s3cr3t-Value-0123456789")
            .with_reason("czNjcjN0LVZhbHVlLTAxMjM0NTY3ODk=");
        let ledger_opened = unit.record(draft);
        unit.open(Opened { id: "call-s3cr3t-Value-0123456789".into(), tool: "lookup", ledger_opened });
        ledger.append(unit).await.unwrap();
        let rows = ledger.reader().page(ledger.stream(), 0, 10).await.unwrap();
        let record = rows[0].record.as_deref().unwrap();
        assert!(
            record.contains("[redacted:crm]") && !record.contains("s3cr3t") && !record.contains("czNjcjN0"),
            "{record}"
        );
        assert!(!rows[0].subject_id.as_deref().unwrap().contains("s3cr3t"));
        assert!(ledger.metrics().scrubbed >= 4);
        assert_eq!(checks(&ledger).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_refuses_openings_and_still_closes() {
    for db in stores().await {
        let tasks = Tasks::default();
        let mut options = testing::options(&db);
        options.min_free_bytes = u64::MAX;
        let clock = Arc::new(systemprompt_models::SystemClock);
        let ledger = Ledger::start(&db, Vec::leak(vec![&TABLE]), options, clock, &tasks).await.unwrap();
        // The first look at the disk comes after a second.
        ledger.append(opening("call-1", "lookup")).await.unwrap();
        for _ in 0..100 {
            if matches!(*ledger.condition(), Condition::DiskLow) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(matches!(ledger.commit(opening("call-2", "lookup")).await, Err(LedgerError::DiskLow)));
        ledger.append(closing("call-1")).await.unwrap();
        assert_eq!(checks(&ledger).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_end_shares_the_commit_of_the_next_call_and_never_waits_for_one() {
    for db in stores().await {
        let ledger = testing::ledger(&db, &[&TABLE]).await;
        let mut shared = 0;
        for round in 0..20 {
            let id = format!("call-{round}");
            ledger.append(opening(&id, "lookup")).await.unwrap();
            let before = ledger.metrics().batches;
            let (ended, begun) = tokio::join!(
                ledger.append_deferred(closing(&id)),
                ledger.append(opening(&format!("{id}-next"), "lookup"))
            );
            assert!(ended.is_ok() && begun.is_ok());
            shared += u64::from(ledger.metrics().batches == before + 1);
        }
        assert!(shared > 0, "no end ever went with another call");
        // The last one comes alone.
        ledger.append_deferred(closing("call-0-next")).await.unwrap();
        assert_eq!(checks(&ledger).await, Vec::<&str>::new());
    }
}
