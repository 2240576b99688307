//! Write transactions. SQLite takes one writer at a time, so the process itself decides who that is: the ledger's thread
//! and every other write transaction pass one gate. Without it other writers starve for up to a second behind the ledger's
//! back-to-back batches; with it one waiter gets its turn after each batch.

use crate::{Db, retry_contended};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, Postgres, Sqlite, Transaction};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The gate before the one SQLite writer. `turn` lets at most one ordinary writer queue at `gate`, which is fair: so the
/// ledger waits for one of them at most, and each of them for one batch of the ledger.
#[derive(Clone, Debug, Default)]
pub struct WriteGate {
    turn: Arc<Mutex<()>>,
    gate: Arc<Mutex<()>>,
}

/// The right to write, until dropped.
#[derive(Debug)]
pub struct Turn {
    _gate: OwnedMutexGuard<()>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl WriteGate {
    /// Waits for the turn of an ordinary writer.
    pub async fn writer(&self) -> Turn {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let gate = Arc::clone(&self.gate).lock_owned().await;
        Turn { _gate: gate, _turn: Some(turn) }
    }

    /// Waits for the ledger's turn; blocks the calling thread, which must not be one of the async runtime's.
    pub fn ledger_blocking(&self) -> Turn {
        Turn { _gate: Arc::clone(&self.gate).blocking_lock_owned(), _turn: None }
    }
}

/// A write transaction; rolled back when dropped without [`WriteTx::commit`].
#[derive(Debug)]
pub enum WriteTx {
    Sqlite(SqliteTx),
    Postgres(Transaction<'static, Postgres>),
}

impl WriteTx {
    /// Makes the changes durable.
    ///
    /// # Errors
    /// When the commit failed or its outcome is unknown.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.finish("COMMIT").await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }

    /// Takes the changes back.
    ///
    /// # Errors
    /// When the connection is gone (the changes are gone with it).
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.finish("ROLLBACK").await,
            Self::Postgres(tx) => tx.rollback().await,
        }
    }
}

/// What a bounded deletion did.
#[derive(Clone, Copy, Debug)]
pub struct Deleted {
    pub rows: u64,
    /// How long it took, from the moment that it was its turn: on SQLite so long all others waited.
    pub held: Duration,
}

impl Db {
    /// Runs a `DELETE` of at most `limit` rows (the last parameter) whose time was over before `before` (`$1`) and, where the statement
    /// asks for it, whose key is less than `below` (`$2`), a transaction of its own without statements around it: under load the way to the connection and back is longer than what happens there, and all writers of
    /// SQLite wait meanwhile.
    ///
    /// # Errors
    /// When no connection is to be had or the statement fails; nothing is deleted then.
    pub async fn delete_some(
        &self,
        statement: &'static str,
        before: i64,
        below: Option<&str>,
        limit: i64,
    ) -> Result<Deleted, sqlx::Error> {
        match self {
            Self::Sqlite(db) => {
                let _turn = db.gate().writer().await;
                let began = Instant::now();
                let query = sqlx::query(statement).bind(before);
                let query = if let Some(below) = below { query.bind(below) } else { query };
                let done = query.bind(limit).execute(db.writer()).await?;
                Ok(Deleted { rows: done.rows_affected(), held: began.elapsed() })
            }
            Self::Postgres(pool) => {
                let began = Instant::now();
                let run = || {
                    let query = sqlx::query(statement).bind(before);
                    let query = if let Some(below) = below { query.bind(below) } else { query };
                    query.bind(limit).execute(pool)
                };
                let done = retry_contended(run).await?;
                Ok(Deleted { rows: done.rows_affected(), held: began.elapsed() })
            }
        }
    }
}

/// A SQLite write transaction. It holds the gate until the commit or the rollback really happened.
#[derive(Debug)]
pub struct SqliteTx {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    conn: PoolConnection<Sqlite>,
    turn: Turn,
}

impl SqliteTx {
    pub(crate) async fn begin(conn: PoolConnection<Sqlite>, turn: Turn) -> Result<Self, sqlx::Error> {
        // The transaction exists before its first statement: a caller that goes away while that one runs is rolled back too.
        let mut tx = Self { open: Some(Open { conn, turn }) };
        tx.conn().execute("BEGIN IMMEDIATE").await?;
        Ok(tx)
    }

    /// The connection of this transaction, for `on_tx!`.
    pub fn conn(&mut self) -> &mut SqliteConnection {
        #[expect(clippy::expect_used, reason = "`open` is taken by `finish`, which consumes the transaction")]
        &mut self.open.as_mut().expect("the transaction is open").conn
    }

    async fn finish(mut self, how: &'static str) -> Result<(), sqlx::Error> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let result = open.conn.execute(how).await.map(drop);
        if result.is_err() {
            // A connection in an unknown state must not go back to the pool; closing it ends its transaction.
            let _ = open.conn.close().await;
        }
        drop(open.turn);
        result
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let rollback = async move {
            if open.conn.execute("ROLLBACK").await.is_err() {
                let _ = open.conn.close().await;
            }
            drop(open.turn);
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The gate stays shut until this ran; a tracker would have to be carried by every transaction.
            runtime.spawn(rollback);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::databases;
    use crate::{Migration, on, on_tx};
    use std::time::Duration;

    const TABLE: Migration = Migration {
        version: 9001,
        name: "t",
        sqlite: "CREATE TABLE t (n INTEGER NOT NULL) STRICT",
        postgres: "CREATE TABLE t (n BIGINT NOT NULL)",
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_transaction_leaves_nothing_and_the_next_one_writes() {
        for db in databases(&[TABLE]).await {
            for _ in 0..20 {
                let mut tx = db.write_tx().await.unwrap();
                on_tx!(tx, conn => sqlx::query("INSERT INTO t (n) VALUES (1)").execute(&mut *conn).await.map(drop))
                    .unwrap();
                drop(tx);
                // A caller that goes away while its transaction begins.
                let begin = db.write_tx();
                let _ = tokio::time::timeout(Duration::from_micros(50), begin).await;
            }
            let mut tx = db.write_tx().await.unwrap();
            on_tx!(tx, conn => sqlx::query("INSERT INTO t (n) VALUES (2)").execute(&mut *conn).await.map(drop))
                .unwrap();
            tx.commit().await.unwrap();
            let (sum,): (i64,) = on!(&*db, pool => sqlx::query_as("SELECT CAST(SUM(n) AS BIGINT) FROM t")
                .fetch_one(pool).await)
            .unwrap();
            assert_eq!(sum, 2);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writers_at_once_all_get_their_turn_and_readers_cannot_write() {
        for db in databases(&[TABLE]).await {
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..40_i64 {
                let db = (*db).clone();
                tasks.spawn(async move {
                    let mut tx = db.write_tx().await.unwrap();
                    on_tx!(tx, conn => sqlx::query("INSERT INTO t (n) VALUES ($1)").bind(n)
                        .execute(&mut *conn).await.map(drop))
                    .unwrap();
                    tx.commit().await.unwrap();
                });
            }
            tasks.join_all().await;
            let (count,): (i64,) =
                on!(&*db, pool => sqlx::query_as("SELECT COUNT(*) FROM t").fetch_one(pool).await).unwrap();
            assert_eq!(count, 40);
            if let crate::Db::Sqlite(sqlite) = &*db {
                assert!(sqlx::query("DELETE FROM t").execute(sqlite.reader()).await.is_err());
            }
        }
    }

    #[tokio::test]
    async fn a_newer_schema_and_a_changed_migration_are_refused() {
        for db in databases(&[TABLE]).await {
            let newer = crate::migrate(&db, &[]).await.unwrap_err();
            assert!(newer.to_string().contains("schema_newer"), "{newer}");
            let changed = Migration {
                sqlite: "CREATE TABLE t2 (n INTEGER) STRICT",
                postgres: "CREATE TABLE t2 (n BIGINT)",
                ..TABLE
            };
            assert!(matches!(
                crate::migrate(&db, &[changed]).await.unwrap_err(),
                crate::MigrationError::Changed(9001)
            ));
            assert!(crate::status(&db, &[TABLE]).await.unwrap()[0].applied);
        }
    }
}
