//! Rows of `federated_identities` (which user a subject of another issuer is) and of one-use tokens of others.

use super::OAuthRepository;
use systemprompt_audit::Guard;
use systemprompt_database::{on, sql};
use systemprompt_models::Millis;

/// Name of the guard that one use of a foreign token passes.
pub(crate) const TOKEN_REPLAYED: &str = "oauth_foreign_token_replayed";
/// Name of the guard that the first link of a subject passes.
pub(crate) const ALREADY_LINKED: &str = "oauth_subject_linked";

impl OAuthRepository {
    /// The user that a subject of an issuer is linked to.
    pub(crate) async fn linked_user(&self, issuer: &str, subject: &str) -> sqlx::Result<Option<String>> {
        let row: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT user_id FROM federated_identities WHERE issuer = $1 AND subject = $2"
        )).bind(issuer).bind(subject).fetch_optional(pool).await)?;
        Ok(row.map(|(user,)| user))
    }

    /// The active person with this address, in lower case, if it is known to be theirs: they came by it, or an administrator wrote it.
    /// What somebody says of themselves is no proof.
    pub(crate) async fn user_by_email(&self, email: &str) -> sqlx::Result<Option<String>> {
        let row: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id FROM users WHERE email_key = $1 AND status = 'active' AND kind = 'person'
               AND (email_verified = 1 OR email_vouched = 1)"
        )).bind(email).fetch_optional(pool).await)?;
        Ok(row.map(|(id,)| id))
    }
}

/// Links a subject, unless it is linked.
pub(crate) fn linked(issuer: &str, subject: &str, user: &str, now: Millis) -> Guard {
    Guard {
        name: ALREADY_LINKED,
        sql: sql!(
            "INSERT INTO federated_identities (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (issuer, subject) DO NOTHING"
        ),
        cells: vec![issuer.into(), subject.into(), user.into(), now.into()],
    }
}

/// Takes the id of a foreign token, once.
pub(crate) fn foreign_token_used(issuer: &str, jti: &str, expires_at: Millis) -> Guard {
    Guard {
        name: TOKEN_REPLAYED,
        sql: sql!(
            "INSERT INTO oauth_assertion_jtis (issuer, jti, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (issuer, jti) DO NOTHING"
        ),
        cells: vec![issuer.into(), jti.into(), expires_at.into()],
    }
}
