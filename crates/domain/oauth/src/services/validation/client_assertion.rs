//! `private_key_jwt`: a client proves itself with a token that it signed (RFC 7523, OpenID Connect Core section 9).

use super::client_keys::{ALGORITHMS, ClientKeys};
use crate::constants::FOREIGN_LEEWAY_SECONDS;
use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::ClientAuthMethod;
use crate::services::cimd::jwks;
use crate::state::OAuthState;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use systemprompt_config::profile::identity::AssertionAudience;
use systemprompt_models::RequestContext;
use systemprompt_models::json::check_object;

/// The one value of `client_assertion_type`.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Longest assertion, in bytes.
const MAX_ASSERTION: usize = 6 * 1024;
/// How far ahead its end may lie, in seconds.
const MAX_LIFE: i64 = 300;
const MAX_JTI: usize = 256;
const MAX_DEPTH: usize = 8;

/// An assertion before anything of it is verified.
struct Unverified<'a> {
    input: &'a [u8],
    signature: Vec<u8>,
    alg: String,
    kid: Option<String>,
    claims: Map<String, Value>,
}

/// The client that `assertion` is of. `named` is the `client_id` parameter.
///
/// # Errors
/// `invalid_client`, the same for every reason.
pub(crate) async fn verify(
    state: &OAuthState,
    context: &RequestContext,
    assertion: &str,
    named: Option<&str>,
) -> OauthResult<OAuthClient> {
    let refused = OauthError::invalid_client;
    let unverified = read(assertion).ok_or_else(refused)?;
    let text = |name: &str| unverified.claims.get(name).and_then(Value::as_str);
    let id = text("sub").filter(|id| text("iss") == Some(id)).ok_or_else(refused)?;
    if named.is_some_and(|named| named != id) {
        return Err(refused());
    }
    // Nothing is proven yet: whoever asks has named it.
    let client = state
        .client_named(context, id)
        .await?
        .filter(|client| client.is_active() && client.auth_method == ClientAuthMethod::PrivateKeyJwt);
    let client = client.ok_or_else(refused)?;
    if !is_signed(state, context, &client, &unverified).await? {
        return Err(refused());
    }
    let (jti, end) = check_claims(state, &unverified.claims).ok_or_else(refused)?;
    // A jti counts once, as long as the token could come again.
    let kept_until = (end + FOREIGN_LEEWAY_SECONDS + 1).saturating_mul(1000);
    if !state.oauth.take_assertion_jti(id, jti, kept_until).await? {
        return Err(refused());
    }
    Ok(client)
}

fn read(assertion: &str) -> Option<Unverified<'_>> {
    if assertion.len() > MAX_ASSERTION {
        return None;
    }
    let (input, signature) = assertion.rsplit_once('.')?;
    let (header, claims) = input.split_once('.')?;
    let object = |part: &str| -> Option<Map<String, Value>> {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        check_object(&json, MAX_DEPTH).ok()?;
        serde_json::from_slice(&json).ok()
    };
    let header = object(header)?;
    let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
    let alg = text("alg").filter(|alg| ALGORITHMS.contains(&alg.as_str()))?;
    // What must be understood is not; and a key in the header is no key of the client's.
    if ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip"].iter().any(|name| header.contains_key(*name)) {
        return None;
    }
    let typ = text("typ").map(|typ| typ.to_ascii_lowercase());
    if !matches!(typ.as_deref(), None | Some("jwt" | "client-authentication+jwt")) {
        return None;
    }
    Some(Unverified {
        input: input.as_bytes(),
        signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        alg,
        kid: text("kid"),
        claims: object(claims)?,
    })
}

async fn is_signed(
    state: &OAuthState,
    context: &RequestContext,
    client: &OAuthClient,
    token: &Unverified<'_>,
) -> OauthResult<bool> {
    let by = |keys: &ClientKeys| {
        keys.find(token.kid.as_deref(), &token.alg)
            .is_some_and(|key| key.verifies(&token.alg, token.input, &token.signature))
    };
    if let Some(text) = &client.jwks {
        let set: Value = serde_json::from_str(text)
            .map_err(|_| OauthError::Impossible("a client's key set that cannot be read".into()))?;
        return Ok(ClientKeys::parse(&set).is_ok_and(|keys| by(&keys)));
    }
    let Some(uri) = &client.jwks_uri else { return Ok(false) };
    let found = |keys: &ClientKeys| keys.find(token.kid.as_deref(), &token.alg).is_some();
    let keys = jwks::keys(state, context, uri, found).await?;
    Ok(keys.is_some_and(|keys| by(&keys)))
}

/// (`jti`, `exp`) of claims that are for us and now.
fn check_claims<'c>(state: &OAuthState, claims: &'c Map<String, Value>) -> Option<(&'c str, i64)> {
    let settings = state.settings();
    let audience = match claims.get("aud")? {
        Value::String(one) => one.as_str(),
        Value::Array(items) => match items.as_slice() {
            [one] => one.as_str()?,
            _ => return None,
        },
        _ => return None,
    };
    let is_ours = audience == settings.issuer
        || (settings.identity.client_assertion_audience == AssertionAudience::IssuerOrTokenEndpoint
            && audience == settings.endpoint("/token"));
    let now = state.now().div_euclid(1000);
    // Fractions of a second are allowed by RFC 7519 and mean nothing here.
    #[expect(clippy::cast_possible_truncation, reason = "a saturating cast of a time")]
    let time = |value: &Value| value.as_i64().or_else(|| value.as_f64().map(|number| number as i64));
    let end = claims.get("exp").and_then(time)?;
    let is_now = end > now - FOREIGN_LEEWAY_SECONDS && end <= now + MAX_LIFE + FOREIGN_LEEWAY_SECONDS;
    let has_begun = ["iat", "nbf"].iter().all(|name| {
        claims.get(*name).is_none_or(|value| time(value).is_some_and(|at| at <= now + FOREIGN_LEEWAY_SECONDS))
    });
    let jti = claims.get("jti").and_then(Value::as_str);
    let jti = jti.filter(|jti| (1..=MAX_JTI).contains(&jti.len()) && !jti.contains('\0'))?;
    (is_ours && is_now && has_begun).then_some((jti, end))
}
