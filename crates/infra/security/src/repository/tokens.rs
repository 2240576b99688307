//! Rows of sessions and of what ends tokens before their time. Whatever revokes takes the next epoch first: its row is locked
//! until the commit, so epochs become visible in their order and a poll behind one of them misses nothing.
//!
//! Locks are taken in one order, by the guards of units and by what ends things: users and clients, their credentials, keys and
//! consents, grants, the epoch, sessions with the parent before the child, codes, refresh tokens. Of many rows of
//! one table the order is the engine's, and a sign-in has what was shown before the user, whom it may have made: some still meet. Then the ledger's writer steps back and tries
//! again, and whoever else is chosen begins anew (`systemprompt_database::retry_contended`).

use super::late::Latecomers;
use crate::session::live::{NewSession, SessionRow, SessionSource};
use crate::session::revoked::{Cutoff, CutoffKind};
use systemprompt_audit::{Cell, Col, Guard, OpenRow, Table};
use systemprompt_database::{Db, Deleted, WriteTx, on, on_tx, retry_contended, sql};
use systemprompt_models::ids::{ClientId, EntryId, GrantId, Jti, SessionId, UserId};
use systemprompt_models::{JwtClaims, Millis};

/// Reads and writes sessions and revocations.
#[derive(Clone, Debug)]
pub struct TokenRepository {
    db: Db,
}

/// What verification asks of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionFacts {
    /// `None` for an anonymous session.
    pub user_id: Option<UserId>,
    pub expires_at: Millis,
    pub ended: bool,
    /// The person whom a client's session serves.
    pub owner_id: Option<UserId>,
}

/// (id, until when it matters).
pub(crate) type RevokedRow = (String, Millis);

type CutoffRow = (String, String, Millis, String, Millis);

/// Whose, its end, when it was ended, and its owner.
type FactsRow = (Option<String>, Millis, Option<Millis>, Option<String>);

impl TokenRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    pub(crate) async fn insert_session(&self, new: &NewSession, now: Millis) -> Result<(), sqlx::Error> {
        let facts = &new.facts;
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO user_sessions (id, user_id, source, created_at, last_seen_at, expires_at, ends_at, auth_time, acr, amr,
                 ip_prefix, user_agent, client_id, owner_id, grant_id, parent_session_id)
             VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
        ))
            .bind(new.id.as_str())
            .bind(new.user_id.as_ref().map(UserId::as_str))
            .bind(new.source.as_str())
            .bind(now)
            .bind(new.expires_at)
            .bind(facts.ends_at)
            .bind(facts.auth_time)
            .bind(&facts.acr)
            .bind(&facts.amr)
            .bind(&facts.ip_prefix)
            .bind(facts.user_agent.as_deref().map(shortened))
            .bind(facts.client_id.as_ref().map(ClientId::as_str))
            .bind(facts.owner_id.as_ref().map(UserId::as_str))
            .bind(facts.grant_id.as_ref().map(GrantId::as_str))
            .bind(facts.parent.as_ref().map(SessionId::as_str))
            .execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// A session as lists show it.
    pub(crate) async fn find_session(&self, id: &SessionId) -> Result<Option<SessionRow>, sqlx::Error> {
        let row: Option<ListRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, user_id, source, created_at, last_seen_at, expires_at, revoked_at, revoked_reason, ends_at, auth_time,
                 acr, amr, ip_prefix, user_agent, client_id, owner_id, grant_id, parent_session_id
             FROM user_sessions WHERE id = $1"
        )).bind(id.as_str()).fetch_optional(pool).await)?;
        Ok(row.map(ListRow::listed))
    }

    /// How many sessions count at `now`.
    pub(crate) async fn count_live(&self, now: Millis) -> Result<i64, sqlx::Error> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM user_sessions WHERE expires_at > $1 AND revoked_at IS NULL"
        )).bind(now).fetch_one(pool).await)?;
        Ok(count)
    }

    /// Live sessions of a user but one.
    pub(crate) async fn count_of(
        &self,
        user: &UserId,
        keep: Option<&SessionId>,
        now: Millis,
    ) -> Result<i64, sqlx::Error> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM user_sessions WHERE user_id = $1 AND id <> $2 AND expires_at > $3 AND revoked_at IS NULL"
        )).bind(user.as_str()).bind(keep.map_or("", SessionId::as_str)).bind(now).fetch_one(pool).await)?;
        Ok(count)
    }

    pub(crate) async fn session(&self, id: &SessionId) -> Result<Option<SessionFacts>, sqlx::Error> {
        let row: Option<FactsRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT user_id, expires_at, revoked_at, owner_id FROM user_sessions WHERE id = $1"
        )).bind(id.as_str()).fetch_optional(pool).await)?;
        Ok(row.map(|(user_id, expires_at, revoked_at, owner_id)| SessionFacts {
            user_id: user_id.map(UserId::from),
            expires_at,
            ended: revoked_at.is_some(),
            owner_id: owner_id.map(UserId::from),
        }))
    }

    /// The live sessions of a user, or those of one `source`, the newest first.
    pub(crate) async fn sessions_of(
        &self,
        user: &UserId,
        source: Option<SessionSource>,
        (now, limit): (Millis, i64),
    ) -> Result<Vec<SessionRow>, sqlx::Error> {
        let rows: Vec<ListRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, user_id, source, created_at, last_seen_at, expires_at, revoked_at, revoked_reason, ends_at, auth_time,
                 acr, amr, ip_prefix, user_agent, client_id, owner_id, grant_id, parent_session_id
             FROM user_sessions
             WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 AND (CAST($3 AS TEXT) IS NULL OR source = $3)
             ORDER BY created_at DESC, id DESC LIMIT $4"
        ))
            .bind(user.as_str()).bind(now).bind(source.map(SessionSource::as_str)).bind(limit)
            .fetch_all(pool).await)?;
        Ok(rows.into_iter().map(ListRow::listed).collect())
    }

    /// Moves the end of a live session, at most to its last. Returns whether there was one.
    pub(crate) async fn extend_session(
        &self,
        id: &SessionId,
        expires_at: Millis,
        now: Millis,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        let touched = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE user_sessions SET expires_at = CASE WHEN ends_at < $1 THEN ends_at ELSE $1 END
             WHERE id = $2 AND revoked_at IS NULL AND expires_at > $3"
        )).bind(expires_at).bind(id.as_str()).bind(now).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(touched == 1)
    }

    /// What the tables know of a token; nothing without its session.
    pub(crate) async fn token_state(&self, claims: &JwtClaims) -> Result<Option<TokenState>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT s.user_id, s.expires_at, s.revoked_at,
                 (SELECT COUNT(*) FROM oauth_jti_revocations WHERE jti = $1) AS revocations,
                 (SELECT MAX(not_before) FROM token_cutoffs
                  WHERE (kind = 'user' AND id = $2) OR (kind = 'client' AND id = $3) OR kind = 'all') AS not_before
             FROM user_sessions s WHERE s.id = $4"
        ))
            .bind(claims.jti.as_str())
            .bind(claims.sub.as_str())
            .bind(claims.client_id.as_ref().map_or("", ClientId::as_str))
            .bind(claims.session_id.as_str())
            .fetch_optional(pool).await)
    }

    /// The number of the last revocation.
    pub(crate) async fn epoch(&self) -> Result<i64, sqlx::Error> {
        let (epoch,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT epoch FROM revocation_epoch WHERE one = 1"
        )).fetch_one(pool).await)?;
        Ok(epoch)
    }

    /// Ends one session and those that came from it. Returns those that were live.
    pub(crate) async fn revoke_session(
        &self,
        id: &SessionId,
        reason: &str,
        now: Millis,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            let epoch = next_epoch(&mut tx).await?;
            let rows = on_tx!(tx, conn => sqlx::query_as(sql!(
                "WITH RECURSIVE tree (id) AS (
                     SELECT CAST($1 AS TEXT)
                     UNION
                     SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
                 UPDATE user_sessions SET revoked_at = $2, revoked_reason = $3, revoked_epoch = $4
                 WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $2 RETURNING id, expires_at"
            )).bind(id.as_str()).bind(now).bind(reason).bind(epoch).fetch_all(&mut *conn).await)?;
            let rows = Latecomers { epoch, reason, now, keep: "" }.complete(&mut tx, rows).await?;
            tx.commit().await?;
            Ok(rows)
        })
        .await
    }

    /// The live sessions that end with `root`.
    pub(crate) async fn tree(&self, root: Root<'_>, now: Millis) -> Result<Vec<RevokedRow>, sqlx::Error> {
        let id = root.id();
        match root {
            Root::Session(_) => on!(&self.db, pool => sqlx::query_as(sql!(
                "WITH RECURSIVE tree (id) AS (
                     SELECT CAST($1 AS TEXT)
                     UNION
                     SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
                 SELECT id, expires_at FROM user_sessions
                 WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $2"
            )).bind(id).bind(now).fetch_all(pool).await),
            Root::Grant(_) => on!(&self.db, pool => sqlx::query_as(sql!(
                "WITH RECURSIVE tree (id) AS (
                     SELECT id FROM user_sessions WHERE grant_id = $1
                     UNION
                     SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
                 SELECT id, expires_at FROM user_sessions
                 WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $2"
            )).bind(id).bind(now).fetch_all(pool).await),
        }
    }

    /// Ends every live session of a user.
    pub(crate) async fn revoke_user(
        &self,
        user: &UserId,
        reason: &str,
        now: Millis,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            let rows = end_user(&mut tx, user, None, reason, now).await?;
            tx.commit().await?;
            Ok(rows)
        })
        .await
    }

    /// Ends a token, and what was exchanged for it if it is `shown`. Whether it was not revoked before, and the sessions that ended.
    pub(crate) async fn revoke_token(
        &self,
        jti: &Jti,
        expires_at: Millis,
        shown: Option<&JwtClaims>,
        now: Millis,
    ) -> Result<(bool, Vec<RevokedRow>), sqlx::Error> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            let epoch = next_epoch(&mut tx).await?;
            if let Some(claims) = shown {
                // An exchange holds this row until it is written: either it is seen below, or it sees the revocation.
                on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE user_sessions SET last_seen_at = last_seen_at WHERE id = $1"
            )).bind(claims.session_id.as_str()).execute(&mut *conn).await.map(drop))?;
            }
            let inserted = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_jti_revocations (jti, expires_at, revoked_at, epoch) VALUES ($1, $2, $3, $4)
             ON CONFLICT (jti) DO NOTHING"
        ))
            .bind(jti.as_str()).bind(expires_at).bind(now).bind(epoch)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
            let ended = match shown {
                Some(claims) => end_exchanged(&mut tx, claims, (epoch, now)).await?,
                None => Vec::new(),
            };
            tx.commit().await?;
            Ok((inserted == 1, ended))
        })
        .await
    }

    /// A transaction for what ends together.
    pub(crate) async fn begin(&self) -> Result<WriteTx, sqlx::Error> {
        self.db.write_tx().await
    }

    /// Sessions that were ended behind `since` and that a token may still name: until their own end, and for `kept` milliseconds at
    /// most. With each the moment up to which it must be known.
    pub(crate) async fn revoked_sessions(
        &self,
        since: i64,
        (now, kept): (Millis, Millis),
        limit: i64,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, CASE WHEN expires_at < revoked_at + $1 THEN expires_at ELSE revoked_at + $1 END
             FROM user_sessions WHERE revoked_epoch > $2 AND expires_at > $3 AND revoked_at > $4 LIMIT $5"
        )).bind(kept).bind(since).bind(now).bind(now - kept).bind(limit).fetch_all(pool).await)
    }

    /// Tokens that were revoked behind `since` and would otherwise still be live.
    pub(crate) async fn revoked_tokens(
        &self,
        since: i64,
        now: Millis,
        limit: i64,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT jti, expires_at FROM oauth_jti_revocations WHERE epoch > $1 AND expires_at > $2 LIMIT $3"
        )).bind(since).bind(now).bind(limit).fetch_all(pool).await)
    }

    /// Deletes at most `limit` sessions that ended before `before`. An earlier end by revocation changes nothing: until its own end
    /// a token of it must be known as ended.
    pub(crate) async fn delete_sessions(&self, before: Millis, limit: i64) -> Result<Deleted, sqlx::Error> {
        let statement = sql!(
            "DELETE FROM user_sessions WHERE id IN
                 (SELECT id FROM user_sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
        );
        self.db.delete_some(statement, before, limit).await
    }

    /// Whether a token was revoked by its id, from the table.
    pub(crate) async fn is_token_revoked(&self, jti: &Jti) -> Result<bool, sqlx::Error> {
        let row: Option<(Millis,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT revoked_at FROM oauth_jti_revocations WHERE jti = $1"
        )).bind(jti.as_str()).fetch_optional(pool).await)?;
        Ok(row.is_some())
    }

    /// Cuts behind `since` that still matter, by kind and id.
    pub(crate) async fn cutoffs(
        &self,
        since: i64,
        now: Millis,
        limit: i64,
    ) -> Result<Vec<Cutoff>, sqlx::Error> {
        let rows: Vec<CutoffRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT kind, id, not_before, reason, expires_at FROM token_cutoffs
             WHERE epoch > $1 AND expires_at > $2 ORDER BY kind, id LIMIT $3"
        )).bind(since).bind(now).bind(limit).fetch_all(pool).await)?;
        let cutoff = |(kind, id, not_before, reason, expires_at): CutoffRow| {
            // The column's check admits the three kinds alone.
            let kind = CutoffKind::parse(&kind)
                .ok_or_else(|| sqlx::Error::Decode(format!("a cutoff of the kind {kind}").into()))?;
            Ok(Cutoff { kind, id, not_before, reason, expires_at })
        };
        rows.into_iter().map(cutoff).collect()
    }

    /// Deletes revocations of what has ended by itself.
    pub(crate) async fn purge(&self, now: Millis) -> Result<(), sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM oauth_jti_revocations WHERE expires_at <= $1"))
            .bind(now).execute(&mut *conn).await.map(drop))?;
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM token_cutoffs WHERE expires_at <= $1"))
            .bind(now).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Notes when sessions were last seen, in one transaction.
    pub(crate) async fn touch_sessions(&self, seen: &[(SessionId, Millis)]) -> Result<(), sqlx::Error> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            for (id, at) in seen {
                on_tx!(tx, conn => sqlx::query(sql!(
                    "UPDATE user_sessions SET last_seen_at = $1 WHERE id = $2 AND last_seen_at < $1"
                )).bind(at).bind(id.as_str()).execute(&mut *conn).await.map(drop))?;
            }
            tx.commit().await
        })
        .await
    }
}

/// What the tables know of a token.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct TokenState {
    /// `None` for an anonymous session.
    pub user_id: Option<String>,
    pub expires_at: Millis,
    pub revoked_at: Option<Millis>,
    /// Of the token itself.
    pub revocations: i64,
    /// The last cut of its user, its client or everybody.
    pub not_before: Option<Millis>,
}

/// What ends with all that came from it.
#[derive(Clone, Copy, Debug)]
pub enum Root<'a> {
    Session(&'a SessionId),
    /// The session of a grant, which all its access tokens are of.
    Grant(&'a GrantId),
}

impl Root<'_> {
    fn id(&self) -> &str {
        match self {
            Self::Session(id) => id.as_str(),
            Self::Grant(id) => id.as_str(),
        }
    }
}

/// Changes of a unit that end the sessions of `root`. The last is there twice: on PostgreSQL a statement does not see the session that
/// was inserted by a transaction which it waited for.
pub(crate) fn tree_ends(root: Root<'_>, reason: &str, now: Millis) -> [Guard; 3] {
    let epoch = Guard {
        name: "revocation_epoch",
        sql: sql!("UPDATE revocation_epoch SET epoch = epoch + 1 WHERE one = 1"),
        cells: Vec::new(),
    };
    let sql = match root {
        Root::Session(_) => sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT CAST($1 AS TEXT)
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             UPDATE user_sessions SET revoked_at = $2, revoked_reason = $3,
                 revoked_epoch = (SELECT epoch FROM revocation_epoch WHERE one = 1)
             WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $2"
        ),
        Root::Grant(_) => sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT id FROM user_sessions WHERE grant_id = $1
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             UPDATE user_sessions SET revoked_at = $2, revoked_reason = $3,
                 revoked_epoch = (SELECT epoch FROM revocation_epoch WHERE one = 1)
             WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $2"
        ),
    };
    let sessions =
        Guard { name: "sessions_end", sql, cells: vec![root.id().into(), now.into(), reason.into()] };
    [epoch, sessions.clone(), sessions]
}

/// Name of the guard of [`session_lives`].
pub const SESSION_ENDED: &str = "session_ended";

/// Holds if a session counts, and keeps it from ending before the unit is written.
pub fn session_lives(id: &SessionId, now: Millis) -> Guard {
    Guard {
        name: SESSION_ENDED,
        sql: sql!(
            "UPDATE user_sessions SET last_seen_at = CASE WHEN last_seen_at < $1 THEN $1 ELSE last_seen_at END
             WHERE id = $2 AND revoked_at IS NULL AND expires_at > $1"
        ),
        cells: vec![now.into(), id.as_str().into()],
    }
}

/// Name of the guard of [`token_stands`].
pub const TOKEN_ENDED: &str = "token_ended";

/// Holds if a token of a session is not revoked. It comes behind [`session_lives`], which waits for a revocation under way.
pub fn token_stands(session: &SessionId, jti: &Jti) -> Guard {
    Guard {
        name: TOKEN_ENDED,
        sql: sql!(
            "UPDATE user_sessions SET last_seen_at = last_seen_at
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM oauth_jti_revocations WHERE jti = $2)"
        ),
        cells: vec![session.as_str().into(), jti.as_str().into()],
    }
}

/// Ends what was exchanged for a token, and what came from that. The session of a grant has many tokens and no row tells for which
/// of them an exchange was made: what came from another one within the life of this one ends too.
async fn end_exchanged(
    tx: &mut WriteTx,
    claims: &JwtClaims,
    (epoch, now): (i64, Millis),
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "WITH RECURSIVE tree (id) AS (
             SELECT id FROM user_sessions
             WHERE parent_session_id = $1 AND source = 'exchange' AND created_at >= $2 AND expires_at <= $3
             UNION
             SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
         UPDATE user_sessions SET revoked_at = $4, revoked_reason = 'token_revoked', revoked_epoch = $5
         WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $4 RETURNING id, expires_at"
    ))
        .bind(claims.session_id.as_str()).bind(claims.iat.saturating_mul(1000)).bind(claims.exp.saturating_mul(1000))
        .bind(now).bind(epoch).fetch_all(&mut *conn).await)?;
    Latecomers { epoch, reason: "token_revoked", now, keep: "" }.complete(tx, rows).await
}

/// Takes the next number of a change that other nodes must learn of. Its row stays locked until the end of the transaction.
///
/// # Errors
/// When the row cannot be written.
pub async fn next_epoch(tx: &mut WriteTx) -> Result<i64, sqlx::Error> {
    let (epoch,): (i64,) = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "UPDATE revocation_epoch SET epoch = epoch + 1 WHERE one = 1 RETURNING epoch"
    )).fetch_one(&mut *conn).await)?;
    Ok(epoch)
}

/// Ends what was issued up to a moment; an earlier cut of the same subject moves, a later one stays. Of a user also every session
/// ends. Returns those.
pub(crate) async fn cut_off(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    now: Millis,
    entry: &EntryId,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    insert_cutoff(tx, cutoff, epoch, entry).await?;
    match cutoff.kind {
        CutoffKind::User => {
            end_sessions(tx, (&UserId::from(cutoff.id.as_str()), None), &cutoff.reason, now, epoch).await
        }
        CutoffKind::Client | CutoffKind::All => Ok(Vec::new()),
    }
}

/// Ends the tokens of a client up to a moment, its sessions and those that came from them. Returns these.
pub(crate) async fn end_client(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    now: Millis,
    entry: &EntryId,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    insert_cutoff(tx, cutoff, epoch, entry).await?;
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "WITH RECURSIVE tree (id) AS (
             SELECT id FROM user_sessions WHERE client_id = $1 AND revoked_at IS NULL AND expires_at > $2
             UNION
             SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
         UPDATE user_sessions SET revoked_at = $2, revoked_reason = $3, revoked_epoch = $4
         WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $2 RETURNING id, expires_at"
    )).bind(&cutoff.id).bind(now).bind(&cutoff.reason).bind(epoch).fetch_all(&mut *conn).await)?;
    Latecomers { epoch, reason: &cutoff.reason, now, keep: "" }.complete(tx, rows).await
}

/// Ends the sessions of a user but one, those of the clients that serve them, and those that came from any of them.
async fn end_sessions(
    tx: &mut WriteTx,
    (user, keep): (&UserId, Option<&SessionId>),
    reason: &str,
    now: Millis,
    epoch: i64,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let keep = keep.map_or("", SessionId::as_str);
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "WITH RECURSIVE tree (id) AS (
             SELECT id FROM user_sessions WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL AND expires_at > $3
             UNION
             SELECT id FROM user_sessions WHERE owner_id = $1 AND revoked_at IS NULL AND expires_at > $3
             UNION
             SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
         UPDATE user_sessions SET revoked_at = $3, revoked_reason = $4, revoked_epoch = $5
         WHERE id IN (SELECT id FROM tree) AND id <> $2 AND revoked_at IS NULL AND expires_at > $3 RETURNING id, expires_at"
    ))
        .bind(user.as_str()).bind(keep).bind(now).bind(reason).bind(epoch)
        .fetch_all(&mut *conn).await)?;
    Latecomers { epoch, reason, now, keep }.complete(tx, rows).await
}

async fn insert_cutoff(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    epoch: i64,
    entry: &EntryId,
) -> Result<(), sqlx::Error> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO token_cutoffs (kind, id, not_before, reason, expires_at, epoch, ledger_opened)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (kind, id) DO UPDATE SET not_before = excluded.not_before, reason = excluded.reason,
             expires_at = excluded.expires_at, epoch = excluded.epoch, ledger_opened = excluded.ledger_opened
         WHERE token_cutoffs.not_before < excluded.not_before"
    ))
        .bind(cutoff.kind.as_str())
        .bind(&cutoff.id)
        .bind(cutoff.not_before)
        .bind(&cutoff.reason)
        .bind(cutoff.expires_at)
        .bind(epoch)
        .bind(entry.as_str())
        .execute(&mut *conn).await.map(drop))
}

/// Ends every session of a user but one.
pub(crate) async fn end_user(
    tx: &mut WriteTx,
    user: &UserId,
    keep: Option<&SessionId>,
    reason: &str,
    now: Millis,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    end_sessions(tx, (user, keep), reason, now, epoch).await
}

/// Ends a user's tokens up to a moment, and the sessions for which no refresh brings others.
pub(crate) async fn end_told(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    now: Millis,
    entry: &EntryId,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    insert_cutoff(tx, cutoff, epoch, entry).await?;
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "WITH RECURSIVE tree (id) AS (
             SELECT id FROM user_sessions
             WHERE user_id = $1 AND grant_id IS NULL AND revoked_at IS NULL AND expires_at > $2
             UNION
             SELECT id FROM user_sessions WHERE owner_id = $1 AND revoked_at IS NULL AND expires_at > $2
             UNION
             SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
         UPDATE user_sessions SET revoked_at = $2, revoked_reason = $3, revoked_epoch = $4
         WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $2 RETURNING id, expires_at"
    )).bind(&cutoff.id).bind(now).bind(&cutoff.reason).bind(epoch).fetch_all(&mut *conn).await)?;
    Latecomers { epoch, reason: &cutoff.reason, now, keep: "" }.complete(tx, rows).await
}

/// The columns of a session.
#[derive(sqlx::FromRow)]
struct ListRow {
    id: String,
    user_id: Option<String>,
    source: String,
    created_at: Millis,
    last_seen_at: Millis,
    expires_at: Millis,
    revoked_at: Option<Millis>,
    revoked_reason: Option<String>,
    ends_at: Option<Millis>,
    auth_time: Option<i64>,
    acr: Option<String>,
    amr: Option<String>,
    ip_prefix: Option<String>,
    user_agent: Option<String>,
    client_id: Option<String>,
    owner_id: Option<String>,
    grant_id: Option<String>,
    parent_session_id: Option<String>,
}

impl ListRow {
    fn listed(self) -> SessionRow {
        SessionRow {
            id: SessionId::from(self.id),
            user_id: self.user_id.map(UserId::from),
            source: SessionSource::parse(&self.source),
            created_at: self.created_at,
            last_seen_at: self.last_seen_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            revoked_reason: self.revoked_reason,
            ends_at: self.ends_at,
            auth_time: self.auth_time,
            acr: self.acr,
            amr: self.amr,
            ip_prefix: self.ip_prefix,
            user_agent: self.user_agent,
            client_id: self.client_id.map(ClientId::from),
            owner_id: self.owner_id.map(UserId::from),
            grant_id: self.grant_id.map(GrantId::from),
            parent_session_id: self.parent_session_id.map(SessionId::from),
        }
    }
}

/// Sessions whose rows the ledger's writer inserts. It vouches for none of them: they end and go.
pub(crate) static SESSIONS: Table = Table {
    name: "user_sessions",
    key: "id",
    open: &[
        Col::text("id"),
        Col::text("user_id"),
        Col::text("source"),
        Col::int("created_at"),
        Col::int("last_seen_at"),
        Col::int("expires_at"),
        Col::int("ends_at"),
        Col::int("auth_time"),
        Col::text("acr"),
        Col::text("amr"),
        Col::text("ip_prefix"),
        Col::text("user_agent"),
        Col::text("client_id"),
        Col::text("owner_id"),
        Col::text("grant_id"),
        Col::text("parent_session_id"),
    ],
    close: &[],
    opened_by: None,
    mirror: &[],
    mirror_closed: &[],
};

/// The row of a new session, for a unit.
#[derive(Debug)]
pub struct SessionOpened {
    pub(crate) session: NewSession,
    pub(crate) now: Millis,
}

impl OpenRow for SessionOpened {
    const TABLE: &'static Table = &SESSIONS;

    fn cells(self) -> Vec<Cell> {
        let text = |text: &str| Cell::Text(text.into());
        let maybe = |text: Option<&str>| text.map_or(Cell::Null, |text| Cell::Text(text.into()));
        let NewSession { id, user_id, source, expires_at, facts } = self.session;
        vec![
            text(id.as_str()),
            maybe(user_id.as_ref().map(UserId::as_str)),
            text(source.as_str()),
            Cell::Int(self.now),
            Cell::Int(self.now),
            Cell::Int(expires_at),
            facts.ends_at.map_or(Cell::Null, Cell::Int),
            facts.auth_time.map_or(Cell::Null, Cell::Int),
            maybe(facts.acr.as_deref()),
            maybe(facts.amr.as_deref()),
            maybe(facts.ip_prefix.as_deref()),
            maybe(facts.user_agent.as_deref().map(shortened)),
            maybe(facts.client_id.as_ref().map(ClientId::as_str)),
            maybe(facts.owner_id.as_ref().map(UserId::as_str)),
            maybe(facts.grant_id.as_ref().map(GrantId::as_str)),
            maybe(facts.parent.as_ref().map(SessionId::as_str)),
        ]
    }
}

/// As much of a user agent as is kept.
fn shortened(agent: &str) -> &str {
    agent.get(..agent.floor_char_boundary(256)).unwrap_or(agent)
}
