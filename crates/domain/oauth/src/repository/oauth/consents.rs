//! Remembered consents.

use super::OAuthRepository;
use serde::Serialize;
use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{on, on_tx, retry_contended, sql};
use systemprompt_models::Millis;

/// A consent that counts.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Consent {
    /// Space-separated.
    pub scopes: String,
    pub resources: String,
    pub metadata_digest: String,
}

/// A consent with its times.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct ConsentGiven {
    pub redirect_uri: String,
    pub scopes: String,
    pub granted_at: Millis,
    pub revoked_at: Option<Millis>,
}

/// A grant of a person, as their list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct GrantListed {
    pub grant_id: String,
    pub client_id: String,
    pub kind: String,
    pub scopes: String,
    pub resources: String,
    pub created_at: Millis,
    pub last_used_at: Option<Millis>,
    pub family_expires_at: Millis,
}

/// Writes a consent, in place of the one before for the same client and redirect URI.
pub(crate) fn give(
    (user, client, redirect_uri): (&str, &str, &str),
    consent: &Consent,
    now: Millis,
) -> Guard {
    let text = |value: &str| Cell::Text(value.into());
    Guard {
        name: "consent",
        sql: sql!(
            "INSERT INTO oauth_consents (user_id, client_id, redirect_uri, scopes, resources, metadata_digest, granted_at, last_used_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
             ON CONFLICT (user_id, client_id, redirect_uri) DO UPDATE SET scopes = excluded.scopes, resources = excluded.resources,
                 metadata_digest = excluded.metadata_digest, granted_at = excluded.granted_at,
                 last_used_at = excluded.last_used_at, revoked_at = NULL"
        ),
        cells: vec![
            text(user),
            text(client),
            text(redirect_uri),
            text(&consent.scopes),
            text(&consent.resources),
            text(&consent.metadata_digest),
            Cell::Int(now),
        ],
    }
}

/// Notes the use of a consent, which must still count.
pub(crate) fn used((user, client, redirect_uri): (&str, &str, &str), now: Millis) -> Guard {
    let text = |value: &str| Cell::Text(value.into());
    Guard {
        name: "consent",
        sql: sql!(
            "UPDATE oauth_consents SET last_used_at = $1
             WHERE user_id = $2 AND client_id = $3 AND redirect_uri = $4 AND revoked_at IS NULL"
        ),
        cells: vec![Cell::Int(now), text(user), text(client), text(redirect_uri)],
    }
}

impl OAuthRepository {
    /// The consent of a person for a client and a redirect URI.
    pub async fn consent(
        &self,
        user: &str,
        client: &str,
        redirect_uri: &str,
    ) -> sqlx::Result<Option<Consent>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT scopes, resources, metadata_digest FROM oauth_consents
             WHERE user_id = $1 AND client_id = $2 AND redirect_uri = $3 AND revoked_at IS NULL"
        )).bind(user).bind(client).bind(redirect_uri).fetch_optional(pool).await)
    }

    /// What a person consented to for a client, the newest first, also what they took back.
    pub(crate) async fn consents_of(&self, user: &str, client: &str) -> sqlx::Result<Vec<ConsentGiven>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT redirect_uri, scopes, granted_at, revoked_at FROM oauth_consents
             WHERE user_id = $1 AND client_id = $2 ORDER BY granted_at DESC LIMIT 20"
        )).bind(user).bind(client).fetch_all(pool).await)
    }

    /// The live grants of a person, the newest first, behind `after`.
    pub async fn grants_of(
        &self,
        user: &str,
        after: Option<&str>,
        now: Millis,
        limit: i64,
    ) -> sqlx::Result<Vec<GrantListed>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT grant_id, client_id, kind, scopes, resources, created_at, last_used_at, family_expires_at FROM oauth_grants
             WHERE user_id = $1 AND revoked_at IS NULL AND family_expires_at > $2
               AND (CAST($3 AS TEXT) IS NULL OR grant_id < $3)
             ORDER BY grant_id DESC LIMIT $4"
        )).bind(user).bind(now).bind(after).bind(limit).fetch_all(pool).await)
    }

    /// Ends a grant of a person with the consents for its client and its refresh tokens. Returns the client's id if it was live.
    pub async fn end_grant(
        &self,
        user: &str,
        grant: &str,
        reason: &str,
        now: Millis,
    ) -> sqlx::Result<Option<String>> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE oauth_consents SET revoked_at = $1
                 WHERE user_id = $2 AND revoked_at IS NULL AND client_id =
                     (SELECT client_id FROM oauth_grants WHERE grant_id = $3 AND user_id = $2 AND revoked_at IS NULL)"
            )).bind(now).bind(user).bind(grant).execute(&mut *conn).await.map(drop))?;
            let row: Option<(String,)> = on_tx!(tx, conn => sqlx::query_as(sql!(
                "UPDATE oauth_grants SET revoked_at = $1, revoked_reason = $2
                 WHERE grant_id = $3 AND user_id = $4 AND revoked_at IS NULL RETURNING client_id"
            )).bind(now).bind(reason).bind(grant).bind(user).fetch_optional(&mut *conn).await)?;
            let Some((client,)) = row else {
                tx.rollback().await?;
                return Ok(None);
            };
            on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE oauth_refresh_tokens SET revoked_at = $1 WHERE grant_id = $2 AND revoked_at IS NULL"
            )).bind(now).bind(grant).execute(&mut *conn).await.map(drop))?;
            tx.commit().await?;
            Ok(Some(client))
        })
        .await
    }

    /// Ends the grants that were given in a browser session and are not to outlive it, with their refresh tokens. Returns how many.
    pub async fn end_grants_of_session(&self, session: &str, now: Millis) -> sqlx::Result<u64> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            let ended = on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE oauth_grants SET revoked_at = $1, revoked_reason = 'logout'
                 WHERE session_id = $2 AND offline = 0 AND revoked_at IS NULL"
            )).bind(now).bind(session).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
            on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE oauth_refresh_tokens SET revoked_at = $1
                 WHERE revoked_at IS NULL
                   AND grant_id IN (SELECT grant_id FROM oauth_grants WHERE session_id = $2 AND offline = 0)"
            )).bind(now).bind(session).execute(&mut *conn).await.map(drop))?;
            tx.commit().await?;
            Ok(ended)
        })
        .await
    }
}
