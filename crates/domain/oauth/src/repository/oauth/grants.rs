//! Rows of `oauth_grants`: one act of authorising a client, and its end.

use super::OAuthRepository;
use crate::models::oauth::api::Page;
use serde::Serialize;
use systemprompt_audit::Guard;
use systemprompt_database::{on, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::{GrantId, SessionId};

/// Name of the guard that holds while a grant counts.
pub(crate) const GRANT_ENDED: &str = "oauth_grant_ended";
/// Name of the guard that ends a grant once.
pub(crate) const GRANT_REVOKED: &str = "oauth_grant_revoked";

/// A grant. Lists are space-separated.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Grant {
    pub grant_id: String,
    pub user_id: String,
    pub client_id: String,
    /// The browser session it was given in.
    pub session_id: Option<String>,
    pub kind: String,
    pub scopes: String,
    pub resources: String,
    pub offline: i64,
    pub created_at: Millis,
    pub family_expires_at: Millis,
    pub revoked_at: Option<Millis>,
    /// What the `claims` parameter asked for, JSON.
    pub claims: Option<String>,
}

impl Grant {
    pub fn is_live(&self, now: Millis) -> bool {
        self.revoked_at.is_none() && now < self.family_expires_at
    }

    /// The browser session whose end is the end of this grant.
    pub fn parent(&self) -> Option<&str> {
        self.session_id.as_deref().filter(|_| self.offline == 0)
    }
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

impl OAuthRepository {
    /// A page of the live grants of a person, the newest first.
    pub async fn grants_of(&self, user: &str, page: Page<'_>, now: Millis) -> sqlx::Result<Vec<GrantListed>> {
        let after = (!page.after.is_empty()).then_some(page.after);
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT grant_id, client_id, kind, scopes, resources, created_at, last_used_at, family_expires_at FROM oauth_grants
             WHERE user_id = $1 AND revoked_at IS NULL AND family_expires_at > $2
               AND (CAST($3 AS TEXT) IS NULL OR grant_id < $3)
             ORDER BY grant_id DESC LIMIT $4"
        )).bind(user).bind(now).bind(after).bind(page.limit).fetch_all(pool).await)
    }

    pub(crate) async fn find_grant(&self, id: &str) -> sqlx::Result<Option<Grant>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT grant_id, user_id, client_id, session_id, kind, scopes, resources, offline, created_at, family_expires_at,
                 revoked_at, claims
             FROM oauth_grants WHERE grant_id = $1"
        )).bind(id).fetch_optional(pool).await)
    }

    /// The newest grant of a person to a client in a browser session that counts.
    pub(crate) async fn newest_grant(
        &self,
        user: &str,
        client: &str,
        session: &str,
        now: Millis,
    ) -> sqlx::Result<Option<Grant>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT grant_id, user_id, client_id, session_id, kind, scopes, resources, offline, created_at, family_expires_at,
                 revoked_at, claims
             FROM oauth_grants
             WHERE user_id = $1 AND client_id = $2 AND session_id = $3 AND revoked_at IS NULL AND family_expires_at > $4
             ORDER BY created_at DESC, grant_id DESC LIMIT 1"
        )).bind(user).bind(client).bind(session).bind(now).fetch_optional(pool).await)
    }

    /// The grant whose session this is: they share their UUID.
    pub(crate) async fn find_grant_of_session(&self, session: &SessionId) -> sqlx::Result<Option<Grant>> {
        match session.uuid() {
            Some(uuid) => self.find_grant(GrantId::from_uuid(uuid).as_str()).await,
            None => Ok(None),
        }
    }
}

/// Holds if a grant counts, and keeps it from ending before the unit is written.
pub(crate) fn grant_used(id: &str, now: Millis) -> Guard {
    Guard {
        name: GRANT_ENDED,
        sql: sql!(
            "UPDATE oauth_grants SET last_used_at = $1
             WHERE grant_id = $2 AND revoked_at IS NULL AND family_expires_at > $1"
        ),
        cells: vec![now.into(), id.into()],
    }
}

/// Ends the refresh tokens of a grant.
pub(crate) fn refresh_tokens_end(grant: &str, now: Millis) -> Guard {
    Guard {
        name: "refresh_tokens_end",
        sql: sql!(
            "UPDATE oauth_refresh_tokens SET revoked_at = $1 WHERE grant_id = $2 AND revoked_at IS NULL"
        ),
        cells: vec![now.into(), grant.into()],
    }
}

/// Ends the consents of a person for a client.
pub(crate) fn consents_end(user: &str, client: &str, now: Millis) -> Guard {
    Guard {
        name: "consents_end",
        sql: sql!(
            "UPDATE oauth_consents SET revoked_at = $1 WHERE user_id = $2 AND client_id = $3 AND revoked_at IS NULL"
        ),
        cells: vec![now.into(), user.into(), client.into()],
    }
}

/// Ends the grants that were given in a browser session and are not to outlive it, and their refresh tokens.
pub(crate) fn grants_of_session_end(session: &str, reason: &str, now: Millis) -> [Guard; 2] {
    let refresh_tokens = sql!(
        "UPDATE oauth_refresh_tokens SET revoked_at = $1
         WHERE revoked_at IS NULL AND grant_id IN
             (SELECT grant_id FROM oauth_grants WHERE session_id = $2 AND offline = 0 AND revoked_at = $1)"
    );
    let grants = sql!(
        "UPDATE oauth_grants SET revoked_at = $1, revoked_reason = $2
         WHERE session_id = $3 AND offline = 0 AND revoked_at IS NULL"
    );
    [
        Guard { name: "grants_end", sql: grants, cells: vec![now.into(), reason.into(), session.into()] },
        Guard { name: "refresh_tokens_end", sql: refresh_tokens, cells: vec![now.into(), session.into()] },
    ]
}

/// Ends a grant that was not ended before.
pub(crate) fn grant_revoked(id: &str, reason: &str, now: Millis) -> Guard {
    Guard {
        name: GRANT_REVOKED,
        sql: sql!(
            "UPDATE oauth_grants SET revoked_at = $1, revoked_reason = $2 WHERE grant_id = $3 AND revoked_at IS NULL"
        ),
        cells: vec![now.into(), reason.into(), id.into()],
    }
}
