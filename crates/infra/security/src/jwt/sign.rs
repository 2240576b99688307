//! Making tokens. A token is signed, recorded, and only then given out: [`PendingToken::release`] takes the permit of its
//! record by value.

use crate::keys::{ClassKeys, TokenClass};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Permit, Unit};
use systemprompt_models::auth::scope_of;
use systemprompt_models::ids::{EntryId, Jti, SessionId, UserId};
use systemprompt_models::{
    JwtAudience, JwtClaims, Millis, Permission, RateLimitTier, RequestContext, Secret, UserType,
};

/// Longest life of an admin, command-line or anonymous token.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_hours(24);

/// Why no token was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error("a session token needs at least one permission")]
    NoPermissions,
    #[error("the user type does not follow from the permissions")]
    UserTypeMismatch,
    #[error("a hook scope needs a token with audience `hook`")]
    HookScope,
    #[error("the rate-limit tier is above that of the user type")]
    TierTooHigh,
    #[error("a token must live for at least a second")]
    TooShort,
    #[error("the token would live longer than its class may")]
    TooLong,
    #[error("the token could not be built")]
    Build,
}

/// What a token of a session class says.
pub(crate) struct TokenFacts<'a> {
    pub class: TokenClass,
    pub issuer: &'a str,
    pub user_id: &'a UserId,
    pub session_id: &'a SessionId,
    pub email: &'a str,
    pub audiences: Vec<JwtAudience>,
    pub permissions: &'a [Permission],
    pub roles: Vec<String>,
    pub department: Option<String>,
    pub tier: RateLimitTier,
    pub duration: Duration,
    pub longest: Duration,
}

/// A signed token that nobody holds yet.
#[must_use]
pub struct PendingToken {
    class: TokenClass,
    claims: JwtClaims,
    token: Secret<String>,
}

impl std::fmt::Debug for PendingToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingToken").field("jti", &self.claims.jti).finish_non_exhaustive()
    }
}

impl PendingToken {
    pub(crate) fn sign(keys: &ClassKeys, facts: TokenFacts<'_>, now: i64) -> Result<Self, IssueError> {
        let user_type = UserType::of(facts.permissions);
        let seconds = i64::try_from(facts.duration.as_secs()).map_err(|_| IssueError::TooLong)?;
        if rank(facts.tier) > rank(user_type.tier()) {
            return Err(IssueError::TierTooHigh);
        } else if seconds < 1 {
            return Err(IssueError::TooShort);
        } else if facts.duration > facts.longest {
            return Err(IssueError::TooLong);
        }
        let claims = JwtClaims {
            iss: facts.issuer.to_owned(),
            sub: facts.user_id.clone(),
            aud: facts.audiences,
            exp: now + seconds,
            nbf: now,
            iat: now,
            jti: Jti::generate(),
            scope: scope_of(facts.permissions),
            username: String::new(),
            email: facts.email.to_owned(),
            user_type,
            roles: facts.roles,
            department: facts.department,
            client_id: None,
            session_id: facts.session_id.clone(),
            rate_limit_tier: facts.tier,
            plugin_id: None,
            auth_time: None,
            act: None,
        };
        let token = session_token(keys, facts.class, &claims)?;
        Ok(Self { class: facts.class, claims, token })
    }

    pub fn claims(&self) -> &JwtClaims {
        &self.claims
    }

    /// End of the token, in epoch milliseconds.
    pub fn expires_at(&self) -> Millis {
        self.claims.exp.saturating_mul(1000)
    }

    /// Adds the record of this token to `unit`: its id, class, audience, scope and life, never the token. Without a context the
    /// system itself issues it.
    pub fn record(&self, unit: &mut Unit, context: Option<&RequestContext>) -> EntryId {
        let kind = match self.class {
            TokenClass::Admin => EntryKind::AdminTokenIssued,
            _ => EntryKind::OauthSessionCreated,
        };
        let draft = match context {
            Some(context) => Draft::new(kind, context, "issued"),
            None => Draft::system(kind, "issued"),
        };
        let audiences: Vec<&str> = self.claims.aud.iter().map(JwtAudience::as_str).collect();
        unit.record(
            draft
                .with("jti", self.claims.jti.as_str())
                .with("class", self.class.as_str())
                .with("user_id", self.claims.sub.as_str())
                .with("session_id", self.claims.session_id.as_str())
                .with("audience", audiences.join(" "))
                .with("scope", self.claims.scope.as_str())
                .with("lifetime_s", self.claims.exp - self.claims.iat),
        )
    }

    /// The token, against the permit of the unit that recorded it.
    pub fn release(self, permit: Permit) -> Secret<String> {
        drop(permit);
        self.token
    }

    #[cfg(test)]
    pub(crate) fn token(&self) -> &str {
        self.token.expose()
    }
}

/// Order of the tiers by what they admit (SEC-30).
pub(crate) fn rank(tier: RateLimitTier) -> u8 {
    match tier {
        RateLimitTier::Anon => 0,
        RateLimitTier::User => 1,
        RateLimitTier::Service | RateLimitTier::A2a | RateLimitTier::Mcp => 2,
        RateLimitTier::Admin => 3,
    }
}

fn session_token(
    keys: &ClassKeys,
    class: TokenClass,
    claims: &JwtClaims,
) -> Result<Secret<String>, IssueError> {
    let key = keys.of(class).ok_or(IssueError::Build)?;
    let claims = serde_json::to_vec(claims).map_err(|_| IssueError::Build)?;
    let header = header(class.typ(), "HS256", &key.kid);
    Ok(compact(&header, &claims, |input| hmac::sign(&key.signing, input).as_ref().to_vec()))
}

/// The JSON of a header; the three values hold nothing that JSON escapes.
pub(crate) fn header(typ: &str, alg: &str, kid: &str) -> String {
    format!(r#"{{"typ":"{typ}","alg":"{alg}","kid":"{kid}"}}"#)
}

/// The compact serialisation (RFC 7515 section 3.1).
pub(crate) fn compact(header: &str, claims: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Secret<String> {
    let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 360);
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Secret::new(token)
}
