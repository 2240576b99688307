//! What can be wrong with a credential, a token or a manifest. No variant holds any part of a token.

use crate::extraction::TokenExtractionError;
use crate::extraction::header::SessionMismatch;
use std::sync::Arc;
use systemprompt_models::{Code, Refusal};

/// Why a token does not count: one variant per step of the verification, in the order of the steps (SEC-52).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JwtError {
    #[error("the token is longer than 8192 bytes")]
    TooLong,
    #[error("the token is not three non-empty base64url parts")]
    Malformed,
    #[error("the header is longer than 1 KiB")]
    HeaderTooLong,
    #[error("the header is not a JSON object")]
    HeaderInvalid,
    #[error("the header names a member twice")]
    HeaderDuplicateMember,
    #[error(
        "the header has a member that would choose the key or the reading (crit, jwk, jku, x5u, x5c, zip)"
    )]
    HeaderForbiddenMember,
    #[error("`typ` names no class of tokens that this surface takes")]
    TypeNotAccepted,
    #[error("the header names no key")]
    KeyMissing,
    #[error("the key is not known for this class of tokens")]
    KeyUnknown,
    #[error("`alg` names no algorithm that is in use here")]
    AlgorithmUnknown,
    #[error("`alg` is not the algorithm of the key")]
    AlgorithmMismatch,
    #[error("the key is not meant for verifying signatures")]
    KeyUseNotAllowed,
    #[error("the signature is wrong")]
    SignatureInvalid,
    #[error("the claims are not an object of the expected form")]
    ClaimsInvalid,
    #[error("the claims name a member twice")]
    ClaimsDuplicateMember,
    #[error("the token is of another issuer")]
    IssuerMismatch,
    #[error("the token is not for this audience")]
    AudienceMismatch,
    #[error("`exp`, `nbf` and `iat` are not all there")]
    TimeMissing,
    #[error("`exp` is not after `iat` and `nbf`")]
    TimesOutOfOrder,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token was issued in the future")]
    IssuedInFuture,
    #[error("`sub` is missing")]
    SubjectMissing,
    #[error("`jti` is missing")]
    JtiMissing,
    #[error("`session_id` is missing")]
    SessionMissing,
    #[error("the chain of actors is too deep or has an actor without a name")]
    ActorChainInvalid,
    #[error("the scope is not a list of permissions")]
    ScopeInvalid,
    #[error("`user_type` does not follow from the scope")]
    UserTypeMismatch,
    #[error("the assertion is for another server")]
    ServerMismatch,
    #[error("an assertion lives for at most 30 seconds")]
    LifeTooLong,
    #[error("the assertion is bound to another body")]
    BodyMismatch,
    #[error("the assertion was used before")]
    Replayed,
    #[error("more assertions were used within half a minute than can be remembered")]
    TooManyAssertions,
    #[error("the token was revoked")]
    Revoked,
    #[error("there is no such session")]
    SessionUnknown,
    #[error("the session belongs to somebody else")]
    SessionForeign,
    #[error("the session has ended")]
    SessionEnded,
}

/// Why a request is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("no usable credential: {0}")]
    Missing(TokenExtractionError),
    #[error("the token was refused: {error}")]
    InvalidToken {
        #[source]
        error: JwtError,
        /// The key it was signed with, if it is one of ours.
        kid: Option<Arc<str>>,
    },
    /// Unknown, expired, revoked, or not taken on this surface: they look alike from outside.
    #[error("the API key was refused")]
    InvalidApiKey,
    #[error("conflicting credentials")]
    ConflictingCredentials,
    #[error(transparent)]
    SessionMismatch(#[from] SessionMismatch),
    #[error("whether the credential was revoked cannot be told at the moment")]
    RevocationUnavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    #[error("authentication can be switched off in builds with the feature `test-support` only")]
    DisabledNotAcknowledged,
}

impl AuthError {
    pub(crate) fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::RevocationUnavailable(Some(Box::new(source)))
    }

    /// Short name for the log and the metric.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing(error) if error.is_malformed() => "malformed",
            Self::Missing(_) => "missing",
            Self::InvalidToken { .. } => "invalid_token",
            Self::InvalidApiKey => "invalid_api_key",
            Self::ConflictingCredentials => "conflicting_credentials",
            Self::SessionMismatch(_) => "session_mismatch",
            Self::RevocationUnavailable(_) => "revocation_unavailable",
            Self::DisabledNotAcknowledged => "disabled_not_acknowledged",
        }
    }
}

impl From<JwtError> for AuthError {
    fn from(error: JwtError) -> Self {
        Self::InvalidToken { error, kid: None }
    }
}

/// What the client learns: of all that can be wrong with a token, only that it expired is told.
impl From<&AuthError> for Refusal {
    fn from(error: &AuthError) -> Self {
        match error {
            AuthError::Missing(TokenExtractionError::NoTokenFound) => Self::new(
                Code::Unauthenticated,
                "this needs a credential; send `Authorization: Bearer <token>`",
            ),
            AuthError::Missing(error) => Self::new(Code::Unauthenticated, error.to_string()),
            AuthError::InvalidToken { error: JwtError::Expired, .. } => {
                Self::new(Code::InvalidToken, "the token has expired")
            }
            AuthError::InvalidToken { .. } => Self::new(Code::InvalidToken, "the token is not valid here"),
            AuthError::InvalidApiKey => Self::new(Code::InvalidToken, "the API key is not valid here"),
            AuthError::ConflictingCredentials => Self::new(Code::Unauthenticated, "conflicting credentials"),
            AuthError::SessionMismatch(error) => Self::new(Code::SessionMismatch, error.to_string()),
            AuthError::RevocationUnavailable(_) => Self::new(
                Code::RevocationUnavailable,
                "whether the credential was revoked cannot be told at the moment",
            )
            .with_retry_after(1),
            AuthError::DisabledNotAcknowledged => Self::internal(),
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::from(&error)
    }
}

/// Why a value could not be canonicalised or signed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestSigningError {
    #[error("a number is not finite or is an integer beyond ±2^53")]
    NumberOutOfRange,
    #[error("the value cannot be written as JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("manifest_signing_secret_seed must be base64")]
    SeedNotBase64,
    #[error("manifest_signing_secret_seed must be 32 bytes, it has {0}")]
    SeedLength(usize),
    #[error("manifest_signing_secret_seed must differ from jwt_secret")]
    SeedIsJwtSecret,
    #[error("manifest_signing_secret_seed was refused as a key")]
    SeedRejected,
}

impl serde::ser::Error for ManifestSigningError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::NotJson(serde::ser::Error::custom(message))
    }
}
