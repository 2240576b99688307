//! Rows of sessions, revocations and signing keys.

use crate::keys::{Jwk, KeyError, KeyInfo, KeyState, SigningAlgorithm, VerificationKey};
use crate::session::live::{NewSession, SessionRow, SessionSource};
use serde_json::Value;
use sqlx::types::Json;
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::{EntryId, Jti, SessionId, UserId};

/// Reads and writes the tables of migration 2001.
#[derive(Clone, Debug)]
pub struct TokenRepository {
    db: Db,
}

/// A key to insert.
pub(crate) struct NewKeyRow<'a> {
    pub kid: &'a str,
    pub algorithm: SigningAlgorithm,
    pub state: KeyState,
    pub public_jwk: Value,
}

/// What verification asks of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionFacts {
    /// `None` for an anonymous session.
    pub user_id: Option<UserId>,
    pub expires_at: Millis,
    pub ended: bool,
}

/// (id, until when it matters, when it was revoked).
pub(crate) type RevokedRow = (String, Millis, Millis);

type KeyRow = (String, String, String, Json<Value>, Millis, Option<Millis>, Option<Millis>, Option<Millis>);
type ListRow = (String, Option<String>, String, Millis, Millis, Millis, Option<Millis>, Option<String>);

impl TokenRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Every key of the ring. A row that is no acceptable key is an error: the ring is then not used at all.
    pub(crate) async fn keys(&self) -> Result<Vec<VerificationKey>, KeyError> {
        let rows: Vec<KeyRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT kid, alg, state, public_jwk, created_at, activated_at, retired_at, verify_until
             FROM signing_keys ORDER BY created_at, kid"
        )).fetch_all(pool).await)?;
        rows.into_iter().map(key).collect()
    }

    /// Inserts a key unless the table has it, or has an active one of its algorithm already (two nodes on their first start).
    pub(crate) async fn insert_key(
        &self,
        row: NewKeyRow<'_>,
        now: Millis,
        entry: &EntryId,
    ) -> Result<(), sqlx::Error> {
        let activated_at = (row.state == KeyState::Active).then_some(now);
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO signing_keys (kid, alg, use, state, public_jwk, created_at, activated_at, ledger_opened)
             VALUES ($1, $2, 'sig', $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"
        ))
            .bind(row.kid)
            .bind(row.algorithm.as_str())
            .bind(row.state.as_str())
            .bind(Json(&row.public_jwk))
            .bind(now)
            .bind(activated_at)
            .bind(entry.as_str())
            .execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    pub(crate) async fn insert_session(&self, new: &NewSession, now: Millis) -> Result<(), sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO user_sessions (id, user_id, source, created_at, last_seen_at, expires_at)
             VALUES ($1, $2, $3, $4, $4, $5)"
        ))
            .bind(new.id.as_str())
            .bind(new.user_id.as_ref().map(UserId::as_str))
            .bind(new.source.as_str())
            .bind(now)
            .bind(new.expires_at)
            .execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    pub(crate) async fn session(&self, id: &SessionId) -> Result<Option<SessionFacts>, sqlx::Error> {
        let row: Option<(Option<String>, Millis, Option<Millis>)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT user_id, expires_at, revoked_at FROM user_sessions WHERE id = $1"
        )).bind(id.as_str()).fetch_optional(pool).await)?;
        Ok(row.map(|(user_id, expires_at, revoked_at)| SessionFacts {
            user_id: user_id.map(UserId::from),
            expires_at,
            ended: revoked_at.is_some(),
        }))
    }

    /// Sessions of a user, the newest first.
    pub(crate) async fn sessions_of(
        &self,
        user: &UserId,
        limit: i64,
    ) -> Result<Vec<SessionRow>, sqlx::Error> {
        let rows: Vec<ListRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, user_id, source, created_at, last_seen_at, expires_at, revoked_at, revoked_reason
             FROM user_sessions WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2"
        )).bind(user.as_str()).bind(limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(listed).collect())
    }

    /// Moves the end of a live session. Returns whether there was one.
    pub(crate) async fn extend_session(
        &self,
        id: &SessionId,
        expires_at: Millis,
        now: Millis,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        let touched = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE user_sessions SET expires_at = $1 WHERE id = $2 AND revoked_at IS NULL AND expires_at > $3"
        )).bind(expires_at).bind(id.as_str()).bind(now).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(touched == 1)
    }

    /// Ends one session. Returns until when that matters, or `None` if it was not live.
    pub(crate) async fn revoke_session(
        &self,
        id: &SessionId,
        reason: &str,
        now: Millis,
    ) -> Result<Option<Millis>, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        let row: Option<(Millis,)> = on_tx!(tx, conn => sqlx::query_as(sql!(
            "UPDATE user_sessions SET revoked_at = $1, revoked_reason = $2 WHERE id = $3 AND revoked_at IS NULL
             RETURNING expires_at"
        )).bind(now).bind(reason).bind(id.as_str()).fetch_optional(&mut *conn).await)?;
        tx.commit().await?;
        Ok(row.map(|(expires_at,)| expires_at))
    }

    /// Ends every live session of a user.
    pub(crate) async fn revoke_user(
        &self,
        user: &UserId,
        reason: &str,
        now: Millis,
    ) -> Result<Vec<(String, Millis)>, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        let rows: Vec<(String, Millis)> = on_tx!(tx, conn => sqlx::query_as(sql!(
            "UPDATE user_sessions SET revoked_at = $1, revoked_reason = $2
             WHERE user_id = $3 AND revoked_at IS NULL AND expires_at > $1 RETURNING id, expires_at"
        )).bind(now).bind(reason).bind(user.as_str()).fetch_all(&mut *conn).await)?;
        tx.commit().await?;
        Ok(rows)
    }

    pub(crate) async fn revoke_token(
        &self,
        jti: &Jti,
        expires_at: Millis,
        now: Millis,
    ) -> Result<(), sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_jti_revocations (jti, expires_at, revoked_at) VALUES ($1, $2, $3)
             ON CONFLICT (jti) DO NOTHING"
        )).bind(jti.as_str()).bind(expires_at).bind(now).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Sessions that were ended at or after `since` and would otherwise still be live.
    pub(crate) async fn revoked_sessions(
        &self,
        since: Millis,
        now: Millis,
        limit: i64,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, expires_at, revoked_at FROM user_sessions
             WHERE revoked_at IS NOT NULL AND revoked_at >= $1 AND expires_at > $2 ORDER BY revoked_at LIMIT $3"
        )).bind(since).bind(now).bind(limit).fetch_all(pool).await)
    }

    /// Tokens that were revoked at or after `since` and would otherwise still be live.
    pub(crate) async fn revoked_tokens(
        &self,
        since: Millis,
        now: Millis,
        limit: i64,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT jti, expires_at, revoked_at FROM oauth_jti_revocations
             WHERE revoked_at >= $1 AND expires_at > $2 ORDER BY revoked_at LIMIT $3"
        )).bind(since).bind(now).bind(limit).fetch_all(pool).await)
    }

    /// Notes when sessions were last seen, in one transaction.
    pub(crate) async fn touch_sessions(&self, seen: &[(SessionId, Millis)]) -> Result<(), sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        for (id, at) in seen {
            on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE user_sessions SET last_seen_at = $1 WHERE id = $2 AND last_seen_at < $1"
            )).bind(at).bind(id.as_str()).execute(&mut *conn).await.map(drop))?;
        }
        tx.commit().await
    }
}

fn key(row: KeyRow) -> Result<VerificationKey, KeyError> {
    let (kid, alg, state, Json(jwk), created_at, activated_at, retired_at, verify_until) = row;
    let jwk = Jwk::parse(&jwk)?;
    let algorithm = SigningAlgorithm::parse(&alg).filter(|alg| *alg == jwk.key.algorithm());
    let algorithm = algorithm.ok_or(KeyError::Unsupported)?;
    if jwk.kid != kid || jwk.key.thumbprint() != kid {
        return Err(KeyError::KidNotThumbprint);
    }
    let state = KeyState::parse(&state).ok_or(KeyError::NotAJwk("an unknown state"))?;
    let alg = algorithm.as_str();
    let info = KeyInfo { kid: kid.into(), alg, state, created_at, activated_at, retired_at, verify_until };
    Ok(VerificationKey::new(info, jwk.key, jwk.may_verify))
}

fn listed(row: ListRow) -> SessionRow {
    let (id, user_id, source, created_at, last_seen_at, expires_at, revoked_at, revoked_reason) = row;
    SessionRow {
        id: SessionId::from(id),
        user_id: user_id.map(UserId::from),
        source: SessionSource::parse(&source),
        created_at,
        last_seen_at,
        expires_at,
        revoked_at,
        revoked_reason,
    }
}
