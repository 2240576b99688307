//! Hook tokens (SEC-60): access tokens for one plugin. Session and admin tokens of this deployment count too, so that hooks can
//! be tried out; the decision is then made for that principal.

use super::validation::AuthValidationService;
use crate::error::AuthError;
use crate::jwt::Surface;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use systemprompt_models::ids::{ClientId, SessionId, UserId};
use systemprompt_models::{Code, Permission, Refusal};

/// Longest life of a hook token, in seconds.
pub const MAX_HOOK_TOKEN_LIFE: i64 = 3600;

/// What a hook token that counts says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedHookClaims {
    pub user_id: UserId,
    pub client_id: Option<ClientId>,
    /// The plugin that asks; for a session token, whatever the request names.
    pub plugin_id: String,
    pub permissions: Vec<Permission>,
    pub session_id: SessionId,
    pub act_chain: Vec<String>,
}

/// Why a token does not count at a hook endpoint.
#[derive(Debug, thiserror::Error)]
pub enum HookTokenError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the token lacks the scope {0}")]
    ScopeMissing(Permission),
    #[error("the token is bound to no plugin")]
    PluginMissing,
    #[error("the token is bound to another plugin")]
    PluginMismatch,
    #[error("a hook token lives for at most an hour")]
    LifeTooLong,
}

impl From<&HookTokenError> for Refusal {
    fn from(error: &HookTokenError) -> Self {
        match error {
            HookTokenError::Auth(error) => Self::from(error),
            HookTokenError::ScopeMissing(_) => Self::new(Code::InsufficientScope, error.to_string()),
            HookTokenError::PluginMissing | HookTokenError::PluginMismatch | HookTokenError::LifeTooLong => {
                Self::new(Code::InvalidToken, "the token is not valid here")
            }
        }
    }
}

/// Checks tokens at hook endpoints.
pub struct HookTokenValidator {
    service: Arc<AuthValidationService>,
}

impl HookTokenValidator {
    pub fn new(service: Arc<AuthValidationService>) -> Self {
        Self { service }
    }

    /// Whether `token` may ask for a decision with `required_scope` for the plugin of `?plugin_id=`.
    ///
    /// # Errors
    /// The first check that failed.
    pub async fn validate(
        &self,
        token: &str,
        required_scope: Permission,
        plugin_id: &str,
    ) -> Result<ValidatedHookClaims, HookTokenError> {
        let entry = self.service.token(token, Surface::Hooks.into()).await?;
        let principal = &entry.principal;
        if !entry.class.is_session_class() {
            if !principal.has(required_scope) {
                return Err(HookTokenError::ScopeMissing(required_scope));
            }
            let bound = principal.plugin_id.as_deref().filter(|plugin| !plugin.is_empty());
            let bound = bound.ok_or(HookTokenError::PluginMissing)?;
            if !bool::from(bound.as_bytes().ct_eq(plugin_id.as_bytes())) {
                return Err(HookTokenError::PluginMismatch);
            }
            if entry.lifetime > MAX_HOOK_TOKEN_LIFE {
                return Err(HookTokenError::LifeTooLong);
            }
        }
        Ok(ValidatedHookClaims {
            user_id: principal.user_id.clone(),
            client_id: principal.client_id.clone(),
            plugin_id: plugin_id.to_owned(),
            permissions: principal.permissions.clone(),
            session_id: principal.session_id.clone(),
            act_chain: principal.act_chain.clone(),
        })
    }
}
