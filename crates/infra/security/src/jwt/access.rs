//! Access tokens (RFC 9068) and ID tokens (OpenID Connect Core 1.0 section 2), signed by the key ring.

use super::sign::{IssueError, compact, header};
use crate::keys::{KeyError, SharedKeys, SigningAlgorithm};
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use std::sync::Arc;
use systemprompt_models::claims::MAX_ACT_DEPTH;
use systemprompt_models::ids::{ClientId, Jti, SessionId, UserId};
use systemprompt_models::permission::{OIDC_SCOPES, scope_of};
use systemprompt_models::{Actor, Clock, JwtAudience, JwtClaims, Permission, Secret, UserType};

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

/// Signs access and ID tokens.
#[derive(Clone)]
pub struct AccessTokens {
    issuer: Arc<str>,
    keys: SharedKeys,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl AccessTokens {
    /// `issuer` is `security.jwt_issuer`.
    pub fn new(issuer: impl Into<Arc<str>>, keys: SharedKeys, clock: Arc<dyn Clock>) -> Self {
        Self { issuer: issuer.into(), keys, clock }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs an access token that begins now.
    ///
    /// # Errors
    /// No key of this algorithm on this node, a chain of actors that is too long, a hook scope without the audience `hook`, or a
    /// token that would be too large.
    pub fn access(&self, algorithm: SigningAlgorithm, facts: AccessFacts) -> Result<SignedAccess, SignError> {
        let user_type = UserType::of(&facts.permissions);
        let is_hook = facts.permissions.iter().any(|permission| permission.is_hook_scope());
        if is_hook && !facts.audiences.contains(&JwtAudience::Hook) {
            return Err(IssueError::HookScope.into());
        } else if facts.life < 1 {
            return Err(IssueError::TooShort.into());
        } else if facts.act.as_ref().is_some_and(|act| act.chain().len() > MAX_ACT_DEPTH) {
            return Err(IssueError::Build.into());
        }
        let now = self.clock.now_seconds();
        let scope = facts.scope();
        let claims = JwtClaims {
            iss: self.issuer.to_string(),
            sub: facts.user_id,
            aud: facts.audiences,
            exp: now + facts.life,
            nbf: now,
            iat: now,
            jti: Jti::generate(),
            scope,
            username: facts.username,
            email: facts.email,
            user_type,
            roles: facts.roles,
            department: facts.department,
            client_id: Some(facts.client_id),
            session_id: facts.session_id,
            rate_limit_tier: user_type.tier(),
            plugin_id: facts.plugin_id,
            auth_time: facts.auth_time,
            act: facts.act,
        };
        let token = self.sign(algorithm, "at+jwt", &claims)?;
        let size = token.expose().len();
        if size > MAX_ACCESS_TOKEN {
            return Err(SignError::TooLarge(size));
        }
        Ok(SignedAccess { claims, token })
    }

    /// Signs the claims of an ID token; `iss` is the caller's to set.
    ///
    /// # Errors
    /// No key of this algorithm on this node.
    pub fn id_token(
        &self,
        algorithm: SigningAlgorithm,
        claims: &impl Serialize,
    ) -> Result<Secret<String>, SignError> {
        self.sign(algorithm, "JWT", claims)
    }

    fn sign(
        &self,
        algorithm: SigningAlgorithm,
        typ: &str,
        claims: &impl Serialize,
    ) -> Result<Secret<String>, SignError> {
        let key = self.keys.load().signer(algorithm)?;
        let claims = serde_json::to_vec(claims).map_err(|_| IssueError::Build)?;
        let mut failed = None;
        let token = compact(&header(typ, algorithm.as_str(), key.kid()), &claims, |input| {
            key.sign(input).unwrap_or_else(|error| {
                failed = Some(error);
                Vec::new()
            })
        });
        failed.map_or(Ok(token), |error| Err(error.into()))
    }
}
