//! What a client learns of the person it acts for (OpenID Connect Core section 5.3; ID-70).

use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::repository::oauth::grants::Grant;
use crate::services::claims::{self, ClaimsRequest, claim, of_scope};
use crate::state::OAuthState;
use crate::users::{User, UserStatus};
use serde_json::{Map, Value};
use systemprompt_models::{JwtClaims, UserType};
use systemprompt_security::keys::TokenClass;

/// The claims about the person of an access token.
///
/// # Errors
/// `invalid_token` for one that does not count, `insufficient_scope` for one that is not about a person.
pub async fn userinfo(state: &OAuthState, token: &str) -> OauthResult<Map<String, Value>> {
    told(state, token).await.inspect_err(|error| state.meter.refused("userinfo", error.code().as_str()))
}

async fn told(state: &OAuthState, token: &str) -> OauthResult<Map<String, Value>> {
    let wrong = || OauthError::new(ErrorCode::InvalidToken, "the access token does not count");
    let verified = state.verifier.verify_own(token).map_err(|_| wrong())?;
    if verified.class != TokenClass::Access {
        return Err(wrong());
    }
    let claims = verified.claims;
    state.sessions.check_claims(&claims).await?;
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
    let mut told = claims_of(&user, &claims);
    // The grant whose session the token is of, and what it asked for one by one.
    if let Some(grant) = state.oauth.find_grant_of_session(&claims.session_id).await? {
        let granted = still_registered(state, &grant).await?;
        told.extend(ClaimsRequest::stored(grant.claims.as_deref()).for_userinfo(&user, &granted));
    }
    Ok(told)
}

/// The words of a grant that its client may still have.
async fn still_registered(state: &OAuthState, grant: &Grant) -> OauthResult<String> {
    if grant.claims.is_none() {
        return Ok(String::new());
    }
    let client = state.client(&grant.client_id).await?;
    Ok(client.map(|client| claims::still_registered(&grant.scopes, &client)).unwrap_or_default())
}

/// What the scopes of a token tell of a user.
fn claims_of(user: &User, token: &JwtClaims) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), user.id.as_str().into());
    let scopes = ["profile", "email"].into_iter().filter(|scope| token.has_scope(scope));
    for name in scopes.flat_map(of_scope) {
        if let Some(value) = claim(user, name) {
            claims.insert(name.to_owned(), value);
        }
    }
    claims
}
