//! The one decision plane: gateway, MCP and hooks ask here, nobody decides on their own.
//!
//! [`DecisionPlane::judge`] decides on the entities of a call and runs the governance pipeline over its content. It changes
//! nothing but limit counters; the caller puts the [`Judgement`] into the unit of its call, commits the unit, and acts then.

mod judgement;
mod names;

use crate::authz::audit::db_sink::with_actors;
use crate::authz::hook::DecisionFuture;
use crate::authz::{
    AuthzAuditSink, AuthzDecision, AuthzDecisionHook, AuthzRequest, CallInfo, DbAuditSink, EntityRef,
};
pub use crate::governance::Denial;
use crate::governance::{CallFacts, Chain, Pipeline};
pub use crate::governance::{Origin, Segment};
use crate::repository::seen::SeenRepository;
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::join_all;
pub use judgement::Judgement;
use judgement::bounded;
use names::{conceal_context, context_names, names};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use systemprompt_audit::{Draft, EntryKind, Ledger, LedgerError, Payload, Role};
use systemprompt_database::Db;
use systemprompt_models::ids::{CallId, DecisionId};
use systemprompt_models::{Clock, RequestContext};

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
        let began = Instant::now();
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
            server: call.server.map(str::to_owned),
            plugin: call.plugin.map(str::to_owned),
            agent: call.agent.map(str::to_owned),
            agent_scope: call.agent_scope.map(str::to_owned),
            args_sha256: call.tool.and_then(|_| args_sha256(call.content)),
            arguments,
            unredactable: None,
            elapsed_us: micros(began),
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
        let began = Instant::now();
        let decision = match self.0.hook.decide(request) {
            Some(decision) => decision,
            None => self.0.hook.evaluate(request).await,
        };
        AuthzDecision { elapsed_us: micros(began), ..decision }
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
        let began = Instant::now();
        let mut decisions = match self.0.hook.decide_many(&context.principal, entities) {
            Some(decisions) => decisions,
            None => self.ask_many(context, entities).await,
        };
        if let Some((first, others)) = decisions.split_first_mut() {
            first.elapsed_us = micros(began);
            for decision in others {
                decision.elapsed_us = 0;
            }
        }
        decisions
    }

    /// Asks somebody else, several questions at a time.
    async fn ask_many(&self, context: &RequestContext, entities: &[EntityRef]) -> Vec<AuthzDecision> {
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
            .with("rule_epoch", decided.first().map_or(0, |(_, d)| d.epoch))
            .with("elapsed_us", decided.iter().map(|(_, d)| d.elapsed_us).sum::<u64>());
        draft = with_actors(draft, context, decided);
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

/// Microseconds since a moment.
pub(crate) fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// SHA-256 of the arguments, which come first, in canonical form (RFC 8785), or of their bytes where they are no JSON.
fn args_sha256(content: &[Segment<'_>]) -> Option<String> {
    content.first().map(|arguments| sha256_of(arguments.json))
}

fn sha256_of(json: &[u8]) -> String {
    let value = serde_json::from_slice::<Value>(json).ok();
    let canonical = value.and_then(|value| serde_json_canonicalizer::to_vec(&value).ok());
    hex::encode(digest(&SHA256, canonical.as_deref().unwrap_or(json)))
}
