//! Rows of `oauth_device_codes` (RFC 8628).

use super::OAuthRepository;
use super::auth_code::impossible;
use crate::error::OauthResult;
use crate::repository::turns::turn;
use systemprompt_audit::Guard;
use systemprompt_database::{on, on_tx, sql};
use systemprompt_models::Millis;

/// Name of the guard that bounds the open codes of a client and a network.
pub(crate) const DEVICE_OPENED: &str = "oauth_device_opened";
/// Name of the guard that one decision on a code passes.
pub(crate) const DEVICE_DECIDED: &str = "oauth_device_decided";
/// Name of the guard that one exchange of a code passes.
pub(crate) const DEVICE_USED: &str = "oauth_device_used";

/// A device code. Lists are space-separated.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DeviceCode {
    pub device_digest: String,
    pub user_code_digest: String,
    pub client_id: String,
    pub scopes: String,
    pub resources: String,
    pub status: String,
    /// Milliseconds.
    pub poll_interval: i64,
    pub next_poll_at: Millis,
    pub ip_prefix: Option<String>,
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub grant_id: Option<String>,
    /// Epoch seconds.
    pub auth_time: Option<i64>,
    pub acr: Option<String>,
    pub amr: Option<String>,
    pub pepper_id: String,
    pub created_at: Millis,
    pub expires_at: Millis,
}

/// Where a device code is in its life (ID-109).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState<'a> {
    Pending,
    Approved { user_id: &'a str, grant_id: &'a str, auth_time: i64 },
    Denied,
    Used { grant_id: &'a str },
    Expired,
}

impl DeviceCode {
    /// # Errors
    /// A row that no code path writes.
    pub fn state(&self, now: Millis) -> OauthResult<DeviceState<'_>> {
        let by = (self.user_id.as_deref(), self.grant_id.as_deref(), self.auth_time);
        match (self.status.as_str(), by) {
            ("used", (Some(_), Some(grant_id), _)) => Ok(DeviceState::Used { grant_id }),
            ("pending", (None, None, None)) | ("denied", _) if self.expires_at <= now => {
                Ok(DeviceState::Expired)
            }
            ("pending", (None, None, None)) => Ok(DeviceState::Pending),
            ("denied", _) => Ok(DeviceState::Denied),
            ("approved", (Some(_), Some(_), Some(_))) if self.expires_at <= now => Ok(DeviceState::Expired),
            ("approved", (Some(user_id), Some(grant_id), Some(auth_time))) => {
                Ok(DeviceState::Approved { user_id, grant_id, auth_time })
            }
            _ => Err(impossible("a device code", &self.device_digest)),
        }
    }
}

impl OAuthRepository {
    /// The code of a device, by one of these digests.
    pub(crate) async fn find_device(&self, digests: &(String, String)) -> sqlx::Result<Option<DeviceCode>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT device_digest, user_code_digest, client_id, scopes, resources, status, poll_interval, next_poll_at,
                 ip_prefix, user_id, session_id, grant_id, auth_time, acr, amr, pepper_id, created_at, expires_at
             FROM oauth_device_codes WHERE device_digest IN ($1, $2)"
        )).bind(&digests.0).bind(&digests.1).fetch_optional(pool).await)
    }

    /// The code that a person types, by one of these digests.
    pub(crate) async fn find_user_code(
        &self,
        digests: &(String, String),
    ) -> sqlx::Result<Option<DeviceCode>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT device_digest, user_code_digest, client_id, scopes, resources, status, poll_interval, next_poll_at,
                 ip_prefix, user_id, session_id, grant_id, auth_time, acr, amr, pepper_id, created_at, expires_at
             FROM oauth_device_codes WHERE user_code_digest IN ($1, $2)"
        )).bind(&digests.0).bind(&digests.1).fetch_optional(pool).await)
    }

    /// Notes a question of a device; false if it came too early.
    pub(crate) async fn poll_device(&self, digest: &str, now: Millis) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let noted = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_device_codes SET next_poll_at = $1 + poll_interval
             WHERE device_digest = $2 AND next_poll_at <= $1"
        )).bind(now).bind(digest).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(noted == 1)
    }

    /// Lets a device that asked too early wait longer, for good.
    pub(crate) async fn slow_device(&self, digest: &str, more: i64, now: Millis) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_device_codes SET poll_interval = poll_interval + $1, next_poll_at = $2 + poll_interval + $1
             WHERE device_digest = $3"
        )).bind(more).bind(now).bind(digest).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }
}

/// Inserts a code, unless its client has `limit` open ones from the same network.
pub(crate) fn device_opened(new: &DeviceCode, limit: i64) -> [Guard; 2] {
    let whose = format!("{} {}", new.client_id, new.ip_prefix.as_deref().unwrap_or_default());
    let opened = Guard {
        name: DEVICE_OPENED,
        sql: sql!(
            "INSERT INTO oauth_device_codes (device_digest, user_code_digest, client_id, scopes, resources, status,
                 poll_interval, next_poll_at, ip_prefix, pepper_id, created_at, expires_at)
             SELECT $1, $2, $3, $4, $5, 'pending', CAST($6 AS BIGINT), CAST($7 AS BIGINT), $8, $9, CAST($10 AS BIGINT),
                 CAST($11 AS BIGINT)
             WHERE (SELECT COUNT(*) FROM oauth_device_codes
                    WHERE client_id = $3 AND ip_prefix = $8 AND status = 'pending' AND expires_at > $10) < CAST($12 AS BIGINT)"
        ),
        cells: vec![
            new.device_digest.as_str().into(),
            new.user_code_digest.as_str().into(),
            new.client_id.as_str().into(),
            new.scopes.as_str().into(),
            new.resources.as_str().into(),
            new.poll_interval.into(),
            new.next_poll_at.into(),
            new.ip_prefix.as_deref().unwrap_or_default().into(),
            new.pepper_id.as_str().into(),
            new.created_at.into(),
            new.expires_at.into(),
            limit.into(),
        ],
    };
    [turn("device", &whose), opened]
}

/// Writes what a person decided on an open code: `approved` with the grant, or `denied`.
pub(crate) fn device_approved(decided: &DeviceCode, now: Millis) -> Guard {
    Guard {
        name: DEVICE_DECIDED,
        sql: sql!(
            "UPDATE oauth_device_codes SET status = 'approved', scopes = $1, user_id = $2, session_id = $3, grant_id = $4,
                 auth_time = $5, acr = $6, amr = $7
             WHERE device_digest = $8 AND status = 'pending' AND expires_at > $9"
        ),
        cells: vec![
            decided.scopes.as_str().into(),
            decided.user_id.as_deref().into(),
            decided.session_id.as_deref().into(),
            decided.grant_id.as_deref().into(),
            decided.auth_time.unwrap_or_default().into(),
            decided.acr.as_deref().into(),
            decided.amr.as_deref().into(),
            decided.device_digest.as_str().into(),
            now.into(),
        ],
    }
}

/// Denies an open code.
pub(crate) fn device_denied(digest: &str, now: Millis) -> Guard {
    Guard {
        name: DEVICE_DECIDED,
        sql: sql!(
            "UPDATE oauth_device_codes SET status = 'denied'
             WHERE device_digest = $1 AND status = 'pending' AND expires_at > $2"
        ),
        cells: vec![digest.into(), now.into()],
    }
}

/// Spends an approved code; of any number of uses one passes.
pub(crate) fn device_used(digest: &str, now: Millis) -> Guard {
    Guard {
        name: DEVICE_USED,
        sql: sql!(
            "UPDATE oauth_device_codes SET status = 'used'
             WHERE device_digest = $1 AND status = 'approved' AND expires_at > $2"
        ),
        cells: vec![digest.into(), now.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_109_a_device_code_has_a_person_exactly_when_it_was_approved() {
        let row = |status: &str, by: Option<&str>| DeviceCode {
            device_digest: "0123456789".into(),
            user_code_digest: String::new(),
            client_id: String::new(),
            scopes: String::new(),
            resources: String::new(),
            status: status.into(),
            poll_interval: 5000,
            next_poll_at: 0,
            ip_prefix: None,
            user_id: by.map(str::to_owned),
            session_id: None,
            grant_id: by.map(str::to_owned),
            auth_time: by.map(|_| 7),
            acr: None,
            amr: None,
            pepper_id: String::new(),
            created_at: 0,
            expires_at: 100,
        };
        let approved = DeviceState::Approved { user_id: "u", grant_id: "u", auth_time: 7 };
        for (status, by, now, want) in [
            ("pending", None, 99, Some(DeviceState::Pending)),
            ("pending", None, 100, Some(DeviceState::Expired)),
            ("approved", Some("u"), 99, Some(approved)),
            ("approved", Some("u"), 100, Some(DeviceState::Expired)),
            ("denied", None, 99, Some(DeviceState::Denied)),
            ("used", Some("u"), 500, Some(DeviceState::Used { grant_id: "u" })),
            ("approved", None, 99, None),
            ("pending", Some("u"), 99, None),
            ("used", None, 99, None),
            ("other", None, 99, None),
        ] {
            assert_eq!(row(status, by).state(now).ok(), want, "{status} {by:?} {now}");
        }
    }
}
