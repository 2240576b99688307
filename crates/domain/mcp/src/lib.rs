//! MCP: every tool call passes one authenticated, authorised, recorded path to a server that runs as a child process.
//!
//! [`McpService::handle`] answers the messages of clients. A server is decided on before anything of it is started; its child
//! gets only the secrets that its file declares; a call is on record before the child hears of it, and its answer is
//! cleaned of values in use and closed on record before it leaves.

pub mod admin_server;
pub mod child;
pub mod demo_server;
pub mod endpoint;
pub mod extension;
mod inflight;
pub mod middleware;
pub mod repository;
pub mod services;
pub mod wire;

pub use endpoint::{McpOptions, McpParts, McpService};
pub use extension::McpExtension;
pub use services::loader::McpToolLoader;
pub use services::tool::{McpToolExecutor, McpToolHandler};
pub use wire::reply::{McpBody, McpReply};

use systemprompt_audit::Table;
use systemprompt_database::Migration;

/// Protocol versions that are spoken, the latest first.
pub const PROTOCOL_VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// Companion tables that the ledger writes for this plane.
pub const TABLES: [&Table; 2] = [&repository::tool_usage::TABLE, &repository::secret_leases::TABLE];

/// Tables of this plane.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 5001,
        name: "tool_executions",
        sqlite: include_str!("../migrations/sqlite/5001_tool_executions.sql"),
        postgres: include_str!("../migrations/postgres/5001_tool_executions.sql"),
    },
    Migration {
        version: 5002,
        name: "secret_leases",
        sqlite: include_str!("../migrations/sqlite/5002_secret_leases.sql"),
        postgres: include_str!("../migrations/postgres/5002_secret_leases.sql"),
    },
    Migration {
        version: 5010,
        name: "execution_payloads",
        sqlite: include_str!("../migrations/sqlite/5010_execution_payloads.sql"),
        postgres: include_str!("../migrations/postgres/5010_execution_payloads.sql"),
    },
];
