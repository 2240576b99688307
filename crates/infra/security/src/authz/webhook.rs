//! Asks somebody else to decide (SEC-71): one signed POST, a short time, a strict answer. Whatever is not exactly a decision is a
//! deny, and after several faults in a row nobody is asked for a moment.

use super::audit::AuthzSource;
use super::error::AuthzBootstrapError;
use super::hook::{AuthzDecisionHook, DecisionFuture, RuleHook};
use super::types::{AuthzDecision, AuthzRequest, EntityKind, EntityRef, Matched, Told};
use super::words::Words;
use crate::standard_webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookSecrets};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use systemprompt_config::profile::governance::AuthzHookConfig;
use systemprompt_models::ids::uuid_v7;
use systemprompt_models::{Clock, Millis, Secret};
use systemprompt_net::egress::{Class, Egress, EgressError, HostRules, Policy, client_under};
use tokio::sync::Semaphore;

/// Version of the question.
pub const VERSION: u32 = 1;
/// Largest answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// Questions under way; one more is a fault.
const MAX_IN_FLIGHT: usize = 256;
/// Faults in a row after which nobody is asked for a moment, and how long that is.
const OPENS_AFTER: u32 = 5;
const OPEN_FOR: Millis = 1000;

/// Decides by asking a service.
pub struct WebhookHook {
    egress: Egress,
    url: String,
    timeout: Duration,
    secrets: WebhookSecrets,
    /// Our own rules, which must allow first.
    rules: Option<RuleHook>,
    words: Words,
    include_arguments: bool,
    clock: Arc<dyn Clock>,
    in_flight: Semaphore,
    faults_in_row: AtomicU32,
    open_until: AtomicI64,
    faults: AtomicU64,
}

impl std::fmt::Debug for WebhookHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookHook").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why there is no answer that counts.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    #[error("the answer is no decision: {0}")]
    Form(#[from] serde_json::Error),
    #[error("the answer is no JSON object")]
    NotAnObject,
    #[error("the answer is to another question")]
    OtherQuestion,
    #[error("too many questions are under way")]
    Busy,
    #[error("the last {OPENS_AFTER} questions failed; nobody is asked for a moment")]
    Open,
}

/// The answer. Members that this installation's own answers have are taken; any other is a fault.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    decision: Word,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default, rename = "matched_by")]
    _matched_by: Option<String>,
    #[serde(default, rename = "rule_id")]
    _rule_id: Option<String>,
    #[serde(default, rename = "epoch")]
    _epoch: Option<i64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Deny,
}

impl WebhookHook {
    /// # Errors
    /// No address, no secret, or one that cannot be used.
    pub fn new(
        config: &AuthzHookConfig,
        rules: Option<RuleHook>,
        secret: Option<&Secret<String>>,
        hosts: HostRules,
        clock: Arc<dyn Clock>,
        words: Words,
    ) -> Result<Self, AuthzBootstrapError> {
        let url = config.url.clone().ok_or(AuthzBootstrapError::NoUrl)?;
        let secret = secret.ok_or(AuthzBootstrapError::NoWebhookSecret)?;
        let secrets = WebhookSecrets::parse(secret).map_err(AuthzBootstrapError::WebhookSecret)?;
        // An address that the operator wrote out may be in a private network.
        let allow_private = literal(&url).into_iter().collect();
        let egress = client_under(Class::Operator, Policy { allow_insecure: false, allow_private }, hosts);
        let egress = egress.map_err(|error| AuthzBootstrapError::Webhook(error.to_string()))?;
        egress.check(&url).map_err(|error| AuthzBootstrapError::Webhook(error.to_string()))?;
        Ok(Self {
            egress,
            url,
            timeout: Duration::from_millis(u64::from(config.timeout_ms)),
            secrets,
            rules,
            words,
            include_arguments: config.include_arguments,
            clock,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            faults_in_row: AtomicU32::new(0),
            open_until: AtomicI64::new(Millis::MIN),
            faults: AtomicU64::new(0),
        })
    }

    async fn ask(&self, request: AuthzRequest<'_>) -> AuthzDecision {
        let by_rules = match &self.rules {
            Some(rules) => rules.decide(request),
            None => None,
        };
        // No rule need name a tool; its server's rule has allowed it then.
        let is_silent = |decision: &AuthzDecision| {
            decision.matched == Matched::UnknownEntity && request.entity.kind == EntityKind::McpTool
        };
        if let Some(denied) = by_rules.as_ref().filter(|d| !d.is_allow() && !is_silent(d)) {
            return denied.clone();
        }
        let actors = by_rules.as_ref().and_then(|by| by.actors);
        let (epoch, set_hash) = by_rules.map_or_else(|| (0, "".into()), |by| (by.epoch, by.set_hash));
        let decision = |matched, source, told| AuthzDecision {
            matched,
            rule: None,
            source,
            epoch,
            set_hash,
            told,
            actors,
            elapsed_us: 0,
        };
        match self.call(request).await {
            Ok(answer) => {
                // Whoever answers may repeat what it was shown elsewhere, and the client and the records get its words.
                let clean = |text: Option<String>| text.map(|text| self.words.clean(&text));
                let told = Told::of(clean(answer.reason), clean(answer.policy));
                match answer.decision {
                    Word::Allow => decision(Matched::WebhookAllow, AuthzSource::Webhook, told),
                    Word::Deny => decision(Matched::WebhookDeny, AuthzSource::Webhook, told),
                }
            }
            Err(fault) => {
                self.faults.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%fault, entity = request.entity.kind.as_str(), "the decision service gave no decision; denied");
                decision(Matched::HookFault, AuthzSource::WebhookFault, None)
            }
        }
    }

    async fn call(&self, request: AuthzRequest<'_>) -> Result<Answer, Fault> {
        let now = self.clock.now();
        if now < self.open_until.load(Ordering::Acquire) {
            return Err(Fault::Open);
        }
        let _slot = self.in_flight.try_acquire().map_err(|_| Fault::Busy)?;
        let answer = tokio::time::timeout(self.timeout, self.exchange(request, now)).await;
        let answer = answer.unwrap_or(Err(Fault::Timeout(self.timeout)));
        if answer.is_ok() {
            self.faults_in_row.store(0, Ordering::Release);
        } else if self.faults_in_row.fetch_add(1, Ordering::AcqRel) + 1 >= OPENS_AFTER {
            self.open_until.store(self.clock.now().saturating_add(OPEN_FOR), Ordering::Release);
        }
        answer
    }

    async fn exchange(&self, request: AuthzRequest<'_>, now: Millis) -> Result<Answer, Fault> {
        let request_id = uuid_v7().to_string();
        let body = serde_json::to_vec(&self.question(request, &request_id))?;
        let (id, timestamp) = (format!("msg_{}", uuid_v7().simple()), now.div_euclid(1000));
        let signature = self.secrets.sign(&id, timestamp, &body);
        let question = self
            .egress
            .request(http::Method::POST, &self.url)?
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, timestamp.to_string())
            .header(SIGNATURE_HEADER, signature)
            .body(body);
        let mut response = self.egress.send(question).await?;
        if response.status().as_u16() != 200 {
            return Err(Fault::Status(response.status().as_u16()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(EgressError::from)? {
            if text.len() + chunk.len() > MAX_ANSWER {
                return Err(Fault::TooLarge);
            }
            text.extend_from_slice(&chunk);
        }
        // A list would be read by position.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(Fault::NotAnObject);
        }
        let answer: Answer = serde_json::from_slice(&text)?;
        if answer.request_id.as_deref().is_some_and(|echo| echo != request_id) {
            return Err(Fault::OtherQuestion);
        }
        Ok(answer)
    }

    /// What is asked. It holds no prompt and no token, and arguments only where the operator wants them to leave.
    fn question(&self, request: AuthzRequest<'_>, request_id: &str) -> Value {
        let AuthzRequest { principal, entity, context, call } = request;
        let mut payload = serde_json::Map::new();
        if let Some(tool) = call.and_then(|call| call.tool) {
            payload.insert("tool".into(), tool.into());
            let arguments = call.and_then(|call| call.arguments).filter(|_| self.include_arguments);
            if let Some(arguments) = arguments.and_then(|json| serde_json::from_slice::<Value>(json).ok()) {
                payload.insert("arguments".into(), arguments);
            }
        }
        json!({
            "version": VERSION,
            "request_id": request_id,
            "entity_type": entity.kind.as_str(),
            "entity_id": &*entity.id,
            "user_id": principal.user_id.as_str(),
            "roles": principal.roles,
            "department": principal.department,
            "trace_id": context.map(|context| context.trace_id.as_str()),
            "session_id": (!principal.is_anonymous()).then(|| principal.session_id.as_str()),
            "client_id": principal.client_id.as_ref().map(AsRef::<str>::as_ref),
            "owner_id": principal.owner.as_ref().map(AsRef::<str>::as_ref),
            "context": {"kind": call.map_or("decision", |call| call.kind), "payload": payload},
            "context_id": context.and_then(|context| context.context_id.as_ref()).map(AsRef::<str>::as_ref),
            "task_id": context.and_then(|context| context.task_id.as_ref()).map(AsRef::<str>::as_ref),
            "act_chain": principal.act_chain,
        })
    }
}

impl AuthzDecisionHook for WebhookHook {
    fn decide(&self, _: AuthzRequest<'_>) -> Option<AuthzDecision> {
        None
    }

    fn evaluate<'a>(&'a self, request: AuthzRequest<'a>) -> DecisionFuture<'a> {
        Box::pin(self.ask(request))
    }

    fn considers(&self, _: &EntityRef) -> bool {
        true
    }

    fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

/// The network of the address that a URL names instead of a host.
fn literal(url: &str) -> Option<ipnet::IpNet> {
    let host = url::Url::parse(url).ok()?;
    let address: IpAddr = host.host_str()?.trim_matches(['[', ']']).parse().ok()?;
    Some(address.into())
}

#[cfg(test)]
mod tests;
