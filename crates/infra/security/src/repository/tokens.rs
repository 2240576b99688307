//! Reads and small writes of sessions and revocations. What ends sessions and tokens before their time is in `ends`, their rows in
//! `sessions`.

use super::sessions::ListRow;
use crate::session::revoked::{Cutoff, CutoffKind};
use crate::session::row::SessionRow;
use systemprompt_database::{Db, Deleted, WriteTx, on, on_tx, retry_contended, sql};
use systemprompt_models::ids::{ClientId, Jti, SessionId, UserId};
use systemprompt_models::session::SessionSource;
use systemprompt_models::{JwtClaims, Millis};

/// Reads and writes sessions and revocations.
#[derive(Clone, Debug)]
pub struct TokenRepository {
    pub(super) db: Db,
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
        self.db.delete_some(statement, before, None, limit).await
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

    /// Deletes at most `limit` revocations of tokens that ended before `before`.
    pub(crate) async fn delete_revocations(
        &self,
        before: Millis,
        limit: i64,
    ) -> Result<Deleted, sqlx::Error> {
        let statement = sql!(
            "DELETE FROM oauth_jti_revocations WHERE jti IN
                 (SELECT jti FROM oauth_jti_revocations WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
        );
        self.db.delete_some(statement, before, None, limit).await
    }

    /// The same of cuts that no token is left of.
    pub(crate) async fn delete_cutoffs(&self, before: Millis, limit: i64) -> Result<Deleted, sqlx::Error> {
        let statement = sql!(
            "DELETE FROM token_cutoffs WHERE (kind, id) IN
                 (SELECT kind, id FROM token_cutoffs WHERE expires_at < $1 ORDER BY kind, id LIMIT $2)"
        );
        self.db.delete_some(statement, before, None, limit).await
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
