//! MCP proxy assertions (SEC-46): what this deployment tells a tool server, or a node of its own, about who calls. One lives for
//! half a minute, for one server, one body and one use. It is signed by an internal key, and an entity rule has been decided and
//! recorded before it is made.

use super::compact::{Compact, MAX_DEPTH};
use super::sign::{compact, header};
use super::signed_claims::{JWT_LEEWAY, check_actors};
use super::verifier::{Failure, Verifier, check_signature};
use crate::error::JwtError;
use crate::extraction::header::{HeaderInjectionError, HeaderInjector};
use crate::extraction::token::MCP_PROXY_HEADER;
use crate::keys::{KeyError, SharedKeys, SigningAlgorithm, TokenAlgorithm};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq as _;
use systemprompt_audit::Permit;
use systemprompt_models::auth::MAX_ACT_DEPTH;
use systemprompt_models::auth::scope_of;
use systemprompt_models::ids::{Jti, SessionId, UserId};
use systemprompt_models::json::{JsonFault, check_object};
use systemprompt_models::{
    Actor, Clock, CredentialKind, Permission, Principal, RequestContext, Secret, UserType, parse_permissions,
};

/// The `typ` of an assertion.
pub const ASSERTION_TYP: &str = "mcp-proxy+jwt";
/// Longest life, in seconds.
pub const MAX_ASSERTION_LIFE: i64 = 30;
/// Most used assertions that are remembered; with more none is taken until some have ended.
pub const MAX_USED: usize = 10_000;

/// Why no assertion was made.
#[derive(Debug, thiserror::Error)]
pub enum AssertionError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Header(#[from] HeaderInjectionError),
    #[error("the call has passed through more than {MAX_ACT_DEPTH} actors")]
    ChainTooLong,
    #[error("the assertion could not be built")]
    Build,
}

/// The claims of an assertion. Roles and department are there because the receiving node decides by them.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    session_id: String,
    scope: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    department: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act: Option<Actor>,
    jti: String,
    iat: i64,
    exp: i64,
    bind: String,
}

/// Who an assertion speaks for.
#[derive(Clone, Debug)]
pub struct VerifiedAssertion {
    pub principal: Principal,
    pub jti: Jti,
    /// Epoch seconds.
    pub issued_at: i64,
}

/// Makes assertions.
pub struct AssertionIssuer {
    issuer: String,
    keys: SharedKeys,
    clock: Arc<dyn Clock>,
}

impl AssertionIssuer {
    /// `issuer` is `security.jwt_issuer`.
    pub fn new(issuer: impl Into<String>, keys: SharedKeys, clock: Arc<dyn Clock>) -> Self {
        Self { issuer: issuer.into(), keys, clock }
    }

    /// An assertion that the principal of `context` calls `server` with `body`. The permit is that of the decision on the server.
    ///
    /// # Errors
    /// No internal key on this node, or a chain of actors that is full.
    pub fn mint(
        &self,
        _decided: &Permit,
        context: &RequestContext,
        server: &str,
        body: &[u8],
    ) -> Result<Secret<String>, AssertionError> {
        self.sign(&context.principal, server, body)
    }

    /// Writes the context and an assertion for `server` with `body` onto an outgoing request, in place of whatever of both it
    /// had.
    ///
    /// # Errors
    /// As [`Self::mint`], and a value of the context that cannot stand in a header.
    pub fn authorize(
        &self,
        decided: &Permit,
        context: &RequestContext,
        server: &str,
        body: &[u8],
        headers: &mut HeaderMap,
    ) -> Result<(), AssertionError> {
        HeaderInjector::inject(context, headers)?;
        let token = self.mint(decided, context, server, body)?;
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let mut value = value.map_err(|_| AssertionError::Build)?;
        value.set_sensitive(true);
        headers.insert(MCP_PROXY_HEADER, value);
        Ok(())
    }

    fn sign(
        &self,
        principal: &Principal,
        server: &str,
        body: &[u8],
    ) -> Result<Secret<String>, AssertionError> {
        let audience = audience(server);
        if principal.act_chain.len() >= MAX_ACT_DEPTH {
            return Err(AssertionError::ChainTooLong);
        }
        let inner = principal.act_chain.iter().rev();
        let inner = inner.fold(None, |act, sub| Some(Box::new(Actor::new(sub.clone(), act))));
        let now = self.clock.now_seconds();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: audience.clone(),
            sub: principal.user_id.to_string(),
            session_id: principal.session_id.to_string(),
            scope: scope_of(&principal.permissions),
            roles: principal.roles.clone(),
            department: principal.department.clone(),
            owner: principal.owner.as_ref().map(ToString::to_string),
            act: Some(Actor::new(audience, inner)),
            jti: Jti::generate().to_string(),
            iat: now,
            exp: now + MAX_ASSERTION_LIFE,
            bind: digest_of(body),
        };
        let key = self.keys.load().internal_signer()?;
        let claims = serde_json::to_vec(&claims).map_err(|_| AssertionError::Build)?;
        let header = header(ASSERTION_TYP, key.algorithm().as_str(), key.kid());
        let mut failed = None;
        let token = compact(&header, &claims, |input| {
            key.sign(input).unwrap_or_else(|error| {
                failed = Some(error);
                Vec::new()
            })
        });
        failed.map_or(Ok(token), |error| Err(error.into()))
    }
}

/// Assertions that were used and have not ended.
#[derive(Debug, Default)]
pub(super) struct UsedAssertions(Mutex<HashMap<Jti, i64>>);

impl UsedAssertions {
    /// Spends `jti`, which ends at `exp`.
    fn spend(&self, jti: &Jti, exp: i64, now: i64) -> Result<(), JwtError> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains_key(jti) {
            return Err(JwtError::Replayed);
        }
        if used.len() >= MAX_USED {
            used.retain(|_, exp| *exp > now);
        }
        if used.len() >= MAX_USED {
            return Err(JwtError::TooManyAssertions);
        }
        used.insert(jti.clone(), exp);
        Ok(())
    }
}

impl Verifier {
    /// Verifies an assertion for `server` with `body`, and spends it.
    pub(crate) fn verify_assertion(
        &self,
        token: &str,
        server: &str,
        body: &[u8],
    ) -> Result<VerifiedAssertion, Failure> {
        let nameless = |error| (error, None);
        let parts = Compact::split(token).map_err(nameless)?;
        let header = parts.header().map_err(nameless)?;
        if header.typ.as_deref() != Some(ASSERTION_TYP) {
            return Err(nameless(JwtError::TypeNotAccepted));
        }
        let kid = header.kid.as_deref().ok_or_else(|| nameless(JwtError::KeyMissing))?;
        let keys = self.keys.load();
        let key = keys.internal_key(kid, self.clock().now());
        let key = key.ok_or_else(|| nameless(JwtError::KeyUnknown))?;
        let named = |error| (error, Some(Arc::clone(&key.info.kid)));
        let algorithm = TokenAlgorithm::Ring(SigningAlgorithm::EdDsa);
        check_signature(&header, &parts, algorithm, key.may_verify, &key.decoding).map_err(named)?;
        let claims = parts.claims().and_then(|json| read(&json)).map_err(named)?;
        let now = self.clock().now_seconds();
        check(&claims, self.issuer(), server, body, now).map_err(named)?;
        let asserted = principal(claims, |jti, exp| self.used.spend(jti, exp, now));
        asserted.map_err(named)
    }
}

fn read(json: &[u8]) -> Result<Claims, JwtError> {
    match check_object(json, MAX_DEPTH) {
        Ok(()) => serde_json::from_slice(json).map_err(|_| JwtError::ClaimsInvalid),
        Err(JsonFault::Duplicate(_)) => Err(JwtError::ClaimsDuplicateMember),
        Err(_) => Err(JwtError::ClaimsInvalid),
    }
}

fn check(claims: &Claims, issuer: &str, server: &str, body: &[u8], now: i64) -> Result<(), JwtError> {
    if claims.iss != issuer {
        Err(JwtError::IssuerMismatch)
    } else if claims.aud != audience(server) {
        Err(JwtError::ServerMismatch)
    } else if claims.exp <= claims.iat {
        Err(JwtError::TimesOutOfOrder)
    } else if now >= claims.exp {
        Err(JwtError::Expired)
    } else if claims.iat > now.saturating_add(JWT_LEEWAY) {
        Err(JwtError::IssuedInFuture)
    } else if claims.exp.saturating_sub(claims.iat) > MAX_ASSERTION_LIFE {
        Err(JwtError::LifeTooLong)
    } else if !bool::from(claims.bind.as_bytes().ct_eq(digest_of(body).as_bytes())) {
        Err(JwtError::BodyMismatch)
    } else {
        Ok(())
    }
}

/// The principal of claims that hold, once `spend` has taken their id: last, so that a failed check spends nothing.
fn principal(
    claims: Claims,
    spend: impl FnOnce(&Jti, i64) -> Result<(), JwtError>,
) -> Result<VerifiedAssertion, JwtError> {
    if claims.sub.is_empty() {
        return Err(JwtError::SubjectMissing);
    } else if claims.jti.is_empty() {
        return Err(JwtError::JtiMissing);
    } else if claims.session_id.is_empty() {
        return Err(JwtError::SessionMissing);
    }
    check_actors(claims.act.as_ref())?;
    let permissions = parse_permissions(&claims.scope).map_err(|_| JwtError::ScopeInvalid)?;
    if permissions.is_empty() {
        return Err(JwtError::ScopeInvalid);
    }
    let jti = Jti::from(claims.jti);
    spend(&jti, claims.exp)?;
    let user_type = UserType::of(&permissions);
    let is_anonymous = permissions == [Permission::Anonymous];
    let principal = Principal {
        user_id: UserId::from(claims.sub),
        session_id: SessionId::from(claims.session_id),
        client_id: None,
        user_type,
        tier: user_type.tier(),
        roles: claims.roles,
        department: claims.department.filter(|department| !department.is_empty()),
        act_chain: claims.act.as_ref().map(Actor::chain).unwrap_or_default(),
        credential: if is_anonymous {
            CredentialKind::None
        } else {
            CredentialKind::Token { jti: jti.clone() }
        },
        owner: claims.owner.map(UserId::from),
        plugin_id: None,
        permissions,
    };
    Ok(VerifiedAssertion { principal, jti, issued_at: claims.iat })
}

fn audience(server: &str) -> String {
    format!("mcp:{server}")
}

/// SHA-256 of a body, base64url.
fn digest_of(body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, body))
}

#[cfg(test)]
mod tests;
