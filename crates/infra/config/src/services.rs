//! The services folder: access-control, governance and MCP servers as YAML. Everything is read and checked together; one bad
//! file and nothing of that reading counts.

pub mod access_control;
pub mod governance;
pub mod mcp;

pub use access_control::AccessControlConfig;
pub use governance::GovernanceConfig;
pub use mcp::McpServerConfig;
use std::collections::BTreeMap;

/// What the services folder says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    pub access_control: AccessControlConfig,
    pub governance: GovernanceConfig,
    /// By server name.
    pub mcp_servers: BTreeMap<String, McpServerConfig>,
}
