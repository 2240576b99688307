//! `<services>/mcp/*.yaml`: MCP servers (MCP-1 to MCP-3) and the secrets each of them is given (SCR-31, SCR-32).

mod check;

pub(super) use check::check;
pub(crate) use check::check_secrets;

use crate::profile::values::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One file: servers by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct McpFile {
    pub mcp_servers: BTreeMap<String, McpServerConfig>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpServerConfig {
    #[serde(rename = "type")]
    pub kind: McpServerType,
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default)]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Server of this binary; `internal` only.
    #[serde(default)]
    pub binary: Option<InternalServer>,
    /// Program; `stdio` only.
    #[serde(default)]
    #[schemars(length(min = 1, max = 4096))]
    pub command: Option<String>,
    #[serde(default)]
    pub args: Vec<String>,
    /// Working folder of the program; a relative path counts from the services folder.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    #[serde(default)]
    pub oauth: McpOauth,
    #[serde(default)]
    pub tools: McpTools,
    /// Secrets that its process is given; none if empty.
    #[serde(default)]
    pub secrets: Vec<SecretEntry>,
    /// Plain variables of its process.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub timeouts: McpTimeouts,
    #[serde(default)]
    pub limits: McpLimits,
    #[serde(default)]
    pub lifecycle: McpLifecycle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum McpServerType {
    /// A server of this binary, run as a child process.
    Internal,
    /// A program that speaks MCP on its standard streams.
    Stdio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InternalServer {
    SystempromptAdmin,
    Demo,
}

impl InternalServer {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SystempromptAdmin => "systemprompt-admin",
            Self::Demo => "demo",
        }
    }
}

/// What a caller must bring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct McpOauth {
    pub required: bool,
    pub scopes: Vec<String>,
}

/// Tool names, exact or with a closing `*`. Deny wins; an empty allow list allows all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct McpTools {
    pub allow: Vec<String>,
    pub deny: Vec<String>,
}

/// A secret by name, or with the variable that it appears as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretEntry {
    Name(#[schemars(length(min = 1, max = 64))] String),
    Detailed(SecretLease),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretLease {
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Variable that carries it instead of its own name.
    #[serde(rename = "as", default)]
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub variable: Option<String>,
}

/// The entry that stands for the provider keys and all shared custom secrets.
pub const INHERIT: &str = "inherit";

/// Milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct McpTimeouts {
    #[schemars(range(min = 1, max = 3_600_000))]
    pub connect_ms: u32,
    #[schemars(range(min = 1, max = 3_600_000))]
    pub initialize_ms: u32,
    #[schemars(range(min = 1, max = 3_600_000))]
    pub list_ms: u32,
    #[schemars(range(min = 1, max = 3_600_000))]
    pub call_ms: u32,
    #[schemars(range(min = 1, max = 86_400_000))]
    pub call_max_ms: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct McpLimits {
    pub request_bytes: ByteSize,
    pub result_bytes: ByteSize,
    /// Calls at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent: u32,
    /// Calls of one principal at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub per_principal: u32,
    /// Calls that wait, at most 5 s.
    #[schemars(range(max = 100_000))]
    pub queue: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct McpLifecycle {
    pub start: McpStart,
    /// Seconds without a call after which the process is stopped; never if absent.
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_s: Option<u32>,
    #[schemars(range(min = 1, max = 3600))]
    pub health_interval_s: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum McpStart {
    #[default]
    OnDemand,
    Always,
}

fn yes() -> bool {
    true
}

impl SecretEntry {
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Detailed(SecretLease { name, .. }) => name,
        }
    }

    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Name(_) => None,
            Self::Detailed(lease) => lease.variable.as_deref(),
        }
    }
}

impl McpTools {
    /// Whether the server's file lets a tool be seen and called.
    pub fn permits(&self, tool: &str) -> bool {
        let listed = |list: &[String]| {
            list.iter().any(|p| p.strip_suffix('*').map_or(p == tool, |prefix| tool.starts_with(prefix)))
        };
        !listed(&self.deny) && (self.allow.is_empty() || listed(&self.allow))
    }
}

impl Default for McpOauth {
    fn default() -> Self {
        Self { required: true, scopes: vec!["mcp".into()] }
    }
}

impl Default for McpTimeouts {
    fn default() -> Self {
        Self {
            connect_ms: 5000,
            initialize_ms: 30_000,
            list_ms: 15_000,
            call_ms: 60_000,
            call_max_ms: 600_000,
        }
    }
}

impl Default for McpLimits {
    fn default() -> Self {
        Self {
            request_bytes: ByteSize::mib(4),
            result_bytes: ByteSize::mib(4),
            max_concurrent: 64,
            per_principal: 16,
            queue: 128,
        }
    }
}

impl Default for McpLifecycle {
    fn default() -> Self {
        Self { start: McpStart::OnDemand, idle_s: None, health_interval_s: 30 }
    }
}
