//! `secrets`: where secrets come from and how strictly they are checked (SCR-6, SCR-7). No value stands here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    pub source: SecretsSource,
    /// `secrets.json` beside the profile if absent; a relative path counts from the profile's folder.
    pub secrets_path: Option<PathBuf>,
    pub validation: SecretsValidationMode,
    pub file_mode: SecretsFileMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretsSource {
    /// A JSON file.
    #[default]
    File,
    /// Variables named `SYSTEMPROMPT_SECRET_<NAME>`.
    Env,
}

/// How problems with secrets are met. A platform secret that is too short stops the start in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretsValidationMode {
    /// Every problem stops the start.
    Strict,
    /// Problems of provider and custom secrets are reported, and those secrets are unavailable.
    #[default]
    Warn,
    /// Provider and custom secrets are not checked; only in the environment `test` the rest is not either.
    Skip,
}

/// Who may read the secrets file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretsFileMode {
    /// The service's user alone: no bit beyond 0600.
    #[default]
    Owner,
    /// Also its group: no bit beyond 0640; root may own the file.
    Group,
}
