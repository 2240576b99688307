//! Access tokens (RFC 9068) and ID tokens (OpenID Connect Core 1.0 section 2), signed by the key ring.

use super::{SharedKeys, SigningAlgorithm};
use crate::jwt::access::{AccessFacts, MAX_ACCESS_TOKEN, SignError, SignedAccess};
use crate::jwt::sign::{IssueError, compact, header};
use serde::Serialize;
use std::sync::Arc;
use systemprompt_models::auth::MAX_ACT_DEPTH;
use systemprompt_models::ids::Jti;
use systemprompt_models::{Clock, JwtAudience, JwtClaims, Secret, UserType};

/// Signs the access and ID tokens of this deployment, in process.
#[derive(Clone)]
pub struct TokenAuthority {
    issuer: Arc<str>,
    keys: SharedKeys,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for TokenAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenAuthority").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl TokenAuthority {
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
