//! The one verifier. Its steps stand in the order of SEC-52; the first that fails ends it. What needs storage, revocation and
//! the session, follows in [`crate::auth::AuthValidationService`].

use super::compact::{Compact, Header};
use super::sign::rank;
use super::strict::{Shape, shape};
use super::surface::{Surface, Target};
use crate::error::JwtError;
use crate::keys::{ClassKeys, SharedKeys, TokenAlgorithm, TokenClass, VerificationKey};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use std::sync::Arc;
use systemprompt_models::claims::MAX_ACT_DEPTH;
use systemprompt_models::ids::{ClientId, Jti, SessionId, UserId};
use systemprompt_models::permission::scope_of;
use systemprompt_models::{
    Actor, Clock, JwtAudience, JwtClaims, Millis, RateLimitTier, UserType, parse_permissions,
};

/// Tolerance on `nbf` and `iat`, in seconds: the nodes' clocks differ. Our own tokens end exactly at `exp`.
pub const JWT_LEEWAY: i64 = 30;

/// A token whose signature and claims hold. Whether it was revoked is another question.
#[derive(Clone, Debug)]
pub struct Verified {
    pub claims: JwtClaims,
    pub class: TokenClass,
    pub kid: Arc<str>,
    /// Surfaces that the audience names.
    pub(crate) surfaces: u16,
    /// State of the key ring that it was verified under.
    pub(crate) key_epoch: u64,
}

impl Verified {
    /// End of the token, in epoch milliseconds.
    pub fn expires_at(&self) -> Millis {
        self.claims.exp.saturating_mul(1000)
    }
}

/// A failed verification, and the key if it is one of ours.
pub(crate) type Failure = (JwtError, Option<Arc<str>>);

/// Verifies tokens of this deployment.
pub struct Verifier {
    issuer: String,
    classes: Arc<ClassKeys>,
    keys: SharedKeys,
    clock: Arc<dyn Clock>,
}

/// A key with what it may verify.
enum Key {
    Derived { kid: Arc<str>, class: TokenClass, key: DecodingKey },
    Ring(Arc<VerificationKey>),
}

impl Key {
    fn kid(&self) -> &Arc<str> {
        match self {
            Self::Derived { kid, .. } => kid,
            Self::Ring(key) => &key.info.kid,
        }
    }

    fn algorithm(&self) -> TokenAlgorithm {
        match self {
            Self::Derived { .. } => TokenAlgorithm::Hs256,
            Self::Ring(key) => TokenAlgorithm::Ring(key.algorithm()),
        }
    }

    fn class(&self) -> TokenClass {
        match self {
            Self::Derived { class, .. } => *class,
            Self::Ring(_) => TokenClass::Access,
        }
    }

    fn may_verify(&self) -> bool {
        match self {
            Self::Derived { .. } => true,
            Self::Ring(key) => key.may_verify,
        }
    }

    fn decoding(&self) -> &DecodingKey {
        match self {
            Self::Derived { key, .. } => key,
            Self::Ring(key) => &key.decoding,
        }
    }
}

impl Verifier {
    /// `issuer` is `security.jwt_issuer`; `keys` comes from [`crate::keys::KeyRing::keys`].
    pub fn new(
        issuer: impl Into<String>,
        classes: Arc<ClassKeys>,
        keys: SharedKeys,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { issuer: issuer.into(), classes, keys, clock }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// State of the key ring; a token that was verified under another one is verified again.
    pub(crate) fn key_epoch(&self) -> u64 {
        self.keys.load().epoch
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Verifies everything that the token itself and the keys can tell.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn verify<'a>(&self, token: &str, target: impl Into<Target<'a>>) -> Result<Verified, JwtError> {
        self.verify_named(token, target.into()).map_err(|(error, _)| error)
    }

    pub(crate) fn verify_named(&self, token: &str, target: Target<'_>) -> Result<Verified, Failure> {
        let nameless = |error| (error, None);
        let key_epoch = self.key_epoch();
        let parts = Compact::split(token).map_err(nameless)?;
        let header = parts.header().map_err(nameless)?;
        let key = self.key(&header, target.surface).map_err(nameless)?;
        let kid = Arc::clone(key.kid());
        self.verify_with(&key, &header, &parts, target)
            .map(|(claims, surfaces)| Verified {
                claims,
                class: key.class(),
                kid: Arc::clone(&kid),
                surfaces,
                key_epoch,
            })
            .map_err(|error| (error, Some(kid)))
    }

    /// `typ` names a class that the surface takes, and `kid` a key of that class.
    fn key(&self, header: &Header, surface: Surface) -> Result<Key, JwtError> {
        let is_access = match header.typ.as_deref() {
            Some("at+jwt") => true,
            Some("session+jwt") => false,
            _ => return Err(JwtError::TypeNotAccepted),
        };
        let kid = header.kid.as_deref();
        if is_access {
            if !surface.takes(TokenClass::Access) {
                return Err(JwtError::TypeNotAccepted);
            }
            let keys = self.keys.load();
            let key = keys.verification_key(kid.ok_or(JwtError::KeyMissing)?, self.clock.now());
            return key.cloned().map(Key::Ring).ok_or(JwtError::KeyUnknown);
        }
        if !TokenClass::SESSION_CLASSES.into_iter().any(|class| surface.takes(class)) {
            return Err(JwtError::TypeNotAccepted);
        }
        let key = self.classes.by_kid(kid.ok_or(JwtError::KeyMissing)?).ok_or(JwtError::KeyUnknown)?;
        if !surface.takes(key.class) {
            return Err(JwtError::TypeNotAccepted);
        }
        Ok(Key::Derived { kid: Arc::clone(&key.kid), class: key.class, key: key.verifying.clone() })
    }

    fn verify_with(
        &self,
        key: &Key,
        header: &Header,
        parts: &Compact<'_>,
        target: Target<'_>,
    ) -> Result<(JwtClaims, u16), JwtError> {
        let named =
            header.alg.as_deref().and_then(TokenAlgorithm::parse).ok_or(JwtError::AlgorithmUnknown)?;
        let algorithm = key.algorithm();
        if named != algorithm {
            return Err(JwtError::AlgorithmMismatch);
        }
        if !key.may_verify() {
            return Err(JwtError::KeyUseNotAllowed);
        }
        let algorithm = algorithm.for_jsonwebtoken();
        let is_signed =
            jsonwebtoken::crypto::verify(parts.signature, parts.input.as_bytes(), key.decoding(), algorithm);
        if !is_signed.unwrap_or(false) {
            return Err(JwtError::SignatureInvalid);
        }
        let claims = SignedClaims::read(&parts.claims()?)?;
        claims.check_issuer(&self.issuer)?;
        let surfaces = claims.check_audience(key.class(), target)?;
        claims.check_times(self.clock.now_seconds())?;
        Ok((claims.finish()?, surfaces))
    }
}

/// Claims under a good signature, not yet judged. A member that is missing is told from one of the wrong type.
#[derive(Deserialize)]
struct SignedClaims {
    iss: Option<String>,
    #[serde(default)]
    aud: OneOrMany,
    exp: Option<i64>,
    nbf: Option<i64>,
    iat: Option<i64>,
    sub: Option<String>,
    jti: Option<String>,
    session_id: Option<String>,
    act: Option<Actor>,
    scope: Option<String>,
    user_type: Option<UserType>,
    rate_limit_tier: Option<RateLimitTier>,
    #[serde(default)]
    username: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    roles: Vec<String>,
    department: Option<String>,
    client_id: Option<ClientId>,
    plugin_id: Option<String>,
    auth_time: Option<i64>,
}

/// RFC 7519 section 4.1.3: one audience may stand without a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(JwtAudience),
    Many(Vec<JwtAudience>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn as_slice(&self) -> &[JwtAudience] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl SignedClaims {
    fn read(json: &[u8]) -> Result<Self, JwtError> {
        match shape(json) {
            Shape::Unique => serde_json::from_slice(json).map_err(|_| JwtError::ClaimsInvalid),
            Shape::Duplicate => Err(JwtError::ClaimsDuplicateMember),
            Shape::NoObject => Err(JwtError::ClaimsInvalid),
        }
    }

    fn check_issuer(&self, issuer: &str) -> Result<(), JwtError> {
        if self.iss.as_deref() == Some(issuer) { Ok(()) } else { Err(JwtError::IssuerMismatch) }
    }

    /// The surfaces that the audience names, if the one that is asked is among them.
    fn check_audience(&self, class: TokenClass, target: Target<'_>) -> Result<u16, JwtError> {
        let audiences = self.aud.as_slice();
        let surfaces = Surface::named_by(class, audiences);
        if surfaces & target.surface.bit() != 0 || target.is_resource_among(audiences) {
            Ok(surfaces)
        } else {
            Err(JwtError::AudienceMismatch)
        }
    }

    fn check_times(&self, now: i64) -> Result<(), JwtError> {
        let (Some(exp), Some(nbf), Some(iat)) = (self.exp, self.nbf, self.iat) else {
            return Err(JwtError::TimeMissing);
        };
        if exp <= iat || exp <= nbf {
            Err(JwtError::TimesOutOfOrder)
        } else if now >= exp {
            Err(JwtError::Expired)
        } else if nbf > now.saturating_add(JWT_LEEWAY) {
            Err(JwtError::NotYetValid)
        } else if iat > now.saturating_add(JWT_LEEWAY) {
            Err(JwtError::IssuedInFuture)
        } else {
            Ok(())
        }
    }

    fn finish(self) -> Result<JwtClaims, JwtError> {
        let sub = filled(self.sub).ok_or(JwtError::SubjectMissing)?;
        let jti = filled(self.jti).ok_or(JwtError::JtiMissing)?;
        let session_id = filled(self.session_id).ok_or(JwtError::SessionMissing)?;
        check_actors(self.act.as_ref())?;
        let permissions = self.scope.as_deref().map(parse_permissions);
        let Some(Ok(permissions)) = permissions else { return Err(JwtError::ScopeInvalid) };
        let user_type = UserType::of(&permissions);
        if permissions.is_empty() {
            return Err(JwtError::ScopeInvalid);
        } else if self.user_type != Some(user_type) {
            return Err(JwtError::UserTypeMismatch);
        }
        // A token cannot raise its own tier above its user type (SEC-30).
        let tier = self.rate_limit_tier.filter(|tier| rank(*tier) <= rank(user_type.tier()));
        Ok(JwtClaims {
            iss: self.iss.unwrap_or_default(),
            sub: UserId::from(sub),
            aud: match self.aud {
                OneOrMany::One(one) => vec![one],
                OneOrMany::Many(many) => many,
            },
            exp: self.exp.unwrap_or_default(),
            nbf: self.nbf.unwrap_or_default(),
            iat: self.iat.unwrap_or_default(),
            jti: Jti::from(jti),
            scope: scope_of(&permissions),
            username: self.username,
            email: self.email,
            user_type,
            roles: self.roles,
            department: self.department,
            client_id: self.client_id,
            session_id: SessionId::from(session_id),
            rate_limit_tier: tier.unwrap_or(user_type.tier()),
            plugin_id: self.plugin_id,
            auth_time: self.auth_time,
            act: self.act,
        })
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// RFC 8693 section 4.1: each actor has a subject; the chain has an end.
fn check_actors(outermost: Option<&Actor>) -> Result<(), JwtError> {
    let mut depth = 0;
    let mut next = outermost;
    while let Some(actor) = next {
        depth += 1;
        if depth > MAX_ACT_DEPTH || actor.sub.is_empty() {
            return Err(JwtError::ActorChainInvalid);
        }
        next = actor.act.as_deref();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
