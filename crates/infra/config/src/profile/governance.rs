//! `governance`: who decides, and whether the pipeline runs (SEC-64, SEC-70, SEC-81). Policies themselves are a service file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceProfile {
    pub authz: AuthzConfig,
    pub pipeline: PipelineConfig,
    pub hooks: HooksConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthzConfig {
    /// Absent: everything is denied, with the policy `authz_default_deny`.
    pub hook: Option<AuthzHookConfig>,
    pub actor_check: ActorCheck,
    /// How long the rules may stay unconfirmed, in seconds; after that everything is denied with the policy `authz_stale`. They
    /// are confirmed every five seconds.
    #[schemars(range(min = 10, max = 3600))]
    pub max_staleness_s: u32,
}

impl Default for AuthzConfig {
    fn default() -> Self {
        Self { hook: None, actor_check: ActorCheck::default(), max_staleness_s: 60 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthzHookConfig {
    pub mode: AuthzHookMode,
    /// Mode `webhook`: the service that is asked. https, or http to this host.
    #[serde(default)]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// Mode `webhook`: how long its answer may take.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 50, max = 5000))]
    pub timeout_ms: u32,
    /// Mode `webhook`: our own rules must allow first.
    #[serde(default)]
    pub require_rules: bool,
    /// Mode `webhook`: the arguments of tool calls leave with the question.
    #[serde(default)]
    pub include_arguments: bool,
    /// The sentence that the mode `unrestricted` demands.
    #[serde(default)]
    pub acknowledgement: Option<String>,
}

fn default_timeout_ms() -> u32 {
    500
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthzHookMode {
    /// Our own rules decide.
    Rules,
    /// A service decides; it is asked by a signed request, and whatever is no answer denies (policy `authz_hook_fault`).
    Webhook,
    /// Everything is denied, with the policy `authz_disabled`.
    Disabled,
    /// Everything is allowed, with the policy `authz_unrestricted`; needs the acknowledgement.
    Unrestricted,
}

/// What `governance.authz.hook.acknowledgement` must say for the mode `unrestricted`, to the letter.
pub const UNRESTRICTED_ACKNOWLEDGEMENT: &str = "I understand this disables all authorization";

/// How the actors of a delegation chain count beside the subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorCheck {
    /// A deny rule on any actor denies.
    #[default]
    DenyOnly,
    /// Every actor needs an allow of its own.
    Full,
    Off,
}

impl ActorCheck {
    /// The word of the configuration and of records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DenyOnly => "deny_only",
            Self::Full => "full",
            Self::Off => "off",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HooksConfig {
    pub on_allow: HookOnAllow,
    pub on_redact: HookOnRedact,
}

/// What the hook of a coding agent is told of a tool that may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookOnAllow {
    /// `allow`: the agent does not ask its user as well.
    #[default]
    Allow,
    /// Nothing: the agent asks its user as it would without the hook.
    None,
}

/// What becomes of a tool call from whose input a policy takes secrets (action `redact`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookOnRedact {
    /// It is refused: an agent that takes the permission and not the changed input would send the secrets.
    #[default]
    Refuse,
    /// The agent is told to run the tool with the secrets replaced by marks (`updatedInput`).
    Rewrite,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// When false, calls are recorded with the policy `governance_disabled` and not examined.
    pub enabled: bool,
    /// What becomes of a part of a conversation that was refused for a secret and is sent again with the rest.
    pub history: History,
    /// `history: audit` lets a refused secret through at the second try; this says that you want it so.
    pub acknowledge_history_audit: bool,
}

/// What becomes of a block that was refused in the same conversation before (SEC-89).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// It stays refused, and the message says which one it is.
    #[default]
    Block,
    /// Its secrets are replaced by marks, and the conversation goes on.
    Redact,
    /// It is flagged and passes.
    Audit,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self { enabled: true, history: History::Block, acknowledge_history_audit: false }
    }
}
