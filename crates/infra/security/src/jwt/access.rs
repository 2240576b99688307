//! What an access token says (RFC 9068), and the token as it was signed by [`crate::keys::TokenAuthority`].

use super::sign::IssueError;
use crate::keys::{KeyError, SigningAlgorithm};
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use systemprompt_models::auth::{OIDC_SCOPES, scope_of};
use systemprompt_models::ids::{ClientId, SessionId, UserId};
use systemprompt_models::{Actor, JwtAudience, JwtClaims, Permission, Secret};

/// Longest access token, in bytes (ID-45).
pub const MAX_ACCESS_TOKEN: usize = 4096;

/// Why no access token or ID token was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Roles are never cut: a shorter token would decide otherwise.
    #[error("the token would have {0} bytes, more than {MAX_ACCESS_TOKEN}; the user has too many roles")]
    TooLarge(usize),
}

/// What an access token says.
#[derive(Clone, Debug)]
pub struct AccessFacts {
    pub user_id: UserId,
    pub username: String,
    pub email: String,
    pub permissions: Vec<Permission>,
    /// Of [`OIDC_SCOPES`].
    pub oidc_scopes: Vec<&'static str>,
    pub roles: Vec<String>,
    pub department: Option<String>,
    pub client_id: ClientId,
    pub session_id: SessionId,
    pub audiences: Vec<JwtAudience>,
    pub plugin_id: Option<String>,
    /// When the person signed in, in epoch seconds.
    pub auth_time: Option<i64>,
    pub act: Option<Actor>,
    /// Seconds.
    pub life: i64,
}

impl AccessFacts {
    /// The scope as the token and the answer with it say it.
    pub fn scope(&self) -> String {
        let mut words = vec![scope_of(&self.permissions)];
        let named = OIDC_SCOPES.into_iter().filter(|name| self.oidc_scopes.contains(name));
        words.extend(named.map(str::to_owned));
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }
}

/// A signed access token that nobody holds yet: whoever gives it out has the permit of its record.
pub struct SignedAccess {
    pub claims: JwtClaims,
    pub token: Secret<String>,
}

impl SignedAccess {
    /// `at_hash` of an ID token that is signed with `algorithm` (OpenID Connect Core section 3.1.3.6): the left half of the hash
    /// that the algorithm uses.
    pub fn at_hash(&self, algorithm: SigningAlgorithm) -> String {
        let kind = match algorithm {
            SigningAlgorithm::Rs256 | SigningAlgorithm::Es256 => &SHA256,
            SigningAlgorithm::EdDsa => &SHA512,
        };
        let hash = digest(kind, self.token.expose().as_bytes());
        let hash = hash.as_ref();
        URL_SAFE_NO_PAD.encode(hash.get(..hash.len() / 2).unwrap_or_default())
    }
}
