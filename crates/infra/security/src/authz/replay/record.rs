//! The members of a recorded decision that it depended on.

use super::entities;
use crate::authz::resolver::RuleSet;
use crate::authz::types::EntityRef;
use crate::governance::Origin;
use crate::governance::replay::RecordedLink;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use systemprompt_audit::payload::Named;
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_models::Permission;

/// Characters of a name that a record keeps.
pub(super) const KEPT_NAME: usize = 200;
/// Roles that a record keeps; one with that many may have had more.
pub(super) const KEPT_ROLES: usize = 32;

#[derive(Deserialize)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    pub actor: Actor<'a>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub outcome: Cow<'a, str>,
    #[serde(default, borrow)]
    pub policy: Cow<'a, str>,
    #[serde(default)]
    pub act_chain: Vec<String>,
    #[serde(default, borrow)]
    pub session_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub context_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub task_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub trace_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    payloads: Option<&'a RawValue>,
    #[serde(borrow)]
    pub detail: Detail<'a>,
}

#[derive(Deserialize)]
pub(super) struct Actor<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct Detail<'a> {
    #[serde(default, borrow)]
    pub matched: Vec<Matched<'a>>,
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub department: Option<String>,
    /// The person whom the client serves.
    #[serde(default, borrow)]
    pub owner: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub call_id: Cow<'a, str>,
    #[serde(default, borrow)]
    origin: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub tool: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub server: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub plugin: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub agent: Option<Cow<'a, str>>,
    #[serde(default)]
    pub agent_scope: Option<Vec<String>>,
    /// Absent in records of older versions, which do not tell agent and scope either.
    #[serde(default)]
    permissions: Option<Vec<String>>,
    #[serde(default, borrow)]
    pub chain: Vec<RecordedLink<'a>>,
    /// Names of rules and how often each hit; where they hit stands in the row.
    #[serde(default, borrow)]
    findings: Option<&'a RawValue>,
    #[serde(default)]
    pub leaks: Option<u64>,
    #[serde(default)]
    pub redacted_segments: Option<u64>,
    #[serde(default)]
    pub listed: Option<u64>,
    /// Who stood between the principal and the call, and how they counted.
    #[serde(default)]
    pub actors: Option<Vec<String>>,
    #[serde(default)]
    pub actor_check: Option<ActorCheck>,
}

#[derive(Deserialize)]
pub(super) struct Matched<'a> {
    #[serde(borrow)]
    pub entity: Cow<'a, str>,
}

impl Record<'_> {
    /// The payload with the arguments, as the record names it.
    pub(super) fn arguments(&self) -> Option<Named> {
        let payloads: serde_json::Value = serde_json::from_str(self.payloads?.get()).ok()?;
        let named = Named::of(&serde_json::json!({"payloads": payloads}));
        named.into_iter().find(|named| named.role == systemprompt_audit::Role::Arguments.as_str())
    }

    /// Whether its kind is that of a call that came to the policies.
    pub(super) fn is_governed(&self) -> bool {
        self.kind == "governance.decision"
    }
}

impl Detail<'_> {
    /// The door; none of decisions that are of no call.
    pub(super) fn origin(&self) -> Option<Origin> {
        match self.origin.as_deref()? {
            "hook" => Some(Origin::Hook),
            "mcp" => Some(Origin::Mcp),
            "gateway" => Some(Origin::Gateway),
            "a2a" => Some(Origin::A2a),
            "inference_hook" => Some(Origin::InferenceHook),
            _ => None,
        }
    }

    pub(super) fn has_findings(&self) -> bool {
        self.findings.is_some()
    }

    /// The permissions of the credential, where the record tells them whole.
    pub(super) fn permissions(&self) -> Option<Vec<Permission>> {
        self.permissions.as_ref()?.iter().map(|word| word.parse().ok()).collect()
    }

    /// Whether a name was cut, or hidden because it held a secret.
    pub(super) fn names_lost(&self) -> bool {
        let names = [&self.tool, &self.server, &self.agent];
        names.into_iter().flatten().any(|name| is_lost(name))
    }

    /// What the call was decided on, by the rules as they are tried.
    pub(super) fn entities(&self, rules: &RuleSet) -> Option<Vec<EntityRef>> {
        entities(&self.matched, self.server.as_deref(), self.tool.as_deref(), rules)
    }
}

pub(super) fn is_lost(name: &str) -> bool {
    name.contains("[secret:") || name.contains("[redacted:") || name.chars().count() >= KEPT_NAME
}
