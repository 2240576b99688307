//! `audit`: the ledger's writer (AUD-11, AUD-18), its checkpoints and their witnesses (AUD-42 to AUD-44), and what is kept beside
//! the records.

pub mod kept;

use super::database::DatabaseKind;
use super::values::ByteSize;
use crate::secrets::reference::split_words;
use kept::{PayloadModes, RetentionConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    pub group: GroupCommit,
    /// Free space below which nothing new is admitted.
    pub min_free_bytes: ByteSize,
    /// File of the key that signs checkpoints, `keys/ledger.ed25519` of the data folder if absent; or `exec:COMMAND`, which is asked
    /// for its `public-key` and to `sign`. Nothing else may use the key.
    pub signing_key_path: Option<PathBuf>,
    pub checkpoint: CheckpointSchedule,
    /// Who keeps checkpoints outside this node.
    #[schemars(length(max = 16))]
    pub witness: Vec<WitnessConfig>,
    /// Who gets the records as they come.
    #[schemars(length(max = 16))]
    pub sinks: Vec<SinkConfig>,
    pub payloads: PayloadModes,
    pub retention: RetentionConfig,
}

impl AuditConfig {
    /// The words of `exec:COMMAND` where a command signs; `Some(None)` when they cannot be told apart.
    pub fn signing_command(&self) -> Option<Option<Vec<String>>> {
        let command = self.signing_key_path.as_deref()?.to_str()?.strip_prefix("exec:")?;
        Some(split_words(command).filter(|words| !words.is_empty()))
    }
}

/// When a checkpoint is made: whichever comes first, and not more often than each second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSchedule {
    /// New records.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub records: u32,
    /// Seconds, when there are new records.
    #[schemars(range(min = 1, max = 3600))]
    pub seconds: u32,
    /// Seconds, when there are none.
    #[schemars(range(min = 10, max = 86_400))]
    pub heartbeat_seconds: u32,
}

impl Default for CheckpointSchedule {
    fn default() -> Self {
        Self { records: 1000, seconds: 10, heartbeat_seconds: 3600 }
    }
}

/// A witness: `{type: file, path}` or `{type: http, url}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    #[serde(rename = "type")]
    pub kind: WitnessKind,
    /// Of `file`: where notes are appended; relative to the data folder, better on another machine's disk.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Of `http`: where the note is sent as `POST`, `text/plain`. Plain http reaches this host only.
    #[serde(default)]
    #[schemars(extend("format" = "http-url"))]
    pub url: Option<String>,
}

/// A sink: `{name, type: file, path}`, `{name, type: http, url}` or `{name, type: syslog, url}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// What its cursor is kept under; a new name begins with the first record.
    #[schemars(length(min = 1, max = 64), extend("pattern" = "^[a-z0-9][a-z0-9_-]*$"))]
    pub name: String,
    #[serde(rename = "type")]
    pub kind: SinkKind,
    #[serde(default)]
    pub format: SinkFormat,
    /// Which records; all if absent.
    #[serde(default)]
    pub filter: SinkFilter,
    /// Of `file`: where lines are appended; relative to the data folder.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Of `http`: where records are sent as `POST`, `application/x-ndjson`; plain http reaches this host only. Of `syslog`:
    /// `tls://host:port`.
    #[serde(default)]
    pub url: Option<String>,
    /// Of `syslog`.
    #[serde(default)]
    pub tls: Option<SinkTls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SinkKind {
    File,
    Http,
    Syslog,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SinkFormat {
    /// The record byte for byte, with its hash.
    #[default]
    Jsonl,
    /// Open Cybersecurity Schema Framework 1.6.0.
    Ocsf,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SinkFilter {
    /// Kinds, or families as `tool.*`.
    #[schemars(length(max = 64))]
    pub kinds: Vec<String>,
    pub outcome: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SinkTls {
    /// Certificates in PEM that are trusted instead of those of the system; relative to the data folder.
    pub ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessKind {
    File,
    Http,
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
        Self {
            group: GroupCommit::default(),
            min_free_bytes: ByteSize::mib(256),
            signing_key_path: None,
            checkpoint: CheckpointSchedule::default(),
            witness: Vec::new(),
            sinks: Vec::new(),
            payloads: PayloadModes::default(),
            retention: RetentionConfig::default(),
        }
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
