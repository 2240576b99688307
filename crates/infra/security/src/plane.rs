//! The one decision plane: gateway, MCP and hooks ask here, nobody decides on their own.
//!
//! [`DecisionPlane::judge`] decides on the entities of a call and runs the governance pipeline over its content. It changes
//! nothing but limit counters; the caller puts the [`Judgement`] into the unit of its call, commits the unit, and acts then.

use crate::authz::audit::db_sink::{authz_draft, base_row, with_entities};
use crate::authz::audit::repository::DecisionRow;
use crate::authz::hook::DecisionFuture;
use crate::authz::{
    AuthzAuditSink, AuthzDecision, AuthzDecisionHook, AuthzRequest, CallInfo, DbAuditSink, EntityRef,
    insert_governance_decision,
};
pub use crate::governance::Denial;
use crate::governance::chain::DISABLED_POLICY;
use crate::governance::{CallFacts, Chain, Leak, Names, Pipeline, Redaction, Verdict};
pub use crate::governance::{Origin, Segment};
use crate::repository::seen::SeenRepository;
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use systemprompt_audit::payload::reference;
use systemprompt_audit::{Draft, EntryKind, Ledger, LedgerError, Payload, Role, Unit};
use systemprompt_database::Db;
use systemprompt_models::ids::{CallId, DecisionId};
use systemprompt_models::{Clock, Refusal, RequestContext};

/// A call that is to be decided.
#[derive(Debug)]
pub struct Call<'a> {
    /// Charged once, whichever doors the call passes.
    pub call_id: CallId,
    pub origin: Origin,
    /// Whether it is a call of its own: a report on one is judged, and costs nothing of the limit.
    pub counted: bool,
    pub context: &'a RequestContext,
    /// Decided in order; all must allow.
    pub entities: Vec<EntityRef>,
    /// Absent on model requests: the tool policies are then skipped.
    pub tool: Option<&'a str>,
    pub server: Option<&'a str>,
    pub plugin: Option<&'a str>,
    /// What the body claims about the agent; such claims only narrow.
    pub agent: Option<&'a str>,
    pub agent_scope: Option<&'a str>,
    /// The content that leaves or enters, as raw JSON values.
    pub content: &'a [Segment<'a>],
}

/// Decides. Clones share rules, pipeline and counters.
#[derive(Clone)]
pub struct DecisionPlane(Arc<Inner>);

struct Inner {
    hook: Arc<dyn AuthzDecisionHook>,
    pipeline: ArcSwap<Pipeline>,
    sink: DbAuditSink,
    clock: Arc<dyn Clock>,
    /// Blocks of conversations that were refused; absent where there are no conversations.
    seen: OnceLock<SeenRepository>,
}

impl std::fmt::Debug for DecisionPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecisionPlane").finish_non_exhaustive()
    }
}

/// What was decided on a call, not yet recorded.
#[derive(Debug)]
pub struct Judgement {
    context: RequestContext,
    call_id: CallId,
    origin: Origin,
    entities: Vec<(EntityRef, AuthzDecision)>,
    /// Absent when an entity was denied: the pipeline does not run for a call that may not be made.
    chain: Option<Chain>,
    tool: Option<String>,
    plugin: Option<String>,
    agent: Option<String>,
    agent_scope: Option<String>,
    args_sha256: Option<String>,
    arguments: Option<Payload>,
    /// Digests of the blocks for which it is refused.
    refused_blocks: Vec<String>,
    at: i64,
}

impl DecisionPlane {
    pub fn new(
        hook: Arc<dyn AuthzDecisionHook>,
        pipeline: Pipeline,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let sink = DbAuditSink::new(ledger, Arc::clone(&clock));
        Self(Arc::new(Inner {
            hook,
            pipeline: ArcSwap::from_pointee(pipeline),
            sink,
            clock,
            seen: OnceLock::new(),
        }))
    }

    /// Puts another pipeline in force; calls under way finish on the one that they began with.
    pub fn swap_pipeline(&self, pipeline: Pipeline) {
        self.0.pipeline.store(Arc::new(pipeline));
    }

    /// The pipeline in force.
    pub fn pipeline(&self) -> Arc<Pipeline> {
        self.0.pipeline.load_full()
    }

    /// Decides a call: its entities in order, then the pipeline over its content.
    pub async fn judge(&self, call: Call<'_>) -> Judgement {
        self.decide_call(call, None).await
    }

    /// Refuses a call that is at fault itself, as one whose arguments do not fit its tool: its entities are decided on, and the
    /// policies are not asked.
    pub async fn refuse(&self, call: Call<'_>, denial: Denial) -> Judgement {
        self.decide_call(call, Some(denial)).await
    }

    async fn decide_call(&self, call: Call<'_>, fault: Option<Denial>) -> Judgement {
        let pipeline = self.pipeline();
        let names = names(&pipeline, &call);
        let mut entities = Vec::with_capacity(call.entities.len());
        let mut allowed = true;
        let arguments = call.content.first().filter(|_| call.tool.is_some()).map(|segment| segment.json);
        let info = CallInfo { kind: call.origin.as_str(), tool: call.tool, arguments };
        for entity in call.entities {
            let request = AuthzRequest {
                context: Some(call.context),
                call: Some(info),
                ..AuthzRequest::new(&call.context.principal, &entity)
            };
            let decision = self.evaluate(request).await;
            allowed = decision.is_allow();
            entities.push((entity, decision));
            if !allowed {
                break;
            }
        }
        let mut refused_blocks = Vec::new();
        let chain = match fault {
            _ if !allowed => None,
            Some(denial) => Some(Chain::refused(denial)),
            None => {
                let principal = &call.context.principal;
                let mut facts = CallFacts {
                    call_id: &call.call_id,
                    origin: call.origin,
                    counted: call.counted,
                    principal,
                    permissions: &principal.permissions,
                    tool: call.tool,
                    server: call.server,
                    plugin: call.plugin,
                    agent: call.agent,
                    agent_scope: call.agent_scope,
                    context_id: call.context.context_id.as_ref(),
                    task_id: call.context.task_id.as_ref(),
                    trace_id: &call.context.trace_id,
                    act_chain: &principal.act_chain,
                    segments: call.content,
                    refused_before: &[],
                    names: &names,
                };
                let mut chain = pipeline.evaluate(&facts).await;
                let context = facts.context_id.filter(|_| call.origin == Origin::Gateway);
                if let (Some(context), Some(seen)) = (context, self.0.seen.get()) {
                    let digest =
                        |at: &usize| Some(pipeline.scanner().block_digest(call.content.get(*at)?.json));
                    let blocks = chain.blocking_segments();
                    let digests: Vec<String> = blocks.iter().filter_map(digest).collect();
                    let known = self.refused_before(seen, context.as_str(), &digests).await;
                    let known: Vec<usize> =
                        blocks.iter().zip(known).filter(|(_, known)| *known).map(|(at, _)| *at).collect();
                    if !known.is_empty() {
                        facts.refused_before = &known;
                        chain = pipeline.evaluate(&facts).await;
                    }
                    refused_blocks = chain.blocking_segments().iter().filter_map(digest).collect();
                }
                Some(chain)
            }
        };
        let arguments = call.tool.and_then(|_| call.content.first()).map(|arguments| {
            let is_clean = chain.as_ref().is_some_and(Chain::is_known_clean);
            Payload::json(Role::Arguments, arguments.json.to_vec()).known_clean(is_clean)
        });
        let judgement = Judgement {
            context: call.context.clone(),
            call_id: call.call_id,
            origin: call.origin,
            entities,
            chain,
            tool: call.tool.map(str::to_owned),
            plugin: call.plugin.map(str::to_owned),
            agent: call.agent.map(str::to_owned),
            agent_scope: call.agent_scope.map(str::to_owned),
            args_sha256: call.tool.and_then(|_| args_sha256(call.content)),
            arguments,
            refused_blocks,
            at: self.0.clock.now(),
        };
        if names.are_clean() { judgement.bounded() } else { judgement.concealed(&pipeline).bounded() }
    }

    /// Keeps in `db` which blocks of conversations were refused, so that they are known when a conversation is sent again.
    pub fn remember_refusals_in(&self, db: Db) {
        let _ = self.0.seen.set(SeenRepository::new(db));
    }

    /// Which of the blocks were refused in this context before. What cannot be read counts as new, which refuses the call.
    async fn refused_before(&self, seen: &SeenRepository, context: &str, digests: &[String]) -> Vec<bool> {
        let since = self.0.clock.now() - REMEMBERED;
        let mut known = Vec::with_capacity(digests.len());
        for digest in digests.iter().take(MAX_REMEMBERED) {
            let was_refused = seen.was_refused(context, digest, since).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "blocks that were refused before could not be read");
                false
            });
            known.push(was_refused);
        }
        known
    }

    /// Notes the blocks for which a call of a conversation was refused, once the refusal is recorded. Without the note such a block
    /// is a new one when it comes again, and is refused again.
    pub async fn remember(&self, judgement: &Judgement) {
        let (Some(seen), Some(context)) = (self.0.seen.get(), judgement.context.context_id.as_ref()) else {
            return;
        };
        if judgement.refused_blocks.is_empty() {
            return;
        }
        let blocks = judgement.refused_blocks.get(..MAX_REMEMBERED).unwrap_or(&judgement.refused_blocks);
        if let Err(error) = seen.note(context.as_str(), blocks, judgement.at).await {
            tracing::warn!(%error, "the blocks of a refused call could not be noted");
        }
    }

    /// Forgets blocks of conversations that ended long ago.
    ///
    /// # Errors
    /// When the rows cannot be written.
    pub async fn sweep(&self) -> sqlx::Result<()> {
        match self.0.seen.get() {
            Some(seen) => seen.purge(self.0.clock.now() - REMEMBERED).await,
            None => Ok(()),
        }
    }

    /// The context of a call with what callers put into its correlation ids as it may be stored: secrets replaced by marks.
    pub fn conceal_context<'c>(&self, context: &'c RequestContext) -> Cow<'c, RequestContext> {
        let pipeline = self.0.pipeline.load();
        if pipeline.names(context_names(context)).are_clean() {
            return Cow::Borrowed(context);
        }
        let mut context = context.clone();
        conceal_context(&pipeline, &mut context);
        Cow::Owned(context)
    }

    async fn evaluate(&self, request: AuthzRequest<'_>) -> AuthzDecision {
        match self.0.hook.decide(request) {
            Some(decision) => decision,
            None => self.0.hook.evaluate(request).await,
        }
    }

    /// Whether the hook has anything to say of an entity; a tool of which it has not is decided on by its server alone.
    pub fn considers(&self, entity: &EntityRef) -> bool {
        self.0.hook.considers(entity)
    }

    /// Questions to a decision service that got no decision, since the start.
    pub fn hook_faults(&self) -> u64 {
        self.0.hook.faults()
    }

    /// Decides on one entity without recording it: for lists, whose outcome is recorded as one entry.
    pub async fn decide(&self, context: &RequestContext, entity: &EntityRef) -> AuthzDecision {
        let call = Some(CallInfo { kind: "list", tool: None, arguments: None });
        let request =
            AuthzRequest { context: Some(context), call, ..AuthzRequest::new(&context.principal, entity) };
        self.evaluate(request).await
    }

    /// Decides on many entities; one answer each, in order.
    pub async fn decide_many(&self, context: &RequestContext, entities: &[EntityRef]) -> Vec<AuthzDecision> {
        if let Some(decisions) = self.0.hook.decide_many(&context.principal, entities) {
            return decisions;
        }
        // Somebody else is asked, several questions at a time.
        let mut decisions = Vec::with_capacity(entities.len());
        for some in entities.chunks(ASKED_AT_ONCE) {
            let mut asked: Vec<DecisionFuture<'_>> = Vec::with_capacity(some.len());
            for entity in some {
                asked.push(Box::pin(self.decide(context, entity)));
            }
            decisions.extend(join_all(asked).await);
        }
        decisions
    }

    /// Decides on one entity and makes the decision durable before it is returned.
    ///
    /// # Errors
    /// When the decision could not be recorded; it must then not take effect.
    pub async fn decide_recorded(
        &self,
        context: &RequestContext,
        entity: &EntityRef,
    ) -> Result<(AuthzDecision, DecisionId), LedgerError> {
        let request =
            AuthzRequest { context: Some(context), ..AuthzRequest::new(&context.principal, entity) };
        let decision = self.evaluate(request).await;
        let id = self.0.sink.record(context, request, &decision).await?;
        Ok((decision, id))
    }

    /// The record of a filtered list (AUD-20): how many of which kind were shown, and the ids that were not.
    pub fn list_draft(
        &self,
        context: &RequestContext,
        subject: (&'static str, &str),
        decided: &[(EntityRef, AuthzDecision)],
    ) -> Draft {
        let denied: Vec<&EntityRef> =
            decided.iter().filter(|(_, d)| !d.is_allow()).map(|(entity, _)| entity).collect();
        let mut draft = Draft::new(EntryKind::AuthzDecision, context, "allow")
            .with_subject(subject.0, subject.1)
            .with_policy("list")
            .with("origin", "list")
            .with("listed", decided.len() - denied.len())
            .with("withheld", denied.len())
            .with("rule_epoch", decided.first().map_or(0, |(_, d)| d.epoch));
        if !denied.is_empty() {
            let mut ids: Vec<String> = denied.iter().map(|entity| bounded(&entity.to_string())).collect();
            ids.sort_unstable();
            let text = ids.join("\n");
            draft = if ids.len() <= MAX_LISTED && text.len() < MAX_LISTED_BYTES {
                draft.with("denied", ids)
            } else {
                let draft = draft.with("denied_sha256", hex::encode(digest(&SHA256, text.as_bytes())));
                draft.with_payload(Payload::text(Role::Withheld, text))
            };
        }
        draft
    }
}

/// Questions of one list that a decision service is asked at a time.
const ASKED_AT_ONCE: usize = 32;
/// Most denied ids that a list's record names; beyond, it holds their digest.
const MAX_LISTED: usize = 256;
const MAX_LISTED_BYTES: usize = 12 * 1024;
/// How long a refused block of a conversation is known, in milliseconds.
const REMEMBERED: i64 = 30 * 86_400_000;
/// Most blocks of one call that are looked up and noted; further ones count as new.
const MAX_REMEMBERED: usize = 64;
/// Longest name of a tool, plugin or agent that a record repeats, in characters.
const MAX_NAME: usize = 200;

fn bounded(name: &str) -> String {
    if name.len() <= MAX_NAME { name.to_owned() } else { name.chars().take(MAX_NAME).collect() }
}

/// With another character in place of NUL, which PostgreSQL does not store.
fn storable(name: String) -> String {
    if name.contains('\0') { name.replace('\0', "\u{fffd}") } else { name }
}

/// What callers put into the correlation ids of a call, with the names of the fields.
fn context_names(context: &RequestContext) -> [(&'static str, Option<&str>); 5] {
    [
        ("/trace_id", Some(context.trace_id.as_str())),
        ("/context_id", context.context_id.as_ref().map(AsRef::as_ref)),
        ("/task_id", context.task_id.as_ref().map(AsRef::as_ref)),
        ("/agent_name", context.agent_name.as_deref()),
        ("/ai_tool_call_id", context.ai_tool_call_id.as_deref()),
    ]
}

/// Looks through everything that is stored of a call beside its content.
fn names(pipeline: &Pipeline, call: &Call<'_>) -> Names {
    let own = [
        ("/call_id", Some(call.call_id.as_str())),
        ("/tool_name", call.tool),
        ("/plugin_id", call.plugin),
        ("/agent_id", call.agent),
        ("/agent_scope", call.agent_scope),
    ];
    pipeline.names(own.into_iter().chain(context_names(call.context)))
}

fn conceal_context(pipeline: &Pipeline, context: &mut RequestContext) {
    let conceal = |text: &str| pipeline.conceal(text);
    context.trace_id = conceal(context.trace_id.as_str()).into();
    context.context_id = context.context_id.take().map(|id| conceal(id.as_str()).into());
    context.task_id = context.task_id.take().map(|id| conceal(id.as_str()).into());
    context.agent_name = context.agent_name.take().map(|name| conceal(&name));
    context.ai_tool_call_id = context.ai_tool_call_id.take().map(|id| conceal(&id));
}

/// SHA-256 of the arguments, which come first, in canonical form (RFC 8785), or of their bytes where they are no JSON.
fn args_sha256(content: &[Segment<'_>]) -> Option<String> {
    let only = content.first()?;
    let canonical = serde_json::from_slice::<Value>(only.json)
        .ok()
        .and_then(|value| serde_json_canonicalizer::to_vec(&value).ok());
    Some(hex::encode(digest(&SHA256, canonical.as_deref().unwrap_or(only.json))))
}

impl Judgement {
    /// With names that hold no secret; what was decided stays.
    fn concealed(mut self, pipeline: &Pipeline) -> Self {
        let conceal = |text: Option<String>| text.map(|text| pipeline.conceal(&text));
        conceal_context(pipeline, &mut self.context);
        self.call_id = pipeline.conceal(self.call_id.as_str()).into();
        for (entity, _) in &mut self.entities {
            entity.id = pipeline.conceal(&entity.id).into();
        }
        self.tool = conceal(self.tool);
        self.plugin = conceal(self.plugin);
        self.agent = conceal(self.agent);
        self.agent_scope = conceal(self.agent_scope);
        self
    }

    /// With names no longer than a record repeats them, and without NUL: a judgement that a store does not take would leave no
    /// trace.
    fn bounded(mut self) -> Self {
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

    /// Says that the content was changed so: the call goes on, and its record says that it was changed.
    pub fn accept_redactions(&mut self) {
        if let Some(chain) = &mut self.chain
            && matches!(chain.verdict, Verdict::Redact(_))
            && !chain.redactions.is_empty()
        {
            chain.verdict = Verdict::Allow;
        }
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
        self.chain.as_ref().and_then(Chain::refusal)
    }

    /// Adds the record and the row of this decision to `unit`; returns the row's id.
    ///
    /// One record a call: where the pipeline ran, its record also says what was decided on the entities.
    pub fn record(&self, unit: &mut Unit) -> DecisionId {
        let origin = self.origin.as_str();
        let (policy, reason) = self.deciding();
        let draft = match &self.chain {
            Some(chain) => self.governance_draft(chain, &policy, &reason),
            None if !self.entities.is_empty() => {
                let draft = authz_draft(&self.context, &self.entities, self.call_id.as_str(), origin);
                draft.with("tool", self.tool.clone())
            }
            // Neither an entity nor a pipeline: nothing vouches for the call, and the record says so.
            None => Draft::new(EntryKind::GovernanceDecision, &self.context, "deny"),
        };
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

    fn governance_draft(&self, chain: &Chain, policy: &str, reason: &str) -> Draft {
        let outcome = if chain.is_allowed() { "allow" } else { "deny" };
        let draft = Draft::new(EntryKind::GovernanceDecision, &self.context, outcome)
            .with_policy(policy.to_owned())
            .with_reason(reason.to_owned())
            .with("call_id", self.call_id.as_str())
            .with("origin", self.origin.as_str())
            .with("source", "governance")
            .with("tool", self.tool.clone())
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
