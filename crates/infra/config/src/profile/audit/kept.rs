//! `audit.payloads` and `audit.retention`: what is kept beside the records, how, and for how long (AUD-31, AUD-32).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Shortest time for which records are kept without an acknowledgement, in days: six months.
pub const SIX_MONTHS_DAYS: u32 = 183;

/// Families of records that may have a time of their own. `system.*` is kept for ever.
pub const RECORD_FAMILIES: [&str; 10] = [
    "admin.*",
    "agent.*",
    "authz.*",
    "config.*",
    "governance.*",
    "inference.*",
    "mcp.*",
    "oauth.*",
    "secret.*",
    "tool.*",
];

/// How the payloads of a class are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PayloadMode {
    /// As they are, less the values of secrets in use.
    Full,
    /// Less everything that the secret rules find, too.
    Redacted,
    /// A salted commitment: who has the body can show that it is the one.
    HashOnly,
    /// A commitment that nobody can open.
    Off,
}

/// How payloads are kept, by class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PayloadModes {
    /// Model requests and answers.
    pub inference: PayloadMode,
    /// Arguments and results of tools.
    pub tool: PayloadMode,
    /// What administration changed.
    pub change: PayloadMode,
    /// Addresses of callers.
    pub client: PayloadMode,
    /// Reasons, and lists that are too long for a record.
    pub note: PayloadMode,
}

impl Default for PayloadModes {
    fn default() -> Self {
        Self {
            inference: PayloadMode::HashOnly,
            tool: PayloadMode::Redacted,
            change: PayloadMode::Full,
            client: PayloadMode::Full,
            note: PayloadMode::Full,
        }
    }
}

/// How long records and payloads are kept, in days. What is older goes each day at 03:20 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Records of all kinds that `kinds` does not name.
    #[schemars(range(min = 1, max = 36_500))]
    pub default_days: u32,
    /// Records by family, as `tool.*`; what is given is added to the defaults. `system.*` is kept for ever.
    #[serde(deserialize_with = "with_default_kinds")]
    pub kinds: BTreeMap<String, u32>,
    pub payloads: PayloadDays,
    /// `acknowledged` lets records be kept for less than 183 days.
    pub below_six_months: Option<BelowSixMonths>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BelowSixMonths {
    Acknowledged,
}

/// How long payloads are kept, in days, by class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PayloadDays {
    #[schemars(range(min = 1, max = 36_500))]
    pub inference: u32,
    #[schemars(range(min = 1, max = 36_500))]
    pub tool: u32,
    #[schemars(range(min = 1, max = 36_500))]
    pub change: u32,
    #[schemars(range(min = 1, max = 36_500))]
    pub client: u32,
    #[schemars(range(min = 1, max = 36_500))]
    pub note: u32,
}

impl Default for PayloadDays {
    fn default() -> Self {
        Self { inference: 30, tool: 90, change: 1100, client: 30, note: 400 }
    }
}

fn default_kinds() -> BTreeMap<String, u32> {
    [("admin.*".to_owned(), 1100)].into()
}

fn with_default_kinds<'de, D: serde::Deserializer<'de>>(de: D) -> Result<BTreeMap<String, u32>, D::Error> {
    let mut kinds = default_kinds();
    kinds.extend(BTreeMap::deserialize(de)?);
    Ok(kinds)
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            default_days: 400,
            kinds: default_kinds(),
            payloads: PayloadDays::default(),
            below_six_months: None,
        }
    }
}
