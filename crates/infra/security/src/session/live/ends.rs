//! The end of sessions and tokens before their time: written, then in force on this node.

use super::super::revoked::{Cutoff, CutoffKind, Revoked};
use super::{KEEP_REVOKED, MAX_REVOKED, SessionError, Sessions};
use crate::jwt::sign::MAX_TOKEN_LIFE;
use crate::repository::ends::{cut_off, end_client, end_told, end_user};
use crate::repository::tokens::RevokedRow;
use crate::repository::tree::{Root, tree_ends};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use systemprompt_audit::{Guard, Unit};
use systemprompt_database::{WriteTx, retry_contended};
use systemprompt_models::ids::{ClientId, EntryId, Jti, SessionId, UserId};
use systemprompt_models::{JwtClaims, Millis};

/// How far ahead a client's end reaches: a token is signed soon after its client was read, and who takes longer reads it again.
const UNDER_WAY: Millis = 3_000;

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

/// What a transaction ended; it counts on this node once it was given to [`Sessions::apply_end`], or what was read before its unit
/// to [`Sessions::apply_written`].
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

impl Sessions {
    /// Ends a session and those that came from it, with every token of them. Returns how many were live. Where none is, nothing is
    /// written, and no node asks again.
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

    /// Ends what a client was given and has of its own, in the transaction of the change that takes its right to it: every session, and
    /// every token up to now and a little on, for whoever has read the client before and signs its token in a moment.
    /// [`Sessions::wait_to_issue`](super::Sessions::wait_to_issue) tells those who come later that they have to read it again.
    /// `entry` is the record of the change.
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
        let mut cutoff = self.cut_now(CutoffKind::Client, client.as_str(), reason);
        cutoff.not_before = cutoff.not_before.saturating_add(UNDER_WAY);
        cutoff.expires_at = Self::longest_end(cutoff.not_before);
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

    /// As [`Self::apply_end`] of what was read before the unit that ended it: sessions that were added meanwhile ended in their rows,
    /// which are read once more. Where that fails this node learns of them with its next look, within a second.
    pub async fn apply_written(&self, ended: Ended) -> usize {
        let count = self.apply_end(ended);
        // The progress is not moved: what else it would show is for those who wait for it.
        let known = self.progress.lock().await.0;
        let (now, limit) = (self.clock.now(), MAX_REVOKED as i64 + 1);
        match self.repository.revoked_sessions(known, (now, KEEP_REVOKED), limit).await {
            Ok(sessions) => self.merge(sessions, Vec::new(), &[], None),
            Err(error) => tracing::warn!(%error, "sessions that have just ended could not be read again"),
        }
        count
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

    /// How many sessions end with a token by [`Self::revoke_claims`].
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn count_exchanged(&self, claims: &JwtClaims) -> Result<i64, SessionError> {
        Ok(self.repository.count_exchanged(claims, self.clock.now()).await?)
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

    fn apply(&self, change: impl FnOnce(&mut Revoked)) {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut revoked);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    fn apply_ended(&self, ended: Vec<RevokedRow>) -> usize {
        let count = ended.len();
        if count == 0 {
            return 0;
        }
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
}
