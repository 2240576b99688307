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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{caller, fixtures};
    use crate::services::generation::{JwtConfig, JwtSigningParams, generate_jwt};
    use crate::services::session::SessionCreationService;
    use systemprompt_models::Permission;
    use systemprompt_models::ids::ClientId;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_token_counts_while_its_session_does_and_an_access_token_is_none() {
        for fixture in fixtures().await {
            let state = &fixture.state;
            let provider =
                JwtValidationProviderImpl::new(Arc::clone(&state.verifier), Arc::clone(&state.sessions));
            let service = SessionCreationService(state);
            let (session, token, _) = service.anonymous(&caller()).await.unwrap();
            let claims = provider.validate(&token).await.unwrap().unwrap();
            assert_eq!(claims.session_id, session);

            let user = fixture.user("bob", &["user"]).await.with_permissions(vec![Permission::User]);
            let config = JwtConfig { audiences: vec!["api".into()], life: 600, ..JwtConfig::default() };
            let params = JwtSigningParams {
                client_id: &ClientId::from("acme"),
                session_id: &session,
                algorithm: state.settings().algorithm,
            };
            let access = generate_jwt(state, user, config, params).await.unwrap();
            for other in [access.token, Secret::from("no token")] {
                assert!(provider.validate(&other).await.unwrap().is_none());
            }
            state.sessions.revoke(&session, "test").await.unwrap();
            assert!(provider.validate(&token).await.unwrap().is_none());

            let (_, unsure, _) = service.anonymous(&caller()).await.unwrap();
            fixture.clock.advance(31_000);
            assert!(provider.validate(&unsure).await.is_err(), "what was revoked meanwhile is not known");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_user_is_told_by_id_with_what_they_may() {
        for fixture in fixtures().await {
            let bob = fixture.user("bob", &["user"]).await;
            let users: &dyn UserProvider = &fixture.state.users;
            let told = users.user(&bob.id).await.unwrap().unwrap();
            assert_eq!(
                (told.username.as_str(), told.roles.as_slice()),
                ("bob", ["user".to_owned()].as_slice())
            );
            assert!(
                told.permissions.contains(&Permission::User)
                    && !told.permissions.contains(&Permission::Admin)
            );
            assert!(users.user(&UserId::new("bob")).await.unwrap().is_none(), "a name is no id");
        }
    }
}
