//! Errors of users and API keys.

use systemprompt_audit::LedgerError;
use systemprompt_models::clock::iso8601;
use systemprompt_models::{Code, Millis, Refusal};
use systemprompt_security::auth::api_key::ApiKeyError;

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
            | IdentityError::TooManyKeys => Self::new(Code::Conflict, error.to_string()),
            IdentityError::Changed => Self::new(Code::PreconditionFailed, error.to_string()),
            IdentityError::Ledger(source) => source.into(),
            IdentityError::Database(_) | IdentityError::Key(_) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "identity failed");
                Self::internal()
            }
        }
    }
}
