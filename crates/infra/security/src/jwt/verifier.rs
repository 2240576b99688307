//! The one verifier. Its steps stand in the order of SEC-52; the first that fails ends it. What needs storage, revocation and
//! the session, follows in [`crate::auth::AuthValidationService`].

use super::assertion::UsedAssertions;
use super::compact::{Compact, Header};
use super::signed_claims::SignedClaims;
use super::surface::Target;
use crate::error::JwtError;
use crate::keys::{ClassKeys, SharedKeys, TokenAlgorithm, TokenClass, VerificationKey};
use jsonwebtoken::DecodingKey;
use std::sync::Arc;
use systemprompt_models::{Clock, JwtClaims, Millis};

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
    pub(super) keys: SharedKeys,
    clock: Arc<dyn Clock>,
    pub(super) used: UsedAssertions,
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
        Self { issuer: issuer.into(), classes, keys, clock, used: UsedAssertions::default() }
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

    /// Verifies a token whoever it is for: for who ends it or looks at it, never for who is let in by it.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn verify_own(&self, token: &str) -> Result<Verified, JwtError> {
        self.verify_at(token, None).map_err(|(error, _)| error)
    }

    pub(crate) fn verify_named(&self, token: &str, target: Target<'_>) -> Result<Verified, Failure> {
        self.verify_at(token, Some(target))
    }

    fn verify_at(&self, token: &str, target: Option<Target<'_>>) -> Result<Verified, Failure> {
        let nameless = |error| (error, None);
        let key_epoch = self.key_epoch();
        let parts = Compact::split(token).map_err(nameless)?;
        let header = parts.header().map_err(nameless)?;
        let takes = |class| target.is_none_or(|target| target.surface.takes(class));
        let key = self.key(&header, takes).map_err(nameless)?;
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
    fn key(&self, header: &Header, takes: impl Fn(TokenClass) -> bool) -> Result<Key, JwtError> {
        let is_access = match header.typ.as_deref() {
            Some("at+jwt") => true,
            Some("session+jwt") => false,
            _ => return Err(JwtError::TypeNotAccepted),
        };
        let kid = header.kid.as_deref();
        if is_access {
            if !takes(TokenClass::Access) {
                return Err(JwtError::TypeNotAccepted);
            }
            let keys = self.keys.load();
            let key = keys.verification_key(kid.ok_or(JwtError::KeyMissing)?, self.clock.now());
            return key.cloned().map(Key::Ring).ok_or(JwtError::KeyUnknown);
        }
        if !TokenClass::SESSION_CLASSES.into_iter().any(&takes) {
            return Err(JwtError::TypeNotAccepted);
        }
        let key = self.classes.by_kid(kid.ok_or(JwtError::KeyMissing)?).ok_or(JwtError::KeyUnknown)?;
        if !takes(key.class) {
            return Err(JwtError::TypeNotAccepted);
        }
        Ok(Key::Derived { kid: Arc::clone(&key.kid), class: key.class, key: key.verifying.clone() })
    }

    fn verify_with(
        &self,
        key: &Key,
        header: &Header,
        parts: &Compact<'_>,
        target: Option<Target<'_>>,
    ) -> Result<(JwtClaims, u16), JwtError> {
        check_signature(header, parts, key.algorithm(), key.may_verify(), key.decoding())?;
        let claims = SignedClaims::read(&parts.claims()?)?;
        claims.check_issuer(&self.issuer)?;
        let surfaces = match target {
            Some(target) => claims.check_audience(key.class(), target)?,
            None => 0,
        };
        claims.check_times(self.clock.now_seconds())?;
        Ok((claims.finish()?, surfaces))
    }
}

/// The algorithm is the key's; the header may only agree.
pub(super) fn check_signature(
    header: &Header,
    parts: &Compact<'_>,
    algorithm: TokenAlgorithm,
    may_verify: bool,
    key: &DecodingKey,
) -> Result<(), JwtError> {
    let named = header.alg.as_deref().and_then(TokenAlgorithm::parse).ok_or(JwtError::AlgorithmUnknown)?;
    if named != algorithm {
        return Err(JwtError::AlgorithmMismatch);
    }
    if !may_verify {
        return Err(JwtError::KeyUseNotAllowed);
    }
    let algorithm = algorithm.for_jsonwebtoken();
    let is_signed = jsonwebtoken::crypto::verify(parts.signature, parts.input.as_bytes(), key, algorithm);
    if is_signed.unwrap_or(false) { Ok(()) } else { Err(JwtError::SignatureInvalid) }
}

#[cfg(test)]
mod tests;
