//! Storage on two engines behind one type: pools, the `sql!` and `on!` macros, write transactions through the write gate,
//! migrations, and throw-away databases for tests.
//!
//! ```
//! # async fn example(db: systemprompt_database::Db) -> Result<(), sqlx::Error> {
//! use systemprompt_database::{on, sql};
//! let (one,): (i64,) = on!(&db, pool => sqlx::query_as(sql!("SELECT CAST(1 AS BIGINT)")).fetch_one(pool).await)?;
//! assert_eq!(one, 1);
//! # Ok(())
//! # }
//! ```

pub mod claim;
pub mod contention;
pub mod durability;
pub mod gather;
pub mod migrate;
pub mod notify;
pub mod pool;
#[cfg(feature = "test-support")]
pub mod testing;
pub mod write;

pub use claim::{Claim, ClaimError};
pub use contention::{is_contended, retry_contended};
pub use durability::durability;
pub use gather::Gather;
pub use migrate::{Migration, MigrationError, migrate, status};
pub use notify::{Notification, Notifications};
pub use pool::{ConnectError, Db, Engine, SqliteDb};
pub use sqlx::types::Json;
pub use write::{Deleted, WriteGate, WriteTx};

/// Marks a statement. The text is portable SQL for both engines; one test finds every mark and prepares it on each.
#[macro_export]
macro_rules! sql {
    ($text:literal) => {
        $text
    };
}

/// Runs one expression on whichever engine `db` is; `pool` names the pool inside it. For reads: on SQLite the pool's
/// connections are `query_only`.
#[macro_export]
macro_rules! on {
    ($db:expr, $pool:ident => $run:expr) => {
        match $db {
            $crate::Db::Sqlite(sqlite) => {
                let $pool = sqlite.reader();
                $run
            }
            $crate::Db::Postgres($pool) => $run,
        }
    };
}

/// Runs one expression inside a write transaction; `conn` names its connection.
#[macro_export]
macro_rules! on_tx {
    ($tx:expr, $conn:ident => $run:expr) => {
        match &mut $tx {
            $crate::WriteTx::Sqlite(tx) => {
                let $conn = tx.conn();
                $run
            }
            $crate::WriteTx::Postgres(tx) => {
                let $conn = &mut **tx;
                $run
            }
        }
    };
}
