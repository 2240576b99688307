//! `<services>/governance/config.yaml`: the policies of the pipeline (SEC-81). Without the file the built-in ones run with
//! their defaults; a built-in one that the file does not list stays on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The file: one key, `governance`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceFile {
    pub governance: GovernanceConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceConfig {
    /// When false, calls are recorded with the policy `governance_disabled` and not examined.
    pub enabled: bool,
    pub policies: Vec<PolicyConfig>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Id of the policy that this one follows.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    pub after: Option<String>,
    /// The policy's own settings, which it checks itself.
    #[serde(default = "no_params")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub params: serde_json::Value,
}

/// Ids of the policies that always exist, in their order.
pub const BUILT_IN_POLICIES: [&str; 4] = ["scope_check", "secret_scan", "tool_blocklist", "rate_limit"];

fn yes() -> bool {
    true
}

fn no_params() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

impl Default for GovernanceConfig {
    fn default() -> Self {
        Self { enabled: true, policies: Vec::new() }
    }
}
