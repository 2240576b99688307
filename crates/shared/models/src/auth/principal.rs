//! The verified subject of a request.

use super::claims::{Actor, JwtClaims};
use super::permission::{Permission, RateLimitTier, UserType};
use crate::ids::{ApiKeyId, ClientId, Jti, SessionId, UserId};
use serde::Serialize;

/// How the principal proved itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CredentialKind {
    /// A token of this deployment, named by its `jti`.
    Token { jti: Jti },
    /// An API key.
    ApiKey { id: ApiKeyId },
    /// Nothing: an anonymous caller.
    None,
}

/// A verified subject: who acts, for whom, with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Principal {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub client_id: Option<ClientId>,
    pub permissions: Vec<Permission>,
    pub user_type: UserType,
    pub roles: Vec<String>,
    pub department: Option<String>,
    pub tier: RateLimitTier,
    /// Subjects of the delegation chain, outermost first.
    pub act_chain: Vec<String>,
    pub credential: CredentialKind,
    /// The person whom a client serves: what is denied to them is denied to it.
    pub owner: Option<UserId>,
    /// Plugin that a hook token is bound to.
    pub plugin_id: Option<String>,
}

impl Principal {
    /// The caller who showed no credential.
    pub fn anonymous() -> Self {
        Self {
            user_id: UserId::new("anonymous"),
            session_id: SessionId::new("anonymous"),
            client_id: None,
            permissions: vec![Permission::Anonymous],
            user_type: UserType::Anon,
            roles: Vec::new(),
            department: None,
            tier: RateLimitTier::Anon,
            act_chain: Vec::new(),
            credential: CredentialKind::None,
            owner: None,
            plugin_id: None,
        }
    }

    /// The principal of verified claims. The owner of a client stands with its session.
    pub fn from_claims(claims: &JwtClaims) -> Self {
        Self {
            user_id: claims.sub.clone(),
            session_id: claims.session_id.clone(),
            client_id: claims.client_id.clone(),
            permissions: claims.permissions(),
            user_type: claims.user_type,
            roles: claims.roles.clone(),
            department: claims.department.clone().filter(|d| !d.is_empty()),
            tier: claims.rate_limit_tier,
            act_chain: claims.act.as_ref().map(Actor::chain).unwrap_or_default(),
            credential: CredentialKind::Token { jti: claims.jti.clone() },
            owner: None,
            plugin_id: claims.plugin_id.clone(),
        }
    }

    pub fn has(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }

    /// Whether a session of the subject itself acts: no client that it lent something, and no API key.
    pub fn is_in_person(&self) -> bool {
        let is_token = matches!(self.credential, CredentialKind::Token { .. });
        is_token && self.client_id.is_none() && self.act_chain.is_empty()
    }

    pub fn is_anonymous(&self) -> bool {
        self.credential == CredentialKind::None
    }
}
