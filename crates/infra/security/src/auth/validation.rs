//! Authentication of a request: credential, verifier, revocation, session, principal.

use super::api_key::{ApiKeyProvider, VerifiedKey, has_valid_checksum, is_api_key};
use super::cache::{CachedToken, Digest, VerifiedCache, digest_of, fits_cookie};
use super::present::{Miss, Presented, presented};
use crate::error::{AuthError, JwtError};
use crate::extraction::cookie::CookieExtractor;
use crate::extraction::{HeaderExtractor, TokenExtractionError};
use crate::jwt::{Surface, Target, Verifier};
use crate::keys::TokenClass;
use crate::session::Sessions;
use crate::session::live::Claimed;
use http::HeaderMap;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Principal, RequestContext};

/// How strictly a route asks for a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMode {
    /// No credential or a bad one is refused.
    Required,
    /// No credential is an anonymous caller; a bad header is refused, a bad cookie is dropped.
    Optional,
    /// Nobody is asked. Refused unless the crate is built with the feature `test-support`; no configuration selects it.
    Disabled,
}

/// Where the credential stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialSource {
    /// There was none.
    None,
    Bearer,
    ApiKeyHeader,
    /// The request needs the check of [`super::csrf`].
    Cookie,
    /// `x-mcp-proxy-auth` on an internal listener.
    Assertion,
}

/// Who makes a request, and how that is known.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub principal: Arc<Principal>,
    pub source: CredentialSource,
    /// The cookie did not count; the answer should remove it, so that the browser reaches the sign-in page.
    pub clear_cookie: bool,
}

/// What a request shows, with the digest of the credential that counts: it is made once a request.
pub struct Shown<'h> {
    presented: Presented<'h>,
    digest: Option<Digest>,
    address: Option<IpAddr>,
}

impl Shown<'_> {
    /// From which address it comes; without one, a key that is bound to networks does not count.
    #[must_use]
    pub fn from(mut self, address: Option<IpAddr>) -> Self {
        self.address = address;
        self
    }
}

/// Authenticates requests. Cheap to ask again: a token that was verified within the last minutes costs one hash and a few
/// comparisons.
///
/// ```
/// use http::HeaderMap;
/// use systemprompt_security::auth::{AuthMode, AuthValidationService};
/// use systemprompt_security::error::AuthError;
///
/// async fn whoami(service: &AuthValidationService, headers: &HeaderMap) -> Result<String, AuthError> {
///     let context = service.validate_request(headers, AuthMode::Required).await?;
///     Ok(context.principal.user_id.to_string())
/// }
///
/// # use std::sync::Arc;
/// # use systemprompt_models::SystemClock;
/// # use systemprompt_security::{jwt::Verifier, keys::{ClassKeys, SharedKeys}, session::{Sessions, TokensExtension}};
/// # use systemprompt_extension::Extension;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let db = systemprompt_database::testing::TestDb::sqlite(&TokensExtension.migrations()).await;
/// # let clock = Arc::new(SystemClock);
/// let classes = Arc::new(ClassKeys::derive(&"at least thirty-two characters long".into()).unwrap());
/// let verifier = Verifier::new("http://localhost:8080", classes, SharedKeys::default(), clock.clone());
/// let sessions = Arc::new(Sessions::open(db.clone(), clock).await.unwrap());
/// let service = AuthValidationService::new(Arc::new(verifier), sessions);
/// assert!(matches!(whoami(&service, &HeaderMap::new()).await, Err(AuthError::Missing(_))));
/// # });
/// ```
pub struct AuthValidationService {
    verifier: Arc<Verifier>,
    sessions: Arc<Sessions>,
    api_keys: Option<Arc<dyn ApiKeyProvider>>,
    cookies: CookieExtractor,
    surface: Surface,
    cache: VerifiedCache,
    anonymous: Arc<Principal>,
}

impl AuthValidationService {
    /// Serves [`Surface::Api`] and knows no API keys, unless told otherwise.
    pub fn new(verifier: Arc<Verifier>, sessions: Arc<Sessions>) -> Self {
        Self {
            verifier,
            sessions,
            api_keys: None,
            cookies: CookieExtractor::default(),
            surface: Surface::Api,
            cache: VerifiedCache::new(),
            anonymous: Arc::new(Principal::anonymous()),
        }
    }

    pub fn with_api_keys(mut self, provider: Arc<dyn ApiKeyProvider>) -> Self {
        self.api_keys = Some(provider);
        self
    }

    pub fn with_cookie_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.cookies = CookieExtractor::new(name);
        self
    }

    /// The surface that [`Self::validate_request`] serves.
    pub fn with_surface(mut self, surface: Surface) -> Self {
        self.surface = surface;
        self
    }

    /// The context of a request. Its trace id is `x-trace-id` if that is well-formed, else a new one.
    ///
    /// # Errors
    /// As [`Self::identify`], and when `x-session-id` contradicts the token.
    pub async fn validate_request(
        &self,
        headers: &HeaderMap,
        mode: AuthMode,
    ) -> Result<RequestContext, AuthError> {
        let found = self.identify(headers, self.surface, mode).await?;
        Ok(HeaderExtractor::extract(headers).context(found.principal, TraceId::generate())?)
    }

    /// The principal of a request.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn authenticate<'a>(
        &self,
        headers: &HeaderMap,
        target: impl Into<Target<'a>>,
        mode: AuthMode,
    ) -> Result<Arc<Principal>, AuthError> {
        self.identify(headers, target, mode).await.map(|found| found.principal)
    }

    /// The principal of a request, with where its credential stood.
    ///
    /// # Errors
    /// No credential where one is required, a malformed or invalid one, two that conflict, or revocation that cannot be
    /// confirmed.
    pub async fn identify<'a>(
        &self,
        headers: &HeaderMap,
        target: impl Into<Target<'a>>,
        mode: AuthMode,
    ) -> Result<Authenticated, AuthError> {
        self.identify_from(headers, target, mode, None).await
    }

    /// As [`Self::identify`], for a caller at an address.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn identify_from<'a>(
        &self,
        headers: &HeaderMap,
        target: impl Into<Target<'a>>,
        mode: AuthMode,
        address: Option<IpAddr>,
    ) -> Result<Authenticated, AuthError> {
        let target = target.into();
        self.settle(self.look(headers, target.surface).from(address), target, mode).await
    }

    /// The credentials of a request on a surface, not yet judged: for [`Self::is_known`], and [`Self::settle`] after it.
    pub fn look<'h>(&self, headers: &'h HeaderMap, surface: Surface) -> Shown<'h> {
        let presented = presented(headers, surface, &self.cookies, self.verifier.issuer());
        let digest = match presented {
            Presented::One(credential, _) | Presented::Two(credential, _) => Some(digest_of(credential)),
            Presented::Nothing(_) => None,
        };
        Shown { presented, digest, address: None }
    }

    /// The principal of what a request shows, as [`Self::identify`].
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn settle<'a>(
        &self,
        shown: Shown<'_>,
        target: impl Into<Target<'a>>,
        mode: AuthMode,
    ) -> Result<Authenticated, AuthError> {
        let target = target.into();
        if mode == AuthMode::Disabled {
            return self.disabled();
        }
        let (digest, address) = (shown.digest.unwrap_or_default(), shown.address);
        match shown.presented {
            Presented::One(credential, CredentialSource::Cookie) => {
                self.by_cookie(credential, digest, target, mode).await
            }
            Presented::One(credential, source) => {
                let principal = self.resolve(credential, digest, target, address).await?;
                Ok(Authenticated { principal, source, clear_cookie: false })
            }
            Presented::Two(first, second) => {
                let principal = self.resolve(first, digest, target, address).await?;
                if self.resolve(second, digest_of(second), target, address).await?.user_id
                    != principal.user_id
                {
                    return Err(AuthError::ConflictingCredentials);
                }
                Ok(Authenticated { principal, source: CredentialSource::Bearer, clear_cookie: false })
            }
            Presented::Nothing(Miss::Header(error)) => Err(AuthError::Missing(error)),
            Presented::Nothing(miss) if mode == AuthMode::Optional => {
                Ok(self.nobody(matches!(miss, Miss::Cookie(_))))
            }
            Presented::Nothing(Miss::Cookie(error)) => Err(AuthError::Missing(error)),
            Presented::Nothing(Miss::Absent) => Err(AuthError::Missing(TokenExtractionError::NoTokenFound)),
        }
    }

    /// The principal of a proxy assertion for `server` with `body`. Where one is shown nothing else is looked at.
    ///
    /// # Errors
    /// An assertion that does not count, of a session or subject that was revoked, or revocation that cannot be confirmed.
    pub fn by_assertion(&self, token: &str, server: &str, body: &[u8]) -> Result<Authenticated, AuthError> {
        if !self.sessions.is_confirmed(self.verifier.clock().now()) {
            return Err(AuthError::RevocationUnavailable(None));
        }
        let asserted = self
            .verifier
            .verify_assertion(token, server, body)
            .map_err(|(error, kid)| AuthError::InvalidToken { error, kid })?;
        let principal = &asserted.principal;
        // The session was found alive when the assertion was made, half a minute ago at most; what ended since is in the copy.
        self.sessions.check_revoked(Claimed {
            jti: &asserted.jti,
            session: &principal.session_id,
            user: &principal.user_id,
            client: principal.client_id.as_ref(),
            issued_at: asserted.issued_at,
            anonymous: principal.is_anonymous(),
        })?;
        Ok(Authenticated {
            principal: Arc::new(asserted.principal),
            source: CredentialSource::Assertion,
            clear_cookie: false,
        })
    }

    /// What a token of ours says, whoever it is for, if it still counts by itself; sessions and revocations are not asked.
    ///
    /// # Errors
    /// The first step of its verification that failed.
    pub fn read_own(&self, token: &str) -> Result<crate::jwt::Verified, JwtError> {
        self.verifier.verify_own(token)
    }

    /// Whether the credential that counts was verified a moment ago. Only for limits on unverified credentials; it does not
    /// authenticate.
    pub fn is_known(&self, shown: &Shown<'_>) -> bool {
        shown.digest.is_some_and(|digest| self.cache.knows(&digest))
    }

    /// Forgets every verified credential. For changes of users or API keys that must count at once on this node.
    pub fn forget(&self) {
        self.cache.tokens.invalidate_all();
        self.cache.forget_keys();
    }

    /// Forgets every verified API key: one of them may have ended, or its owner may have changed. Tokens are judged by what was
    /// revoked, and stay.
    pub fn forget_keys(&self) {
        self.cache.forget_keys();
    }

    async fn by_cookie(
        &self,
        token: &str,
        digest: Digest,
        target: Target<'_>,
        mode: AuthMode,
    ) -> Result<Authenticated, AuthError> {
        let found = match self.token_of(token, digest, target).await {
            Ok(entry) if fits_cookie(entry.class, target.surface) => Ok(entry),
            Ok(_) => Err(JwtError::TypeNotAccepted.into()),
            Err(error) => Err(error),
        };
        match found {
            Ok(entry) => Ok(Authenticated {
                principal: Arc::clone(&entry.principal),
                source: CredentialSource::Cookie,
                clear_cookie: false,
            }),
            Err(AuthError::InvalidToken { .. }) if mode == AuthMode::Optional => Ok(self.nobody(true)),
            Err(error) => Err(error),
        }
    }

    fn nobody(&self, clear_cookie: bool) -> Authenticated {
        Authenticated { principal: Arc::clone(&self.anonymous), source: CredentialSource::None, clear_cookie }
    }

    fn disabled(&self) -> Result<Authenticated, AuthError> {
        if cfg!(any(test, feature = "test-support")) {
            Ok(self.nobody(false))
        } else {
            Err(AuthError::DisabledNotAcknowledged)
        }
    }

    async fn resolve(
        &self,
        credential: &str,
        digest: Digest,
        target: Target<'_>,
        address: Option<IpAddr>,
    ) -> Result<Arc<Principal>, AuthError> {
        if is_api_key(credential) {
            let key = self.api_key(credential, digest, target.surface).await?;
            let principal = key.counts(target.surface, address).then(|| Arc::clone(&key.principal));
            principal.ok_or(AuthError::InvalidApiKey)
        } else {
            self.token_of(credential, digest, target).await.map(|entry| Arc::clone(&entry.principal))
        }
    }

    /// The entry of a token that counts at `target` now.
    pub(super) async fn token(&self, token: &str, target: Target<'_>) -> Result<Arc<CachedToken>, AuthError> {
        self.token_of(token, digest_of(token), target).await
    }

    async fn token_of(
        &self,
        token: &str,
        digest: Digest,
        target: Target<'_>,
    ) -> Result<Arc<CachedToken>, AuthError> {
        let now = self.verifier.clock().now();
        if !self.sessions.is_confirmed(now) {
            return Err(AuthError::RevocationUnavailable(None));
        }
        let entry = match self.cached(&digest, target, now)? {
            Some(entry) => entry,
            None => self.verify(token, digest, target, now).await?,
        };
        self.sessions.note_seen(&entry.principal.session_id, &entry.seen, now);
        Ok(entry)
    }

    fn cached(
        &self,
        digest: &Digest,
        target: Target<'_>,
        now: i64,
    ) -> Result<Option<Arc<CachedToken>>, JwtError> {
        let Some(entry) = self.cache.tokens.get(digest) else { return Ok(None) };
        if !entry.counts(target, self.verifier.key_epoch(), now)? {
            return Ok(None);
        }
        let epoch = self.sessions.epoch();
        if entry.epoch.load(Ordering::Acquire) != epoch {
            if let Err(error) = self.sessions.check_revoked(entry.claimed()) {
                self.cache.tokens.invalidate(digest);
                return Err(error);
            }
            entry.confirm(epoch);
        }
        Ok(Some(entry))
    }

    async fn verify(
        &self,
        token: &str,
        digest: Digest,
        target: Target<'_>,
        now: i64,
    ) -> Result<Arc<CachedToken>, AuthError> {
        // Read before the checks: whatever is revoked from here on makes the entry ask again.
        let epoch = self.sessions.epoch();
        let verified = self
            .verifier
            .verify_named(token, target)
            .map_err(|(error, kid)| AuthError::InvalidToken { error, kid })?;
        let claimed = Claimed {
            jti: &verified.claims.jti,
            session: &verified.claims.session_id,
            user: &verified.claims.sub,
            client: verified.claims.client_id.as_ref(),
            issued_at: verified.claims.iat,
            anonymous: verified.class == TokenClass::Anonymous,
        };
        let session = self.sessions.check(claimed, now).await.map_err(|error| match error {
            AuthError::InvalidToken { error, .. } => {
                AuthError::InvalidToken { error, kid: Some(Arc::clone(&verified.kid)) }
            }
            other => other,
        })?;
        let entry = Arc::new(CachedToken::new(&verified, session, epoch));
        self.cache.tokens.insert(digest, Arc::clone(&entry));
        Ok(entry)
    }

    async fn api_key(
        &self,
        key: &str,
        digest: Digest,
        surface: Surface,
    ) -> Result<Arc<VerifiedKey>, AuthError> {
        let Some(provider) = self.api_keys.as_ref().filter(|_| surface.takes_api_keys()) else {
            return Err(AuthError::InvalidApiKey);
        };
        if !has_valid_checksum(key) {
            return Err(AuthError::InvalidApiKey);
        }
        if let Some(key) = self.cache.key(&digest) {
            return Ok(key);
        }
        let round = self.cache.round();
        let found = provider.verify(key).await.map_err(AuthError::unavailable)?;
        let key = Arc::new(found.ok_or(AuthError::InvalidApiKey)?);
        self.cache.remember_key(digest, round, Arc::clone(&key));
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
