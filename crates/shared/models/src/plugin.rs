//! Definitions that a plugin brings along.

use serde::{Deserialize, Serialize};

/// A variable that a plugin asks for. With `secret: true` its value is kept as a secret and never shown, and a `default`
/// is an error.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginVariableDef {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub secret: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}
