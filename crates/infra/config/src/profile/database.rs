//! `database`: which engine holds the data. The address is the secret `database_url`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    #[serde(rename = "type")]
    pub kind: DatabaseKind,
    /// Connections a node holds at most.
    #[schemars(range(min = 3, max = 1000))]
    pub max_connections: u32,
    /// Whether nodes tell each other of changes by `LISTEN` and `NOTIFY`, on one connection more. Without it, as behind a pooler
    /// that keeps no sessions, they find changes by polling. SQLite has one node and needs none.
    pub notifications: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseKind {
    Sqlite,
    Postgres,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { kind: DatabaseKind::Sqlite, max_connections: 16, notifications: true }
    }
}
