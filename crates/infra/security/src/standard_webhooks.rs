//! Signatures of the Standard Webhooks specification (symmetric, `v1`): HMAC-SHA-256 over id, timestamp and body. Both directions
//! use it: the decision webhook signs and is asked, the inference hook is asked.
//!
//! A signature proves who sent a message, not that it is the first of its kind: [`Replays`] takes each id once.

use crate::repository::webhooks;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use systemprompt_database::Db;
use systemprompt_models::{Millis, Secret};

/// The three headers of a signed message.
pub const ID_HEADER: &str = "webhook-id";
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// How far a message's time may be from ours, in seconds, both ways.
pub const TOLERANCE_S: i64 = 300;
/// How long an id is remembered: no message that is still in time can come again.
const REMEMBERED_MS: Millis = 2 * TOLERANCE_S * 1000;
/// Most signatures of one message that are looked at.
const MAX_SIGNATURES: usize = 8;
/// Longest id of a message, in bytes.
const MAX_ID: usize = 256;
/// What a secret begins with; the rest is base64.
const PREFIX: &str = "whsec_";
/// Lengths of a secret that the specification allows, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const VERSION: &str = "v1";

/// A secret that is none. The message holds no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is `whsec_` and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the header `{0}` is missing, malformed or given twice")]
    Header(&'static str),
    #[error("the message is more than {TOLERANCE_S} seconds old, or from the future")]
    Stale,
    #[error("no signature fits")]
    Signature,
    #[error("a message with this id was taken before")]
    Replay,
}

/// The secrets of one endpoint: one, or two while a new one is rolled out. The first one signs; each of them verifies.
pub struct WebhookSecrets(Vec<hmac::Key>);

/// A message whose signature is good and whose time is near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMessage {
    pub id: String,
    /// Seconds since the epoch.
    pub timestamp: i64,
}

impl WebhookSecrets {
    /// The secrets of a setting: separated by spaces or commas, the newest first.
    ///
    /// # Errors
    /// One of them is none, or there is none at all.
    pub fn parse(setting: &Secret<String>) -> Result<Self, InvalidSecret> {
        let words = setting.expose().split([' ', ',']).filter(|word| !word.is_empty());
        let keys: Vec<hmac::Key> = words.map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(InvalidSecret) } else { Ok(Self(keys)) }
    }

    /// The value of the signature header of a message. `id` and `timestamp` are sent beside it.
    ///
    /// ```
    /// use systemprompt_security::standard_webhooks::WebhookSecrets;
    /// let secrets = WebhookSecrets::parse(&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()).unwrap();
    /// let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    /// let signature = secrets.sign(id, 1_614_265_330, br#"{"test": 2432232314}"#);
    /// assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    /// ```
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let tag = self.0.first().map(|key| tag(key, id, timestamp, body));
        tag.map_or_else(String::new, |tag| format!("{VERSION},{}", STANDARD.encode(tag)))
    }

    /// Checks the three headers of a message against its body and the present, in seconds since the epoch.
    ///
    /// # Errors
    /// The first check that failed. Whether the message came before is asked of [`Replays`].
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: i64) -> Result<SignedMessage, WebhookError> {
        let id = header(headers, ID_HEADER)?;
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(WebhookError::Header(ID_HEADER));
        }
        let timestamp = header(headers, TIMESTAMP_HEADER)?;
        let timestamp: i64 = timestamp.parse().map_err(|_| WebhookError::Header(TIMESTAMP_HEADER))?;
        let signatures = header(headers, SIGNATURE_HEADER)?;
        if now.saturating_sub(timestamp).checked_abs().is_none_or(|apart| apart > TOLERANCE_S) {
            return Err(WebhookError::Stale);
        }
        let given = signatures.split(' ').filter_map(|word| word.strip_prefix(VERSION)?.strip_prefix(','));
        for signature in given.take(MAX_SIGNATURES) {
            let Ok(signature) = STANDARD.decode(signature) else { continue };
            let message = message(id, timestamp, body);
            if self.0.iter().any(|key| hmac::verify(key, &message, &signature).is_ok()) {
                return Ok(SignedMessage { id: id.to_owned(), timestamp });
            }
        }
        Err(WebhookError::Signature)
    }
}

fn key(word: &str) -> Result<hmac::Key, InvalidSecret> {
    let bytes = word.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
    match bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len())) {
        Some(bytes) => Ok(hmac::Key::new(hmac::HMAC_SHA256, &zeroize::Zeroizing::new(bytes))),
        None => Err(InvalidSecret),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, WebhookError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| WebhookError::Header(name)),
        _ => Err(WebhookError::Header(name)),
    }
}

fn message(id: &str, timestamp: i64, body: &[u8]) -> Vec<u8> {
    let mut message = format!("{id}.{timestamp}.").into_bytes();
    message.extend_from_slice(body);
    message
}

fn tag(key: &hmac::Key, id: &str, timestamp: i64, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    context.sign()
}

/// Takes the id of each message once, on all nodes of the database.
#[derive(Clone, Debug)]
pub struct Replays {
    db: Db,
    endpoint: &'static str,
}

impl Replays {
    /// `endpoint` keeps the ids of one endpoint apart from those of others.
    pub fn new(db: Db, endpoint: &'static str) -> Self {
        Self { db, endpoint }
    }

    /// Takes a message, now in epoch milliseconds; false if its id was taken before.
    ///
    /// # Errors
    /// When the database did not answer: the message must then not be believed to be the first.
    pub async fn take(&self, message: &SignedMessage, now: Millis) -> Result<bool, sqlx::Error> {
        webhooks::take(&self.db, self.endpoint, &message.id, now, now + REMEMBERED_MS).await
    }

    /// Forgets ids that no message in time can have; for all endpoints.
    ///
    /// # Errors
    /// When the database did not answer.
    pub async fn sweep(&self, now: Millis) -> Result<u64, sqlx::Error> {
        webhooks::forget(&self.db, now).await
    }
}

#[cfg(test)]
mod tests;
