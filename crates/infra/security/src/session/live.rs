//! Which sessions and tokens still count (SEC-56, SEC-57). Rows are the truth; each node keeps a copy of what was revoked and
//! remembers sessions that it found alive.
//!
//! A revocation is in force on this node before the call that made it returns. Other nodes learn it from [`Sessions::refresh`],
//! which the runtime calls once a second; a node that has not confirmed the copy for 30 s trusts no token.

use crate::error::{AuthError, JwtError};
use crate::repository::tokens::{RevokedRow, SessionFacts, TokenRepository};
use moka::sync::Cache;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use systemprompt_database::Db;
use systemprompt_models::ids::{Jti, SessionId, UserId};
use systemprompt_models::{Clock, Millis};

/// Longest time that the copy may stay unconfirmed (SEC-2).
pub const MAX_UNCONFIRMED: Millis = 30_000;
/// Rows are committed in another order than their times say, and clocks differ: so much is read again at each poll.
const OVERLAP: Millis = 60_000;
/// The whole copy is read again this often, which also drops what has ended.
const FULL_EVERY: Millis = 300_000;
/// Most revocations that are held; with more the copy counts as unconfirmed.
const MAX_REVOKED: usize = 1_000_000;
const MAX_LIVE: u64 = 50_000;
const LIVE_FOR: Duration = Duration::from_mins(5);
/// `last_seen_at` is written at most this often for a session.
const SEEN_EVERY: Millis = 60_000;
const MAX_SEEN: usize = 10_000;
/// Most sessions that a list shows.
const MAX_LIST: i64 = 200;

/// Where a session came from (ID-78).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionSource {
    Web,
    Oauth,
    Cli,
    Bridge,
    Exchange,
    Device,
    Anonymous,
}

impl SessionSource {
    const ALL: [Self; 7] =
        [Self::Web, Self::Oauth, Self::Cli, Self::Bridge, Self::Exchange, Self::Device, Self::Anonymous];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Oauth => "oauth",
            Self::Cli => "cli",
            Self::Bridge => "bridge",
            Self::Exchange => "exchange",
            Self::Device => "device",
            Self::Anonymous => "anonymous",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// A session to open. Its id is there before its row, so that the record of it can be written first.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    /// `None` for an anonymous visitor.
    pub user_id: Option<UserId>,
    pub source: SessionSource,
    pub expires_at: Millis,
}

/// A session as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    pub id: SessionId,
    pub user_id: Option<UserId>,
    /// `None` for a source that this version does not know.
    pub source: Option<SessionSource>,
    pub created_at: Millis,
    /// Exact to a minute.
    pub last_seen_at: Millis,
    pub expires_at: Millis,
    pub revoked_at: Option<Millis>,
    pub revoked_reason: Option<String>,
}

/// The sessions cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the sessions cannot be read or written")]
pub struct SessionError(#[from] sqlx::Error);

/// Who a token claims to be, for the check against its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed<'a> {
    pub jti: &'a Jti,
    pub session: &'a SessionId,
    pub user: &'a UserId,
    /// Anonymous tokens may belong to a session without a user.
    pub anonymous: bool,
}

#[derive(Debug, Default)]
struct Revoked {
    sessions: HashMap<SessionId, Millis>,
    tokens: HashMap<Jti, Millis>,
}

/// Opens, checks and ends sessions; ends single tokens.
pub struct Sessions {
    repository: TokenRepository,
    clock: Arc<dyn Clock>,
    revoked: RwLock<Revoked>,
    live: Cache<SessionId, Arc<SessionFacts>>,
    seen: Mutex<HashMap<SessionId, Millis>>,
    /// Rises with every revocation; whoever verified under an older value asks again.
    epoch: AtomicU64,
    confirmed_at: AtomicI64,
    overflown: AtomicBool,
    /// (newest `revoked_at` seen, last full read); held during a poll.
    progress: tokio::sync::Mutex<(Millis, Millis)>,
}

impl Sessions {
    /// Reads the copy for the first time.
    ///
    /// # Errors
    /// When the tables cannot be read; without the copy nothing may be verified.
    pub async fn open(db: Db, clock: Arc<dyn Clock>) -> Result<Self, SessionError> {
        let sessions = Self {
            repository: TokenRepository::new(db),
            clock,
            revoked: RwLock::default(),
            live: Cache::builder().max_capacity(MAX_LIVE).time_to_live(LIVE_FOR).build(),
            seen: Mutex::default(),
            epoch: AtomicU64::new(1),
            confirmed_at: AtomicI64::new(Millis::MIN),
            overflown: AtomicBool::new(false),
            progress: tokio::sync::Mutex::new((0, Millis::MIN)),
        };
        sessions.refresh().await?;
        Ok(sessions)
    }

    /// Takes over what other nodes revoked since the last call and writes `last_seen_at` of the sessions used since. Called
    /// once a second.
    ///
    /// # Errors
    /// When the tables cannot be read; after 30 s without success no token counts.
    pub async fn refresh(&self) -> Result<(), SessionError> {
        let mut progress = self.progress.lock().await;
        let (newest, full_at) = *progress;
        let now = self.clock.now();
        let full = now.saturating_sub(full_at) >= FULL_EVERY;
        let since = if full { 0 } else { newest - OVERLAP };
        let limit = MAX_REVOKED as i64 + 1;
        let sessions = self.repository.revoked_sessions(since, now, limit).await?;
        let tokens = self.repository.revoked_tokens(since, now, limit).await?;
        let newest = sessions.iter().chain(&tokens).map(|(.., at)| *at).fold(newest, Millis::max);
        self.merge(sessions, tokens, full.then_some(now));
        *progress = (newest, if full { now } else { full_at });
        self.confirmed_at.store(now, Ordering::Release);
        self.write_seen().await
    }

    /// Whether the copy was confirmed within the last 30 s.
    pub fn is_confirmed(&self, now: Millis) -> bool {
        now.saturating_sub(self.confirmed_at.load(Ordering::Acquire)) <= MAX_UNCONFIRMED
            && !self.overflown.load(Ordering::Relaxed)
    }

    /// Milliseconds since the copy was confirmed, for the metric.
    pub fn age(&self) -> Millis {
        self.clock.now().saturating_sub(self.confirmed_at.load(Ordering::Acquire))
    }

    /// Rises with every revocation that this node learns.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Opens a session.
    ///
    /// # Errors
    /// When the row cannot be written.
    pub async fn create(&self, new: &NewSession) -> Result<(), SessionError> {
        Ok(self.repository.insert_session(new, self.clock.now()).await?)
    }

    /// Moves the end of a live session. Returns whether there was one.
    ///
    /// # Errors
    /// When the row cannot be written.
    pub async fn extend(&self, id: &SessionId, expires_at: Millis) -> Result<bool, SessionError> {
        let extended = self.repository.extend_session(id, expires_at, self.clock.now()).await?;
        self.live.invalidate(id);
        Ok(extended)
    }

    /// The newest sessions of a user, at most 200.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn list(&self, user: &UserId) -> Result<Vec<SessionRow>, SessionError> {
        Ok(self.repository.sessions_of(user, MAX_LIST).await?)
    }

    /// Ends a session, with every token of it. Returns whether it was live.
    ///
    /// # Errors
    /// When the row cannot be written; the session then goes on.
    pub async fn revoke(&self, id: &SessionId, reason: &str) -> Result<bool, SessionError> {
        let until = self.repository.revoke_session(id, reason, self.clock.now()).await?;
        if let Some(until) = until {
            self.apply(|revoked| revoked.sessions.extend([(id.clone(), until)]));
            self.live.invalidate(id);
        }
        Ok(until.is_some())
    }

    /// Ends every session of a user. Returns how many were live.
    ///
    /// # Errors
    /// When the rows cannot be written; the sessions then go on.
    pub async fn revoke_user(&self, user: &UserId, reason: &str) -> Result<usize, SessionError> {
        let ended = self.repository.revoke_user(user, reason, self.clock.now()).await?;
        let count = ended.len();
        self.apply(|revoked| {
            revoked.sessions.extend(ended.into_iter().map(|(id, until)| (SessionId::from(id), until)));
        });
        Ok(count)
    }

    /// Ends one token; `expires_at` is its `exp` in milliseconds.
    ///
    /// # Errors
    /// When the row cannot be written; the token then goes on.
    pub async fn revoke_token(&self, jti: &Jti, expires_at: Millis) -> Result<(), SessionError> {
        self.repository.revoke_token(jti, expires_at, self.clock.now()).await?;
        self.apply(|revoked| revoked.tokens.extend([(jti.clone(), expires_at)]));
        Ok(())
    }

    /// The end of the session that `claimed` names, if token and session both count.
    pub(crate) async fn check(&self, claimed: Claimed<'_>, now: Millis) -> Result<Millis, AuthError> {
        self.check_revoked(claimed)?;
        let mut facts = self.live.get(claimed.session);
        if facts.as_ref().is_none_or(|facts| facts.expires_at <= now) {
            let row = self.repository.session(claimed.session).await.map_err(AuthError::unavailable)?;
            facts = row.map(Arc::new);
            // A revocation that was made meanwhile is in the copy before its caller goes on.
            self.check_revoked(claimed)?;
            if let Some(facts) = facts.as_ref().filter(|facts| !facts.ended && facts.expires_at > now) {
                self.live.insert(claimed.session.clone(), Arc::clone(facts));
            }
        }
        let facts = facts.ok_or(JwtError::SessionUnknown)?;
        let is_owner = match &facts.user_id {
            Some(owner) => owner == claimed.user,
            None => claimed.anonymous,
        };
        if !is_owner {
            Err(JwtError::SessionForeign.into())
        } else if facts.ended || facts.expires_at <= now {
            Err(JwtError::SessionEnded.into())
        } else {
            Ok(facts.expires_at)
        }
    }

    /// Asks the copy alone.
    pub(crate) fn check_revoked(&self, claimed: Claimed<'_>) -> Result<(), JwtError> {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        if revoked.tokens.contains_key(claimed.jti) {
            Err(JwtError::Revoked)
        } else if revoked.sessions.contains_key(claimed.session) {
            Err(JwtError::SessionEnded)
        } else {
            Ok(())
        }
    }

    /// Notes that a session was used at `now`; `last` is what the caller noted before. Written by the next refresh.
    pub(crate) fn note_seen(&self, session: &SessionId, last: &AtomicI64, now: Millis) {
        let before = last.load(Ordering::Relaxed);
        if now.saturating_sub(before) < SEEN_EVERY
            || last.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MAX_SEEN {
            seen.insert(session.clone(), now);
        }
    }

    fn apply(&self, change: impl FnOnce(&mut Revoked)) {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut revoked);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Adds rows to the copy; with `ended_by` also drops what has ended by then.
    fn merge(&self, sessions: Vec<RevokedRow>, tokens: Vec<RevokedRow>, ended_by: Option<Millis>) {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = ended_by {
            revoked.sessions.retain(|_, until| *until > now);
            revoked.tokens.retain(|_, until| *until > now);
        }
        let before = revoked.sessions.len() + revoked.tokens.len();
        for (id, until, _) in sessions {
            let id = SessionId::from(id);
            self.live.invalidate(&id);
            revoked.sessions.insert(id, until);
        }
        revoked.tokens.extend(tokens.into_iter().map(|(jti, until, _)| (Jti::from(jti), until)));
        let (sessions, tokens) = (revoked.sessions.len(), revoked.tokens.len());
        if sessions + tokens != before {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        let overflown = sessions > MAX_REVOKED || tokens > MAX_REVOKED;
        if overflown && !self.overflown.swap(overflown, Ordering::Relaxed) {
            tracing::error!(
                sessions,
                tokens,
                "more revocations than can be held; no token counts until some end"
            );
        }
        self.overflown.store(overflown, Ordering::Relaxed);
    }

    async fn write_seen(&self) -> Result<(), SessionError> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.is_empty() {
            return Ok(());
        }
        let seen: Vec<(SessionId, Millis)> = seen.into_iter().collect();
        Ok(self.repository.touch_sessions(&seen).await?)
    }
}

#[cfg(test)]
mod tests;
