//! ID tokens (OpenID Connect Core section 2): who signed in, when and how, for one client.

use crate::at_rest::Label;
use crate::constants::ID_TOKEN_SECONDS;
use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::services::claims::ClaimsRequest;
use crate::state::OAuthState;
use crate::users::User;
use serde_json::{Map, Value, json};
use systemprompt_models::Secret;
use systemprompt_models::ids::{Jti, SessionId};
use systemprompt_security::jwt::SignedAccess;

/// What an ID token says.
#[derive(Clone, Copy)]
pub struct IdTokenFacts<'a> {
    pub client: &'a OAuthClient,
    pub user: &'a User,
    /// The browser session, of which the client learns a digest.
    pub session: &'a SessionId,
    /// Epoch seconds.
    pub auth_time: i64,
    pub acr: Option<&'a str>,
    /// Space-separated.
    pub amr: Option<&'a str>,
    /// Of the authorization request; a refreshed ID token has none.
    pub nonce: Option<&'a str>,
    /// What the `claims` parameter asked for, JSON, and the words that the person allowed.
    pub claims: Option<&'a str>,
    pub granted: &'a str,
    /// The access token that is given out with it.
    pub access: Option<&'a SignedAccess>,
}

/// `sid` of a session: a client can tell two of its user's sessions apart, and end none.
pub fn sid(state: &OAuthState, session: &SessionId) -> String {
    state.at_rest.digest(Label::SessionName, session.as_str()).hex
}

/// Whether `text` is the `sid` of this session, under the present pepper or the one before.
pub fn is_sid_of(state: &OAuthState, text: &str, session: &SessionId) -> bool {
    let (present, previous) = state.at_rest.candidates(Label::SessionName, session.as_str());
    text == present || text == previous
}

/// Whether an ID token for a client can be signed here. Asked before a person takes the trouble to sign in, too.
///
/// # Errors
/// [`OauthError::NoIdTokenKey`].
pub fn check_signer(state: &OAuthState, client: &OAuthClient) -> OauthResult<()> {
    let algorithm = client.id_token_signed_response_alg;
    state.keys.load().signer(algorithm).map(drop).map_err(|_| OauthError::NoIdTokenKey(algorithm))
}

/// Signs an ID token with the algorithm that the client registered.
///
/// # Errors
/// No key of that algorithm on this node.
pub fn id_token(state: &OAuthState, facts: IdTokenFacts<'_>) -> OauthResult<Secret<String>> {
    check_signer(state, facts.client)?;
    let algorithm = facts.client.id_token_signed_response_alg;
    let now = state.clock.now_seconds();
    let claims = claims(&facts, state.tokens.issuer(), &sid(state, facts.session), now);
    Ok(state.tokens.id_token(algorithm, &claims)?)
}

fn claims(facts: &IdTokenFacts<'_>, issuer: &str, sid: &str, now: i64) -> Value {
    let client = facts.client.client_id.as_str();
    let mut claims = Map::new();
    let fixed = json!({
        "iss": issuer,
        "sub": facts.user.id.as_str(),
        "aud": client,
        "azp": client,
        "exp": now + ID_TOKEN_SECONDS,
        "iat": now,
        "auth_time": facts.auth_time,
        "sid": sid,
        "jti": Jti::generate().as_str(),
    });
    if let Value::Object(fixed) = fixed {
        claims.extend(fixed);
    }
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    put("nonce", facts.nonce.map(Into::into));
    put("acr", facts.acr.map(Into::into));
    put("amr", facts.amr.map(|amr| amr.split_ascii_whitespace().collect::<Vec<_>>().into()));
    let algorithm = facts.client.id_token_signed_response_alg;
    put("at_hash", facts.access.map(|access| access.at_hash(algorithm).into()));
    claims.extend(ClaimsRequest::stored(facts.claims).for_id_token(facts.user, facts.granted));
    Value::Object(claims)
}
