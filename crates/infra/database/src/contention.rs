//! Transactions that met others. PostgreSQL ends one of two that wait for each other; whoever was chosen begins again.

use sqlx::error::DatabaseError;
use std::error::Error;
use std::time::Duration;

/// How often a transaction is tried.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs `work`, a whole transaction from its begin to its commit, again when another transaction was preferred: a bounded number
/// of times, after which the last error is returned. What `work` does beside its transaction it does each time.
///
/// # Errors
/// Those of `work`.
pub async fn retry_contended<T, E, F>(work: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: Error + 'static,
{
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match work().await {
            Err(error) if is_contended(&error) => tracing::debug!(%error, "a transaction begins again"),
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    work().await
}

/// Whether an error says that another transaction was preferred: a deadlock, a failed serialization, or a lock that did not come
/// in time. Nothing of this one was written, and a repeat may pass.
pub fn is_contended(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // A wrapper that is transparent shows the engine's error alone.
        let of_engine = error
            .downcast_ref::<Box<dyn DatabaseError>>()
            .map(|error| &**error)
            .or_else(|| error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error));
        if let Some(error) = of_engine {
            return matches!(error.code().as_deref(), Some("40P01" | "40001" | "55P03"));
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDb;
    use crate::{Db, Migration, on, on_tx};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Barrier;

    const TABLE: Migration = Migration {
        version: 9002,
        name: "two",
        sqlite: "CREATE TABLE two (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT",
        postgres: "CREATE TABLE two (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)",
    };

    #[derive(Debug, thiserror::Error)]
    #[error("the rows cannot be written")]
    struct Outer(#[from] sqlx::Error);

    async fn add(tx: &mut crate::WriteTx, id: i64) -> Result<(), sqlx::Error> {
        on_tx!(*tx, conn => sqlx::query("UPDATE two SET n = n + 1 WHERE id = $1").bind(id)
            .execute(&mut *conn).await.map(drop))
    }

    /// Adds to both rows, in the order given; in the first attempt the other side has its first row by then.
    async fn both(db: &Db, met: &Barrier, tries: &AtomicU32, [first, second]: [i64; 2]) -> Result<(), Outer> {
        let mut tx = db.write_tx().await?;
        add(&mut tx, first).await?;
        if tries.fetch_add(1, Ordering::Relaxed) == 0 {
            met.wait().await;
        }
        add(&mut tx, second).await?;
        Ok(tx.commit().await?)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_transactions_that_wait_for_each_other_both_are_written() {
        let db = TestDb::postgres(&[TABLE]).await;
        let mut tx = db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query("INSERT INTO two (id, n) VALUES (1, 0), (2, 0)").execute(&mut *conn).await.map(drop))
            .unwrap();
        tx.commit().await.unwrap();
        let (met, tries) = (Barrier::new(2), [AtomicU32::new(0), AtomicU32::new(0)]);
        let (one, two) = tokio::join!(
            retry_contended(|| both(&db, &met, &tries[0], [1, 2])),
            retry_contended(|| both(&db, &met, &tries[1], [2, 1])),
        );
        one.unwrap();
        two.unwrap();
        assert_eq!(tries.iter().map(|n| n.load(Ordering::Relaxed)).sum::<u32>(), 3, "no deadlock happened");
        let sums: Vec<(i64,)> =
            on!(&*db, pool => sqlx::query_as("SELECT n FROM two ORDER BY id").fetch_all(pool).await).unwrap();
        assert_eq!(sums, [(2,), (2,)]);
    }

    #[tokio::test]
    async fn a_transaction_begins_again_a_bounded_number_of_times_and_only_for_contention() {
        let db = TestDb::postgres(&[TABLE]).await;
        for (code, attempts) in [("40P01", ATTEMPTS), ("40001", ATTEMPTS), ("55P03", ATTEMPTS), ("23505", 1)]
        {
            let tries = AtomicU32::new(0);
            let failed: Result<(), Outer> = retry_contended(|| async {
                tries.fetch_add(1, Ordering::Relaxed);
                let raise = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$");
                let mut tx = db.write_tx().await?;
                on_tx!(tx, conn => sqlx::raw_sql(sqlx::AssertSqlSafe(raise)).execute(&mut *conn).await.map(drop))?;
                Ok(tx.commit().await?)
            })
            .await;
            let error = failed.unwrap_err();
            assert_eq!((is_contended(&error), tries.into_inner()), (attempts > 1, attempts), "{code}");
        }
    }
}
