//! What a session is: as it is opened, with what is known of how it came about, and as lists show it.

use crate::repository::sessions::SessionOpened;
use serde::Serialize;
use systemprompt_models::Millis;
use systemprompt_models::ids::{ClientId, GrantId, SessionId, UserId};

/// Where a session came from (ID-78).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionSource {
    Web,
    Oauth,
    Cli,
    Bridge,
    Exchange,
    Device,
    Anonymous,
}

impl SessionSource {
    const ALL: [Self; 7] =
        [Self::Web, Self::Oauth, Self::Cli, Self::Bridge, Self::Exchange, Self::Device, Self::Anonymous];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Oauth => "oauth",
            Self::Cli => "cli",
            Self::Bridge => "bridge",
            Self::Exchange => "exchange",
            Self::Device => "device",
            Self::Anonymous => "anonymous",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// A session to open. Its id is there before its row, so that the record of it can be written first.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    /// `None` for an anonymous visitor.
    pub user_id: Option<UserId>,
    pub source: SessionSource,
    /// When it ends if nobody uses it.
    pub expires_at: Millis,
    pub facts: SignIn,
}

/// What is known of how a session came about (ID-78).
#[derive(Clone, Debug, Default)]
pub struct SignIn {
    /// When it ends however much it is used; absent if it may be extended without end.
    pub ends_at: Option<Millis>,
    /// When the person signed in, in epoch seconds.
    pub auth_time: Option<i64>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// Authentication methods (RFC 8176), space-separated.
    pub amr: Option<String>,
    pub ip_prefix: Option<String>,
    /// At most 256 characters of it are kept.
    pub user_agent: Option<String>,
    pub client_id: Option<ClientId>,
    /// The person whom a client's own session serves.
    pub owner_id: Option<UserId>,
    pub grant_id: Option<GrantId>,
    /// The session whose end is the end of this one.
    pub parent: Option<SessionId>,
}

impl NewSession {
    /// A session of which nothing more is known.
    pub fn new(id: SessionId, user_id: Option<UserId>, source: SessionSource, expires_at: Millis) -> Self {
        Self { id, user_id, source, expires_at, facts: SignIn::default() }
    }

    /// The row of this session, to be opened in the unit of the record that tells of it.
    pub fn into_row(self, now: Millis) -> SessionOpened {
        SessionOpened { session: self, now }
    }
}

/// A session as lists show it.
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
