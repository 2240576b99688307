//! This node's copy of what was ended before its time (SEC-56): tokens, sessions, and all that a user, a client or anybody was
//! issued up to a moment. In memory, asked by every verification; the rows are the truth.

use super::live::Claimed;
use crate::error::JwtError;
use crate::repository::tokens::RevokedRow;
use serde::Serialize;
use std::collections::HashMap;
use systemprompt_models::Millis;
use systemprompt_models::ids::{ClientId, Jti, SessionId, UserId};

/// Whose tokens are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CutoffKind {
    Client,
    User,
    /// Everybody's.
    All,
}

impl CutoffKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::User => "user",
            Self::All => "all",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Client, Self::User, Self::All].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Tokens of a subject that were issued in or before a second no longer count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cutoff {
    pub kind: CutoffKind,
    /// Id of the user or client; `*` for all.
    pub id: String,
    pub not_before: Millis,
    pub reason: String,
    /// When the longest token that it can concern has ended by itself.
    pub expires_at: Millis,
}

/// The id of the cut that concerns everybody.
pub const EVERYBODY: &str = "*";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    not_before: Millis,
    expires_at: Millis,
}

impl Cut {
    fn holds_for(self, issued_at: i64) -> bool {
        issued_at <= self.not_before.div_euclid(1000)
    }
}

/// The copy.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    sessions: HashMap<SessionId, Millis>,
    tokens: HashMap<Jti, Millis>,
    clients: HashMap<ClientId, Cut>,
    users: HashMap<UserId, Cut>,
    all: Option<Cut>,
}

impl Revoked {
    /// Asks whether a token was ended before its time, itself or with what it belongs to.
    pub fn check(&self, claimed: Claimed<'_>) -> Result<(), JwtError> {
        let cut = |cut: Option<&Cut>| cut.is_some_and(|cut| cut.holds_for(claimed.issued_at));
        let by_client = || claimed.client.is_some_and(|client| cut(self.clients.get(client)));
        if self.tokens.contains_key(claimed.jti)
            || cut(self.all.as_ref())
            || cut(self.users.get(claimed.user))
            || by_client()
        {
            Err(JwtError::Revoked)
        } else if self.sessions.contains_key(claimed.session) {
            Err(JwtError::SessionEnded)
        } else {
            Ok(())
        }
    }

    /// The last second in which a token of this subject was dead at its issue.
    pub fn last_dead_second(&self, user: &UserId, client: Option<&ClientId>) -> Option<i64> {
        let cuts = [self.all.as_ref(), self.users.get(user), client.and_then(|id| self.clients.get(id))];
        cuts.into_iter().flatten().map(|cut| cut.not_before.div_euclid(1000)).max()
    }

    pub fn add_session(&mut self, id: SessionId, until: Millis) {
        self.sessions.insert(id, until);
    }

    pub fn add_token(&mut self, jti: Jti, until: Millis) {
        self.tokens.insert(jti, until);
    }

    pub fn add_cutoff(&mut self, cutoff: &Cutoff) {
        let new = Cut { not_before: cutoff.not_before, expires_at: cutoff.expires_at };
        let old = match cutoff.kind {
            CutoffKind::Client => self.clients.entry(ClientId::from(cutoff.id.as_str())).or_insert(new),
            CutoffKind::User => self.users.entry(UserId::from(cutoff.id.as_str())).or_insert(new),
            CutoffKind::All => self.all.get_or_insert(new),
        };
        if old.not_before < new.not_before {
            *old = new;
        }
    }

    pub fn add_tokens(&mut self, rows: Vec<RevokedRow>) {
        self.tokens.extend(rows.into_iter().map(|(jti, until)| (Jti::from(jti), until)));
    }

    /// Drops what has ended by itself at `now`.
    pub fn drop_ended(&mut self, now: Millis) {
        self.sessions.retain(|_, until| *until > now);
        self.tokens.retain(|_, until| *until > now);
        self.clients.retain(|_, cut| cut.expires_at > now);
        self.users.retain(|_, cut| cut.expires_at > now);
        self.all = self.all.filter(|cut| cut.expires_at > now);
    }

    /// The largest of its parts, which the bound is held against.
    pub fn largest(&self) -> usize {
        [self.sessions.len(), self.tokens.len(), self.clients.len(), self.users.len()]
            .into_iter()
            .max()
            .unwrap_or_default()
    }

    #[cfg(test)]
    pub fn token_ids(&self) -> Vec<&str> {
        self.tokens.keys().map(Jti::as_str).collect()
    }
}
