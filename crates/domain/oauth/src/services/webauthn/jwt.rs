//! The token of a session that a ceremony comes with. The edge has verified it; here is judged whether a further passkey may be added
//! in its name (ID-89).

use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::services::session::lookup;
use crate::state::OAuthState;
use crate::users::{User, UserKind, UserStatus};
use systemprompt_models::Principal;

/// Judges for whom passkeys are added.
#[derive(Clone, Copy, Debug)]
pub struct JwtTokenValidator<'a>(pub &'a OAuthState);

impl JwtTokenValidator<'_> {
    /// The person of a session, whose sign-in is recent.
    ///
    /// # Errors
    /// `login_required` without a session or when the sign-in is too old, `access_denied` for an account that may not sign in.
    pub async fn recent(&self, visitor: Option<&Principal>) -> OauthResult<User> {
        let visitor =
            visitor.ok_or_else(|| OauthError::new(ErrorCode::LoginRequired, "sign in, or bring a token"))?;
        lookup::need_recent(self.0, visitor).await?;
        self.holder(Some(visitor.user_id.as_str())).await
    }

    /// The active person of this id.
    ///
    /// # Errors
    /// `access_denied` for anybody else.
    pub async fn holder(&self, id: Option<&str>) -> OauthResult<User> {
        let user = self.0.users.find(id.unwrap_or_default()).await?;
        user.filter(|user| user.kind == UserKind::Person && user.status == UserStatus::Active)
            .ok_or_else(|| OauthError::new(ErrorCode::AccessDenied, "this account may not sign in"))
    }
}
