//! What somebody may whom an access token of ours speaks of: as much of it as its client and its user may have now.

use super::AuthService;
use super::authentication::uncounted;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::services::generation::active_user;
use crate::services::scopes::Scopes;
use crate::users::{User, UserStatus};
use systemprompt_audit::Guard;
use systemprompt_models::{AuthenticatedUser, JwtClaims, UserType};

/// Whom a token stands for, with what of its scope counts now.
pub struct Standing {
    pub user: AuthenticatedUser,
    pub scopes: Scopes,
    /// What must hold when something is given on the strength of it.
    pub guards: Vec<Guard>,
}

impl AuthService<'_> {
    /// The active person that a token with the scope `openid` speaks of.
    ///
    /// # Errors
    /// `insufficient_scope` without that scope or for a client's own token, `invalid_token` for somebody who may not act any more.
    pub async fn person(&self, claims: &JwtClaims) -> OauthResult<User> {
        if !claims.has_scope("openid") {
            return Err(OauthError::new(ErrorCode::InsufficientScope, "the scope openid is missing"));
        }
        let user = self.0.users.find(claims.sub.as_str()).await?;
        let user = user.filter(|user| user.status == UserStatus::Active).ok_or_else(uncounted)?;
        if claims.user_type == UserType::Service {
            return Err(OauthError::new(
                ErrorCode::InsufficientScope,
                "the token is of a client, not of a person",
            ));
        }
        Ok(user)
    }

    /// What may be done now with a token that counts: for a client's own, what the client may have, for others what their user may.
    /// Nothing where neither may act any more.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn standing(&self, claims: &JwtClaims) -> OauthResult<Option<Standing>> {
        let scopes = Scopes::of(&claims.scope);
        match self.client_of(claims).await? {
            Some(client) if client.is_active() => {
                let scopes = scopes.and(&Scopes::of_client(&client));
                let user = AuthenticatedUser {
                    id: claims.sub.clone(),
                    username: claims.username.clone(),
                    email: claims.email.clone(),
                    permissions: scopes.permissions.clone(),
                    roles: claims.roles.clone(),
                    department: claims.department.clone(),
                };
                Ok(Some(Standing { user, scopes, guards: Vec::new() }))
            }
            Some(_) => Ok(None),
            None => {
                let user = match active_user(self.0, &claims.sub).await {
                    Err(error) if error.is_ours() => return Err(error),
                    Err(_) => return Ok(None),
                    Ok(user) => user,
                };
                let scopes = scopes.permitted(&self.0.settings().permissions_of_user(&user));
                Ok(Some(Standing {
                    user: user.with_permissions(scopes.permissions.clone()),
                    scopes,
                    guards: vec![user.stands()],
                }))
            }
        }
    }

    /// The client whose own token this is.
    async fn client_of(&self, claims: &JwtClaims) -> OauthResult<Option<OAuthClient>> {
        let Some(id) = &claims.client_id else { return Ok(None) };
        let client = self.0.client(id.as_str()).await?;
        Ok(client.filter(|client| client.user_id == claims.sub))
    }
}
