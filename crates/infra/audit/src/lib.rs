//! The ledger: records that are durable before their effect, chained by hash, written by one writer a node in groups.
//!
//! A caller puts the records of one call and the rows that they open or close into a [`Unit`]; [`Ledger::commit`] returns a
//! [`Permit`] once all of it is on disk, and whoever carries the effect out takes that permit by value.

mod chain;
pub mod checkpoint;
mod condition;
mod disk;
pub mod erase;
mod error;
pub mod export;
mod ledger;
pub mod lookup;
pub mod note;
pub mod payload;
pub mod proof;
pub mod query;
mod queue;
pub mod record;
pub mod repair;
pub mod repository;
pub mod retention;
pub mod signing_key;
pub mod sink;
#[cfg(feature = "test-support")]
pub mod testing;
pub mod tree;
pub mod unit;
pub mod verify;
mod witness;
mod writer;

pub use chain::leaf_hash;
pub use checkpoint::{CheckpointError, CheckpointOptions};
pub use condition::Condition;
pub use error::LedgerError;
pub use ledger::{GroupOptions, Ledger, LedgerMetrics, LedgerOptions, Permit, Receipt, StartError};
pub use payload::{Payload, Role};
pub use record::{ActorKind, Draft, EntryKind, MAX_SAFE_INTEGER, RecordError};
pub use repository::checkpoints::CheckpointRow;
pub use repository::decisions::DecisionEntry;
pub use repository::entries::{After, Filter, LedgerReader, LedgerRow};
pub use unit::{Cell, CloseRow, Col, ColType, Guard, OpenRow, Table, Unit};
pub use witness::{Witness, Witnesses};

use systemprompt_database::Migration;

/// The ledger's database could not be read.
pub type ReadError = sqlx::Error;

/// Tables of the ledger.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1001,
        name: "ledger",
        sqlite: include_str!("../migrations/sqlite/1001_ledger.sql"),
        postgres: include_str!("../migrations/postgres/1001_ledger.sql"),
    },
    Migration {
        version: 1002,
        name: "ledger_tree",
        sqlite: include_str!("../migrations/sqlite/1002_ledger_tree.sql"),
        postgres: include_str!("../migrations/postgres/1002_ledger_tree.sql"),
    },
    Migration {
        version: 1003,
        name: "ledger_payloads",
        sqlite: include_str!("../migrations/sqlite/1003_ledger_payloads.sql"),
        postgres: include_str!("../migrations/postgres/1003_ledger_payloads.sql"),
    },
    Migration {
        version: 1004,
        name: "ledger_retention",
        sqlite: include_str!("../migrations/sqlite/1004_ledger_retention.sql"),
        postgres: include_str!("../migrations/postgres/1004_ledger_retention.sql"),
    },
    Migration {
        version: 1005,
        name: "ledger_export_cursors",
        sqlite: include_str!("../migrations/sqlite/1005_ledger_export_cursors.sql"),
        postgres: include_str!("../migrations/postgres/1005_ledger_export_cursors.sql"),
    },
];
