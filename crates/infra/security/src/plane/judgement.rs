//! What was decided on a call: what its caller is told, and what is recorded of it.

use super::{Origin, conceal_context, sha256_of};
use crate::authz::audit::db_sink::{authz_draft, base_row, with_entities};
use crate::authz::audit::repository::DecisionRow;
use crate::authz::{AuthzDecision, EntityRef, insert_governance_decision};
use crate::governance::chain::DISABLED_POLICY;
use crate::governance::{Chain, Leak, Pipeline, Redaction, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use systemprompt_audit::payload::reference;
use systemprompt_audit::{Draft, EntryKind, Payload, Role, Unit};
use systemprompt_models::ids::{CallId, DecisionId};
use systemprompt_models::{Permission, Refusal, RequestContext};

/// What was decided on a call, not yet recorded.
#[derive(Debug)]
pub struct Judgement {
    pub(super) context: RequestContext,
    pub(super) call_id: CallId,
    pub(super) origin: Origin,
    pub(super) entities: Vec<(EntityRef, AuthzDecision)>,
    /// Absent when an entity was denied: the pipeline does not run for a call that may not be made.
    pub(super) chain: Option<Chain>,
    pub(super) tool: Option<String>,
    pub(super) server: Option<String>,
    pub(super) plugin: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) agent_scope: Option<String>,
    pub(super) args_sha256: Option<String>,
    pub(super) arguments: Option<Payload>,
    /// Why content that was to be redacted is refused, where whoever asked knows better than the origin.
    pub(super) unredactable: Option<&'static str>,
    /// How long deciding took, in microseconds.
    pub(super) elapsed_us: u64,
    /// Digests of the blocks for which it is refused.
    pub(super) refused_blocks: Vec<String>,
    pub(super) at: i64,
}

/// Longest name of a tool, plugin or agent that a record repeats, in characters.
const MAX_NAME: usize = 200;

pub(super) fn bounded(name: &str) -> String {
    if name.len() <= MAX_NAME { name.to_owned() } else { name.chars().take(MAX_NAME).collect() }
}

/// With another character in place of NUL, which PostgreSQL does not store.
fn storable(name: String) -> String {
    if name.contains('\0') { name.replace('\0', "\u{fffd}") } else { name }
}

impl Judgement {
    /// With names that hold no secret; what was decided stays.
    pub(super) fn concealed(mut self, pipeline: &Pipeline) -> Self {
        let conceal = |text: Option<String>| text.map(|text| pipeline.conceal(&text));
        conceal_context(pipeline, &mut self.context);
        self.call_id = pipeline.conceal(self.call_id.as_str()).into();
        for (entity, _) in &mut self.entities {
            entity.id = pipeline.conceal(&entity.id).into();
        }
        self.tool = conceal(self.tool);
        self.server = conceal(self.server);
        self.plugin = conceal(self.plugin);
        self.agent = conceal(self.agent);
        self.agent_scope = conceal(self.agent_scope);
        self
    }

    /// With names no longer than a record repeats them, and without NUL: a judgement that a store does not take would leave no
    /// trace.
    pub(super) fn bounded(mut self) -> Self {
        let bound = |text: Option<String>| {
            text.map(|text| storable(if text.len() > MAX_NAME { bounded(&text) } else { text }))
        };
        if self.call_id.as_str().contains('\0') {
            self.call_id = storable(self.call_id.as_str().to_owned()).into();
        }
        for (entity, _) in self.entities.iter_mut().filter(|(entity, _)| entity.id.contains('\0')) {
            entity.id = storable(entity.id.to_string()).into();
        }
        self.tool = bound(self.tool);
        self.server = bound(self.server);
        self.plugin = bound(self.plugin);
        self.agent = bound(self.agent);
        self.agent_scope = bound(self.agent_scope);
        self
    }

    /// Whether the call may be made.
    pub fn is_allow(&self) -> bool {
        self.entities.iter().all(|(_, decision)| decision.is_allow())
            && self.chain.as_ref().is_none_or(Chain::is_allowed)
    }

    /// What the content must be changed to for the call to go on; empty where it goes on as it is, or not at all.
    pub fn redactions(&self) -> &[Redaction] {
        match &self.chain {
            Some(chain) if matches!(chain.verdict, Verdict::Redact(_)) => &chain.redactions,
            _ => &[],
        }
    }

    /// Says that the content was changed so: the call goes on, and its record says that it was changed. What is kept of a tool's
    /// arguments, which come first, is what the tool gets.
    pub fn accept_redactions(&mut self) {
        if let Some(chain) = &mut self.chain
            && matches!(chain.verdict, Verdict::Redact(_))
            && !chain.redactions.is_empty()
        {
            chain.verdict = Verdict::Allow;
            let arguments =
                chain.redactions.iter().find(|r| r.segment == 0).filter(|_| self.arguments.is_some());
            if let Some(Redaction { json, .. }) = arguments {
                self.args_sha256 = Some(sha256_of(json));
                self.arguments = Some(Payload::json(Role::Arguments, json.clone()));
            }
        }
    }

    /// Says that the content could not be changed so, and why: the call stays refused.
    pub fn refuse_redactions(&mut self, why: &'static str) {
        self.unredactable = Some(why);
    }

    /// The policy that decided, and why.
    fn deciding(&self) -> (String, String) {
        if let Some((_, decision)) = self.entities.iter().find(|(_, d)| !d.is_allow()) {
            return (decision.policy().to_owned(), decision.reason().into_owned());
        }
        if let Some(chain) = &self.chain {
            if let Some(denial) = chain.denial() {
                return (denial.policy.to_string(), denial.reason.to_string());
            }
            if self.entities.is_empty() || chain.policy() == DISABLED_POLICY {
                return (chain.policy().to_owned(), "every policy let it pass".to_owned());
            }
        }
        match self.entities.last() {
            Some((_, decision)) => (decision.policy().to_owned(), decision.reason().into_owned()),
            None => ("governance".to_owned(), "all policies passed".to_owned()),
        }
    }

    /// Why the call is refused, if it is. The caller adds the decision's id once it has recorded it.
    pub fn refusal(&self) -> Option<Refusal> {
        if let Some((entity, decision)) = self.entities.iter().find(|(_, d)| !d.is_allow()) {
            let mut reason = decision.reason();
            // A hook's call is decided on several things, and its client named none of them.
            if self.origin == Origin::Hook {
                let named: String = entity.to_string().chars().filter(|c| !c.is_control()).collect();
                reason = format!("{reason} (`{named}`)").into();
            }
            let refusal = Refusal::denied(decision.policy(), reason);
            return Some(match &decision.rule {
                Some(rule) => refusal.with_rule(rule.id.as_str()),
                None => refusal,
            });
        }
        let chain = self.chain.as_ref()?;
        let mut refusal = chain.refusal()?;
        if matches!(chain.verdict, Verdict::Redact(_)) {
            let why = self.unredactable.unwrap_or_else(|| self.origin.unredactable());
            refusal.reason = format!("{}; {why}", refusal.reason).into();
        }
        Some(refusal)
    }

    /// Adds the record and the row of this decision to `unit`; returns the row's id.
    ///
    /// One record a call: where the pipeline ran, its record also says what was decided on the entities.
    pub fn record(&self, unit: &mut Unit) -> DecisionId {
        let origin = self.origin.as_str();
        let (policy, reason) = self.deciding();
        let draft = match &self.chain {
            Some(chain) => self.with_facts(self.governance_draft(chain, &policy, &reason)),
            None if !self.entities.is_empty() => {
                let draft = authz_draft(&self.context, &self.entities, self.call_id.as_str(), origin);
                self.with_facts(draft)
            }
            // Neither an entity nor a pipeline: nothing vouches for the call, and the record says so.
            None => Draft::new(EntryKind::GovernanceDecision, &self.context, "deny"),
        };
        let draft = draft.with("elapsed_us", self.elapsed_us);
        let opened = unit.record(draft.with_payload(self.arguments.clone()));
        let args_payload = self.arguments.as_ref().map(|_| reference(opened.as_str(), Role::Arguments));
        for leak in self.chain.iter().flat_map(|chain| &chain.leaks.told) {
            unit.record(self.leak_draft(leak));
        }
        let entity = self.entities.last().map(|(entity, _)| (entity.kind.as_str(), entity.id.to_string()));
        let row = DecisionRow {
            agent_id: self.agent.clone(),
            agent_scope: self.agent_scope.clone(),
            entity,
            tool_name: self.tool.clone(),
            plugin_id: self.plugin.clone(),
            decision: if self.is_allow() { "allow" } else { "deny" },
            policy,
            reason,
            source: match (&self.chain, self.entities.last()) {
                (None, Some((_, decision))) => decision.source.as_str(),
                _ => "governance",
            },
            evaluated_rules: self.chain.as_ref().map_or_else(|| "[]".to_owned(), Chain::evaluated_rules),
            findings: self.chain.as_ref().map_or_else(|| "[]".to_owned(), Chain::findings_json),
            args_sha256: self.args_sha256.clone(),
            rule_epoch: self.entities.last().map_or(0, |(_, decision)| decision.epoch),
            args_payload,
            created_at: self.at,
            ..base_row(&self.context, self.call_id.as_str(), origin, opened)
        };
        insert_governance_decision(unit, row)
    }

    /// The record of a value in use that the call brought along (SCR-64). Nothing around it is told.
    fn leak_draft(&self, leak: &Leak) -> Draft {
        let draft = Draft::new(EntryKind::SecretLeak, &self.context, "blocked")
            .with("call_id", self.call_id.as_str())
            .with("name", &*leak.name)
            .with("form", &*leak.form)
            .with("where", self.origin.content())
            .with("pointer", &*leak.pointer)
            .with("offset", leak.offset)
            .with("direction", "in");
        match self.entities.last() {
            Some((entity, _)) => draft.with_subject(entity.kind.as_str(), entity.id.clone()),
            None => draft,
        }
    }

    /// The facts that policies decide by, so that a replay is exact. Of the scope that the caller confines itself to, the words
    /// that mean something.
    fn with_facts(&self, draft: Draft) -> Draft {
        let principal = &self.context.principal;
        let words = |scope: &String| -> Vec<&'static str> {
            let words = scope.split_ascii_whitespace().filter_map(|word| word.parse::<Permission>().ok());
            let words: BTreeSet<_> = words.map(Permission::as_str).collect();
            words.into_iter().collect()
        };
        draft
            .with("tool", self.tool.clone())
            .with("server", self.server.clone())
            .with("permissions", principal.permissions.iter().map(|p| p.as_str()).collect::<Vec<_>>())
            .with("agent", self.agent.clone())
            .with("agent_scope", self.agent_scope.as_ref().map(words))
    }

    fn governance_draft(&self, chain: &Chain, policy: &str, reason: &str) -> Draft {
        let outcome = if chain.is_allowed() { "allow" } else { "deny" };
        let draft = Draft::new(EntryKind::GovernanceDecision, &self.context, outcome)
            .with_policy(policy.to_owned())
            .with_reason(reason.to_owned())
            .with("call_id", self.call_id.as_str())
            .with("origin", self.origin.as_str())
            .with("source", "governance")
            .with("plugin", self.plugin.clone())
            .with("rule_epoch", 0)
            .with("chain", links(chain));
        let mut draft = with_entities(draft, &self.context, &self.entities);
        if !chain.findings.is_empty() {
            draft = draft.with("findings", findings(chain));
        }
        if !chain.leaks.is_empty() {
            draft = draft.with("leaks", chain.leaks.count);
        }
        if chain.is_allowed() && !chain.redactions.is_empty() {
            draft = draft.with("redacted_segments", chain.redactions.len());
        }
        draft
    }
}

/// The chain as the record keeps it; the row has the details.
fn links(chain: &Chain) -> Vec<Value> {
    let one = |link: &crate::governance::Link| {
        let mut told =
            json!({"policy_id": &*link.policy_id, "result": link.result, "elapsed_us": link.elapsed_us});
        if let Some(told) = told.as_object_mut().filter(|_| !link.allowed_by.is_empty()) {
            told.insert("allowed_by".to_owned(), json!(link.allowed_by));
        }
        told
    };
    chain.links.iter().map(one).collect()
}

/// Which rules hit, and how often; where they hit stands in the row.
fn findings(chain: &Chain) -> Value {
    let mut counts = serde_json::Map::new();
    for finding in &chain.findings {
        let count = counts.entry(finding.rule_id.to_string()).or_insert(Value::from(0));
        *count = Value::from(count.as_u64().unwrap_or_default() + 1);
    }
    Value::Object(counts)
}
