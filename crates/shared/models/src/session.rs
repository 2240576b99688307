//! Sessions: where one came from, and what there is to say of one that is opened.

use crate::clock::Millis;
use crate::ids::{ClientId, GrantId, SessionId, UserId};
use serde::Serialize;

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
pub struct CreateSessionInput {
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

impl CreateSessionInput {
    /// A session of which nothing more is known.
    pub fn new(id: SessionId, user_id: Option<UserId>, source: SessionSource, expires_at: Millis) -> Self {
        Self { id, user_id, source, expires_at, facts: SignIn::default() }
    }
}
