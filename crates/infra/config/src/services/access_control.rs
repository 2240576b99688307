//! `<services>/access-control/*.yaml`: departments, entities and rules (SEC-68). User rules never come from YAML.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One file, or all files of the folder together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessControlConfig {
    pub departments: Vec<DepartmentEntry>,
    pub entities: Vec<EntityEntry>,
    pub rules: Vec<RuleEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DepartmentEntry {
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    #[serde(default)]
    #[schemars(length(max = 320))]
    pub manager_email: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntityEntry {
    #[serde(rename = "type")]
    pub kind: EntityType,
    #[schemars(length(min = 1, max = 256))]
    pub id: String,
    /// Whether everyone whom no rule names may use it.
    #[serde(default)]
    pub default_included: bool,
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    pub entity_type: EntityType,
    /// One entity. Either this or `entity_match`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub entity_id: Option<String>,
    /// Entities whose id fits a pattern with `*`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub entity_match: Option<String>,
    #[serde(default)]
    pub access: AccessEffect,
    /// Each is a rule row of its own; any of them matches.
    #[serde(default)]
    pub roles: Vec<Subject>,
    /// Each is a rule row of its own, and must be declared under `departments`.
    #[serde(default)]
    pub departments: Vec<Subject>,
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub justification: Option<String>,
}

impl RuleEntry {
    /// Id or pattern of the entities, and whether it is a pattern.
    pub fn entity(&self) -> (&str, bool) {
        match (&self.entity_id, &self.entity_match) {
            (Some(id), _) => (id, false),
            (None, pattern) => (pattern.as_deref().unwrap_or_default(), true),
        }
    }
}

/// Name of a role or department, 1 to 128 bytes, case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Subject(#[schemars(length(min = 1, max = 128))] pub String);

impl Subject {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Kinds of things that rules speak of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EntityType {
    GatewayRoute,
    McpServer,
    McpTool,
    Plugin,
    Agent,
    Marketplace,
    Skill,
    Hook,
}

impl EntityType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewayRoute => "gateway_route",
            Self::McpServer => "mcp_server",
            Self::McpTool => "mcp_tool",
            Self::Plugin => "plugin",
            Self::Agent => "agent",
            Self::Marketplace => "marketplace",
            Self::Skill => "skill",
            Self::Hook => "hook",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessEffect {
    #[default]
    Allow,
    Deny,
}
