//! Tokens that are shown to this plane itself: whom they speak of (authentication), and what that lets them do now (authorization).
//! Signatures are checked by the one verifier, which `security` has.

pub mod authentication;
pub mod authorization;

pub use authentication::IssuerTokens;
pub use authorization::Standing;

use crate::error::OauthResult;
use crate::state::OAuthState;
use std::future::Future;

/// Judges tokens of one origin.
pub trait TokenValidator {
    /// What a token says that counts.
    type Claims;

    /// The claims of a token, if it counts now; nothing whatever is wrong with it.
    ///
    /// # Errors
    /// What could not be looked up.
    fn validate(&self, token: &str) -> impl Future<Output = OauthResult<Option<Self::Claims>>> + Send;
}

/// The access tokens of this deployment.
#[derive(Clone, Copy, Debug)]
pub struct AuthService<'a>(pub &'a OAuthState);
