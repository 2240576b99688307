//! Entities, rules, requests and decisions.

use super::audit::AuthzSource;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_config::services::access_control::AccessEffect;
use systemprompt_models::ids::RuleId;
use systemprompt_models::{Millis, Principal, RequestContext};

/// Kinds of things that rules speak of; the string form is the one of configuration, rows and records.
pub use systemprompt_config::services::access_control::EntityType as EntityKind;

/// Longest entity id, in bytes.
pub const MAX_ENTITY_ID: usize = 256;
/// Longest rule value, in characters.
pub const MAX_RULE_VALUE: usize = 128;

/// All kinds, in the order of the contract.
pub const ENTITY_KINDS: [EntityKind; 8] = [
    EntityKind::GatewayRoute,
    EntityKind::McpServer,
    EntityKind::McpTool,
    EntityKind::Plugin,
    EntityKind::Agent,
    EntityKind::Marketplace,
    EntityKind::Skill,
    EntityKind::Hook,
];

/// Parses the string form of a kind.
pub fn entity_kind(word: &str) -> Option<EntityKind> {
    ENTITY_KINDS.into_iter().find(|kind| kind.as_str() == word)
}

/// Something that may be used or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntityRef {
    pub kind: EntityKind,
    pub id: Box<str>,
}

impl EntityRef {
    pub fn new(kind: EntityKind, id: impl Into<Box<str>>) -> Self {
        Self { kind, id: id.into() }
    }
}

impl fmt::Display for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id)
    }
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleType {
    User,
    Role,
    Department,
}

impl RuleType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
            Self::Department => "department",
        }
    }
}

impl FromStr for RuleType {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::User, Self::Role, Self::Department].into_iter().find(|t| t.as_str() == word).ok_or(())
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Allow,
    Deny,
}

impl From<AccessEffect> for Access {
    fn from(effect: AccessEffect) -> Self {
        match effect {
            AccessEffect::Allow => Self::Allow,
            AccessEffect::Deny => Self::Deny,
        }
    }
}

impl Access {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl FromStr for Access {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Allow, Self::Deny].into_iter().find(|a| a.as_str() == word).ok_or(())
    }
}

/// A registered entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entity {
    #[serde(rename = "type")]
    pub kind: EntityKind,
    pub id: String,
    pub display_name: Option<String>,
    /// Whether everyone whom no rule names may use it.
    pub default_included: bool,
    pub source: String,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// Counts changes; the ETag of the entity.
    pub version: i64,
}

/// A department, as rules name it. It decides nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Department {
    pub name: String,
    pub description: Option<String>,
    pub manager_email: Option<String>,
    pub source: String,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// Counts changes; the ETag of the department.
    pub version: i64,
}

/// A rule: one subject, one entity (or a pattern with `*` over ids), one access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessRule {
    pub id: RuleId,
    pub entity_type: EntityKind,
    pub entity_id: String,
    pub is_pattern: bool,
    pub rule_type: RuleType,
    pub rule_value: String,
    pub access: Access,
    pub justification: Option<String>,
    pub source: String,
    pub created_by: String,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// Counts changes; the ETag of the rule.
    pub version: i64,
}

impl AccessRule {
    /// Kind of the entities, and the id or the pattern.
    pub fn entity(&self) -> (EntityKind, &str) {
        (self.entity_type, &self.entity_id)
    }
}

/// The outcome of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Allow,
    Deny,
}

impl Decision {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What decided: a band of the resolver (SEC-62), or the mode of the hook (SEC-70).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matched {
    UnknownEntity,
    UserDeny,
    UserAllow,
    RoleDeny,
    RoleAllow,
    DepartmentDeny,
    DepartmentAllow,
    DefaultIncluded,
    NotAssigned,
    /// A deny rule names an actor of the delegation chain.
    ActorDeny,
    /// A deny rule names the person whom the client serves.
    OwnerDeny,
    /// The rule set was not confirmed in time.
    Stale,
    /// No hook is configured or installed.
    DefaultDeny,
    /// The hook's mode is `disabled`.
    Disabled,
    /// The hook's mode is `unrestricted`.
    Unrestricted,
    /// The decision service allows it.
    WebhookAllow,
    /// The decision service denies it.
    WebhookDeny,
    /// The decision service gave no decision.
    HookFault,
}

impl Matched {
    /// The label in rows, records and refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownEntity => "unknown_entity",
            Self::UserDeny => "user_deny",
            Self::UserAllow => "user_allow",
            Self::RoleDeny => "role_deny",
            Self::RoleAllow => "role_allow",
            Self::DepartmentDeny => "department_deny",
            Self::DepartmentAllow => "department_allow",
            Self::DefaultIncluded => "default_included",
            Self::NotAssigned => "not_assigned",
            Self::ActorDeny => "actor_deny",
            Self::OwnerDeny => "owner_deny",
            Self::Stale => "authz_stale",
            Self::DefaultDeny => "authz_default_deny",
            Self::Disabled => "authz_disabled",
            Self::Unrestricted => "authz_unrestricted",
            Self::WebhookAllow => "authz_webhook_allow",
            Self::WebhookDeny => "authz_webhook_deny",
            Self::HookFault => "authz_hook_fault",
        }
    }

    pub fn decision(self) -> Decision {
        match self {
            Self::UserAllow
            | Self::RoleAllow
            | Self::DepartmentAllow
            | Self::DefaultIncluded
            | Self::Unrestricted
            | Self::WebhookAllow => Decision::Allow,
            _ => Decision::Deny,
        }
    }

    /// What a person is told.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownEntity => "nothing of this name is registered",
            Self::UserDeny => "a rule denies this user",
            Self::UserAllow => "a rule allows this user",
            Self::RoleDeny => "a rule denies one of the user's roles",
            Self::RoleAllow => "a rule allows one of the user's roles",
            Self::DepartmentDeny => "a rule denies the user's department",
            Self::DepartmentAllow => "a rule allows the user's department",
            Self::DefaultIncluded => "everyone whom no rule names may use it",
            Self::NotAssigned => "no rule allows it",
            Self::ActorDeny => "a rule denies an actor of the delegation chain",
            Self::OwnerDeny => "a rule denies the owner of this client",
            Self::Stale => "the rule set could not be confirmed in time",
            Self::DefaultDeny => "no decision hook is configured",
            Self::Disabled => "the decision hook is disabled, which denies everything",
            Self::Unrestricted => "authorization is switched off",
            Self::WebhookAllow => "the decision service allows it",
            Self::WebhookDeny => "the decision service denies it",
            Self::HookFault => "hook_unavailable",
        }
    }
}

/// The rule that decided, as explanations name it.
#[derive(Debug, PartialEq, Eq)]
pub struct DecidingRule {
    pub id: RuleId,
    pub rule_type: RuleType,
    pub value: Arc<str>,
}

/// A decision on one entity. Cloning it, and making it, allocates nothing.
#[derive(Clone, Debug)]
pub struct AuthzDecision {
    pub matched: Matched,
    pub rule: Option<Arc<DecidingRule>>,
    pub source: AuthzSource,
    pub epoch: i64,
    pub set_hash: Arc<str>,
    /// What a decision service said of its decision.
    pub told: Option<Arc<Told>>,
    /// How the actors counted, where somebody acts for the subject.
    pub actors: Option<ActorsCounted>,
    /// How long it took, in microseconds, as far as somebody measured it. Of decisions made together the first bears all.
    pub elapsed_us: u64,
}

/// How the actors of a delegation chain counted in a decision (SEC-64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActorsCounted {
    pub check: ActorCheck,
    /// Place in the chain of the actor for whom the call is denied.
    pub denied: Option<usize>,
}

/// Words of a decision service, shortened and without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub reason: Option<Box<str>>,
    pub policy: Option<Box<str>>,
}

impl Told {
    /// Of words that [`super::words::Words`] cleaned; `None` where nothing was said.
    pub(super) fn of(reason: Option<String>, policy: Option<String>) -> Option<Arc<Self>> {
        let said = |text: Option<String>| text.filter(|text| !text.is_empty()).map(String::into_boxed_str);
        let told = Self { reason: said(reason), policy: said(policy) };
        (told.reason.is_some() || told.policy.is_some()).then(|| Arc::new(told))
    }
}

impl AuthzDecision {
    /// What a person is told: the reason of what decided, and what a decision service said.
    pub fn reason(&self) -> Cow<'static, str> {
        let own = self.matched.reason();
        let Some(told) = &self.told else { return Cow::Borrowed(own) };
        match (&told.reason, &told.policy) {
            (Some(reason), Some(policy)) => Cow::Owned(format!("{own}: {reason} ({policy})")),
            (Some(word), None) | (None, Some(word)) => Cow::Owned(format!("{own}: {word}")),
            (None, None) => Cow::Borrowed(own),
        }
    }

    pub fn decision(&self) -> Decision {
        self.matched.decision()
    }

    pub fn is_allow(&self) -> bool {
        self.decision() == Decision::Allow
    }

    /// The policy label.
    pub fn policy(&self) -> &'static str {
        self.matched.as_str()
    }
}

/// What is asked of a hook.
#[derive(Clone, Copy, Debug)]
pub struct AuthzRequest<'a> {
    pub principal: &'a Principal,
    pub entity: &'a EntityRef,
    /// The request that it is about, for its correlation ids.
    pub context: Option<&'a RequestContext>,
    /// The call that it is about, if it is one.
    pub call: Option<CallInfo<'a>>,
}

/// What a hook may want to know of a call.
#[derive(Clone, Copy, Debug)]
pub struct CallInfo<'a> {
    /// Through which door it came: `hook`, `mcp`, `gateway`, …
    pub kind: &'static str,
    pub tool: Option<&'a str>,
    /// The arguments of a tool call, as JSON.
    pub arguments: Option<&'a [u8]>,
}

impl<'a> AuthzRequest<'a> {
    /// Whether a principal may use an entity, and nothing more.
    pub fn new(principal: &'a Principal, entity: &'a EntityRef) -> Self {
        Self { principal, entity, context: None, call: None }
    }
}
