//! Credentials that were verified a moment ago (SEC-57), by the SHA-256 of their text. Failures are not kept.

use super::api_key::VerifiedKey;
use crate::error::JwtError;
use crate::jwt::surface::Target;
use crate::jwt::{Surface, Verified};
use crate::keys::TokenClass;
use crate::session::live::{Claimed, SessionEnd};
use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use systemprompt_models::ids::Jti;
use systemprompt_models::{JwtAudience, Millis, Principal};

const MAX_ENTRIES: u64 = 10_000;
const TOKEN_LIFE: Duration = Duration::from_mins(5);
/// An API key is asked for again so often. Its end, and a change of its owner, empty the cache before (SEC-57).
const KEY_LIFE: Duration = Duration::from_secs(5);

pub(super) type Digest = [u8; 32];

pub(super) fn digest_of(credential: &str) -> Digest {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, credential.as_bytes()).as_ref());
    key
}

/// A token that was verified, with what a hit still has to check.
pub(super) struct CachedToken {
    pub principal: Arc<Principal>,
    pub class: TokenClass,
    pub jti: Jti,
    /// Seconds from `iat` to `exp`.
    pub lifetime: i64,
    expires_at: Millis,
    session_expires_at: Millis,
    surfaces: u16,
    resources: Box<[JwtAudience]>,
    key_epoch: u64,
    /// Revocations up to here did not concern this token.
    pub epoch: AtomicU64,
    /// When the session was last noted as used.
    pub seen: AtomicI64,
}

impl CachedToken {
    pub fn new(verified: &Verified, session: SessionEnd, epoch: u64) -> Self {
        let claims = &verified.claims;
        let resources = claims.aud.iter().filter(|aud| matches!(aud, JwtAudience::Resource(_)));
        Self {
            principal: Arc::new(Principal { owner: session.owner, ..Principal::from_claims(claims) }),
            class: verified.class,
            jti: claims.jti.clone(),
            lifetime: claims.exp - claims.iat,
            expires_at: verified.expires_at(),
            session_expires_at: session.at,
            surfaces: verified.surfaces,
            resources: resources.cloned().collect(),
            key_epoch: verified.key_epoch,
            epoch: AtomicU64::new(epoch),
            seen: AtomicI64::new(0),
        }
    }

    /// Whether this is still the answer for `target`: `Ok(false)` when the token has to be verified anew.
    pub fn counts(&self, target: Target<'_>, key_epoch: u64, now: Millis) -> Result<bool, JwtError> {
        if self.key_epoch != key_epoch {
            return Ok(false);
        }
        if self.surfaces & target.surface.bit() == 0 && !target.is_resource_among(&self.resources) {
            return Ok(false);
        }
        if now >= self.expires_at {
            return Err(JwtError::Expired);
        }
        Ok(now < self.session_expires_at)
    }

    pub fn claimed(&self) -> Claimed<'_> {
        Claimed {
            jti: &self.jti,
            session: &self.principal.session_id,
            user: &self.principal.user_id,
            client: self.principal.client_id.as_ref(),
            issued_at: self.expires_at.div_euclid(1000) - self.lifetime,
            anonymous: self.class == TokenClass::Anonymous,
        }
    }

    pub fn confirm(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }
}

/// Verified tokens and API keys.
pub(super) struct VerifiedCache {
    pub tokens: Cache<Digest, Arc<CachedToken>>,
    keys: Cache<Digest, (u64, Arc<VerifiedKey>)>,
    /// Counts how often the keys were forgotten; a key that was looked up before the last time does not count.
    forgotten: AtomicU64,
}

impl VerifiedCache {
    pub fn new() -> Self {
        Self {
            tokens: Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(TOKEN_LIFE).build(),
            keys: Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(KEY_LIFE).build(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// What keys are to be remembered under; read before the key is looked up, so that one that ends meanwhile is not kept.
    pub fn round(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    pub fn key(&self, digest: &Digest) -> Option<Arc<VerifiedKey>> {
        self.keys.get(digest).filter(|(round, _)| *round == self.round()).map(|(_, key)| key)
    }

    pub fn remember_key(&self, digest: Digest, round: u64, key: Arc<VerifiedKey>) {
        self.keys.insert(digest, (round, key));
    }

    pub fn forget_keys(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.keys.invalidate_all();
    }

    /// Whether a credential was verified a moment ago; spares it the rate limit of unverified ones (SEC-30).
    pub fn knows(&self, digest: &Digest) -> bool {
        self.tokens.contains_key(digest) || self.keys.contains_key(digest)
    }
}

/// Whether a class of tokens may stand in a cookie: session tokens alone (ID-78).
pub(super) fn fits_cookie(class: TokenClass, surface: Surface) -> bool {
    class.is_session_class() && surface.takes_cookies()
}
