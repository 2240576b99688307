//! `paths`: folders of the installation. A relative path counts from the data folder.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathsConfig {
    /// Files of the node itself.
    pub system: PathBuf,
    /// The YAML of rules, governance and servers.
    pub services: PathBuf,
    /// Stored bodies and artifacts.
    pub storage: PathBuf,
    /// Site files.
    pub web_path: PathBuf,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self {
            system: "system".into(),
            services: "services".into(),
            storage: "storage".into(),
            web_path: "web".into(),
        }
    }
}
