//! Which sessions and tokens still count (SEC-56, SEC-57). Rows are the truth; each node keeps a copy of what was revoked and
//! remembers sessions that it found alive.
//!
//! A revocation is in force on this node before the call that made it returns. Other nodes learn it from [`Sessions::refresh`],
//! which the runtime calls when it is told that something changed, and once a second in any case; a node that has not confirmed
//! the copy for 30 s trusts no token.

use super::revoked::{Cutoff, CutoffKind, Revoked};
use crate::error::{AuthError, JwtError};
use crate::jwt::sign::MAX_TOKEN_LIFE;
use crate::repository::ends::{cut_off, end_client, end_told, end_user};
use crate::repository::sessions::SessionOpened;
use crate::repository::tokens::{RevokedRow, SessionFacts, TokenRepository};
use crate::repository::tree::{Root, tree_ends};
use moka::sync::Cache;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use systemprompt_audit::{Guard, Unit};
use systemprompt_database::{Db, WriteTx, retry_contended};
use systemprompt_models::ids::{ClientId, EntryId, GrantId, Jti, SessionId, UserId};
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
/// Longest wait for the second behind a cut; it is one second but for nodes whose clocks differ.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Where a session came from (ID-78).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
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
    /// When it ends if nobody uses it.
    pub expires_at: Millis,
    pub facts: SignIn,
}

/// What is known of how a session came about (ID-78).
#[derive(Clone, Debug, Default)]
pub struct SignIn {
    /// When it ends however much it is used; absent if it may be extended without end.
    pub ends_at: Option<Millis>,
    /// When the person signed in, in epoch seconds.
    pub auth_time: Option<i64>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// Authentication methods (RFC 8176), space-separated.
    pub amr: Option<String>,
    pub ip_prefix: Option<String>,
    /// At most 256 characters of it are kept.
    pub user_agent: Option<String>,
    pub client_id: Option<ClientId>,
    /// The person whom a client's own session serves.
    pub owner_id: Option<UserId>,
    pub grant_id: Option<GrantId>,
    /// The session whose end is the end of this one.
    pub parent: Option<SessionId>,
}

impl NewSession {
    /// A session of which nothing more is known.
    pub fn new(id: SessionId, user_id: Option<UserId>, source: SessionSource, expires_at: Millis) -> Self {
        Self { id, user_id, source, expires_at, facts: SignIn::default() }
    }

    /// The row of this session, to be opened in the unit of the record that tells of it.
    pub fn into_row(self, now: Millis) -> SessionOpened {
        SessionOpened { session: self, now }
    }
}

/// A session as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// When it ends however much it is used.
    pub ends_at: Option<Millis>,
    /// Epoch seconds.
    pub auth_time: Option<i64>,
    pub acr: Option<String>,
    pub amr: Option<String>,
    pub ip_prefix: Option<String>,
    pub user_agent: Option<String>,
    pub client_id: Option<ClientId>,
    pub owner_id: Option<UserId>,
    pub grant_id: Option<GrantId>,
    pub parent_session_id: Option<SessionId>,
}

impl SessionRow {
    /// Whether it counts at `now`.
    pub fn is_live(&self, now: Millis) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

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

/// What a change of a user ends.
#[derive(Clone, Copy, Debug)]
pub enum UserEnd<'a> {
    /// Every session with its tokens.
    All,
    /// Every session but the one that makes the change.
    Others(&'a SessionId),
    /// What tells of the user as they were: every token up to now, and the sessions for which no refresh brings others. The entry
    /// is the record of the change.
    Told(&'a EntryId),
}

/// What a transaction ended; it counts on this node once it was given to [`Sessions::apply_end`].
#[derive(Debug)]
#[must_use = "this node goes on taking the tokens until it is applied"]
pub struct Ended {
    sessions: Vec<RevokedRow>,
    cutoff: Option<Cutoff>,
}

/// What ends with a session or a grant: changes for the unit that records it, and, when that is written, what counts no more.
#[derive(Debug)]
pub struct Ending {
    changes: [Guard; 3],
    ended: Ended,
}

impl Ending {
    /// How many sessions are live.
    pub fn sessions(&self) -> u64 {
        self.ended.sessions.len() as u64
    }

    /// Adds the changes to a unit. What is returned is applied when the unit is written.
    pub fn add_to(self, unit: &mut Unit) -> Ended {
        for change in self.changes {
            unit.change(change);
        }
        self.ended
    }
}

impl Ended {
    /// What ended in the same transaction behind it.
    pub fn append(&mut self, mut later: Self) {
        self.sessions.append(&mut later.sessions);
        self.cutoff = later.cutoff.or(self.cutoff.take());
    }
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
        if full {
            self.repository.purge(now).await?;
        }
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

    /// Ends a session and those that came from it, with every token of them. Returns how many were live.
    ///
    /// # Errors
    /// When the rows cannot be written; the sessions then go on.
    pub async fn revoke(&self, id: &SessionId, reason: &str) -> Result<usize, SessionError> {
        let ended = self.repository.revoke_session(id, reason, self.clock.now()).await?;
        self.live.invalidate(id);
        Ok(self.apply_ended(ended))
    }

    /// What ends with `root`, as it is to be put into the unit that records it.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn ending(&self, root: Root<'_>, reason: &str) -> Result<Ending, SessionError> {
        let now = self.clock.now();
        let sessions = self.repository.tree(root, now).await?;
        let ended = Ended { sessions, cutoff: None };
        Ok(Ending { changes: tree_ends(root, reason, now), ended })
    }

    /// A session as its row has it, whether it counts or not.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn find(&self, id: &SessionId) -> Result<Option<SessionRow>, SessionError> {
        Ok(self.repository.find_session(id).await?)
    }

    /// Ends what a change of `user` ends, in the transaction of that change.
    ///
    /// # Errors
    /// When the rows cannot be written.
    pub async fn end_in(
        &self,
        tx: &mut WriteTx,
        user: &UserId,
        end: UserEnd<'_>,
        reason: &str,
    ) -> Result<Ended, SessionError> {
        let now = self.clock.now();
        let keep = match end {
            UserEnd::All => None,
            UserEnd::Others(keep) => Some(keep),
            UserEnd::Told(entry) => {
                let cutoff = self.cut_now(CutoffKind::User, user.as_str(), reason);
                let sessions = end_told(tx, &cutoff, now, entry).await?;
                return Ok(Ended { sessions, cutoff: Some(cutoff) });
            }
        };
        Ok(Ended { sessions: end_user(tx, user, keep, reason, now).await?, cutoff: None })
    }

    /// Ends what a client was given and has of its own, in the transaction of the change that takes its right to it: every token up to
    /// now, and every session. `entry` is the record of the change.
    ///
    /// # Errors
    /// When the rows cannot be written.
    pub async fn end_client_in(
        &self,
        tx: &mut WriteTx,
        client: &ClientId,
        reason: &str,
        entry: &EntryId,
    ) -> Result<Ended, SessionError> {
        let cutoff = self.cut_now(CutoffKind::Client, client.as_str(), reason);
        let sessions = end_client(tx, &cutoff, self.clock.now(), entry).await?;
        Ok(Ended { sessions, cutoff: Some(cutoff) })
    }

    /// Ends what [`Self::cut_off`] does, in a transaction with more.
    ///
    /// # Errors
    /// When the rows cannot be written.
    pub async fn cut_off_in(
        &self,
        tx: &mut WriteTx,
        cutoff: &Cutoff,
        entry: &EntryId,
    ) -> Result<Ended, SessionError> {
        let sessions = cut_off(tx, cutoff, self.clock.now(), entry).await?;
        Ok(Ended { sessions, cutoff: Some(cutoff.clone()) })
    }

    fn cut_now(&self, kind: CutoffKind, id: &str, reason: &str) -> Cutoff {
        let now = self.clock.now();
        let expires_at = Self::longest_end(now);
        Cutoff { kind, id: id.to_owned(), not_before: now, reason: reason.to_owned(), expires_at }
    }

    /// Puts in force on this node what a transaction ended that was committed. Returns how many sessions were live.
    pub fn apply_end(&self, ended: Ended) -> usize {
        if let Some(cutoff) = &ended.cutoff {
            self.apply(|revoked| revoked.add_cutoff(cutoff));
        }
        self.apply_ended(ended.sessions)
    }

    /// Ends one token; `expires_at` is its own end. Returns whether it was not revoked before.
    ///
    /// # Errors
    /// When the row cannot be written; the token then goes on.
    pub async fn revoke_token(&self, jti: &Jti, expires_at: Millis) -> Result<bool, SessionError> {
        let (is_new, _) = self.repository.revoke_token(jti, expires_at, None, self.clock.now()).await?;
        self.apply(|revoked| revoked.add_token(jti.clone(), expires_at));
        Ok(is_new)
    }

    /// Ends one token with what was exchanged for it. Returns whether it was not revoked before, and how many sessions ended.
    ///
    /// # Errors
    /// As [`Self::revoke_token`].
    pub async fn revoke_claims(&self, claims: &JwtClaims) -> Result<(bool, usize), SessionError> {
        let expires_at = claims.exp.saturating_mul(1000);
        let now = self.clock.now();
        let (is_new, ended) =
            self.repository.revoke_token(&claims.jti, expires_at, Some(claims), now).await?;
        self.apply(|revoked| revoked.add_token(claims.jti.clone(), expires_at));
        Ok((is_new, self.apply_ended(ended)))
    }

    /// Ends every token of a subject that was issued up to now, and every session if it is a user. `entry` is the record of
    /// it. Returns how many sessions ended.
    ///
    /// # Errors
    /// When the row cannot be written; the tokens then go on.
    pub async fn cut_off(&self, cutoff: &Cutoff, entry: &EntryId) -> Result<usize, SessionError> {
        let ended = retry_contended(|| async {
            let mut tx = self.repository.begin().await?;
            let ended = self.cut_off_in(&mut tx, cutoff, entry).await?;
            tx.commit().await?;
            Ok::<_, SessionError>(ended)
        })
        .await?;
        Ok(self.apply_end(ended))
    }

    /// When the longest token that can be issued at `now` will have ended.
    pub fn longest_end(now: Millis) -> Millis {
        now.saturating_add(MAX_TOKEN_LIFE.as_millis() as Millis)
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

    /// How many sessions of a user count, but one.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn count_of(&self, user: &UserId, keep: Option<&SessionId>) -> Result<i64, SessionError> {
        Ok(self.repository.count_of(user, keep, self.clock.now()).await?)
    }

    /// Deletes at most `limit` sessions that ended before `before`; returns how many.
    ///
    /// # Errors
    /// When the rows cannot be deleted.
    pub async fn delete_ended(&self, before: Millis, limit: i64) -> Result<u64, SessionError> {
        Ok(self.repository.delete_sessions(before, limit).await?)
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

    /// Returns when a token of this subject can be issued: in the second of a cut it would be dead at once.
    ///
    /// # Errors
    /// [`SessionError::ClockBehind`] when that second lies further ahead than clocks may differ.
    pub async fn wait_to_issue(&self, user: &UserId, client: Option<&ClientId>) -> Result<(), SessionError> {
        let mut waited = Duration::ZERO;
        loop {
            let dead =
                self.revoked.read().unwrap_or_else(PoisonError::into_inner).last_dead_second(user, client);
            let Some(dead) = dead.filter(|second| *second >= self.clock.now_seconds()) else { return Ok(()) };
            let ahead = (dead + 1).saturating_mul(1000).saturating_sub(self.clock.now()).max(1);
            let pause = Duration::from_millis(ahead.cast_unsigned());
            if waited.saturating_add(pause) > MAX_WAIT {
                return Err(SessionError::ClockBehind);
            }
            tokio::time::sleep(pause).await;
            waited += pause;
        }
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

    fn apply(&self, change: impl FnOnce(&mut Revoked)) {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut revoked);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    fn apply_ended(&self, ended: Vec<RevokedRow>) -> usize {
        let count = ended.len();
        let kept = self.clock.now().saturating_add(KEEP_REVOKED);
        self.apply(|revoked| {
            for (id, until) in ended {
                let id = SessionId::from(id);
                self.live.invalidate(&id);
                revoked.add_session(id, until.min(kept));
            }
        });
        count
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
