//! `audit`: the ledger's writer (AUD-11, AUD-18).

use super::database::DatabaseKind;
use super::values::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    pub group: GroupCommit,
    /// Free space below which nothing new is admitted.
    pub min_free_bytes: ByteSize,
}

/// Bounds of one group commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupCommit {
    /// Milliseconds that the writer waits for more after a batch of several units.
    #[schemars(range(max = 50))]
    pub batch_window_ms: u32,
    /// Records of a batch: 64 on SQLite and 512 on PostgreSQL if absent.
    #[schemars(range(min = 1, max = 4096))]
    pub batch_max_records: Option<u32>,
    pub batch_max_bytes: ByteSize,
    /// Records that wait at most; a quarter is kept for closing ones.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub queue_max: u32,
    /// Milliseconds after which a caller is answered.
    #[schemars(range(min = 10, max = 60_000))]
    pub append_timeout_ms: u32,
    /// Milliseconds after which the writer gives a commit up.
    #[schemars(range(min = 100, max = 300_000))]
    pub commit_timeout_ms: u32,
}

impl GroupCommit {
    pub fn batch_max_records(&self, engine: DatabaseKind) -> u32 {
        self.batch_max_records.unwrap_or(match engine {
            DatabaseKind::Sqlite => 64,
            DatabaseKind::Postgres => 512,
        })
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { group: GroupCommit::default(), min_free_bytes: ByteSize::mib(256) }
    }
}

impl Default for GroupCommit {
    fn default() -> Self {
        Self {
            batch_window_ms: 0,
            batch_max_records: None,
            batch_max_bytes: ByteSize::mib(1),
            queue_max: 8192,
            append_timeout_ms: 2000,
            commit_timeout_ms: 10_000,
        }
    }
}
