//! Tokens: signing them, and the one verifier (RFC 7515, RFC 7519, RFC 8725, RFC 9068). A second verifier may not be
//! written; what checks a token asks [`Verifier`], through [`crate::auth::AuthValidationService`] for anything that is live.

pub mod access;
pub mod assertion;
mod compact;
pub mod foreign;
pub mod sign;
pub mod signed_claims;
pub mod surface;
pub mod unverified;
#[cfg(test)]
mod vectors;
pub mod verifier;

pub use access::{AccessFacts, SignError, SignedAccess};
pub use assertion::{AssertionError, AssertionIssuer, VerifiedAssertion};
pub use foreign::verify_foreign;
pub use sign::{IssueError, PendingToken};
pub use surface::{Surface, Target};
pub use unverified::UnverifiedClaims;
pub use verifier::{Verified, Verifier};

use crate::keys::{ClassKeys, TokenClass};
use sign::{MAX_TOKEN_LIFE, TokenFacts};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_models::ids::{SessionId, UserId};
use systemprompt_models::{Clock, JwtAudience, Permission, RateLimitTier};

/// What an admin token says.
#[derive(Clone, Debug)]
pub struct AdminTokenParams {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub email: String,
    /// `security.jwt_issuer`.
    pub issuer: String,
    /// At most 24 hours.
    pub duration: Duration,
}

/// Makes admin tokens: audience `web api`, scope `admin user`, tier and role admin.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use systemprompt_models::{Secret, SystemClock, ids::{SessionId, UserId}};
/// use systemprompt_security::jwt::{AdminTokenParams, JwtService};
/// use systemprompt_security::keys::ClassKeys;
///
/// let keys = Arc::new(ClassKeys::derive(&Secret::from("at least thirty-two characters long")).unwrap());
/// let service = JwtService::new(keys, Arc::new(SystemClock));
/// let pending = service.generate_admin_token(&AdminTokenParams {
///     user_id: UserId::generate(),
///     session_id: SessionId::generate(),
///     email: "ada@example.org".into(),
///     issuer: "http://localhost:8080".into(),
///     duration: Duration::from_secs(3600),
/// }).unwrap();
/// assert!(pending.claims().is_admin());
///
/// // `admin.token.issued` is durable before anybody holds the token.
/// let mut unit = systemprompt_audit::Unit::new();
/// pending.record(&mut unit, None);
/// ```
pub struct JwtService {
    keys: Arc<ClassKeys>,
    clock: Arc<dyn Clock>,
}

impl JwtService {
    pub fn new(keys: Arc<ClassKeys>, clock: Arc<dyn Clock>) -> Self {
        Self { keys, clock }
    }

    /// An admin token, given out by [`PendingToken::release`].
    ///
    /// # Errors
    /// A life of less than a second or more than 24 hours.
    pub fn generate_admin_token(&self, params: &AdminTokenParams) -> Result<PendingToken, IssueError> {
        let facts = TokenFacts {
            class: TokenClass::Admin,
            issuer: &params.issuer,
            user_id: &params.user_id,
            session_id: &params.session_id,
            email: &params.email,
            audiences: vec![JwtAudience::Web, JwtAudience::Api],
            permissions: &[Permission::Admin, Permission::User],
            roles: vec!["admin".to_owned()],
            department: None,
            tier: RateLimitTier::Admin,
            duration: params.duration,
            longest: MAX_TOKEN_LIFE,
        };
        PendingToken::sign(&self.keys, facts, self.clock.now_seconds())
    }
}
