//! Rows of `oauth_auth_codes`, and the one statement that spends a code.

use super::OAuthRepository;
use crate::error::{OauthError, OauthResult};
use percent_encoding::percent_decode_str;
use systemprompt_audit::Guard;
use systemprompt_database::{on, on_tx, sql};
use systemprompt_models::Millis;

/// Name of the guard that only one use of a code passes.
pub(crate) const CODE_SPENT: &str = "oauth_code_spent";

/// A code as it was given to a browser. Lists are space-separated.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AuthCode {
    pub code_digest: String,
    pub client_id: String,
    pub user_id: String,
    pub session_id: String,
    pub grant_id: String,
    pub redirect_uri: String,
    pub redirect_uri_given: i64,
    pub code_challenge: String,
    pub scopes: String,
    pub resources: String,
    /// As `stored_nonce` writes it.
    pub nonce: Option<String>,
    pub claims: Option<String>,
    /// Epoch seconds.
    pub auth_time: i64,
    pub acr: Option<String>,
    pub amr: Option<String>,
    pub created_at: Millis,
    pub expires_at: Millis,
    pub used_at: Option<Millis>,
}

/// Where a code is in its life (ID-109).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeState {
    Fresh,
    Used { at: Millis },
    Expired,
}

impl AuthCode {
    /// The nonce as the client sent it.
    pub fn nonce(&self) -> Option<String> {
        let stored = self.nonce.as_deref()?;
        Some(percent_decode_str(stored).decode_utf8_lossy().into_owned())
    }

    /// # Errors
    /// A row that no code path writes.
    pub fn state(&self, now: Millis) -> OauthResult<CodeState> {
        match self.used_at {
            Some(at) if at < self.created_at || at >= self.expires_at => {
                Err(impossible("an authorization code", &self.code_digest))
            }
            Some(at) => Ok(CodeState::Used { at }),
            None if self.expires_at <= now => Ok(CodeState::Expired),
            None => Ok(CodeState::Fresh),
        }
    }
}

/// A nonce as its column has it: it may be any text, and PostgreSQL keeps no NUL.
pub(crate) fn stored_nonce(nonce: &str) -> String {
    nonce.replace('%', "%25").replace('\0', "%00")
}

/// A row whose columns contradict each other, by the beginning of its digest.
pub(crate) fn impossible(what: &str, digest: &str) -> OauthError {
    OauthError::Impossible(format!("{what} {}", digest.get(..8).unwrap_or_default()))
}

impl OAuthRepository {
    /// The code with one of these digests.
    pub(crate) async fn find_code(&self, digests: &(String, String)) -> sqlx::Result<Option<AuthCode>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT code_digest, client_id, user_id, session_id, grant_id, redirect_uri, redirect_uri_given, code_challenge,
                 scopes, resources, nonce, claims, auth_time, acr, amr, created_at, expires_at, used_at
             FROM oauth_auth_codes WHERE code_digest IN ($1, $2)"
        )).bind(&digests.0).bind(&digests.1).fetch_optional(pool).await)
    }

    /// Spends a code for nothing; false if it was not to be spent.
    pub(crate) async fn spend_code(&self, digest: &str, now: Millis) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let spent = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_auth_codes SET used_at = CASE WHEN created_at > $1 THEN created_at ELSE $1 END
             WHERE code_digest = $2 AND used_at IS NULL AND expires_at > $1"
        )).bind(now).bind(digest).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(spent == 1)
    }
}

/// Spends a code; of any number of uses one passes.
pub(crate) fn code_spent(digest: &str, client_id: &str, now: Millis) -> Guard {
    Guard {
        name: CODE_SPENT,
        sql: sql!(
            "UPDATE oauth_auth_codes SET used_at = CASE WHEN created_at > $1 THEN created_at ELSE $1 END
             WHERE code_digest = $2 AND client_id = $3 AND used_at IS NULL AND expires_at > $1"
        ),
        cells: vec![now.into(), digest.into(), client_id.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_109_a_code_is_fresh_used_or_expired_and_nothing_else() {
        let code = |used_at| AuthCode {
            code_digest: "0123456789".into(),
            client_id: String::new(),
            user_id: String::new(),
            session_id: String::new(),
            grant_id: String::new(),
            redirect_uri: String::new(),
            redirect_uri_given: 1,
            code_challenge: String::new(),
            scopes: String::new(),
            resources: String::new(),
            nonce: None,
            claims: None,
            auth_time: 0,
            acr: None,
            amr: None,
            created_at: 100,
            expires_at: 200,
            used_at,
        };
        assert_eq!(code(None).state(199).unwrap(), CodeState::Fresh);
        assert_eq!(code(None).state(200).unwrap(), CodeState::Expired);
        assert_eq!(code(Some(150)).state(900).unwrap(), CodeState::Used { at: 150 });
        for wrong in [99, 200] {
            let error = code(Some(wrong)).state(150).unwrap_err().to_string();
            assert!(error.contains("01234567") && !error.contains("012345678"), "{error}");
        }
    }
}
