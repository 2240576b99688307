//! Payloads (AUD-30, AUD-31): what an investigator needs beyond a record, and what must be able to go while the record stays.
//!
//! A record names each of its payloads with `HMAC-SHA-256(salt, body)`. Body and salt lie beside the chain: once the salt is
//! gone, nobody can even try guesses against the commitment, and the chain still verifies.

pub mod read;
pub(crate) mod seal;

use crate::record::ActorKind;
use aws_lc_rs::{hmac, rand};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use systemprompt_models::Millis;

/// Largest body that is stored whole, in bytes; of a longer one the first and the last [`EXCERPT_BYTES`].
pub const MAX_STORED_BYTES: usize = 256 * 1024;
/// Bytes that are kept of each end of a body that is too long.
pub const EXCERPT_BYTES: usize = 8 * 1024;
/// Largest body that goes into the transaction of its record; a longer one is written before.
pub const MAX_INLINE_BYTES: usize = 16 * 1024;
/// Bodies above this are stored deflated.
pub const DEFLATE_ABOVE_BYTES: usize = 1024;
pub(crate) const SALT_BYTES: usize = 32;
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// What rows can say of their bodies.
pub(crate) const MEDIA_TYPES: [&str; 2] = [JSON, TEXT];
/// Most payloads of one record.
pub const MAX_PAYLOADS: usize = 8;

/// What a payload is kept for; each class has its own mode and its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// What a model was asked and answered.
    Inference,
    /// Arguments and results of tools.
    Tool,
    /// What administration changed.
    Change,
    /// Where a caller came from.
    Client,
    /// Reasons and lists that are too long for a record.
    Note,
}

impl Class {
    pub const ALL: [Self; 5] = [Self::Inference, Self::Tool, Self::Change, Self::Client, Self::Note];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Tool => "tool",
            Self::Change => "change",
            Self::Client => "client",
            Self::Note => "note",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

/// What a payload is of its record. The role fixes the class, so that a payload that is gone still has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Request,
    Response,
    Arguments,
    Result,
    Before,
    After,
    Client,
    Addresses,
    Withheld,
    Heads,
    Reason,
}

impl Role {
    pub const ALL: [Self; 11] = [
        Self::Request,
        Self::Response,
        Self::Arguments,
        Self::Result,
        Self::Before,
        Self::After,
        Self::Client,
        Self::Addresses,
        Self::Withheld,
        Self::Heads,
        Self::Reason,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Arguments => "arguments",
            Self::Result => "result",
            Self::Before => "before",
            Self::After => "after",
            Self::Client => "client",
            Self::Addresses => "addresses",
            Self::Withheld => "withheld",
            Self::Heads => "heads",
            Self::Reason => "reason",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    pub fn class(self) -> Class {
        match self {
            Self::Request | Self::Response => Class::Inference,
            Self::Arguments | Self::Result => Class::Tool,
            Self::Before | Self::After => Class::Change,
            Self::Client | Self::Addresses => Class::Client,
            Self::Withheld | Self::Heads | Self::Reason => Class::Note,
        }
    }
}

/// How the payloads of a class are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As they are, less the values in use.
    Full,
    /// Less everything that the secret rules know, too.
    Redacted,
    /// The salt alone: who has the body can show that it is the one.
    HashOnly,
    /// The commitment in the record alone.
    Off,
}

/// The mode of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PayloadRules {
    pub inference: Mode,
    pub tool: Mode,
    pub change: Mode,
    pub client: Mode,
    pub note: Mode,
}

impl Default for PayloadRules {
    fn default() -> Self {
        Self {
            inference: Mode::HashOnly,
            tool: Mode::Redacted,
            change: Mode::Full,
            client: Mode::Full,
            note: Mode::Full,
        }
    }
}

impl PayloadRules {
    pub fn mode(&self, class: Class) -> Mode {
        match class {
            Class::Inference => self.inference,
            Class::Tool => self.tool,
            Class::Change => self.change,
            Class::Client => self.client,
            Class::Note => self.note,
        }
    }
}

/// Takes secrets out of a body by the secret rules, which a room above this one has.
pub trait Redact: Send + Sync {
    /// The body without secrets; none when it cannot be looked through, and then it is not stored.
    fn redact<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, [u8]>>;
}

/// How payloads are kept on this node.
#[derive(Clone, Default)]
pub struct PayloadPolicy {
    pub rules: PayloadRules,
    /// Without one nothing of a redacted class is stored but the salt.
    pub redactor: Option<Arc<dyn Redact>>,
}

impl std::fmt::Debug for PayloadPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayloadPolicy").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// A payload before it is stored. Give it to its record with [`crate::Draft::with_payload`].
#[derive(Clone)]
pub struct Payload {
    pub(crate) role: Role,
    pub(crate) body: Bytes,
    pub(crate) media_type: &'static str,
    /// Whose data it is, if not the actor's.
    pub(crate) subject: Option<Box<str>>,
    /// Whether the secret rules have looked through this very body and found nothing.
    pub(crate) is_clean: bool,
    /// Of a body that went by and is not here.
    pub(crate) tallied: Option<Tallied>,
}

/// Salt, commitment and size of a body that is not kept.
#[derive(Clone)]
pub(crate) struct Tallied {
    pub salt: [u8; SALT_BYTES],
    pub commitment: String,
    pub size: u64,
}

/// Commits to a body that goes by in pieces and is not kept, whatever its class's mode.
pub struct Tally {
    salt: [u8; SALT_BYTES],
    context: hmac::Context,
    size: u64,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Tally {
    /// None when the operating system gives no random bytes.
    pub fn new() -> Option<Self> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &salt));
        Some(Self { salt, context, size: 0 })
    }

    pub fn add(&mut self, piece: &[u8]) {
        self.context.update(piece);
        self.size += piece.len() as u64;
    }

    pub fn finish(self, role: Role) -> Payload {
        let commitment = hex::encode(self.context.sign());
        let tallied = Tallied { salt: self.salt, commitment, size: self.size };
        Payload { tallied: Some(tallied), ..Payload::json(role, Bytes::new()) }
    }

    /// Commits to a body that is not to be kept.
    pub fn of(role: Role, body: &[u8]) -> Option<Payload> {
        let mut tally = Self::new()?;
        tally.add(body);
        Some(tally.finish(role))
    }
}

/// Without the body, which has no place in a log.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload")
            .field("role", &self.role)
            .field("size", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Payload {
    /// A JSON text as it came.
    pub fn json(role: Role, body: impl Into<Bytes>) -> Self {
        Self { role, body: body.into(), media_type: JSON, subject: None, is_clean: false, tallied: None }
    }

    /// Anything that can be written as JSON.
    pub fn of(role: Role, value: &impl Serialize) -> Self {
        Self::json(role, serde_json::to_vec(value).unwrap_or_default())
    }

    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { media_type: TEXT, ..Self::json(role, text.into()) }
    }

    /// Another subject than the record's actor.
    pub fn about(mut self, user: impl Into<Box<str>>) -> Self {
        self.subject = Some(user.into());
        self
    }

    /// Says that the secret rules have looked through this very body and found nothing, which spares a second look.
    pub fn known_clean(mut self, is_clean: bool) -> Self {
        self.is_clean = is_clean;
        self
    }
}

/// How a row names a payload: `<ledger id>/<role>`. It needs no index of its own.
pub fn reference(entry: &str, role: Role) -> String {
    format!("{entry}/{}", role.as_str())
}

/// What a record says of one of its payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub role: String,
    pub commitment: String,
    /// Bytes of the whole.
    pub size: i64,
    /// Commitment to what is stored, where that is not the whole.
    pub excerpt: Option<String>,
    /// `hash` where only the salt is stored, `none` where nothing is.
    pub kept: Option<String>,
}

impl Named {
    /// The payloads that a record names.
    pub fn of(record: &serde_json::Value) -> Vec<Self> {
        let text = |one: &serde_json::Value, name: &str| one.get(name)?.as_str().map(str::to_owned);
        let named = record.get("payloads").and_then(serde_json::Value::as_array);
        let one = |one: &serde_json::Value| {
            Some(Self {
                role: text(one, "role")?,
                commitment: text(one, "commitment")?,
                size: one.get("size")?.as_i64()?,
                excerpt: text(one, "excerpt"),
                kept: text(one, "kept"),
            })
        };
        named.into_iter().flatten().filter_map(one).collect()
    }

    /// The class of the role; none of a role that this version does not know.
    pub fn class(&self) -> Option<Class> {
        Role::parse(&self.role).map(Role::class)
    }
}

/// Whose data the payloads of a record are, as far as the record tells: what erasures go by must be what the writer derived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners {
    actor: Option<String>,
    change: ChangeOf,
}

/// Whose `before` and `after` are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum ChangeOf {
    #[default]
    Actor,
    User(String),
    /// The record does not say.
    Untold,
}

impl Owners {
    pub(crate) fn of(record: &serde_json::Value) -> Self {
        let text = |pointer: &str| record.pointer(pointer).and_then(serde_json::Value::as_str);
        let nobody = [ActorKind::System.as_str(), ActorKind::Anonymous.as_str()];
        let is_somebody = text("/actor/kind").is_some_and(|kind| !nobody.contains(&kind));
        let actor = text("/actor/id").filter(|_| is_somebody).map(str::to_owned);
        let kind = text("/kind").unwrap_or_default();
        // Users' own data and keys belong to them, whoever changed them.
        let change = if kind.starts_with("admin.user.") {
            text("/subject_entity/id").map_or(ChangeOf::Untold, |id| ChangeOf::User(id.to_owned()))
        } else if kind.starts_with("oauth.api_key.") {
            text("/detail/user_id").map_or(ChangeOf::Untold, |id| ChangeOf::User(id.to_owned()))
        } else {
            ChangeOf::Actor
        };
        Self { actor, change }
    }

    /// Whether `subject` is who the payload with this role belongs to.
    pub(crate) fn agree(&self, role: &str, subject: Option<&str>) -> bool {
        let is_change = Role::parse(role).is_some_and(|role| role.class() == Class::Change);
        match (is_change, &self.change) {
            (true, ChangeOf::User(owner)) => Some(owner.as_str()) == subject,
            (true, ChangeOf::Untold) => true,
            (true, ChangeOf::Actor) | (false, _) => self.actor.as_deref() == subject,
        }
    }
}

/// Payloads by class; of what a job or an erasure did.
pub type ClassCounts = BTreeMap<Class, u64>;

/// A row of `ledger_payloads`, without its body.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PayloadRow {
    pub class: String,
    pub stream: String,
    pub seq: i64,
    pub role: String,
    pub at: Millis,
    pub subject_user: Option<String>,
    pub commitment: String,
    pub size: i64,
    pub media_type: String,
    pub encoding: Option<String>,
    pub erased_at: Option<Millis>,
    pub erased_by: Option<String>,
    pub body_ref: Option<String>,
}

#[cfg(test)]
mod tests;
