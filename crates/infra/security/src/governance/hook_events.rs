//! What hooks of coding agents tell (SEC-94): each event is cleaned of secrets and of values in use, and stored once.

use super::scan::{SecretScanner, TooComplex};
use crate::repository::hook_events::{self, EventRow};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use serde_json::{Map, Value};
use std::sync::Arc;
use systemprompt_database::Db;
use systemprompt_leak::Scanner;
use systemprompt_models::ids::HookEventId;
use systemprompt_models::{Clock, Millis, RequestContext};

/// How long an event is kept.
const KEPT_MS: Millis = 30 * 86_400_000;
/// Longest name that a column repeats of an event, in characters; the payload has the whole.
const MAX_NAME: usize = 256;

/// Why an event was not stored.
#[derive(Debug, thiserror::Error)]
pub enum HookEventError {
    #[error("the body is no JSON object")]
    NotAnObject,
    #[error("the event has no `hook_event_name`")]
    Nameless,
    #[error("the event cannot be examined: {0}")]
    TooComplex(#[from] TooComplex),
    #[error("the event could not be stored")]
    Store(#[from] sqlx::Error),
}

/// Stores events. Clones share everything.
#[derive(Clone)]
pub struct HookEvents {
    db: Db,
    scanner: Arc<SecretScanner>,
    in_use: Scanner,
    clock: Arc<dyn Clock>,
}

impl HookEvents {
    pub fn new(db: Db, scanner: Arc<SecretScanner>, in_use: Scanner, clock: Arc<dyn Clock>) -> Self {
        Self { db, scanner, in_use, clock }
    }

    /// Stores the event of a body, unless it is stored already.
    ///
    /// # Errors
    /// [`HookEventError`]; nothing was stored then.
    pub async fn record(
        &self,
        by: &RequestContext,
        plugin: Option<&str>,
        body: &[u8],
    ) -> Result<(), HookEventError> {
        let event = self.clean(body)?;
        let name = text(&event, "hook_event_name").ok_or(HookEventError::Nameless)?;
        let session = text(&event, "session_id").unwrap_or_default();
        let tool_use = text(&event, "tool_use_id");
        let payload = Value::Object(event.clone()).to_string();
        let user = by.principal.user_id.as_str();
        let row = EventRow {
            id: HookEventId::generate(),
            event_key: key([user, session, name], tool_use, &payload),
            user_id: user,
            session_id: bounded(session),
            event: bounded(name),
            tool_use_id: tool_use.map(bounded),
            tool_name: text(&event, "tool_name").map(bounded),
            plugin_id: plugin.map(|plugin| storable(self.scanner.redact_text(plugin).into_owned())),
            trace_id: by.trace_id.as_str(),
            payload,
            created_at: self.clock.now(),
        };
        Ok(hook_events::insert(&self.db, row).await?)
    }

    /// The event as it may be stored: specific secrets and values in use replaced by their marks, in names too.
    fn clean(&self, body: &[u8]) -> Result<Map<String, Value>, HookEventError> {
        let clean = self.scanner.redact_json(body)?;
        let mut event: Value = serde_json::from_slice(&clean).map_err(|_| HookEventError::NotAnObject)?;
        self.in_use.redact_json(&mut event);
        match event {
            Value::Object(event) => Ok(event),
            _ => Err(HookEventError::NotAnObject),
        }
    }

    /// Removes events whose time is over. Returns how many went.
    ///
    /// # Errors
    /// When the database did not answer.
    pub async fn sweep(&self, now: Millis) -> Result<u64, sqlx::Error> {
        hook_events::forget(&self.db, now - KEPT_MS).await
    }
}

fn text<'e>(event: &'e Map<String, Value>, member: &str) -> Option<&'e str> {
    event.get(member).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn bounded(name: &str) -> String {
    storable(name.chars().take(MAX_NAME).collect())
}

/// Without NUL, which PostgreSQL does not store; the payload has it as an escape.
fn storable(name: String) -> String {
    if name.contains('\0') { name.replace('\0', "\u{fffd}") } else { name }
}

/// What makes an event the same as another. One that belongs to no tool use is told by its content: a session has many prompts.
fn key(names: [&str; 3], tool_use: Option<&str>, payload: &str) -> String {
    let mut digest = Digest::new(&SHA256);
    let mut part = |kind: u8, text: &str| {
        digest.update(&[kind]);
        digest.update(&(text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    for name in names {
        part(0, name);
    }
    match tool_use {
        Some(id) => part(1, id),
        None => part(2, payload),
    }
    hex::encode(digest.finish())
}

#[cfg(test)]
mod tests;
