//! Tokens of others that count once.

use super::OAuthRepository;
use systemprompt_database::{on_tx, sql};
use systemprompt_models::Millis;

impl OAuthRepository {
    /// Takes the `jti` of an issuer. Returns whether it was not taken before.
    pub(crate) async fn take_assertion_jti(
        &self,
        issuer: &str,
        jti: &str,
        expires_at: Millis,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let taken = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_assertion_jtis (issuer, jti, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (issuer, jti) DO NOTHING"
        )).bind(issuer).bind(jti).bind(expires_at).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(taken == 1)
    }
}
