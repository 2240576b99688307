//! The sink that makes a decision durable: the record and the `governance_decisions` row in one unit.

use super::repository::{DecisionRow, insert_governance_decision};
use super::{AuthzAuditSink, RecordFuture};
use crate::authz::types::{AuthzDecision, AuthzRequest};
use serde_json::{Value, json};
use std::sync::Arc;
use systemprompt_audit::{ActorKind, Draft, EntryKind, Ledger, Unit};
use systemprompt_models::ids::{CallId, DecisionId, EntryId, UserId};
use systemprompt_models::{Clock, Principal, RequestContext};

/// Writes to the ledger on either engine.
#[derive(Clone)]
pub struct DbAuditSink {
    ledger: Ledger,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for DbAuditSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbAuditSink").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl DbAuditSink {
    pub fn new(ledger: Ledger, clock: Arc<dyn Clock>) -> Self {
        Self { ledger, clock }
    }
}

impl AuthzAuditSink for DbAuditSink {
    fn record<'a>(
        &'a self,
        context: &'a RequestContext,
        request: AuthzRequest<'a>,
        decision: &'a AuthzDecision,
    ) -> RecordFuture<'a> {
        Box::pin(async move {
            let mut unit = Unit::new();
            let call_id = CallId::generate();
            let decided = [(request.entity.clone(), decision.clone())];
            let draft = authz_draft(context, &decided, call_id.as_str(), "authz");
            let opened = unit.record(draft.with("elapsed_us", decision.elapsed_us));
            let row = DecisionRow {
                entity: Some((request.entity.kind.as_str(), request.entity.id.to_string())),
                decision: decision.decision().as_str(),
                policy: decision.policy().to_owned(),
                reason: decision.reason().into_owned(),
                source: decision.source.as_str(),
                rule_epoch: decision.epoch,
                created_at: self.clock.now(),
                ..base_row(context, call_id.as_str(), "authz", opened)
            };
            let id: DecisionId = insert_governance_decision(&mut unit, row);
            self.ledger.append(unit).await?;
            Ok(id)
        })
    }
}

/// The `authz.decision` record of a call that its entities alone decide. The last entity is the one that decided.
pub(crate) fn authz_draft(
    context: &RequestContext,
    decided: &[(crate::authz::EntityRef, AuthzDecision)],
    call_id: &str,
    origin: &'static str,
) -> Draft {
    let outcome = if decided.iter().all(|(_, d)| d.is_allow()) { "allow" } else { "deny" };
    let mut draft = Draft::new(EntryKind::AuthzDecision, context, outcome)
        .with("call_id", call_id)
        .with("origin", origin);
    if let Some((_, decision)) = decided.last() {
        draft = draft
            .with_policy(decision.policy())
            .with_reason(decision.reason().into_owned())
            .with("source", decision.source.as_str());
    }
    with_entities(draft, context, decided)
}

/// Adds what was decided on each entity, and from which facts and rules, so that a replay is exact.
pub(crate) fn with_entities(
    draft: Draft,
    context: &RequestContext,
    decided: &[(crate::authz::EntityRef, AuthzDecision)],
) -> Draft {
    let Some((entity, decision)) = decided.last() else { return draft };
    let chain = &context.principal.act_chain;
    let matched: Vec<Value> = decided.iter().map(|(entity, by)| matched(entity, by, chain)).collect();
    let draft = with_actors(draft, context, decided)
        .with_subject(entity.kind.as_str(), entity.id.clone())
        .with("matched", matched)
        .with("roles", roles(&context.principal))
        .with("department", context.principal.department.clone())
        .with("owner", context.principal.owner.as_ref().map(UserId::as_str))
        .with("rule_id", decision.rule.as_ref().map(|rule| rule.id.as_str().to_owned()))
        .with("rule_epoch", decision.epoch);
    if decision.set_hash.is_empty() { draft } else { draft.with("set_hash", &*decision.set_hash) }
}

/// Adds who acted for the subject, outermost first, and how they counted.
pub(crate) fn with_actors(
    draft: Draft,
    context: &RequestContext,
    decided: &[(crate::authz::EntityRef, AuthzDecision)],
) -> Draft {
    let chain = &context.principal.act_chain;
    if chain.is_empty() {
        return draft;
    }
    let counted = decided.iter().find_map(|(_, decision)| decision.actors);
    draft.with("actors", chain.as_slice()).with("actor_check", counted.map(|counted| counted.check.as_str()))
}

fn matched(entity: &crate::authz::EntityRef, decision: &AuthzDecision, chain: &[String]) -> Value {
    let mut one = json!({
        "entity": entity.to_string(),
        "matched_by": decision.policy(),
    });
    let Some(map) = one.as_object_mut() else { return one };
    if let Some(rule) = &decision.rule {
        map.insert("rule_id".into(), rule.id.as_str().into());
    }
    let denied = decision.actors.and_then(|actors| chain.get(actors.denied?));
    if let Some(actor) = denied {
        map.insert("actor".into(), actor.as_str().into());
    }
    one
}

fn roles(principal: &Principal) -> Vec<String> {
    principal.roles.iter().take(32).map(|role| role.chars().take(64).collect()).collect()
}

/// A row with what the context says; the caller fills in what was decided.
pub(crate) fn base_row(
    context: &RequestContext,
    call_id: &str,
    origin: &'static str,
    ledger_opened: EntryId,
) -> DecisionRow {
    let principal = &context.principal;
    DecisionRow {
        call_id: call_id.to_owned(),
        origin,
        user_id: principal.user_id.as_str().to_owned(),
        session_id: (!principal.is_anonymous()).then(|| principal.session_id.to_string()),
        actor_kind: ActorKind::of(principal).as_str(),
        actor_id: principal.user_id.to_string(),
        act_chain: (!principal.act_chain.is_empty()).then(|| principal.act_chain.join(" ")),
        agent_id: None,
        agent_scope: None,
        entity: None,
        tool_name: None,
        plugin_id: None,
        decision: "deny",
        policy: String::new(),
        reason: String::new(),
        source: "governance",
        evaluated_rules: "[]".to_owned(),
        findings: "[]".to_owned(),
        args_sha256: None,
        rule_epoch: 0,
        context_id: context.context_id.as_ref().map(ToString::to_string),
        task_id: context.task_id.as_ref().map(ToString::to_string),
        trace_id: Some(context.trace_id.to_string()),
        args_payload: None,
        ledger_opened,
        created_at: 0,
    }
}
