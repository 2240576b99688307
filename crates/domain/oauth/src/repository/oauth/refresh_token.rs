//! Rows of `oauth_refresh_tokens`. A token that is used has exactly one child, whose id it names.

use super::OAuthRepository;
use super::auth_code::impossible;
use crate::error::OauthResult;
use systemprompt_audit::Guard;
use systemprompt_database::{on, on_tx, retry_contended, sql};
use systemprompt_models::Millis;

/// Name of the guard that one use of a refresh token passes.
pub(crate) const REFRESH_USED: &str = "oauth_refresh_used";
/// Name of the guard that holds while a child is unused.
pub(crate) const CHILD_USED: &str = "oauth_refresh_child_used";

/// A refresh token. Lists are space-separated.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct RefreshToken {
    pub token_digest: String,
    pub grant_id: String,
    pub parent_digest: Option<String>,
    pub child_id: Option<String>,
    pub child_digest: Option<String>,
    pub client_id: String,
    pub user_id: String,
    pub scopes: String,
    pub resources: String,
    pub issued_at: Millis,
    pub expires_at: Millis,
    pub used_at: Option<Millis>,
    pub revoked_at: Option<Millis>,
    /// The access token that was given out with it.
    pub access_jti: Option<String>,
    pub access_exp: Option<i64>,
    pub pepper_id: String,
}

/// Where a refresh token is in its life (ID-109).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshState<'a> {
    Fresh,
    Used { at: Millis, child_id: &'a str, child_digest: &'a str },
    Revoked,
}

impl RefreshToken {
    /// # Errors
    /// A row that no code path writes.
    pub fn state(&self) -> OauthResult<RefreshState<'_>> {
        match (self.used_at, self.child_id.as_deref(), self.child_digest.as_deref()) {
            (None, None, None) if self.revoked_at.is_some() => Ok(RefreshState::Revoked),
            (None, None, None) => Ok(RefreshState::Fresh),
            (Some(at), Some(child_id), Some(child_digest)) => {
                Ok(RefreshState::Used { at, child_id, child_digest })
            }
            _ => Err(impossible("a refresh token", &self.token_digest)),
        }
    }
}

impl OAuthRepository {
    /// The token with one of these digests.
    pub(crate) async fn find_refresh(
        &self,
        digests: &(String, String),
    ) -> sqlx::Result<Option<RefreshToken>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT token_digest, grant_id, parent_digest, child_id, child_digest, client_id, user_id, scopes, resources,
                 issued_at, expires_at, used_at, revoked_at, access_jti, access_exp, pepper_id
             FROM oauth_refresh_tokens WHERE token_digest IN ($1, $2)"
        )).bind(&digests.0).bind(&digests.1).fetch_optional(pool).await)
    }

    /// How many refresh tokens of a grant could still be used.
    pub(crate) async fn live_refresh_tokens(&self, grant: &str, now: Millis) -> sqlx::Result<i64> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM oauth_refresh_tokens
             WHERE grant_id = $1 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > $2"
        )).bind(grant).bind(now).fetch_one(pool).await)?;
        Ok(count)
    }

    /// Ends every refresh token of a grant.
    pub(crate) async fn revoke_refresh_tokens(&self, grant: &str, now: Millis) -> sqlx::Result<()> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE oauth_refresh_tokens SET revoked_at = $1 WHERE grant_id = $2 AND revoked_at IS NULL"
            )).bind(now).bind(grant).execute(&mut *conn).await.map(drop))?;
            tx.commit().await
        })
        .await
    }
}

/// Inserts a refresh token that nobody has used.
pub(crate) fn refresh_issued(new: &RefreshToken) -> Guard {
    Guard {
        name: "oauth_refresh_issued",
        sql: sql!(
            "INSERT INTO oauth_refresh_tokens (token_digest, grant_id, parent_digest, client_id, user_id, scopes, resources,
                 issued_at, expires_at, access_jti, access_exp, pepper_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        ),
        cells: vec![
            new.token_digest.as_str().into(),
            new.grant_id.as_str().into(),
            new.parent_digest.as_deref().into(),
            new.client_id.as_str().into(),
            new.user_id.as_str().into(),
            new.scopes.as_str().into(),
            new.resources.as_str().into(),
            new.issued_at.into(),
            new.expires_at.into(),
            new.access_jti.as_deref().into(),
            new.access_exp.unwrap_or_default().into(),
            new.pepper_id.as_str().into(),
        ],
    }
}

/// Uses a refresh token; of any number of uses one passes and names the child.
pub(crate) fn refresh_used(parent: &RefreshToken, child_id: &str, child_digest: &str, now: Millis) -> Guard {
    Guard {
        name: REFRESH_USED,
        sql: sql!(
            "UPDATE oauth_refresh_tokens SET used_at = $1, child_id = $2, child_digest = $3
             WHERE token_digest = $4 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > $1"
        ),
        cells: vec![now.into(), child_id.into(), child_digest.into(), parent.token_digest.as_str().into()],
    }
}

/// Names another access token beside a child that is still unused.
pub(crate) fn child_repeated(child_digest: &str, jti: &str, exp: i64) -> Guard {
    Guard {
        name: CHILD_USED,
        sql: sql!(
            "UPDATE oauth_refresh_tokens SET access_jti = $1, access_exp = $2
             WHERE token_digest = $3 AND used_at IS NULL AND revoked_at IS NULL"
        ),
        cells: vec![jti.into(), exp.into(), child_digest.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_109_a_refresh_token_is_fresh_used_with_its_child_or_revoked() {
        let row = |used: Option<Millis>, child: Option<&str>, digest: Option<&str>, revoked| RefreshToken {
            token_digest: "0123456789".into(),
            grant_id: String::new(),
            parent_digest: None,
            child_id: child.map(str::to_owned),
            child_digest: digest.map(str::to_owned),
            client_id: String::new(),
            user_id: String::new(),
            scopes: String::new(),
            resources: String::new(),
            issued_at: 0,
            expires_at: 100,
            used_at: used,
            revoked_at: revoked,
            access_jti: None,
            access_exp: None,
            pepper_id: String::new(),
        };
        assert_eq!(row(None, None, None, None).state().unwrap(), RefreshState::Fresh);
        assert_eq!(row(None, None, None, Some(1)).state().unwrap(), RefreshState::Revoked);
        let used = row(Some(1), Some("c"), Some("d"), Some(2));
        assert_eq!(used.state().unwrap(), RefreshState::Used { at: 1, child_id: "c", child_digest: "d" });
        for (used, child, digest) in
            [(Some(1), None, None), (None, Some("c"), Some("d")), (Some(1), Some("c"), None)]
        {
            assert!(row(used, child, digest, None).state().is_err());
        }
    }
}
