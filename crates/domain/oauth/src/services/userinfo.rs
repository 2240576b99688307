//! What a client learns of the person it acts for (OpenID Connect Core section 5.3; ID-70).

use crate::error::OauthResult;
use crate::repository::oauth::grants::Grant;
use crate::services::claims::{self, ClaimsRequest, claim, of_scope};
use crate::services::jwt::AuthService;
use crate::state::OAuthState;
use crate::users::User;
use serde_json::{Map, Value};
use systemprompt_models::JwtClaims;

/// The claims about the person of an access token.
///
/// # Errors
/// `invalid_token` for one that does not count, `insufficient_scope` for one that is not about a person.
pub async fn userinfo(state: &OAuthState, token: &str) -> OauthResult<Map<String, Value>> {
    told(state, token).await.inspect_err(|error| state.meter.refused("userinfo", error.code().as_str()))
}

async fn told(state: &OAuthState, token: &str) -> OauthResult<Map<String, Value>> {
    let service = AuthService(state);
    let claims = service.authenticate(token).await?;
    let user = service.person(&claims).await?;
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
