//! What a verified session-class token says.

use crate::jwt::Verified;
use systemprompt_models::ids::{Jti, SessionId, UserId};
use systemprompt_models::{Millis, Permission, RateLimitTier, UserType};

/// The claims of a session, admin or anonymous token after its verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedSessionClaims {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub user_type: UserType,
    pub permissions: Vec<Permission>,
    pub roles: Vec<String>,
    pub department: Option<String>,
    pub tier: RateLimitTier,
    pub jti: Jti,
    /// End of the token, in epoch milliseconds.
    pub expires_at: Millis,
}

impl ValidatedSessionClaims {
    /// The claims of `verified`, unless it is an access token: that never stands in for a session token (ID-78).
    pub fn of(verified: &Verified) -> Option<Self> {
        let claims = &verified.claims;
        verified.class.is_session_class().then(|| Self {
            user_id: claims.sub.clone(),
            session_id: claims.session_id.clone(),
            user_type: claims.user_type,
            permissions: claims.permissions(),
            roles: claims.roles.clone(),
            department: claims.department.clone(),
            tier: claims.rate_limit_tier,
            jti: claims.jti.clone(),
            expires_at: verified.expires_at(),
        })
    }
}
