//! `systemprompt-admin`, a server of this binary for administrators: read-only, without a secret and without a database.

use crate::child::{ServerInfo, ToolServer, on_standard_streams};
use crate::services::tool::{HandlerFuture, McpToolHandler, ToolContext, ToolResult};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;

/// Runs the server on the standard streams until its input ends.
///
/// # Errors
/// When the streams cannot be read or written.
pub async fn run_admin_server() -> io::Result<()> {
    on_standard_streams(server()?).await
}

fn server() -> io::Result<ToolServer> {
    let info = ServerInfo {
        name: "systemprompt-admin",
        title: "systemprompt administration",
        instructions: "Read-only tools about this deployment, for its administrators.",
    };
    ToolServer::new(info, vec![Arc::new(Ping), Arc::new(Version)])
}

struct Ping;

impl McpToolHandler for Ping {
    fn tool_name(&self) -> &'static str {
        "ping"
    }

    fn description(&self) -> &'static str {
        "Answers, which shows that the path to this server works."
    }

    fn input_schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false})
    }

    fn annotations(&self) -> Value {
        json!({"readOnlyHint": true})
    }

    fn handle<'a>(&'a self, _: &'a Value, _: &'a ToolContext) -> HandlerFuture<'a> {
        Box::pin(async { Ok(ToolResult::text("pong")) })
    }
}

struct Version;

impl McpToolHandler for Version {
    fn tool_name(&self) -> &'static str {
        "version"
    }

    fn description(&self) -> &'static str {
        "Tells which version of systemprompt runs."
    }

    fn input_schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false})
    }

    fn annotations(&self) -> Value {
        json!({"readOnlyHint": true})
    }

    fn handle<'a>(&'a self, _: &'a Value, _: &'a ToolContext) -> HandlerFuture<'a> {
        Box::pin(async { Ok(ToolResult::structured(json!({"version": env!("CARGO_PKG_VERSION")}))) })
    }
}
