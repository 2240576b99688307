//! The two pools. SQLite: WAL, foreign keys, readers that cannot write, and one writing connection behind the gate.

use crate::write::{SqliteTx, WriteGate, WriteTx};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long a statement waits for another writer of the same file before it fails.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection to a server is used without a test if it has answered within this time. One that was lost meanwhile fails its statement.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Pages of write-ahead log after which a commit itself moves the log into the database file (256 MiB). The ledger moves it
/// earlier, beside the writers; this is reached only where it cannot.
pub const WAL_BOUND_PAGES: u32 = 65_536;

/// The two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Why a database could not be opened. The URL is never part of the message: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the database URL begins with neither `sqlite:` nor `postgres:`")]
    Scheme,
    #[error("the database URL is malformed")]
    Url(#[source] sqlx::Error),
    #[error("the database could not be opened")]
    Open(#[source] sqlx::Error),
}

/// A database: SQLite or PostgreSQL. Clones share the pools.
#[derive(Clone, Debug)]
pub enum Db {
    Sqlite(SqliteDb),
    Postgres(PgPool),
}

/// A SQLite file: readers, the one writing connection and the gate before it.
#[derive(Clone, Debug)]
pub struct SqliteDb {
    path: PathBuf,
    read: SqlitePool,
    write: SqlitePool,
    gate: WriteGate,
}

impl SqliteDb {
    pub fn reader(&self) -> &SqlitePool {
        &self.read
    }

    /// A read-only view of a file that somebody else writes; opened at first use.
    pub fn lazy_reader(path: &Path) -> Self {
        let options =
            SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).pragma("query_only", "ON");
        let read = sqlite_pool(4).connect_lazy_with(options.clone());
        let write = sqlite_pool(1).connect_lazy_with(options);
        Self { path: path.to_path_buf(), read, write, gate: WriteGate::default() }
    }

    /// The file, which the ledger's writer opens for itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn gate(&self) -> &WriteGate {
        &self.gate
    }

    /// The writing pool; the caller holds the gate.
    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.write
    }
}

/// A connection to a file cannot be lost, so none is tested before its use.
fn sqlite_pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).test_before_acquire(false)
}

impl Db {
    /// Opens a database. SQLite files are created if missing.
    ///
    /// # Errors
    /// An unknown scheme, a malformed URL, or a database that cannot be reached within 5 seconds.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, ConnectError> {
        if url.starts_with("sqlite:") {
            Self::connect_sqlite(url, max_connections).await
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Self::connect_postgres(url, max_connections).await
        } else {
            Err(ConnectError::Scheme)
        }
    }

    async fn connect_sqlite(url: &str, max_connections: u32) -> Result<Self, ConnectError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(ConnectError::Url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("wal_autocheckpoint", WAL_BOUND_PAGES.to_string())
            .busy_timeout(BUSY_TIMEOUT);
        let path = options.get_filename().to_path_buf();
        let write = sqlite_pool(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.clone())
            .await
            .map_err(ConnectError::Open)?;
        let read = sqlite_pool(max_connections.max(1))
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(ConnectError::Open)?;
        Ok(Self::Sqlite(SqliteDb { path, read, write, gate: WriteGate::default() }))
    }

    async fn connect_postgres(url: &str, max_connections: u32) -> Result<Self, ConnectError> {
        let options =
            PgConnectOptions::from_str(url).map_err(ConnectError::Url)?.application_name("systemprompt");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections.max(2))
            .acquire_timeout(BUSY_TIMEOUT)
            // A test is a round trip, as long as most statements: a connection that has just answered needs none.
            .test_before_acquire(false)
            .before_acquire(|connection, known| {
                Box::pin(async move {
                    if known.idle_for >= TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await
            .map_err(ConnectError::Open)?;
        Ok(Self::Postgres(pool))
    }

    pub fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Begins a write transaction: `BEGIN IMMEDIATE` behind the gate on SQLite, an ordinary one on PostgreSQL. Keep it short
    /// and wait for no network inside it.
    ///
    /// # Errors
    /// When no connection is to be had, or another process holds the file for longer than the busy timeout.
    pub async fn write_tx(&self) -> Result<WriteTx, sqlx::Error> {
        match self {
            Self::Sqlite(db) => {
                let turn = db.gate.writer().await;
                let conn = db.write.acquire().await?;
                SqliteTx::begin(conn, turn).await.map(WriteTx::Sqlite)
            }
            #[expect(clippy::disallowed_methods, reason = "this is write_tx")]
            Self::Postgres(pool) => pool.begin().await.map(WriteTx::Postgres),
        }
    }

    /// Answers whether the database answers.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(db) => sqlx::query("SELECT 1").execute(&db.read).await.map(drop),
            Self::Postgres(pool) => sqlx::query("SELECT 1").execute(pool).await.map(drop),
        }
    }

    /// Closes the pools.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(db) => {
                db.read.close().await;
                db.write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}
