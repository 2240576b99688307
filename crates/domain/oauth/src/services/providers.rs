//! What this plane answers to others, who know neither its keys nor its rows.

use crate::users::Users;
use std::sync::Arc;
use systemprompt_models::Secret;
use systemprompt_models::auth::{
    AuthenticatedUser, JwtClaims, JwtValidationProvider, Provided, ProviderError, UserProvider,
};
use systemprompt_models::ids::UserId;
use systemprompt_security::error::AuthError;
use systemprompt_security::jwt::Verifier;
use systemprompt_security::session::Sessions;

/// Judges the tokens of sessions: by the one verifier, and by what this node knows of sessions.
#[derive(Clone)]
pub struct JwtValidationProviderImpl {
    verifier: Arc<Verifier>,
    sessions: Arc<Sessions>,
}

impl JwtValidationProviderImpl {
    pub fn new(verifier: Arc<Verifier>, sessions: Arc<Sessions>) -> Self {
        Self { verifier, sessions }
    }
}

impl std::fmt::Debug for JwtValidationProviderImpl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtValidationProviderImpl").finish_non_exhaustive()
    }
}

impl JwtValidationProvider for JwtValidationProviderImpl {
    fn validate<'a>(&'a self, token: &'a Secret<String>) -> Provided<'a, JwtClaims> {
        Box::pin(async move {
            let verified = self.verifier.verify_own(token.expose()).ok();
            let Some(verified) = verified.filter(|verified| verified.class.is_session_class()) else {
                return Ok(None);
            };
            match self.sessions.check_claims(&verified.claims).await {
                Ok(_) => Ok(Some(verified.claims)),
                Err(error @ AuthError::RevocationUnavailable(_)) => Err(ProviderError(Box::new(error))),
                Err(_) => Ok(None),
            }
        })
    }
}

impl UserProvider for Users {
    fn user<'a>(&'a self, id: &'a UserId) -> Provided<'a, AuthenticatedUser> {
        Box::pin(async move {
            let found = self.repository.by_id(id.as_str()).await;
            let user = found.map_err(|error| ProviderError(Box::new(error)))?;
            Ok(user.map(|user| user.with_permissions(self.permissions(&user))))
        })
    }
}
