//! Whom a token speaks of: one of ours, as the tables or this node's copy of what ended have it, or one of a trusted issuer.

use super::{AuthService, TokenValidator};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::services::validation::jwt::ForeignClaims;
use crate::state::OAuthState;
use systemprompt_config::profile::security::{SigningAlgorithm as Configured, TrustedIssuer};
use systemprompt_models::JwtClaims;
use systemprompt_security::jwt::foreign::unverified_kid;
use systemprompt_security::jwt::verify_foreign;
use systemprompt_security::keys::{SigningAlgorithm, TokenClass};

impl AuthService<'_> {
    /// The claims of an access token that we signed and that has not expired; its session may have ended.
    fn signed(&self, token: &str) -> Option<JwtClaims> {
        let verified = self.0.verifier.verify_own(token).ok()?;
        (verified.class == TokenClass::Access).then_some(verified.claims)
    }

    /// The claims of the access token that somebody comes with. Asks no table unless the session is new to this node.
    ///
    /// # Errors
    /// `invalid_token` for one that does not count, or revocation that cannot be confirmed.
    pub async fn authenticate(&self, token: &str) -> OauthResult<JwtClaims> {
        let claims = self.signed(token).ok_or_else(uncounted)?;
        self.0.sessions.check_claims(&claims).await?;
        Ok(claims)
    }
}

/// The refusal of an access token.
pub(super) fn uncounted() -> OauthError {
    OauthError::new(ErrorCode::InvalidToken, "the access token does not count")
}

/// Asks the tables: for who decides by it what another is given, or told.
impl TokenValidator for AuthService<'_> {
    type Claims = JwtClaims;

    async fn validate(&self, token: &str) -> OauthResult<Option<JwtClaims>> {
        match self.signed(token) {
            Some(claims) if self.0.sessions.is_token_live(&claims).await? => Ok(Some(claims)),
            _ => Ok(None),
        }
    }
}

/// The tokens of a trusted issuer (ID-60).
#[derive(Clone, Copy, Debug)]
pub struct IssuerTokens<'a> {
    pub state: &'a OAuthState,
    pub trusted: &'a TrustedIssuer,
}

impl TokenValidator for IssuerTokens<'_> {
    type Claims = ForeignClaims;

    async fn validate(&self, token: &str) -> OauthResult<Option<ForeignClaims>> {
        let Self { state, trusted } = *self;
        let Ok(kid) = unverified_kid(token) else { return Ok(None) };
        let Some(keys) = state.issuer_keys.of(state, trusted, &kid).await else { return Ok(None) };
        let algorithms: Vec<SigningAlgorithm> = trusted.algorithms.iter().copied().map(algorithm).collect();
        let Ok(claims) = verify_foreign(token, &keys, &algorithms) else { return Ok(None) };
        Ok(ForeignClaims::checked(&claims, trusted, state.clock.now_seconds()))
    }
}

fn algorithm(configured: Configured) -> SigningAlgorithm {
    match configured {
        Configured::RS256 => SigningAlgorithm::Rs256,
        Configured::ES256 => SigningAlgorithm::Es256,
        Configured::EdDSA => SigningAlgorithm::EdDsa,
    }
}
