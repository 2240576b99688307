//! Sign-ins and sessions as they are recorded, counted and shown.

use serde::Serialize;
use systemprompt_security::session::SessionRow;

/// How a person proved who they are (ID-69).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// With user verification; `synced` if the key can leave its device.
    Passkey {
        synced: bool,
    },
    /// A passkey that was there, without a look at who used it: for the session in which it was made, and no other.
    Presence {
        synced: bool,
    },
    Password,
    /// Such a passkey and the password.
    PresenceAndPassword {
        synced: bool,
    },
}

impl Method {
    /// Authentication context class.
    pub fn acr(self) -> &'static str {
        match self {
            Self::Passkey { synced: false } => "phrh",
            Self::Passkey { synced: true } => "phr",
            // Below every level (OpenID Connect Core section 2).
            Self::Presence { .. } => "0",
            Self::Password | Self::PresenceAndPassword { .. } => "pwd",
        }
    }

    /// Methods in the words of RFC 8176.
    pub fn amr(self) -> &'static str {
        match self {
            Self::Passkey { synced: false } => "hwk user",
            Self::Passkey { synced: true } => "swk user",
            Self::Presence { synced: false } => "hwk",
            Self::Presence { synced: true } => "swk",
            Self::PresenceAndPassword { synced: false } => "hwk pwd",
            Self::PresenceAndPassword { synced: true } => "swk pwd",
            Self::Password => "pwd",
        }
    }

    /// As records name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passkey { .. } | Self::Presence { .. } => "passkey",
            Self::PresenceAndPassword { .. } => "passkey_and_password",
            Self::Password => "password",
        }
    }
}

/// A session in its person's own list.
#[derive(Clone, Debug, Serialize)]
pub struct OwnSession {
    #[serde(flatten)]
    pub session: SessionRow,
    /// Whether it is the one that asks.
    pub current: bool,
}
