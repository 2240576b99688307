//! What this room brings along: its tables.

use crate::{MIGRATIONS, TABLES};
use systemprompt_audit::Table;
use systemprompt_database::Migration;
use systemprompt_extension::Extension;

/// The MCP plane as the boot sees it.
#[derive(Clone, Copy, Debug)]
pub struct McpExtension;

impl Extension for McpExtension {
    fn id(&self) -> &'static str {
        "mcp"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn depends_on(&self) -> &'static [&'static str] {
        &["authz"]
    }

    fn migrations(&self) -> Vec<Migration> {
        MIGRATIONS.to_vec()
    }

    fn tables(&self) -> Vec<&'static Table> {
        TABLES.to_vec()
    }
}
