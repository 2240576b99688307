//! The writer beside transactions that want the rows of its guards.

use super::*;
use std::time::Duration;
use systemprompt_database::{WriteTx, on};

/// A unit whose guards add to these rows, in this order.
fn adding(rows: &[&'static str]) -> Unit {
    let mut unit = Unit::new();
    unit.record(Draft::new(EntryKind::ToolClosed, &context(), "ok"));
    for row in rows {
        let sql = "UPDATE quota SET used = used + 1 WHERE id = $1";
        unit.require(Guard { name: "quota", sql, cells: vec![(*row).into()] });
    }
    unit
}

async fn add(tx: &mut WriteTx, row: &'static str) {
    on_tx!(*tx, conn => sqlx::query("UPDATE quota SET used = used + 1 WHERE id = $1").bind(row)
        .execute(&mut *conn).await.map(drop))
    .unwrap();
}

async fn store() -> TestDb {
    let [_, db] = stores().await;
    execute(&db, "INSERT INTO quota (id, used) VALUES ('a', 0), ('b', 0), ('c', 0)").await;
    db
}

async fn used(db: &Db) -> Vec<i64> {
    let rows: Vec<(i64,)> =
        on!(db, pool => sqlx::query_as("SELECT used FROM quota ORDER BY id").fetch_all(pool).await).unwrap();
    rows.into_iter().map(|(used,)| used).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_meets_another_transaction_lets_it_through_and_is_written_behind_it() {
    let db = store().await;
    let ledger = testing::ledger(&db, &[&TABLE]).await;
    let mut other = db.write_tx().await.unwrap();
    add(&mut other, "b").await;
    let writer = ledger.clone();
    let unit = tokio::spawn(async move { writer.append(adding(&["a", "b"])).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The writer has a and waits for b.
    add(&mut other, "a").await;
    other.commit().await.unwrap();
    unit.await.unwrap().unwrap();
    assert!(ledger.condition().is_ready());
    assert_eq!(used(&db).await, [2, 2, 0]);
    assert_eq!(checks(&ledger).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_held_for_long_sinks_its_own_unit_alone_and_the_ledger_stays_ready() {
    let db = store().await;
    let ledger = testing::ledger(&db, &[&TABLE]).await;
    let blocker = Blocker::hold(&db).await;
    let mut other = db.write_tx().await.unwrap();
    add(&mut other, "b").await;
    let append = |rows: &'static [&'static str]| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.append(adding(rows)).await })
    };
    let first = append(&["c"]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    // These wait together for the writer, and are one batch.
    let [a, b, c] = [append(&["a"]), append(&["a", "b"]), append(&["c"])];
    tokio::time::sleep(Duration::from_millis(100)).await;
    blocker.release().await;
    for unit in [first, a, c] {
        unit.await.unwrap().unwrap();
    }
    let refused = b.await.unwrap();
    assert!(matches!(refused, Err(LedgerError::Contended)), "{refused:?}");
    assert!(ledger.condition().is_ready());
    assert_eq!(used(&db).await, [1, 0, 2]);
    other.rollback().await.unwrap();
    ledger.append(adding(&["b"])).await.unwrap();
    assert_eq!(checks(&ledger).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_refuses_units_without_guards_too_and_the_ledger_stays_ready() {
    let db = store().await;
    let ledger = testing::ledger(&db, &[&TABLE]).await;
    let mut other = db.write_tx().await.unwrap();
    // What making an index takes.
    on_tx!(other, conn => sqlx::query("LOCK TABLE calls IN SHARE MODE").execute(&mut *conn).await.map(drop))
        .unwrap();
    let many: Vec<_> = (0..12)
        .map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.append(opening(&format!("c{number}"), "search")).await })
        })
        .collect();
    // It comes behind them, and needs nothing that is locked.
    let record = ledger.clone();
    let record = tokio::spawn(async move { record.append(adding(&[])).await });
    let mut contended = 0;
    for unit in many {
        match unit.await.unwrap() {
            Err(LedgerError::Contended) => contended += 1,
            // It waited as long as a caller may.
            Err(LedgerError::Busy) => {}
            other => panic!("{other:?}"),
        }
        assert!(ledger.condition().is_ready());
    }
    assert!(contended > 0);
    let written = record.await.unwrap();
    assert!(matches!(written, Ok(_) | Err(LedgerError::Busy)), "{written:?}");
    ledger.append(adding(&["a"])).await.unwrap();
    other.rollback().await.unwrap();
    ledger.append(opening("c", "search")).await.unwrap();
    assert_eq!(checks(&ledger).await, Vec::<&str>::new());
}
