//! Rows whose time is over, and which node deletes them.

use super::OAuthRepository;
use systemprompt_database::{Deleted, Engine, on_tx, sql};
use systemprompt_models::Millis;

/// A table that rows leave when their time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    AuthCodes,
    RefreshTokens,
    Grants,
    AssertionJtis,
    DeviceCodes,
    ParRequests,
    AuthorizeRequests,
    Challenges,
    ExchangeCodes,
    SetupTokens,
    AuthAttempts,
    CimdDocuments,
    UserRequests,
    UserNotices,
    FetchBudgets,
}

impl Ended {
    pub fn table(self) -> &'static str {
        match self {
            Self::AuthCodes => "oauth_auth_codes",
            Self::RefreshTokens => "oauth_refresh_tokens",
            Self::Grants => "oauth_grants",
            Self::AssertionJtis => "oauth_assertion_jtis",
            Self::DeviceCodes => "oauth_device_codes",
            Self::ParRequests => "oauth_par_requests",
            Self::AuthorizeRequests => "oauth_authorize_requests",
            Self::Challenges => "webauthn_challenges",
            Self::ExchangeCodes => "bridge_exchange_codes",
            Self::SetupTokens => "setup_tokens",
            Self::AuthAttempts => "auth_attempts",
            Self::CimdDocuments => "oauth_cimd_documents",
            Self::UserRequests => "user_requests",
            Self::UserNotices => "user_notices",
            Self::FetchBudgets => "oauth_fetch_budget",
        }
    }
}

impl OAuthRepository {
    pub(crate) fn engine(&self) -> Engine {
        self.db.engine()
    }

    /// Deletes at most `limit` rows that ended before `before`.
    pub(crate) async fn delete_ended(
        &self,
        ended: Ended,
        before: Millis,
        limit: i64,
    ) -> sqlx::Result<Deleted> {
        let statement = match ended {
            Ended::AuthCodes => sql!(
                "DELETE FROM oauth_auth_codes WHERE code_digest IN
                     (SELECT code_digest FROM oauth_auth_codes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            // The tokens of the first families, and then those families: each batch begins at the index's end, and passes nothing
            // that an earlier one has emptied.
            Ended::RefreshTokens => sql!(
                "DELETE FROM oauth_refresh_tokens WHERE token_digest IN
                     (SELECT token_digest FROM oauth_refresh_tokens WHERE grant_id IN
                          (SELECT grant_id FROM oauth_grants WHERE family_expires_at < $1
                           ORDER BY family_expires_at LIMIT $2) LIMIT $2)"
            ),
            Ended::Grants => sql!(
                "DELETE FROM oauth_grants WHERE grant_id IN
                     (SELECT f.grant_id FROM (SELECT grant_id FROM oauth_grants WHERE family_expires_at < $1
                                              ORDER BY family_expires_at LIMIT $2) f
                      WHERE NOT EXISTS (SELECT 1 FROM oauth_refresh_tokens t WHERE t.grant_id = f.grant_id))"
            ),
            Ended::AssertionJtis => sql!(
                "DELETE FROM oauth_assertion_jtis WHERE (issuer, jti) IN
                     (SELECT issuer, jti FROM oauth_assertion_jtis WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::DeviceCodes => sql!(
                "DELETE FROM oauth_device_codes WHERE device_digest IN
                     (SELECT device_digest FROM oauth_device_codes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::ParRequests => sql!(
                "DELETE FROM oauth_par_requests WHERE request_digest IN
                     (SELECT request_digest FROM oauth_par_requests WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::AuthorizeRequests => sql!(
                "DELETE FROM oauth_authorize_requests WHERE request_digest IN
                     (SELECT request_digest FROM oauth_authorize_requests WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::Challenges => sql!(
                "DELETE FROM webauthn_challenges WHERE challenge_id IN
                     (SELECT challenge_id FROM webauthn_challenges WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::ExchangeCodes => sql!(
                "DELETE FROM bridge_exchange_codes WHERE code_digest IN
                     (SELECT code_digest FROM bridge_exchange_codes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::SetupTokens => sql!(
                "DELETE FROM setup_tokens WHERE token_digest IN
                     (SELECT token_digest FROM setup_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::AuthAttempts => sql!(
                "DELETE FROM auth_attempts WHERE (key_digest, window_start) IN
                     (SELECT key_digest, window_start FROM auth_attempts
                      WHERE window_start < $1 AND blocked_until < $1 ORDER BY window_start LIMIT $2)"
            ),
            Ended::CimdDocuments => sql!(
                "DELETE FROM oauth_cimd_documents WHERE url IN
                     (SELECT url FROM oauth_cimd_documents WHERE fresh_until < $1 AND last_used_at < $1 LIMIT $2)"
            ),
            Ended::UserRequests => sql!(
                "DELETE FROM user_requests WHERE (owner_id, key) IN
                     (SELECT owner_id, key FROM user_requests WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            Ended::UserNotices => sql!(
                "DELETE FROM user_notices WHERE id IN
                     (SELECT id FROM user_notices WHERE created_at < $1 ORDER BY created_at LIMIT $2)"
            ),
            // Turns stay: there are few, and each is taken again at once.
            Ended::FetchBudgets => sql!(
                "DELETE FROM oauth_fetch_budget WHERE name IN
                     (SELECT name FROM oauth_fetch_budget WHERE full_at > 0 AND full_at < $1 ORDER BY full_at LIMIT $2)"
            ),
        };
        self.db.delete_some(statement, before, None, limit).await
    }

    /// Takes the job until `until`, if nobody has it and it was not begun since `due`; returns its number.
    pub(crate) async fn claim_cleanup(
        &self,
        holder: &str,
        now: Millis,
        until: Millis,
        due: Millis,
    ) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let claimed: Option<(i64,)> = on_tx!(tx, conn => sqlx::query_as(sql!(
            "UPDATE identity_jobs SET holder = $1, epoch = epoch + 1, held_until = $2, started_at = $3
             WHERE name = 'oauth_cleanup' AND held_until <= $3 AND started_at <= $4 RETURNING epoch"
        )).bind(holder).bind(until).bind(now).bind(due).fetch_optional(&mut *conn).await)?;
        tx.commit().await?;
        Ok(claimed.map(|(epoch,)| epoch))
    }

    /// Keeps the job until `until`; false when another node has taken it.
    pub(crate) async fn renew_cleanup(&self, epoch: i64, until: Millis) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let kept = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE identity_jobs SET held_until = $1 WHERE name = 'oauth_cleanup' AND epoch = $2"
        )).bind(until).bind(epoch).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(kept == 1)
    }

    /// Gives the job back with what it did.
    pub(crate) async fn finish_cleanup(&self, epoch: i64, now: Millis, result: &str) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE identity_jobs SET held_until = 0, finished_at = $1, result = $2
             WHERE name = 'oauth_cleanup' AND epoch = $3"
        )).bind(now).bind(result).bind(epoch).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }
}
