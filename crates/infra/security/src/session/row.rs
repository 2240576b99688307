//! A session as lists show it.

use serde::Serialize;
use systemprompt_models::Millis;
use systemprompt_models::ids::{ClientId, GrantId, SessionId, UserId};
use systemprompt_models::session::SessionSource;

/// A session with all that its row says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionRow {
    pub id: SessionId,
    pub user_id: Option<UserId>,
    /// `None` for a source that this version does not know.
    pub source: Option<SessionSource>,
    pub created_at: Millis,
    /// Exact to a minute.
    pub last_seen_at: Millis,
    pub expires_at: Millis,
    pub revoked_at: Option<Millis>,
    pub revoked_reason: Option<String>,
    /// When it ends however much it is used.
    pub ends_at: Option<Millis>,
    /// Epoch seconds.
    pub auth_time: Option<i64>,
    pub acr: Option<String>,
    pub amr: Option<String>,
    pub ip_prefix: Option<String>,
    pub user_agent: Option<String>,
    pub client_id: Option<ClientId>,
    pub owner_id: Option<UserId>,
    pub grant_id: Option<GrantId>,
    pub parent_session_id: Option<SessionId>,
}

impl SessionRow {
    /// Whether it counts at `now`.
    pub fn is_live(&self, now: Millis) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}
