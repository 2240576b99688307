//! The claims of the tokens that this deployment signs (RFC 7519, RFC 9068, RFC 8693 section 4.1 for `act`).

use super::permission::{Permission, RateLimitTier, UserType};
use crate::ids::{ClientId, Jti, SessionId, UserId};
use serde::{Deserialize, Serialize};

/// Deepest chain of actors (RFC 8693) that a token may carry.
pub const MAX_ACT_DEPTH: usize = 5;

/// An audience: one of this deployment's surfaces, or a resource URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JwtAudience {
    Web,
    Api,
    A2a,
    Mcp,
    Internal,
    Bridge,
    Hook,
    Resource(String),
}

impl JwtAudience {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Web => "web",
            Self::Api => "api",
            Self::A2a => "a2a",
            Self::Mcp => "mcp",
            Self::Internal => "internal",
            Self::Bridge => "bridge",
            Self::Hook => "hook",
            Self::Resource(uri) => uri,
        }
    }
}

impl From<&str> for JwtAudience {
    fn from(text: &str) -> Self {
        match text {
            "web" => Self::Web,
            "api" => Self::Api,
            "a2a" => Self::A2a,
            "mcp" => Self::Mcp,
            "internal" => Self::Internal,
            "bridge" => Self::Bridge,
            "hook" => Self::Hook,
            uri => Self::Resource(uri.to_owned()),
        }
    }
}

impl Serialize for JwtAudience {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for JwtAudience {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
    }
}

/// An actor of a delegation chain; `act` is the one that it acts for in turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// Issuer of the actor, where it is another one than that of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

impl Actor {
    /// An actor of this deployment that acts for `act`.
    pub fn new(sub: impl Into<String>, act: Option<Box<Actor>>) -> Self {
        Self { sub: sub.into(), client_id: None, iss: None, act }
    }

    /// Subjects from the outermost actor inwards.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.sub.clone()];
        let mut next = self.act.as_deref();
        while let Some(actor) = next {
            chain.push(actor.sub.clone());
            next = actor.act.as_deref();
        }
        chain
    }
}

/// Claims of every token of this deployment. Times are epoch seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtClaims {
    pub iss: String,
    pub sub: UserId,
    pub aud: Vec<JwtAudience>,
    pub exp: i64,
    pub nbf: i64,
    pub iat: i64,
    pub jti: Jti,
    /// Space-separated permissions, with the scopes of OpenID Connect that were granted.
    pub scope: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub email: String,
    pub user_type: UserType,
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    pub session_id: SessionId,
    pub rate_limit_tier: RateLimitTier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
}

impl JwtClaims {
    /// Whether the scope has this word.
    pub fn has_scope(&self, word: &str) -> bool {
        self.scope.split_ascii_whitespace().any(|w| w == word)
    }

    /// The permissions of the scope; words that are none are left out (the verifier refuses what it does not know).
    pub fn permissions(&self) -> Vec<Permission> {
        self.scope.split_ascii_whitespace().filter_map(|w| w.parse().ok()).collect()
    }

    pub fn has_permission(&self, permission: Permission) -> bool {
        self.scope.split_ascii_whitespace().any(|w| w == permission.as_str())
    }

    pub fn is_admin(&self) -> bool {
        self.has_permission(Permission::Admin)
    }

    pub fn is_registered_user(&self) -> bool {
        self.has_permission(Permission::User) || self.is_admin()
    }

    pub fn is_anonymous(&self) -> bool {
        self.has_permission(Permission::Anonymous)
    }

    pub fn has_audience(&self, audience: &JwtAudience) -> bool {
        self.aud.contains(audience)
    }

    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }
}
