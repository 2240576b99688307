//! Which sessions and tokens still count (SEC-56, SEC-57). Rows are the truth; each node keeps a copy of what was revoked and
//! remembers sessions that it found alive.
//!
//! A revocation is in force on this node before the call that made it returns; where the caller goes away before, or what was added
//! meanwhile cannot be read, with the node's next look. Other nodes learn it from [`Sessions::refresh`],
//! which the runtime calls when it is told that something changed, and once a second in any case; a node that has not confirmed
//! the copy for 30 s trusts no token.

pub(super) mod ends;

use super::revoked::{Cutoff, Revoked};
use super::row::SessionRow;
use crate::error::{AuthError, JwtError};
use crate::jwt::sign::MAX_TOKEN_LIFE;
use crate::repository::tokens::{RevokedRow, SessionFacts, TokenRepository};
use crate::repository::tree::Of;
use moka::sync::Cache;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use systemprompt_database::{Db, Deleted};
use systemprompt_models::ids::{ClientId, Jti, SessionId, UserId};
use systemprompt_models::session::SessionSource;
use systemprompt_models::{Clock, JwtClaims, Millis};

/// Longest time that the copy may stay unconfirmed (SEC-2).
pub const MAX_UNCONFIRMED: Millis = 30_000;
/// The whole copy is read again this often, which also drops what has ended.
const FULL_EVERY: Millis = 300_000;
/// Most revocations that are held; with more the copy counts as unconfirmed.
const MAX_REVOKED: usize = 1_000_000;
/// How long a revoked session stays in the copy: no token outlives it, and nodes' clocks differ by less than the minutes on top. The
/// row stays until the session's own end.
const KEEP_REVOKED: Millis = MAX_TOKEN_LIFE.as_millis() as Millis + 300_000;
const MAX_LIVE: u64 = 50_000;
const LIVE_FOR: Duration = Duration::from_mins(5);
/// `last_seen_at` is written at most this often for a session.
const SEEN_EVERY: Millis = 60_000;
const MAX_SEEN: usize = 10_000;
/// Most sessions or cuts that a list shows.
const MAX_LIST: i64 = 200;
/// Longest wait for the second behind a cut: one second, three more behind the end of a client, and what clocks of nodes differ.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// Why sessions or revocations could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the sessions cannot be read or written")]
    Storage(#[from] sqlx::Error),
    #[error(
        "all tokens of this subject were revoked at a time that this node's clock has not reached; set the clocks"
    )]
    ClockBehind,
}

/// Who a token claims to be, for the check against its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed<'a> {
    pub jti: &'a Jti,
    pub session: &'a SessionId,
    pub user: &'a UserId,
    pub client: Option<&'a ClientId>,
    /// `iat`, in epoch seconds.
    pub issued_at: i64,
    /// Anonymous tokens may belong to a session without a user.
    pub anonymous: bool,
}

/// The session of a token that counts.
#[derive(Clone, Debug)]
pub(crate) struct SessionEnd {
    pub at: Millis,
    /// The person whom a client's session serves.
    pub owner: Option<UserId>,
}

/// Checks, lists and ends sessions; ends single tokens.
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
    /// (epoch of the rows that were read, last full read); held during a poll.
    progress: tokio::sync::Mutex<(i64, Millis)>,
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
            progress: tokio::sync::Mutex::new((-1, Millis::MIN)),
        };
        sessions.refresh().await?;
        Ok(sessions)
    }

    /// Takes over what other nodes revoked since the last call and writes `last_seen_at` of the sessions used since. Returns
    /// whether the epoch moved, which keys share. Called once a second.
    ///
    /// # Errors
    /// When the tables cannot be read; after 30 s without success no token counts.
    pub async fn refresh(&self) -> Result<bool, SessionError> {
        let mut progress = self.progress.lock().await;
        let (known, full_at) = *progress;
        let now = self.clock.now();
        // Read first: what is revoked from here on has a later number and is read with the next call.
        let epoch = self.repository.epoch().await?;
        // A number below the known one is that of a database that was put back.
        let full = now.saturating_sub(full_at) >= FULL_EVERY || epoch < known;
        if full || epoch != known {
            let since = if full { -1 } else { known };
            let limit = MAX_REVOKED as i64 + 1;
            let sessions = self.repository.revoked_sessions(since, (now, KEEP_REVOKED), limit).await?;
            let tokens = self.repository.revoked_tokens(since, now, limit).await?;
            let cutoffs = self.repository.cutoffs(since, now, limit).await?;
            self.merge(sessions, tokens, &cutoffs, full.then_some(now));
            *progress = (epoch, if full { now } else { full_at });
        }
        self.confirmed_at.store(now, Ordering::Release);
        self.write_seen().await?;
        Ok(epoch != known)
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

    /// Moves the end of a live session. Returns whether there was one.
    ///
    /// # Errors
    /// When the row cannot be written.
    pub async fn extend(&self, id: &SessionId, expires_at: Millis) -> Result<bool, SessionError> {
        let extended = self.repository.extend_session(id, expires_at, self.clock.now()).await?;
        self.live.invalidate(id);
        Ok(extended)
    }

    /// The newest live sessions of a user, at most 200.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn list(&self, user: &UserId) -> Result<Vec<SessionRow>, SessionError> {
        Ok(self.repository.sessions_of(user, None, (self.clock.now(), MAX_LIST)).await?)
    }

    /// The newest live sessions of a user's browsers, at most 200.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn browsers_of(&self, user: &UserId) -> Result<Vec<SessionRow>, SessionError> {
        let web = Some(SessionSource::Web);
        Ok(self.repository.sessions_of(user, web, (self.clock.now(), MAX_LIST)).await?)
    }

    /// A session as its row has it, whether it counts or not.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn find(&self, id: &SessionId) -> Result<Option<SessionRow>, SessionError> {
        Ok(self.repository.find_session(id).await?)
    }

    /// Cuts that still matter, by kind and id, at most 200.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn cutoffs(&self) -> Result<Vec<Cutoff>, SessionError> {
        Ok(self.repository.cutoffs(-1, self.clock.now(), MAX_LIST).await?)
    }

    /// How many sessions count now.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn count_live(&self) -> Result<i64, SessionError> {
        Ok(self.repository.count_live(self.clock.now()).await?)
    }

    /// How many live sessions end with those of a user but one: also those of the clients that serve them, and what came from any.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn count_of(&self, user: &UserId, keep: Option<&SessionId>) -> Result<i64, SessionError> {
        Ok(self.repository.count_of(user, Of::All(keep), self.clock.now()).await?)
    }

    /// How many of them end when the user becomes another by role or department.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn count_told(&self, user: &UserId) -> Result<i64, SessionError> {
        Ok(self.repository.count_of(user, Of::Told, self.clock.now()).await?)
    }

    /// Deletes at most `limit` sessions that ended before `before`.
    ///
    /// # Errors
    /// When the rows cannot be deleted.
    pub async fn delete_ended(&self, before: Millis, limit: i64) -> Result<Deleted, SessionError> {
        Ok(self.repository.delete_sessions(before, limit).await?)
    }

    /// Deletes at most `limit` revocations of tokens that ended before `before`.
    ///
    /// # Errors
    /// When the rows cannot be deleted.
    pub async fn delete_revocations(&self, before: Millis, limit: i64) -> Result<Deleted, SessionError> {
        Ok(self.repository.delete_revocations(before, limit).await?)
    }

    /// Deletes at most `limit` cuts that no token is left of.
    ///
    /// # Errors
    /// When the rows cannot be deleted.
    pub async fn delete_cutoffs(&self, before: Millis, limit: i64) -> Result<Deleted, SessionError> {
        Ok(self.repository.delete_cutoffs(before, limit).await?)
    }

    /// Whether a token was revoked by its id, asked of the table (introspection shows no copy's state).
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn is_token_revoked(&self, jti: &Jti) -> Result<bool, SessionError> {
        Ok(self.repository.is_token_revoked(jti).await?)
    }

    /// Whether a verified token and its session count, asked of the tables.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn is_token_live(&self, claims: &JwtClaims) -> Result<bool, SessionError> {
        let Some(state) = self.repository.token_state(claims).await? else { return Ok(false) };
        let is_cut = state.not_before.is_some_and(|cut| claims.iat <= cut.div_euclid(1000));
        let is_own = state.user_id.as_deref().is_none_or(|owner| owner == claims.sub.as_str());
        let ended = state.revoked_at.is_some() || state.expires_at <= self.clock.now();
        Ok(state.revocations == 0 && !is_cut && is_own && !ended)
    }

    /// Returns when a token of this subject can be issued, and whether it had to wait: in the second of a cut it would be dead at
    /// once. What was read of the subject before the wait may be what the cut has ended.
    ///
    /// # Errors
    /// [`SessionError::ClockBehind`] when that second lies further ahead than clocks may differ.
    pub async fn wait_to_issue(
        &self,
        user: &UserId,
        client: Option<&ClientId>,
    ) -> Result<bool, SessionError> {
        let mut waited = Duration::ZERO;
        loop {
            let dead =
                self.revoked.read().unwrap_or_else(PoisonError::into_inner).last_dead_second(user, client);
            let Some(dead) = dead.filter(|second| *second >= self.clock.now_seconds()) else {
                return Ok(!waited.is_zero());
            };
            let ahead = (dead + 1).saturating_mul(1000).saturating_sub(self.clock.now()).max(1);
            let pause = Duration::from_millis(ahead.cast_unsigned());
            if waited.saturating_add(pause) > MAX_WAIT {
                return Err(SessionError::ClockBehind);
            }
            tokio::time::sleep(pause).await;
            waited += pause;
        }
    }

    /// Whether what was issued to a subject at a time, in epoch seconds, was cut off with everything up to a later one.
    ///
    /// # Errors
    /// Revocation that cannot be confirmed.
    pub fn is_cut_off(
        &self,
        user: &UserId,
        client: Option<&ClientId>,
        issued_at: i64,
    ) -> Result<bool, AuthError> {
        if !self.is_confirmed(self.clock.now()) {
            return Err(AuthError::RevocationUnavailable(None));
        }
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        Ok(revoked.last_dead_second(user, client).is_some_and(|second| issued_at <= second))
    }

    /// The end of the session that `claimed` names, if token and session both count.
    pub(crate) async fn check(&self, claimed: Claimed<'_>, now: Millis) -> Result<SessionEnd, AuthError> {
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
            Ok(SessionEnd { at: facts.expires_at, owner: facts.owner_id.clone() })
        }
    }

    /// Whether a verified token still counts: neither it nor its session nor its subject was ended.
    ///
    /// # Errors
    /// What was ended, or revocation that cannot be confirmed.
    pub async fn check_claims(&self, claims: &JwtClaims) -> Result<Millis, AuthError> {
        let now = self.clock.now();
        if !self.is_confirmed(now) {
            return Err(AuthError::RevocationUnavailable(None));
        }
        let claimed = Claimed {
            jti: &claims.jti,
            session: &claims.session_id,
            user: &claims.sub,
            client: claims.client_id.as_ref(),
            issued_at: claims.iat,
            anonymous: claims.is_anonymous(),
        };
        Ok(self.check(claimed, now).await?.at)
    }

    /// Asks the copy alone.
    pub(crate) fn check_revoked(&self, claimed: Claimed<'_>) -> Result<(), JwtError> {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).check(claimed)
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

    /// Adds rows to the copy; with `ended_by` also drops what has ended by then.
    fn merge(
        &self,
        sessions: Vec<RevokedRow>,
        tokens: Vec<RevokedRow>,
        cutoffs: &[Cutoff],
        ended_by: Option<Millis>,
    ) {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = ended_by {
            revoked.drop_ended(now);
        }
        let is_new = !sessions.is_empty() || !tokens.is_empty() || !cutoffs.is_empty();
        for (id, until) in sessions {
            let id = SessionId::from(id);
            self.live.invalidate(&id);
            revoked.add_session(id, until);
        }
        revoked.add_tokens(tokens);
        for cutoff in cutoffs {
            revoked.add_cutoff(cutoff);
        }
        if is_new {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        let held = revoked.largest();
        let overflown = held > MAX_REVOKED;
        if overflown && !self.overflown.swap(overflown, Ordering::Relaxed) {
            tracing::error!(held, "more revocations than can be held; no token counts until some end");
        }
        self.overflown.store(overflown, Ordering::Relaxed);
    }

    async fn write_seen(&self) -> Result<(), SessionError> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.is_empty() {
            return Ok(());
        }
        let mut seen: Vec<(SessionId, Millis)> = seen.into_iter().collect();
        // Nodes that note the same sessions take their rows in the same order.
        seen.sort_unstable_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        Ok(self.repository.touch_sessions(&seen).await?)
    }
}

#[cfg(test)]
mod tests;
