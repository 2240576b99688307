//! The explicit list of rooms. What runs is what this file names.

use systemprompt_audit::Table;
use systemprompt_database::Migration;
use systemprompt_extension::{Extension, Registry, RegistryError};
use systemprompt_gateway::GatewayExtension;
use systemprompt_oauth::OauthExtension;
use systemprompt_security::authz::AuthzExtension;
use systemprompt_security::bans::BansExtension;
use systemprompt_security::governance::GovernanceExtension;
use systemprompt_security::session::TokensExtension;

/// The ledger's own tables.
struct LedgerExtension;

impl Extension for LedgerExtension {
    fn id(&self) -> &'static str {
        "ledger"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn migrations(&self) -> Vec<Migration> {
        systemprompt_audit::MIGRATIONS.to_vec()
    }
}

/// Tool executions and leases.
struct McpExtension;

impl Extension for McpExtension {
    fn id(&self) -> &'static str {
        "mcp"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn depends_on(&self) -> &'static [&'static str] {
        &["ledger"]
    }

    fn migrations(&self) -> Vec<Migration> {
        systemprompt_mcp::MIGRATIONS.to_vec()
    }

    fn tables(&self) -> Vec<&'static Table> {
        systemprompt_mcp::TABLES.to_vec()
    }
}

/// Every room of this binary, in order of their dependencies.
pub fn extensions() -> Vec<Box<dyn Extension>> {
    vec![
        Box::new(LedgerExtension),
        Box::new(TokensExtension),
        Box::new(AuthzExtension),
        Box::new(BansExtension),
        Box::new(GovernanceExtension),
        Box::new(OauthExtension),
        Box::new(GatewayExtension),
        Box::new(McpExtension),
    ]
}

/// The rooms as a registry.
///
/// # Errors
/// Rooms that cannot run together; `disabled` that names none of them.
pub fn registry(disabled: &[String]) -> Result<Registry, RegistryError> {
    Registry::new(extensions(), disabled)
}

/// Every step of the schema.
pub fn migrations() -> Vec<Migration> {
    extensions().iter().flat_map(|room| room.migrations()).collect()
}
