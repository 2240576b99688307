//! Which scopes people let clients have: remembered consents (ID-74).

use super::OAuthRepository;
use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{on, sql};
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
}
