//! Errors: of the protocol endpoints in the words of their standards, and of users and API keys in our own.

use std::borrow::Cow;
use systemprompt_audit::LedgerError;
use systemprompt_database::is_contended;
use systemprompt_models::clock::iso8601;
use systemprompt_models::{Code, Millis, Refusal};
use systemprompt_security::auth::api_key::ApiKeyError;
use systemprompt_security::error::AuthError;
use systemprompt_security::jwt::SignError;
use systemprompt_security::keys::SigningAlgorithm;
use systemprompt_security::opaque::NoRandomness;
use systemprompt_security::session::SessionError;

/// Why a user or an API key was not made, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// All wrong fields at once: (field, what is right).
    #[error("{} field(s) are not valid", .0.len())]
    Invalid(Vec<(&'static str, String)>),
    #[error("there is no {what} `{id}`")]
    NotFound { what: &'static str, id: String },
    #[error("the API key `{id}` was revoked already, at {}", iso8601(*.at))]
    Revoked { id: String, at: Millis },
    #[error("the {0} is taken")]
    Taken(&'static str),
    #[error("the user was changed meanwhile")]
    Changed,
    #[error("the last active administrator cannot be {0}")]
    LastAdministrator(&'static str),
    #[error("the user is deleted")]
    Deleted,
    #[error("the Idempotency-Key came with another request before")]
    OtherRequest,
    #[error("the Idempotency-Key was used")]
    KeyUsed,
    #[error("sessions cannot be read or written")]
    Session(#[from] SessionError),
    #[error("a user has at most {} live API keys", crate::api_keys::MAX_LIVE_KEYS)]
    TooManyKeys,
    #[error("identity rows cannot be read or written")]
    Database(#[from] sqlx::Error),
    #[error("the change could not be recorded")]
    Ledger(#[from] LedgerError),
    #[error("an API key could not be made")]
    Key(#[from] ApiKeyError),
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Invalid(fields) => fields
                .into_iter()
                .fold(Self::new(Code::Unprocessable, "fields are not valid"), |refusal, (field, message)| {
                    refusal.with_validation(field, message)
                }),
            IdentityError::NotFound { .. } => Self::new(Code::NotFound, error.to_string()),
            IdentityError::Revoked { .. }
            | IdentityError::Taken(_)
            | IdentityError::LastAdministrator(_)
            | IdentityError::Deleted
            | IdentityError::TooManyKeys => Self::new(Code::Conflict, error.to_string()),
            IdentityError::OtherRequest => Self::new(Code::IdempotencyMismatch, error.to_string()),
            IdentityError::KeyUsed => Self::new(Code::IdempotencyKeyUsed, error.to_string()),
            IdentityError::Changed => Self::new(Code::PreconditionFailed, error.to_string()),
            IdentityError::Ledger(source) => source.into(),
            error if is_contended(&error) => Self::contended(),
            IdentityError::Database(_) | IdentityError::Session(_) | IdentityError::Key(_) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "identity failed");
                Self::internal()
            }
        }
    }
}

macro_rules! error_codes {
    ($($name:ident = $text:literal, $status:literal;)*) => {
        /// The `error` member of an answer, with the status that it has where no endpoint says otherwise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($name,)* }

        impl ErrorCode {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

error_codes! {
    // RFC 6749 sections 4.1.2.1 and 5.2.
    InvalidRequest = "invalid_request", 400;
    InvalidClient = "invalid_client", 401;
    InvalidGrant = "invalid_grant", 400;
    UnauthorizedClient = "unauthorized_client", 400;
    UnsupportedGrantType = "unsupported_grant_type", 400;
    UnsupportedResponseType = "unsupported_response_type", 400;
    InvalidScope = "invalid_scope", 400;
    AccessDenied = "access_denied", 403;
    ServerError = "server_error", 500;
    TemporarilyUnavailable = "temporarily_unavailable", 503;
    // RFC 8707 section 2.
    InvalidTarget = "invalid_target", 400;
    // OpenID Connect Core section 3.1.2.6, RFC 9470.
    LoginRequired = "login_required", 400;
    ConsentRequired = "consent_required", 400;
    InteractionRequired = "interaction_required", 400;
    RequestNotSupported = "request_not_supported", 400;
    RequestUriNotSupported = "request_uri_not_supported", 400;
    RegistrationNotSupported = "registration_not_supported", 400;
    UnmetAuthenticationRequirements = "unmet_authentication_requirements", 400;
    // RFC 6750 section 3.1.
    InvalidToken = "invalid_token", 401;
    InsufficientScope = "insufficient_scope", 403;
    // RFC 7591 section 3.2.2.
    InvalidRedirectUri = "invalid_redirect_uri", 400;
    InvalidClientMetadata = "invalid_client_metadata", 400;
    InvalidSoftwareStatement = "invalid_software_statement", 400;
    // RFC 8628 section 3.5.
    AuthorizationPending = "authorization_pending", 400;
    SlowDown = "slow_down", 400;
    ExpiredToken = "expired_token", 400;
    // RFC 7009 section 2.2.1.
    UnsupportedTokenType = "unsupported_token_type", 400;
    // Passkeys.
    InvalidCredential = "invalid_credential", 401;
    Conflict = "conflict", 409;
}

/// Seconds after which a call that could not be served may come again.
const RETRY_AFTER: u32 = 1;
/// The same where somebody must do something first.
const RETRY_AFTER_OPERATOR: u32 = 60;
/// The same where a bound was reached, below which expiry brings it.
const RETRY_AFTER_FULL: u32 = 60;

/// Why an endpoint of the authorization server refused.
#[derive(Debug, thiserror::Error)]
pub enum OauthError {
    /// The caller's fault. The description names the parameter and never repeats its value (ID-2).
    #[error("{}: {description}", code.as_str())]
    Protocol { code: ErrorCode, description: Cow<'static, str> },
    #[error("too many requests")]
    Throttled { retry_after: u32 },
    #[error("the record could not be written")]
    Ledger(#[from] LedgerError),
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error("sessions cannot be read or written")]
    Session(#[from] SessionError),
    /// Whether a token was revoked cannot be told.
    #[error("revocation cannot be confirmed")]
    Unconfirmed(#[source] AuthError),
    #[error("a token could not be signed")]
    Sign(#[from] SignError),
    /// A client's registered algorithm has no key, or none with its private part here. An operator makes one; until then the client
    /// waits.
    #[error(
        "no key of this node signs ID tokens with {0}, which the client registered; `admin keys generate` makes one"
    )]
    NoIdTokenKey(SigningAlgorithm),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// A row that no code path writes; its digest's beginning is told, for the log.
    #[error("impossible row: {0}")]
    Impossible(String),
}

/// What the authorization server answers.
pub type OauthResult<T> = Result<T, OauthError>;

impl OauthError {
    pub fn new(code: ErrorCode, description: impl Into<Cow<'static, str>>) -> Self {
        Self::Protocol { code, description: description.into() }
    }

    pub fn invalid_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidRequest, description)
    }

    /// One text for every reason, so that nobody learns which clients exist.
    pub fn invalid_client() -> Self {
        Self::new(ErrorCode::InvalidClient, "client authentication failed")
    }

    pub fn invalid_grant(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidGrant, description)
    }

    pub fn invalid_scope(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidScope, description)
    }

    pub fn invalid_target(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidTarget, description)
    }

    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Protocol { code, .. } => *code,
            Self::Throttled { .. }
            | Self::Ledger(_)
            | Self::Database(_)
            | Self::Session(_)
            | Self::Unconfirmed(_)
            | Self::NoIdTokenKey(_) => ErrorCode::TemporarilyUnavailable,
            Self::Sign(_) | Self::Random(_) | Self::Impossible(_) => ErrorCode::ServerError,
        }
    }

    /// HTTP status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Throttled { .. } => 429,
            other => other.code().status(),
        }
    }

    /// ASCII, without anything that the caller or the storage said.
    pub fn description(&self) -> Cow<'static, str> {
        match self {
            Self::Protocol { description, .. } => description.clone(),
            Self::Throttled { .. } => "too many requests".into(),
            Self::Ledger(_) | Self::Database(_) | Self::Session(_) | Self::Unconfirmed(_) => {
                "try again shortly".into()
            }
            Self::NoIdTokenKey(_) => {
                "no key signs with the id_token_signed_response_alg of the client".into()
            }
            Self::Sign(_) | Self::Random(_) | Self::Impossible(_) => "the server failed".into(),
        }
    }

    /// Whole seconds after which a repeat may pass.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Throttled { retry_after } => Some(*retry_after),
            Self::Ledger(_) | Self::Database(_) | Self::Session(_) | Self::Unconfirmed(_) => {
                Some(RETRY_AFTER)
            }
            Self::NoIdTokenKey(_) => Some(RETRY_AFTER_OPERATOR),
            Self::Protocol { code: ErrorCode::TemporarilyUnavailable, .. } => Some(RETRY_AFTER_FULL),
            Self::Protocol { .. } | Self::Sign(_) | Self::Random(_) | Self::Impossible(_) => None,
        }
    }

    /// Whether the cause lies here, so that a log line is due.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Protocol { .. } | Self::Throttled { .. })
    }
}

impl From<AuthError> for OauthError {
    /// What a bearer token of an endpoint is refused with; that it cannot be judged now is no word on it.
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::RevocationUnavailable(_) => Self::Unconfirmed(error),
            _ => Self::new(ErrorCode::InvalidToken, "the token is not valid here"),
        }
    }
}

impl From<IdentityError> for OauthError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Ledger(source) => Self::Ledger(source),
            IdentityError::Database(source) => Self::Database(source),
            IdentityError::Session(source) => Self::Session(source),
            IdentityError::Key(_) => Self::Random(NoRandomness),
            other => Self::new(ErrorCode::InvalidRequest, other.to_string()),
        }
    }
}
