//! The decision hook: whoever decides on entities. The profile's `governance.authz.hook.mode` chooses one.

use super::audit::AuthzSource;
use super::error::AuthzBootstrapError;
use super::resolver::{RuleSet, resolve};
use super::store::RuleStore;
use super::types::{ActorsCounted, AuthzDecision, AuthzRequest, EntityRef, Matched};
use super::webhook::WebhookHook;
use super::words::Words;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use systemprompt_config::profile::governance::{AuthzConfig, AuthzHookMode, UNRESTRICTED_ACKNOWLEDGEMENT};
use systemprompt_models::{Clock, Principal, Secret};
use systemprompt_net::HostRules;

pub use systemprompt_config::profile::governance::ActorCheck;

/// A decision that may have to be waited for.
pub type DecisionFuture<'a> = Pin<Box<dyn Future<Output = AuthzDecision> + Send + 'a>>;

/// Decides whether a principal may use an entity.
pub trait AuthzDecisionHook: Send + Sync {
    /// Decides without waiting. A hook that must wait for somebody else answers `None`.
    fn decide(&self, request: AuthzRequest<'_>) -> Option<AuthzDecision>;

    /// Decides on many entities without waiting, one answer each, in order. `None` as [`Self::decide`].
    fn decide_many(&self, principal: &Principal, entities: &[EntityRef]) -> Option<Vec<AuthzDecision>> {
        entities.iter().map(|entity| self.decide(AuthzRequest::new(principal, entity))).collect()
    }

    /// Whether the hook has anything to say of an entity. A tool of which it has not is decided on by its server alone (SEC-63).
    fn considers(&self, _: &EntityRef) -> bool {
        true
    }

    /// Questions since the start that got no decision.
    fn faults(&self) -> u64 {
        0
    }

    /// Decides, waiting if need be. A hook that never answers counts as a deny of the caller's deadline.
    fn evaluate<'a>(&'a self, request: AuthzRequest<'a>) -> DecisionFuture<'a> {
        let decision =
            self.decide(request).unwrap_or_else(|| fixed(Matched::DefaultDeny, AuthzSource::DenyAllDefault));
        Box::pin(async move { decision })
    }
}

fn fixed(matched: Matched, source: AuthzSource) -> AuthzDecision {
    AuthzDecision {
        matched,
        rule: None,
        source,
        epoch: 0,
        set_hash: "".into(),
        told: None,
        actors: None,
        elapsed_us: 0,
    }
}

/// Allows everything (mode `unrestricted`).
#[derive(Clone, Copy, Debug)]
pub struct AllowAllHook;

impl AuthzDecisionHook for AllowAllHook {
    fn decide(&self, _: AuthzRequest<'_>) -> Option<AuthzDecision> {
        Some(fixed(Matched::Unrestricted, AuthzSource::AllowAllUnrestricted))
    }
}

/// Denies everything, and says why.
#[derive(Clone, Copy, Debug)]
pub struct DenyAllHook {
    matched: Matched,
}

impl DenyAllHook {
    /// No hook is configured or installed.
    pub const DEFAULT: Self = Self { matched: Matched::DefaultDeny };
    /// The mode is `disabled`.
    pub const DISABLED: Self = Self { matched: Matched::Disabled };
}

impl AuthzDecisionHook for DenyAllHook {
    fn decide(&self, _: AuthzRequest<'_>) -> Option<AuthzDecision> {
        Some(fixed(self.matched, AuthzSource::DenyAllDefault))
    }
}

/// Decides by our own rules.
#[derive(Clone, Debug)]
pub struct RuleHook {
    store: RuleStore,
    actors: ActorCheck,
}

impl RuleHook {
    pub fn new(store: RuleStore, actors: ActorCheck) -> Self {
        Self { store, actors }
    }
}

/// What a rule about the owner of a client changes about `decision`: what is denied to them is denied to the client (ID-58).
pub(crate) fn check_owner(
    rules: &RuleSet,
    request: AuthzRequest<'_>,
    decision: AuthzDecision,
) -> AuthzDecision {
    let Some(owner) = &request.principal.owner else { return decision };
    if !decision.is_allow() {
        return decision;
    }
    let own = resolve(rules, &rules.compile_actor(owner.as_str()), request.entity);
    match own.matched {
        Matched::UserDeny => AuthzDecision { matched: Matched::OwnerDeny, ..own },
        _ => decision,
    }
}

/// What the actors of the chain change about `decision` (SEC-64).
pub(crate) fn check_actors(
    rules: &RuleSet,
    actors: ActorCheck,
    request: AuthzRequest<'_>,
    decision: AuthzDecision,
) -> AuthzDecision {
    let chain = &request.principal.act_chain;
    if chain.is_empty() {
        return decision;
    }
    let counted = |denied| Some(ActorsCounted { check: actors, denied });
    let asked = if decision.is_allow() && actors != ActorCheck::Off { chain.as_slice() } else { &[] };
    for (place, actor) in asked.iter().enumerate() {
        let own = resolve(rules, &rules.compile_actor(actor), request.entity);
        let denied = match actors {
            ActorCheck::Full => !own.is_allow(),
            ActorCheck::DenyOnly | ActorCheck::Off => {
                matches!(own.matched, Matched::UserDeny | Matched::RoleDeny | Matched::DepartmentDeny)
            }
        };
        if denied {
            return AuthzDecision { matched: Matched::ActorDeny, actors: counted(Some(place)), ..own };
        }
    }
    AuthzDecision { actors: counted(None), ..decision }
}

impl AuthzDecisionHook for RuleHook {
    fn decide(&self, request: AuthzRequest<'_>) -> Option<AuthzDecision> {
        let rules = self.store.rules();
        let decision = resolve(&rules, &rules.compile(request.principal), request.entity);
        if self.store.is_stale() {
            return Some(AuthzDecision { matched: Matched::Stale, rule: None, ..decision });
        }
        Some(check_actors(&rules, self.actors, request, check_owner(&rules, request, decision)))
    }

    fn decide_many(&self, principal: &Principal, entities: &[EntityRef]) -> Option<Vec<AuthzDecision>> {
        let (rules, stale) = (self.store.rules(), self.store.is_stale());
        // One set and one compiled principal for all of them.
        let compiled = rules.compile(principal);
        let decide = |entity: &EntityRef| {
            let decision = resolve(&rules, &compiled, entity);
            if stale {
                return AuthzDecision { matched: Matched::Stale, rule: None, ..decision };
            }
            let request = AuthzRequest::new(principal, entity);
            check_actors(&rules, self.actors, request, check_owner(&rules, request, decision))
        };
        Some(entities.iter().map(decide).collect())
    }

    fn considers(&self, entity: &EntityRef) -> bool {
        self.store.rules().knows(entity)
    }
}

/// What hooks are made of.
#[derive(Clone)]
pub struct HookParts<'a> {
    pub store: &'a RuleStore,
    pub webhook_secret: Option<&'a Secret<String>>,
    /// Which hosts the operator lets be reached.
    pub hosts: HostRules,
    pub clock: Arc<dyn Clock>,
    /// What takes secrets out of a decision service's words.
    pub words: Words,
}

/// The hook that a profile asks for (SEC-70).
///
/// # Errors
/// The mode `unrestricted` without its acknowledgement, to the letter; the mode `webhook` without an address or a secret.
pub fn from_config(
    config: &AuthzConfig,
    parts: &HookParts<'_>,
) -> Result<Arc<dyn AuthzDecisionHook>, AuthzBootstrapError> {
    let Some(hook) = &config.hook else { return Ok(Arc::new(DenyAllHook::DEFAULT)) };
    let rules = || RuleHook::new(parts.store.clone(), config.actor_check);
    match hook.mode {
        AuthzHookMode::Rules => Ok(Arc::new(rules())),
        AuthzHookMode::Webhook => {
            let rules = hook.require_rules.then(rules);
            let (hosts, clock) = (parts.hosts.clone(), Arc::clone(&parts.clock));
            Ok(Arc::new(WebhookHook::new(
                hook,
                rules,
                parts.webhook_secret,
                hosts,
                clock,
                parts.words.clone(),
            )?))
        }
        AuthzHookMode::Disabled => Ok(Arc::new(DenyAllHook::DISABLED)),
        AuthzHookMode::Unrestricted => {
            if hook.acknowledgement.as_deref() != Some(UNRESTRICTED_ACKNOWLEDGEMENT) {
                return Err(AuthzBootstrapError::NotAcknowledged);
            }
            tracing::error!("authorization is switched off: every call is allowed (authz_unrestricted)");
            Ok(Arc::new(AllowAllHook))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::types::{Access, AccessRule, Entity, EntityKind, RuleType};

    fn rule(rule_type: RuleType, value: &str, access: Access) -> AccessRule {
        AccessRule {
            id: format!("rule-{value}").into(),
            entity_type: EntityKind::McpServer,
            entity_id: "demo".into(),
            is_pattern: false,
            rule_type,
            rule_value: value.into(),
            access,
            justification: None,
            source: "api".into(),
            created_by: "ada".into(),
            created_at: 0,
            updated_at: 0,
            version: 1,
        }
    }

    #[test]
    fn id_58_what_is_denied_to_its_owner_is_denied_to_a_client() {
        let entity = Entity {
            kind: EntityKind::McpServer,
            id: "demo".into(),
            display_name: None,
            default_included: false,
            source: "api".into(),
            created_at: 0,
            updated_at: 0,
            version: 1,
        };
        let rules = [
            rule(RuleType::Role, "service", Access::Allow),
            rule(RuleType::User, "usr_eve", Access::Deny),
            rule(RuleType::User, "usr_ada", Access::Allow),
        ];
        let rules = RuleSet::build(1, &[entity], &rules);
        let demo = EntityRef::new(EntityKind::McpServer, "demo");
        let decide = |roles: &[&str], owner: Option<&str>| {
            let principal = Principal {
                roles: roles.iter().map(ToString::to_string).collect(),
                owner: owner.map(Into::into),
                ..Principal::anonymous()
            };
            let request = AuthzRequest::new(&principal, &demo);
            check_owner(&rules, request, resolve(&rules, &rules.compile(&principal), &demo)).policy()
        };
        assert_eq!(decide(&["service"], None), "role_allow");
        assert_eq!(decide(&["service"], Some("usr_bob")), "role_allow");
        assert_eq!(decide(&["service"], Some("usr_eve")), "owner_deny");
        assert_eq!(decide(&[], Some("usr_ada")), "not_assigned", "an owner's right is not the client's");
    }
}
