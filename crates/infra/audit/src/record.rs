//! A ledger record: its fields, its kinds, and its canonical form (RFC 8785).
//!
//! A draft is everything but what the writer assigns (`stream`, `seq`, `at`, `prev_hash`). The canonical text is built from
//! fragments that the caller renders, so that the single writer only joins and hashes; a property test compares the joined
//! text with `serde_json_canonicalizer`.

use crate::payload::seal::{self, Sealed};
use crate::payload::{Payload, PayloadPolicy, Role};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;
use systemprompt_leak::Scanner;
use systemprompt_models::ids::{ClientId, ContextId, EntryId, SessionId, TaskId, TraceId};
use systemprompt_models::{Millis, Principal, RequestContext, UserType};

/// Largest canonical record, in bytes (AUD-2).
pub const MAX_RECORD_BYTES: usize = 32 * 1024;
/// Largest canonical `detail`, in bytes.
pub const MAX_DETAIL_BYTES: usize = 16 * 1024;
/// Longest string inside `detail`, in characters; what is longer is a payload.
pub const MAX_DETAIL_STRING: usize = 256;
/// Largest integer that every JSON reader keeps exactly (2^53 - 1).
pub const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// A record that cannot be appended. Each is a programming error of the caller, except a value that is too long.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    #[error("a unit without a record")]
    EmptyUnit,
    #[error("a unit of {0} records, at most 16 are allowed")]
    UnitTooLarge(usize),
    #[error("detail{0} is a floating-point number; amounts are integers")]
    Float(String),
    #[error("detail{0} is outside ±(2^53-1)")]
    IntegerRange(String),
    #[error("detail{0} is longer than {MAX_DETAIL_STRING} characters; it belongs into a payload")]
    StringTooLong(String),
    #[error("detail has {0} bytes, at most {MAX_DETAIL_BYTES} are allowed")]
    DetailTooLarge(usize),
    #[error("the record has {0} bytes, at most {MAX_RECORD_BYTES} are allowed")]
    RecordTooLarge(usize),
    #[error("the record cannot be put into canonical form")]
    Canonical,
    #[error("{0} payloads of one record, at most {max} are allowed", max = crate::payload::MAX_PAYLOADS)]
    TooManyPayloads(usize),
    #[error("two payloads of one record are its `{0}`")]
    SameRole(&'static str),
    #[error("the operating system gave no random bytes")]
    Random,
}

macro_rules! kinds {
    ($($name:ident = $text:literal;)*) => {
        /// Kind of a ledger entry. Closed for writers; a reader keeps a kind that it does not know as text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EntryKind { $($name,)* }

        impl EntryKind {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    AuthzDecision = "authz.decision";
    GovernanceDecision = "governance.decision";
    InferenceOpened = "inference.opened";
    InferenceClosed = "inference.closed";
    ToolOpened = "tool.opened";
    ToolClosed = "tool.closed";
    SecretLeased = "secret.leased";
    SecretEnded = "secret.ended";
    SecretLeak = "secret.leak";
    McpChild = "mcp.child";
    ConfigReload = "config.reload";
    AdminTokenIssued = "admin.token.issued";
    AdminRuleCreated = "admin.rule.created";
    AdminRuleChanged = "admin.rule.changed";
    AdminRuleDeleted = "admin.rule.deleted";
    AdminRuleReplayed = "admin.rule.replayed";
    AdminEntityCreated = "admin.entity.created";
    AdminEntityChanged = "admin.entity.changed";
    AdminEntityDeleted = "admin.entity.deleted";
    AdminUserCreated = "admin.user.created";
    AdminUserChanged = "admin.user.changed";
    AdminUserDeleted = "admin.user.deleted";
    AdminUserLinked = "admin.user.linked";
    AdminUserMerged = "admin.user.merged";
    AdminSecretWrite = "admin.secret.write";
    AdminBanAdded = "admin.ban.added";
    AdminBanRemoved = "admin.ban.removed";
    AdminBanExpired = "admin.ban.expired";
    AdminBanProposed = "admin.ban.proposed";
    AdminAllowlistAdded = "admin.allowlist.added";
    AdminAllowlistRemoved = "admin.allowlist.removed";
    AdminAuditRead = "admin.audit.read";
    AdminAuditErase = "admin.audit.erase";
    AdminAuditExport = "admin.audit.export";
    OauthApiKeyCreated = "oauth.api_key.created";
    OauthApiKeyRevoked = "oauth.api_key.revoked";
    OauthSessionCreated = "oauth.session.created";
    OauthSessionRevoked = "oauth.session.revoked";
    OauthKeyGenerated = "oauth.key.generated";
    OauthKeyRotated = "oauth.key.rotated";
    OauthKeyRetired = "oauth.key.retired";
    OauthKeyRevoked = "oauth.key.revoked";
    OauthRevoked = "oauth.revoked";
    OauthSignin = "oauth.signin";
    OauthSigninFailed = "oauth.signin_failed";
    OauthLogout = "oauth.logout";
    OauthAuthorized = "oauth.authorized";
    OauthAuthorizeRefused = "oauth.authorize_refused";
    OauthConsentGiven = "oauth.consent.given";
    OauthConsentDenied = "oauth.consent.denied";
    OauthConsentRevoked = "oauth.consent.revoked";
    OauthToken = "oauth.token";
    OauthTokenRefused = "oauth.token_refused";
    OauthRefreshRepeated = "oauth.refresh_repeated";
    OauthRefreshReuse = "oauth.refresh_reuse";
    OauthCodeReuse = "oauth.code_reuse";
    OauthIntrospectRefused = "oauth.introspect_refused";
    OauthExchange = "oauth.exchange";
    OauthDeviceStarted = "oauth.device.started";
    OauthDeviceApproved = "oauth.device.approved";
    OauthDeviceDenied = "oauth.device.denied";
    OauthDeviceIssued = "oauth.device.issued";
    OauthBridgeCodeIssued = "oauth.bridge.code_issued";
    OauthBridgeExchanged = "oauth.bridge.exchanged";
    OauthBridgeRefused = "oauth.bridge.refused";
    OauthWebauthnAdded = "oauth.webauthn.added";
    OauthWebauthnRemoved = "oauth.webauthn.removed";
    OauthWebauthnCounter = "oauth.webauthn.counter";
    OauthRecoveryCreated = "oauth.recovery.created";
    OauthRecoveryUsed = "oauth.recovery.used";
    OauthSetupIssued = "oauth.setup.issued";
    OauthSetupUsed = "oauth.setup.used";
    OauthClientCreated = "oauth.client.created";
    OauthClientUpdated = "oauth.client.updated";
    OauthClientDeleted = "oauth.client.deleted";
    OauthClientSecretRotated = "oauth.client.secret_rotated";
    OauthCimdFetched = "oauth.cimd.fetched";
    OauthCimdRefused = "oauth.cimd.refused";
    SystemStart = "system.start";
    SystemStop = "system.stop";
    SystemCheckpoint = "system.checkpoint";
    SystemRepair = "system.repair";
    SystemRetention = "system.retention";
    SystemRefusals = "system.refusals";
    SystemLedgerKey = "system.ledger_key";
}

impl EntryKind {
    /// Whether a record of this kind keeps the address and the user agent of its caller, as a payload.
    fn tells_client(self) -> bool {
        let text = self.as_str();
        text.starts_with("admin.") || text.starts_with("oauth.")
    }

    /// Closing and system records may use the reserved quarter of the queue (AUD-12).
    pub fn is_closing(self) -> bool {
        let text = self.as_str();
        text.ends_with(".closed") || text.starts_with("system.") || matches!(self, Self::SecretEnded)
    }
}

/// Who acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorKind {
    User,
    Client,
    Agent,
    Service,
    Anonymous,
    System,
}

impl ActorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Client => "client",
            Self::Agent => "agent",
            Self::Service => "service",
            Self::Anonymous => "anonymous",
            Self::System => "system",
        }
    }

    /// The actor kind of a verified principal.
    pub fn of(principal: &Principal) -> Self {
        match principal.user_type {
            UserType::Admin | UserType::User => Self::User,
            UserType::Service if principal.client_id.is_some() => Self::Client,
            UserType::Service | UserType::Mcp => Self::Service,
            UserType::A2a => Self::Agent,
            UserType::Anon | UserType::Unknown => Self::Anonymous,
        }
    }
}

/// A record before the writer gives it its place. Build it with [`Draft::new`] and the `with_*` methods.
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: EntryKind,
    pub actor_kind: ActorKind,
    pub actor_id: Box<str>,
    pub act_chain: Vec<String>,
    pub session_id: Option<SessionId>,
    pub context_id: Option<ContextId>,
    pub task_id: Option<TaskId>,
    pub trace_id: Option<TraceId>,
    pub client_id: Option<ClientId>,
    /// (entity kind, entity id).
    pub subject: Option<(Cow<'static, str>, Box<str>)>,
    pub outcome: Cow<'static, str>,
    /// A code with fixed parameters, never free text of a person (AUD-7).
    pub reason: Option<Cow<'static, str>>,
    pub policy: Option<Cow<'static, str>>,
    pub detail: Map<String, Value>,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) sealed: Vec<Sealed>,
}

impl Draft {
    /// A record of the system itself.
    pub fn system(kind: EntryKind, outcome: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            actor_kind: ActorKind::System,
            actor_id: "system".into(),
            act_chain: Vec::new(),
            session_id: None,
            context_id: None,
            task_id: None,
            trace_id: None,
            client_id: None,
            subject: None,
            outcome: outcome.into(),
            reason: None,
            policy: None,
            detail: Map::new(),
            payloads: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// A record about what the principal of `context` did or wanted to do. Where administration and sign-ins came from is a
    /// payload of theirs; for what happens in a session, its sign-in tells.
    pub fn new(kind: EntryKind, context: &RequestContext, outcome: impl Into<Cow<'static, str>>) -> Self {
        let principal = &context.principal;
        let client = context.client_ip.filter(|_| kind.tells_client());
        let client = client.map(|ip| {
            let mut told = json!({"address": ip.to_canonical()});
            if let (Some(told), Some(agent)) = (told.as_object_mut(), &context.user_agent) {
                told.insert("user_agent".to_owned(), (**agent).into());
            }
            Payload::of(Role::Client, &told)
        });
        Self {
            payloads: client.into_iter().collect(),
            actor_kind: ActorKind::of(principal),
            actor_id: principal.user_id.as_str().into(),
            act_chain: principal.act_chain.iter().take(5).cloned().collect(),
            session_id: (!principal.is_anonymous()).then(|| principal.session_id.clone()),
            context_id: context.context_id.clone(),
            task_id: context.task_id.clone(),
            trace_id: Some(context.trace_id.clone()),
            client_id: principal.client_id.clone(),
            ..Self::system(kind, outcome)
        }
    }

    pub fn with_subject(mut self, kind: impl Into<Cow<'static, str>>, id: impl Into<Box<str>>) -> Self {
        self.subject = Some((kind.into(), id.into()));
        self
    }

    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub fn with_policy(mut self, policy: impl Into<Cow<'static, str>>) -> Self {
        self.policy = Some(policy.into());
        self
    }

    /// Sets one member of `detail`; a null value is left out.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.detail.insert(key.to_owned(), value);
        }
        self
    }

    /// Adds a payload: what is too long for the record, or must be able to go while the record stays.
    pub fn with_payload(mut self, payload: impl Into<Option<Payload>>) -> Self {
        self.payloads.extend(payload.into());
        self
    }

    /// Seals the payloads; returns how many values in use were taken out of them.
    pub(crate) fn seal(&mut self, policy: &PayloadPolicy, leak: &Scanner) -> Result<u64, RecordError> {
        if self.payloads.is_empty() {
            return Ok(0);
        }
        let is_somebody = !matches!(self.actor_kind, ActorKind::System | ActorKind::Anonymous);
        let actor = is_somebody.then_some(&*self.actor_id);
        let (sealed, scrubbed) = seal::seal(std::mem::take(&mut self.payloads), actor, policy, leak)?;
        self.sealed = sealed;
        Ok(scrubbed)
    }

    /// Whether this record denies a call.
    pub fn is_denial(&self) -> bool {
        matches!(self.kind, EntryKind::AuthzDecision | EntryKind::GovernanceDecision)
            && self.outcome == "deny"
    }

    /// Takes values in use out of everything that a caller's words can reach. Returns how many were found.
    pub(crate) fn scrub(&mut self, leak: &Scanner) -> u64 {
        let mut detail = Value::Object(std::mem::take(&mut self.detail));
        let mut found = leak.redact_json(&mut detail).len();
        if let Value::Object(clean) = detail {
            self.detail = clean;
        }
        let texts = [self.reason.as_mut(), self.policy.as_mut()];
        for text in texts.into_iter().flatten() {
            if let Some((clean, hits)) = leak.redact_text(text) {
                *text = Cow::Owned(clean);
                found += hits.len();
            }
        }
        if let Some((_, id)) = &mut self.subject
            && let Some((clean, hits)) = leak.redact_text(id)
        {
            *id = clean.into_boxed_str();
            found += hits.len();
        }
        found as u64
    }

    /// Renders the fragments around what the writer assigns, and checks the bounds of AUD-2.
    pub(crate) fn render(self, id: EntryId) -> Result<Rendered, RecordError> {
        check_detail(&self.detail)?;
        let texts = self.fragments(&id)?;
        let size = texts.iter().map(String::len).sum::<usize>() + RESERVED_BYTES;
        if size > MAX_RECORD_BYTES {
            return Err(RecordError::RecordTooLarge(size));
        }
        Ok(Rendered { id, texts, draft: self })
    }

    /// The four fragments: before `at`, before `prev_hash`, before `seq` and `stream`, the rest. Member order is RFC 8785's
    /// (by UTF-16 code unit, all names here are ASCII):
    /// act_chain actor | at | client_id context_id detail id kind outcome payloads policy | prev_hash | reason | seq | session_id |
    /// stream | subject_entity task_id trace_id v.
    fn fragments(&self, id: &EntryId) -> Result<[String; 4], RecordError> {
        let mut head = String::with_capacity(96);
        head.push('{');
        if !self.act_chain.is_empty() {
            let _ = write!(head, "\"act_chain\":{},", canonical(&json!(self.act_chain))?);
        }
        let _ = write!(
            head,
            "\"actor\":{{\"id\":{},\"kind\":\"{}\"}},\"at\":",
            text(&self.actor_id),
            self.actor_kind.as_str()
        );

        let mut middle = String::with_capacity(256);
        member(&mut middle, "client_id", self.client_id.as_ref().map(AsRef::as_ref));
        member(&mut middle, "context_id", self.context_id.as_ref().map(AsRef::as_ref));
        if !self.detail.is_empty() {
            let detail = canonical_map(&self.detail)?;
            if detail.len() > MAX_DETAIL_BYTES {
                return Err(RecordError::DetailTooLarge(detail.len()));
            }
            let _ = write!(middle, "\"detail\":{detail},");
        }
        let (kind, outcome) = (self.kind.as_str(), text(&self.outcome));
        let _ = write!(middle, "\"id\":\"{id}\",\"kind\":\"{kind}\",\"outcome\":{outcome},");
        seal::member(&mut middle, &self.sealed);
        member(&mut middle, "policy", self.policy.as_deref());

        let mut after_hash = String::with_capacity(64);
        member(&mut after_hash, "reason", self.reason.as_deref());

        let mut tail = String::with_capacity(160);
        if let Some((kind, id)) = &self.subject {
            let _ = write!(tail, "\"subject_entity\":{{\"id\":{},\"kind\":{}}},", text(id), text(kind));
        }
        member(&mut tail, "task_id", self.task_id.as_ref().map(AsRef::as_ref));
        member(&mut tail, "trace_id", self.trace_id.as_ref().map(AsRef::as_ref));
        tail.push_str("\"v\":1}");
        Ok([head, middle, after_hash, tail])
    }
}

/// What the writer adds: `at`, `prev_hash`, `seq`, `session_id`, `stream` and their names.
const RESERVED_BYTES: usize = 320;

/// A draft with its fragments, ready for the writer.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub id: EntryId,
    pub draft: Draft,
    texts: [String; 4],
}

impl Rendered {
    /// The canonical text of this record at its place in the chain.
    pub(crate) fn join(&self, stream: &str, seq: i64, at: Millis, prev_hash: &str) -> String {
        let [head, middle, after_hash, tail] = &self.texts;
        let mut out =
            String::with_capacity(head.len() + middle.len() + after_hash.len() + tail.len() + RESERVED_BYTES);
        let _ = write!(out, "{head}{at},{middle}\"prev_hash\":\"{prev_hash}\",{after_hash}\"seq\":{seq},");
        member(&mut out, "session_id", self.draft.session_id.as_ref().map(AsRef::as_ref));
        let _ = write!(out, "\"stream\":{},{tail}", text(stream));
        out
    }

    /// Bytes of the canonical text and of the payloads beside it, about.
    pub(crate) fn bytes(&self) -> usize {
        let payloads: usize = self.draft.sealed.iter().map(Sealed::inline_bytes).sum();
        self.texts.iter().map(String::len).sum::<usize>() + RESERVED_BYTES + payloads
    }

    /// Notes in `detail` by how much the clock had stepped back (AUD-5), and renders anew.
    pub(crate) fn with_clock_back(&self, by: Millis) -> Result<Self, RecordError> {
        self.draft.clone().with("clock_back_ms", by).render(self.id.clone())
    }
}

fn member(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = write!(out, "\"{name}\":{},", text(value));
    }
}

/// A JSON string in canonical form. serde_json escapes exactly what RFC 8785 section 3.2.2.2 does.
fn text(value: &str) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn canonical(value: &impl serde::Serialize) -> Result<String, RecordError> {
    serde_json_canonicalizer::to_string(value).map_err(|_| RecordError::Canonical)
}

/// `serde_json::Map` keeps its members sorted by bytes, writes integers and escapes as RFC 8785 does; only names beyond ASCII,
/// which sort by UTF-16 unit there, and floats, which a detail never holds, would differ.
fn canonical_map(map: &Map<String, Value>) -> Result<String, RecordError> {
    if map.iter().all(|(key, value)| key.is_ascii() && has_ascii_names(value)) {
        return serde_json::to_string(map).map_err(|_| RecordError::Canonical);
    }
    canonical(map)
}

/// Whether `text`, which parses to `value`, is its canonical form.
pub(crate) fn is_canonical(value: &Value, text: &str) -> bool {
    // Most records are in the form that serde_json writes; only names beyond ASCII and floats differ from RFC 8785 there.
    if is_plain(value) && serde_json::to_string(value).is_ok_and(|plain| plain == text) {
        return true;
    }
    serde_json_canonicalizer::to_string(value).is_ok_and(|canonical| canonical == text)
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().all(|(key, value)| key.is_ascii() && is_plain(value)),
        Value::Array(items) => items.iter().all(is_plain),
        Value::Number(number) => !number.is_f64(),
        _ => true,
    }
}

fn has_ascii_names(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().all(|(key, value)| key.is_ascii() && has_ascii_names(value)),
        Value::Array(items) => items.iter().all(has_ascii_names),
        _ => true,
    }
}

fn check_detail(detail: &Map<String, Value>) -> Result<(), RecordError> {
    detail.iter().try_for_each(|(key, value)| check_value(value, &mut format!("/{key}")))
}

fn check_value(value: &Value, path: &mut String) -> Result<(), RecordError> {
    match value {
        Value::Number(n) => match n.as_i64() {
            Some(i) if i.abs() <= MAX_SAFE_INTEGER => Ok(()),
            Some(_) => Err(RecordError::IntegerRange(path.clone())),
            None if n.is_u64() => Err(RecordError::IntegerRange(path.clone())),
            None => Err(RecordError::Float(path.clone())),
        },
        // A string of at most 256 bytes has at most 256 characters; only longer ones are counted.
        Value::String(s) if s.len() > MAX_DETAIL_STRING && s.chars().count() > MAX_DETAIL_STRING => {
            Err(RecordError::StringTooLong(path.clone()))
        }
        Value::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| nested(item, path, &i)),
        Value::Object(map) => map.iter().try_for_each(|(key, item)| nested(item, path, key)),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

fn nested(item: &Value, path: &mut String, step: &dyn std::fmt::Display) -> Result<(), RecordError> {
    let length = path.len();
    let _ = write!(path, "/{step}");
    let result = check_value(item, path);
    path.truncate(length);
    result
}
