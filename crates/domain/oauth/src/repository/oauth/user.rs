//! Whom tokens and registrations of others mean: users by what is known of them outside.

use super::OAuthRepository;
use systemprompt_database::{on, sql};

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

    /// The kind of a user: `person`, `client` or `service`.
    pub(crate) async fn user_kind(&self, id: &str) -> sqlx::Result<Option<String>> {
        let row: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!("SELECT kind FROM users WHERE id = $1"))
            .bind(id).fetch_optional(pool).await)?;
        Ok(row.map(|(kind,)| kind))
    }
}
