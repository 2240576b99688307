//! What a client learns of the person it acts for (OpenID Connect Core section 5.3; ID-70).

use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::state::OAuthState;
use crate::users::{User, UserStatus};
use serde_json::{Map, Value};
use systemprompt_models::{JwtClaims, UserType};
use systemprompt_security::error::AuthError;
use systemprompt_security::keys::TokenClass;

/// The claims about the person of an access token.
///
/// # Errors
/// `invalid_token` for one that does not count, `insufficient_scope` for one that is not about a person.
pub async fn userinfo(state: &OAuthState, token: &str) -> OauthResult<Map<String, Value>> {
    let wrong = || OauthError::new(ErrorCode::InvalidToken, "the access token does not count");
    let verified = state.verifier.verify_own(token).map_err(|_| wrong())?;
    if verified.class != TokenClass::Access {
        return Err(wrong());
    }
    let claims = verified.claims;
    state.sessions.check_claims(&claims).await.map_err(|error| match error {
        AuthError::RevocationUnavailable(_) => {
            OauthError::new(ErrorCode::TemporarilyUnavailable, "try again shortly")
        }
        _ => wrong(),
    })?;
    if !claims.has_scope("openid") {
        return Err(OauthError::new(ErrorCode::InsufficientScope, "the scope openid is missing"));
    }
    let user = state.users.find(claims.sub.as_str()).await?.filter(|user| user.status == UserStatus::Active);
    let user = user.ok_or_else(wrong)?;
    if claims.user_type == UserType::Service {
        return Err(OauthError::new(
            ErrorCode::InsufficientScope,
            "the token is of a client, not of a person",
        ));
    }
    Ok(claims_of(&user, &claims))
}

/// What the scopes of a token tell of a user.
fn claims_of(user: &User, token: &JwtClaims) -> Map<String, Value> {
    let mut claims = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    put("sub", Some(user.id.as_str().into()));
    if token.has_scope("profile") {
        put("name", Some(user.display_name.as_deref().unwrap_or(&user.username).into()));
        put("preferred_username", Some(user.username.as_str().into()));
        put("locale", user.locale.as_deref().map(Value::from));
        put("updated_at", Some((user.updated_at / 1000).into()));
    }
    if token.has_scope("email") {
        put("email", user.email.as_deref().map(Value::from));
        put("email_verified", user.email.as_ref().map(|_| user.email_verified.into()));
    }
    claims
}
