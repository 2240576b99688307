//! The one function that every inference handler calls, in the order of GW-1: index, conversation, route, decision, record,
//! send, tap, close. Nothing leaves before its record is durable; any error before that refuses the call.

mod answers;
mod recovery;
#[cfg(test)]
mod tests;

use crate::closing::{CallFacts, Closer, Ending, OpenCall, Slot, Slots, commitment};
use crate::conversation;
use crate::edit::{self, Edit, Splice};
use crate::parse::{self, Index};
use crate::pricing::{Catalog, CatalogError};
use crate::protocol::{
    DECISION_ID_HEADER, GatewayCall, GatewayReply, Operation, REQUEST_ID_HEADER, ReplyBody,
    forwarded_request_headers, forwarded_response_headers, noted,
};
use crate::providers::{Incoming, Outgoing, ProviderError};
use crate::registry::{ModelInfo, ModelPage, PageQuery, Registry, RegistryError, Route};
use crate::relay::{Encoding, PING_INTERVAL, ReplyStream, StreamLimits, observe_whole, read_whole};
use crate::repository::{GatewayRequests, Opened};
use crate::segments::{Besides, Pointers, segments};
use crate::settle::Outcome;
use answers::{failed, header_value, is_event_stream, sha256, withheld};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use std::collections::HashSet;
use std::sync::Arc;
use systemprompt_audit::payload::Tally;
use systemprompt_audit::{Draft, EntryKind, Ledger, Payload, Permit, Role, Unit};
use systemprompt_config::profile::gateway::GatewayConfig;
use systemprompt_config::secrets::Secrets;
use systemprompt_database::Db;
use systemprompt_models::auth::CredentialKind;
use systemprompt_models::ids::{AiRequestId, CallId, DecisionId, GatewayConversationId, uuid_v4};
use systemprompt_models::{Clock, Code, Refusal, RequestContext, Tasks};
use systemprompt_net::HostRules;
use systemprompt_security::authz::{EntityKind, EntityRef};
use systemprompt_security::plane::{Call, DecisionPlane, Judgement, Origin};

/// Largest answer that is not streamed (GW-57).
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// The wire on both sides.
const PROTOCOL: &str = "anthropic";

/// A gateway that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What the gateway works with.
pub struct GatewayParts {
    pub db: Db,
    pub ledger: Ledger,
    pub plane: DecisionPlane,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    /// The operator's lists of hosts (`security.egress`).
    pub hosts: HostRules,
}

/// Figures for metrics and health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLoad {
    /// Calls between their start and the end of their answer.
    pub open: usize,
    /// Closing records that are being written.
    pub closing: usize,
    /// Closing records that could not be written for 30 seconds; above zero the node is not ready.
    pub overdue: usize,
}

/// The model gateway. Clones share everything.
#[derive(Clone)]
pub struct ClaudeGatewayService(Arc<Inner>);

struct Inner {
    registry: ArcSwap<Registry>,
    catalog: Arc<Catalog>,
    plane: DecisionPlane,
    closer: Arc<Closer>,
    requests: GatewayRequests,
    slots: Slots,
    hosts: HostRules,
}

impl std::fmt::Debug for ClaudeGatewayService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaudeGatewayService").field("load", &self.load()).finish_non_exhaustive()
    }
}

/// A call on its way through [`ClaudeGatewayService::handle`].
struct Planned {
    context: RequestContext,
    conversation: GatewayConversationId,
    operation: Operation,
    index: Index,
    route: Arc<Route>,
    query: Option<String>,
    headers: HeaderMap,
    /// The headers that go upstream.
    forwarded: HeaderMap,
    client_body: Bytes,
    body: Bytes,
    edits: Vec<Edit>,
}

impl Planned {
    /// Puts redacted parts in place of the client's own; nothing else of the body changes.
    fn redact(&mut self, redactions: Vec<(String, Splice)>) {
        let mut splices = Vec::with_capacity(redactions.len() + 1);
        if let Some(model) =
            self.route.target.upstream_model.as_deref().filter(|model| **model != *self.index.model)
        {
            splices.push(edit::model_splice(&self.index, model));
        }
        for (pointer, splice) in redactions {
            self.edits.push(edit::redaction(&pointer));
            splices.push(splice);
        }
        self.body = edit::splice(&self.client_body, splices);
    }
}

impl ClaudeGatewayService {
    /// # Errors
    /// A configuration that cannot be used.
    pub fn new(parts: GatewayParts, config: &GatewayConfig, secrets: &Secrets) -> Result<Self, GatewayError> {
        let catalog = Arc::new(Catalog::built_in()?);
        let registry = Registry::build(config, secrets, &catalog, &parts.hosts)?;
        let closer = Closer::new(parts.ledger, Arc::clone(&catalog), parts.clock, parts.tasks);
        Ok(Self(Arc::new(Inner {
            registry: ArcSwap::from_pointee(registry),
            catalog,
            plane: parts.plane,
            closer: Arc::new(closer),
            requests: GatewayRequests::new(parts.db),
            slots: Slots::default(),
            hosts: parts.hosts,
        })))
    }

    /// Puts another configuration in force; calls under way keep the one that they began with.
    ///
    /// # Errors
    /// A configuration that cannot be used; the old one then stays.
    pub fn reload(&self, config: &GatewayConfig, secrets: &Secrets) -> Result<(), RegistryError> {
        self.0.registry.store(Arc::new(Registry::build(config, secrets, &self.0.catalog, &self.0.hosts)?));
        Ok(())
    }

    /// The configuration in force.
    pub fn registry(&self) -> Arc<Registry> {
        self.0.registry.load_full()
    }

    /// Reads of `ai_requests`.
    pub fn requests(&self) -> &GatewayRequests {
        &self.0.requests
    }

    pub fn load(&self) -> GatewayLoad {
        GatewayLoad {
            open: self.0.slots.taken(),
            closing: self.0.closer.waiting(),
            overdue: self.0.closer.overdue(),
        }
    }

    /// Carries out a model request.
    ///
    /// # Errors
    /// A refusal before anything was sent. Once the request is recorded, a failure is a reply with the error's body.
    pub async fn handle(&self, call: GatewayCall) -> Result<GatewayReply, Refusal> {
        let registry = self.0.registry.load_full();
        if !registry.enabled {
            return Err(Refusal::new(Code::NotFound, "the model gateway is switched off here"));
        }
        let slot = self.0.slots.take(registry.max_streams).ok_or_else(|| {
            Refusal::new(Code::Overloaded, "as many model calls as this node takes are under way")
        })?;
        let mut plan = plan(call, &registry)?;
        let (mut judgement, redactions) = self.judge(&plan).await;
        if !redactions.is_empty() {
            judgement.accept_redactions();
            plan.redact(redactions);
        }
        let mut unit = Unit::new();
        let decision = judgement.record(&mut unit);
        if let Some(refusal) = judgement.refusal() {
            self.0.closer.ledger.append(unit).await?;
            self.0.plane.remember(&judgement).await;
            return Err(refusal.with_decision(decision));
        }
        if let Some(secret) = plan.route.target.provider.missing_secret() {
            tracing::error!(provider = %plan.route.target.provider.name, name = secret, "a provider's secret is missing");
            self.0.closer.ledger.append(unit).await?;
            return Err(Refusal::new(
                Code::Upstream,
                "the provider of this route has no credential configured",
            ));
        }
        let (call, hash) = self.open(&plan, decision.clone(), &mut unit, slot);
        let id = call.id.clone();
        let mut open = OpenCall::new(Arc::clone(&self.0.closer), call);
        let permit = match self.0.closer.ledger.commit(unit).await {
            Ok(permit) => permit,
            Err(error) => {
                open.in_doubt(&error);
                return Err(error.into());
            }
        };
        open.sending();
        let mut reply = self.send(permit, open, plan, hash, id).await;
        if let Ok(value) = HeaderValue::from_str(decision.as_str()) {
            reply.headers.insert(DECISION_ID_HEADER, value);
        }
        Ok(reply)
    }

    /// The judgement, and the changes to the body with which the call may go on where it may not as it is.
    async fn judge(&self, plan: &Planned) -> (Judgement, Vec<(String, Splice)>) {
        let pointers = Pointers::of(&plan.index);
        // Where the route names its model, that name is the configuration's and not the client's.
        let mut content = segments(&plan.index, &plan.client_body, &pointers, !plan.route.is_exact());
        let named = plan.headers.iter().filter(|(name, _)| conversation::is_name(name.as_str()));
        let named = named.filter(|(name, _)| !plan.forwarded.contains_key(*name));
        let besides = Besides::of(plan.query.as_deref(), plan.forwarded.iter().chain(named));
        content.extend(besides.segments());
        let judgement = self
            .0
            .plane
            .judge(Call {
                call_id: CallId::generate(),
                origin: Origin::Gateway,
                counted: true,
                context: &plan.context,
                entities: vec![EntityRef::new(EntityKind::GatewayRoute, &*plan.route.name)],
                tool: None,
                server: None,
                plugin: None,
                agent: None,
                agent_scope: None,
                content: &content,
            })
            .await;
        let splices = judgement.redactions().iter().map(|redaction| {
            let part = content.get(redaction.segment)?;
            let place = edit::place_in(&plan.client_body, part.json)?;
            Some((part.pointer.to_string(), (place, redaction.json.clone())))
        });
        // The query and headers are no part of the body: what stands there cannot be replaced, and the call stays refused.
        let splices = splices.collect::<Option<Vec<_>>>().unwrap_or_default();
        (judgement, splices)
    }

    /// Adds the opening record and the row to `unit`.
    fn open(
        &self,
        plan: &Planned,
        decision: DecisionId,
        unit: &mut Unit,
        slot: Slot,
    ) -> (CallFacts, [u8; 32]) {
        let id = AiRequestId::generate();
        let opened_at = self.0.closer.clock.now();
        let salt = uuid_v4().simple().to_string();
        let client_hash = sha256(&plan.client_body);
        let forwarded_hash = if plan.edits.is_empty() { client_hash } else { sha256(&plan.body) };
        let target = &plan.route.target;
        let model_upstream: Arc<str> = match &target.upstream_model {
            Some(model) => Arc::clone(model),
            None => (&*plan.index.model).into(),
        };
        let edits = &plan.edits;
        let mut draft = Draft::new(EntryKind::InferenceOpened, &plan.context, "opened")
            .with_subject("gateway_route", &*plan.route.name)
            .with("request_id", id.as_str())
            .with("route", &*plan.route.name)
            .with("provider", &*target.provider.name)
            .with("operation", plan.operation.as_str())
            .with("wire", PROTOCOL)
            .with("model", &*plan.index.model)
            .with("upstream_model", &*model_upstream)
            .with("decision_id", decision.as_str())
            .with_payload(Payload::json(Role::Request, plan.client_body.clone()))
            .with("body", commitment(&salt, &client_hash))
            .with("body_bytes", plan.client_body.len());
        if !edits.is_empty() {
            draft = draft
                .with("forwarded", commitment(&salt, &forwarded_hash))
                .with("edits", edits.iter().map(|edit| edit.kind).collect::<Vec<_>>());
        }
        let ledger_opened = unit.record(draft);
        let principal = &plan.context.principal;
        unit.open(Opened {
            id: id.clone(),
            ledger_opened,
            ledger_stream: self.0.closer.ledger.stream().to_string(),
            user_id: principal.user_id.to_string(),
            client_id: principal.client_id.as_ref().map(ToString::to_string),
            api_key_id: match &principal.credential {
                CredentialKind::ApiKey { id } => Some(id.to_string()),
                _ => None,
            },
            session_id: (!principal.is_anonymous()).then(|| principal.session_id.to_string()),
            conversation_id: plan.conversation.to_string(),
            context_id: plan.context.context_id.as_ref().map(ToString::to_string),
            task_id: plan.context.task_id.as_ref().map(ToString::to_string),
            trace_id: plan.context.trace_id.to_string(),
            act_chain: principal.act_chain.clone(),
            operation: plan.operation.as_str(),
            protocol: PROTOCOL,
            route: plan.route.name.to_string(),
            provider: target.provider.name.to_string(),
            model_requested: plan.index.model.to_string(),
            model_upstream: model_upstream.to_string(),
            stream: plan.index.stream,
            max_tokens: plan.index.max_tokens,
            decision_id: decision,
            client_body_sha256: hex::encode(client_hash),
            forwarded_body_sha256: hex::encode(forwarded_hash),
            body_salt: salt.clone(),
            body_bytes: plan.client_body.len(),
            edits: serde_json::to_string(edits).unwrap_or_else(|_| "[]".to_owned()),
            client_info: noted(&plan.headers),
            opened_at,
        });
        let facts = CallFacts {
            id,
            context: plan.context.clone(),
            route: Arc::clone(&plan.route.name),
            operation: plan.operation,
            model_requested: plan.index.model.clone(),
            model_upstream,
            salt,
            body_bytes: plan.client_body.len(),
            opened_at,
            slot,
        };
        (facts, forwarded_hash)
    }

    async fn send(
        &self,
        permit: Permit,
        mut open: OpenCall,
        plan: Planned,
        body_sha256: [u8; 32],
        id: AiRequestId,
    ) -> GatewayReply {
        let target = &plan.route.target;
        let timeouts = target.timeouts;
        let outgoing = Outgoing {
            operation: plan.operation,
            query: plan.query,
            headers: plan.forwarded,
            body: plan.body,
            body_sha256,
            first_byte: if plan.index.stream { timeouts.stream_first_byte } else { timeouts.first_byte },
        };
        let incoming = match target.provider.send(permit, outgoing).await {
            Ok(incoming) => incoming,
            Err(error) => return failed(open, &error, 0, &target.provider.name, &plan.context, id),
        };
        let Incoming { status, headers: from, body } = incoming;
        let provider_request_id = from.get("request-id").or_else(|| from.get("x-request-id"));
        open.answered(status.as_u16(), provider_request_id.and_then(|value| value.to_str().ok()));
        let encoding = Encoding::of(&from);
        let pipeline = self.0.plane.pipeline();
        let (in_use, secrets) = (pipeline.in_use().clone(), Arc::clone(pipeline.scanner()));
        let mut headers = forwarded_response_headers(&from);
        headers.insert(REQUEST_ID_HEADER, header_value(id.as_str()));
        if status.is_success() && is_event_stream(&from) {
            let limits =
                StreamLimits { idle: timeouts.stream_idle, total: timeouts.total, ping: PING_INTERVAL };
            let stream = ReplyStream::new(body, encoding, limits, in_use, &self.0.closer.tasks)
                .noting(secrets)
                .closing(open);
            return GatewayReply {
                status,
                headers,
                body: ReplyBody::Stream(Box::new(stream)),
                request_id: id,
            };
        }
        let reading = read_whole(body, MAX_ANSWER_BYTES, timeouts.stream_idle, || open.first_byte());
        let read = tokio::time::timeout(timeouts.total, reading).await;
        match read.unwrap_or(Err((ProviderError::Silent, 0))) {
            Err((error, bytes)) => failed(open, &error, bytes, &target.provider.name, &plan.context, id),
            Ok(body) => {
                let (observed, leaks) = observe_whole(&body, encoding, MAX_ANSWER_BYTES, &in_use, &secrets);
                if !leaks.is_empty() {
                    return withheld(open, &body, (observed, leaks), &plan.context, id);
                }
                let ok = status.is_success();
                open.end(Ending {
                    outcome: if ok { Outcome::Ok } else { Outcome::UpstreamError },
                    error_type: None,
                    response_sha256: Some(sha256(&body)),
                    response_bytes: body.len() as u64,
                    injected_pings: 0,
                    charged: ok || observed.output_known,
                    observed,
                    leaks,
                    // What is packed cannot be looked through, so it is committed to and not kept.
                    response: match encoding {
                        Encoding::Identity => Some(Payload::json(Role::Response, body.clone())),
                        _ => Tally::of(Role::Response, &body),
                    },
                });
                GatewayReply { status, headers, body: ReplyBody::Full(body), request_id: id }
            }
        }
    }

    /// A page of the models that the principal may use (GW-25).
    ///
    /// # Errors
    /// A query that cannot be answered.
    pub async fn models(&self, context: &RequestContext, query: &PageQuery) -> Result<ModelPage, Refusal> {
        let usable = self.usable(context).await;
        self.0
            .registry
            .load()
            .models(query, |route| usable.contains(&*route.name))
            .map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))
    }

    /// One model, if the principal may use it.
    ///
    /// # Errors
    /// An unknown model; one that may not be used counts as unknown.
    pub async fn model(&self, context: &RequestContext, id: &str) -> Result<ModelInfo, Refusal> {
        let usable = self.usable(context).await;
        let registry = self.0.registry.load();
        registry.model(id, |route| usable.contains(&*route.name)).cloned().ok_or_else(|| no_such_model(id))
    }

    /// Names of the routes that the principal may use.
    async fn usable(&self, context: &RequestContext) -> HashSet<Arc<str>> {
        let names: Vec<Arc<str>> =
            self.0.registry.load().routes().iter().map(|route| Arc::clone(&route.name)).collect();
        let entities: Vec<EntityRef> =
            names.iter().map(|name| EntityRef::new(EntityKind::GatewayRoute, &**name)).collect();
        let decisions = self.0.plane.decide_many(context, &entities).await;
        names
            .into_iter()
            .zip(decisions)
            .filter(|(_, decision)| decision.is_allow())
            .map(|(name, _)| name)
            .collect()
    }
}

/// Everything that is known before the decision.
fn plan(call: GatewayCall, registry: &Registry) -> Result<Planned, Refusal> {
    let GatewayCall { mut context, operation, query, headers, body } = call;
    let index = parse::parse(&body)?;
    let conversation = conversation::conversation_id(&context.principal, &headers, &index, &body);
    context.context_id = Some(conversation::context_id(&conversation));
    let route = Arc::clone(registry.route_for(&index.model).ok_or_else(|| no_such_model(&index.model))?);
    let (forwarded_body, edit) = edit::forwarded(&body, &index, route.target.upstream_model.as_deref());
    Ok(Planned {
        context,
        conversation,
        operation,
        index,
        route,
        query,
        forwarded: forwarded_request_headers(&headers),
        headers,
        client_body: body,
        body: forwarded_body,
        edits: edit.into_iter().collect(),
    })
}

fn no_such_model(name: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("model: {name}"))
}
