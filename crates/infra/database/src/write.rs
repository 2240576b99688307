//! Write transactions. SQLite takes one writer at a time, so the process itself decides who that is: the ledger's thread
//! and every other write transaction pass one gate. Without it other writers starve for up to a second behind the ledger's
//! back-to-back batches; with it one waiter gets its turn after each batch.

use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, Postgres, Sqlite, Transaction};
use std::sync::Arc;
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
    pub(crate) async fn begin(mut conn: PoolConnection<Sqlite>, turn: Turn) -> Result<Self, sqlx::Error> {
        conn.execute("BEGIN IMMEDIATE").await?;
        Ok(Self { open: Some(Open { conn, turn }) })
    }

    /// The connection of this transaction, for `on_tx!`.
    pub fn conn(&mut self) -> &mut SqliteConnection {
        #[expect(clippy::expect_used, reason = "`open` is taken by `finish`, which consumes the transaction")]
        &mut *self.open.as_mut().expect("the transaction is open").conn
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
