//! Decides for other installations (SEC-72): the question of their webhook client, our rules, one record.

use super::audit::AuthzSource;
use super::audit::db_sink::{authz_draft, base_row};
use super::audit::repository::{DecisionRow, insert_governance_decision};
use super::hook::{AuthzDecisionHook, RuleHook};
use super::types::{AuthzDecision, AuthzRequest, EntityRef, MAX_ENTITY_ID, MAX_RULE_VALUE, entity_kind};
use crate::plane::{DecisionPlane, micros};
use crate::standard_webhooks::{Replays, WebhookError, WebhookSecrets};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;
use systemprompt_audit::{Ledger, LedgerError, Unit};
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_database::Db;
use systemprompt_models::auth::MAX_ACT_DEPTH;
use systemprompt_models::ids::{CallId, ClientId, DecisionId, SessionId, TraceId, UserId};
use systemprompt_models::{Clock, Code, Permission, Principal, Refusal, RequestContext, Secret, UserType};

/// Name of this endpoint among those whose ids are remembered.
const ENDPOINT: &str = "govern_authz";
/// Most roles of a question, and the longest id in it, in characters.
const MAX_ROLES: usize = 256;
const MAX_ID: usize = 256;

/// Why a message is not taken as signed.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("this installation has no usable `authz_webhook_secret`")]
    NoSecret,
    #[error(transparent)]
    Signature(#[from] WebhookError),
    #[error("whether its id came before cannot be told")]
    Database(#[from] sqlx::Error),
}

/// Decides for others.
#[derive(Clone)]
pub struct DecisionService {
    rules: RuleHook,
    plane: DecisionPlane,
    ledger: Ledger,
    replays: Replays,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for DecisionService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecisionService").finish_non_exhaustive()
    }
}

/// A decision for somebody else, on record.
#[derive(Debug)]
pub struct Answered {
    pub decision: AuthzDecision,
    pub id: DecisionId,
    pub request_id: Option<String>,
}

/// The question as it comes. Members that mean nothing here are taken and left alone; a later version may have more.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    version: Option<Value>,
    #[serde(default)]
    request_id: Option<Value>,
    #[serde(default)]
    entity_type: Option<Value>,
    #[serde(default)]
    entity_id: Option<Value>,
    #[serde(default)]
    entity: Option<Value>,
    #[serde(default)]
    user_id: Option<Value>,
    #[serde(default)]
    roles: Option<Value>,
    #[serde(default)]
    department: Option<Value>,
    #[serde(default)]
    trace_id: Option<Value>,
    #[serde(default)]
    session_id: Option<Value>,
    #[serde(default)]
    client_id: Option<Value>,
    #[serde(default)]
    owner_id: Option<Value>,
    #[serde(default)]
    context_id: Option<Value>,
    #[serde(default)]
    task_id: Option<Value>,
    #[serde(default)]
    act_chain: Option<Value>,
}

impl DecisionService {
    pub fn new(
        rules: RuleHook,
        plane: DecisionPlane,
        ledger: Ledger,
        db: &Db,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { rules, plane, ledger, replays: Replays::new(db.clone(), ENDPOINT), clock }
    }

    /// Whether a message is signed, fresh, and comes for the first time. Its id is used up by this.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn accept(
        &self,
        secret: Option<&Secret<String>>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), MessageError> {
        let secrets = secret.and_then(|secret| WebhookSecrets::parse(secret).ok());
        let now = self.clock.now();
        let message = secrets.ok_or(MessageError::NoSecret)?.verify(headers, body, now.div_euclid(1000))?;
        if self.replays.take(&message, now).await? { Ok(()) } else { Err(WebhookError::Replay.into()) }
    }

    /// Decides by our own rules, and returns once the decision is on record. `asked_by` names who asks.
    ///
    /// # Errors
    /// A question that does not fit (400, naming the field), or a decision that could not be recorded.
    pub async fn decide(&self, trace: &TraceId, asked_by: &str, body: &[u8]) -> Result<Answered, Refusal> {
        let question = Question::parse(body, trace)?;
        let Question { context, entity, request_id } = question;
        let request =
            AuthzRequest { context: Some(&context), ..AuthzRequest::new(&context.principal, &entity) };
        let began = Instant::now();
        let decision = self.rules.evaluate(request).await;
        let elapsed_us = micros(began);
        let decision = AuthzDecision { source: AuthzSource::WebhookServer, elapsed_us, ..decision };
        // What others write into ids is stored as anything else that comes from outside: without secrets.
        let context = self.plane.conceal_context(&context).into_owned();
        let entity = EntityRef::new(entity.kind, self.plane.pipeline().conceal(&entity.id));
        let id = self.record(&context, &entity, &decision, asked_by).await?;
        Ok(Answered { decision, id, request_id })
    }

    async fn record(
        &self,
        context: &RequestContext,
        entity: &EntityRef,
        decision: &AuthzDecision,
        asked_by: &str,
    ) -> Result<DecisionId, LedgerError> {
        let mut unit = Unit::new();
        let call_id = CallId::generate();
        let decided = [(entity.clone(), decision.clone())];
        let draft = authz_draft(context, &decided, call_id.as_str(), "webhook_server");
        let draft = draft.with("asked_by", asked_by).with("elapsed_us", decision.elapsed_us);
        let opened = unit.record(draft);
        let row = DecisionRow {
            entity: Some((entity.kind.as_str(), entity.id.to_string())),
            decision: decision.decision().as_str(),
            policy: decision.policy().to_owned(),
            reason: decision.reason().into_owned(),
            source: decision.source.as_str(),
            rule_epoch: decision.epoch,
            created_at: self.clock.now(),
            ..base_row(context, call_id.as_str(), "webhook_server", opened)
        };
        let id = insert_governance_decision(&mut unit, row);
        self.ledger.append(unit).await?;
        Ok(id)
    }
}

/// The hook that decides for others: our own rules, whatever this installation itself asks.
pub fn own_rules(store: &super::RuleStore, actors: ActorCheck) -> RuleHook {
    RuleHook::new(store.clone(), actors)
}

struct Question {
    context: RequestContext,
    entity: EntityRef,
    request_id: Option<String>,
}

fn wrong(field: &'static str, expected: &str) -> Refusal {
    Refusal::new(Code::InvalidRequest, format!("`{field}` must be {expected}"))
        .with_validation(field, expected.to_owned())
}

/// A text of 1 to `most` characters, none of them a control character; null counts as absent.
fn text(field: &'static str, value: Option<Value>, most: usize) -> Result<Option<String>, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text))
            if !text.is_empty() && text.chars().count() <= most && !text.contains(char::is_control) =>
        {
            Ok(Some(text))
        }
        Some(_) => Err(wrong(field, &format!("a text of 1 to {most} characters"))),
    }
}

fn texts(field: &'static str, value: Option<Value>, most: usize) -> Result<Vec<String>, Refusal> {
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= most => list,
        Some(_) => return Err(wrong(field, &format!("a list of at most {most} texts"))),
    };
    let read = |item| text(field, Some(item), MAX_RULE_VALUE)?.ok_or_else(|| wrong(field, "a list of texts"));
    list.into_iter().map(read).collect()
}

impl Question {
    fn parse(body: &[u8], trace: &TraceId) -> Result<Self, Refusal> {
        let not_json = |error: serde_json::Error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Refusal::new(Code::InvalidRequest, format!("the body is no JSON object ({place})"))
        };
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(wrong("body", "a JSON object"));
        }
        let body: Body = serde_json::from_slice(body).map_err(not_json)?;
        if body.version.as_ref().is_some_and(|version| version.as_u64() != Some(1)) {
            return Err(wrong("version", "1"));
        }
        let entity = entity(body.entity_type, body.entity_id, body.entity)?;
        let user = text("user_id", body.user_id, MAX_RULE_VALUE)?;
        let mut principal = Principal::anonymous();
        principal.user_id = UserId::new(user.ok_or_else(|| wrong("user_id", "a text"))?);
        principal.user_type = UserType::User;
        principal.permissions = vec![Permission::User];
        principal.roles = texts("roles", body.roles, MAX_ROLES)?;
        principal.department = text("department", body.department, MAX_RULE_VALUE)?;
        principal.act_chain = texts("act_chain", body.act_chain, MAX_ACT_DEPTH)?;
        principal.client_id = text("client_id", body.client_id, MAX_ID)?.map(ClientId::new);
        principal.owner = text("owner_id", body.owner_id, MAX_RULE_VALUE)?.map(UserId::new);
        if let Some(session) = text("session_id", body.session_id, MAX_ID)? {
            principal.session_id = SessionId::new(session);
        }
        let theirs = text("trace_id", body.trace_id, 64)?;
        let mut context =
            RequestContext::new(Arc::new(principal), theirs.map_or_else(|| trace.clone(), TraceId::new));
        context.context_id = text("context_id", body.context_id, MAX_ID)?.map(Into::into);
        context.task_id = text("task_id", body.task_id, MAX_ID)?.map(Into::into);
        Ok(Self { context, entity, request_id: text("request_id", body.request_id, MAX_ID)? })
    }
}

/// `entity_type` and `entity_id`, or `entity: {kind, id}`.
fn entity(kind: Option<Value>, id: Option<Value>, both: Option<Value>) -> Result<EntityRef, Refusal> {
    let (kind, id, names) = match both {
        None | Some(Value::Null) => (kind, id, ("entity_type", "entity_id")),
        Some(Value::Object(mut members)) if kind.is_none() && id.is_none() => {
            (members.remove("kind"), members.remove("id"), ("entity.kind", "entity.id"))
        }
        Some(_) => return Err(wrong("entity", "{kind, id}, in place of entity_type and entity_id")),
    };
    let allowed = "gateway_route, mcp_server, mcp_tool, plugin, agent, marketplace, skill or hook";
    let kind = kind.as_ref().and_then(Value::as_str).and_then(entity_kind);
    let kind = kind.ok_or_else(|| wrong(names.0, allowed))?;
    let id = text(names.1, id, MAX_ENTITY_ID)?.filter(|id| id.len() <= MAX_ENTITY_ID && !id.contains('*'));
    let id =
        id.ok_or_else(|| wrong(names.1, &format!("a text of 1 to {MAX_ENTITY_ID} bytes without `*`")))?;
    Ok(EntityRef::new(kind, id))
}
