//! The error of a handler. It carries a refusal; the edge renders it in the protocol of the route, with the trace id.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use systemprompt_audit::LedgerError;
use systemprompt_audit::erase::EraseError;
use systemprompt_audit::lookup::LookupError;
use systemprompt_audit::retention::RetentionError;
use systemprompt_database::is_contended;
use systemprompt_models::{Code, Refusal};
use systemprompt_oauth::IdentityError;
use systemprompt_oauth::services::explain::ExplainError;
use systemprompt_runtime::replay::ReplayError;
use systemprompt_security::authz::AuthzError;
use systemprompt_security::bans::BanError;
use systemprompt_security::governance::AllowError;

/// What a handler answers when it does not answer.
#[derive(Debug)]
pub struct Error(pub Refusal);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(Refused(self.0));
        response
    }
}

/// Marks an answer that the edge renders on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Refused(pub Refusal);

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        Self(error.into())
    }
}

impl From<AuthzError> for Error {
    fn from(error: AuthzError) -> Self {
        Self(error.into())
    }
}

impl From<AllowError> for Error {
    fn from(error: AllowError) -> Self {
        Self(error.into())
    }
}

impl From<BanError> for Error {
    fn from(error: BanError) -> Self {
        Self(error.into())
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        Self(error.into())
    }
}

impl From<ReplayError> for Error {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Rules(error) => error.into(),
            ReplayError::Ledger(error) => error.into(),
            ReplayError::Policies(error) => Self(
                Refusal::new(Code::Unprocessable, "a field is not valid")
                    .with_validation("draft.policies", error.to_string()),
            ),
            other @ ReplayError::Read(_) => Self::internal(other),
        }
    }
}

impl From<EraseError> for Error {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Invalid { .. } => Self(Refusal::new(Code::Unprocessable, error.to_string())),
            EraseError::Ledger(error) => Self(error.into()),
            EraseError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<RetentionError> for Error {
    fn from(error: RetentionError) -> Self {
        match error {
            RetentionError::Held | RetentionError::Lost => {
                Self(Refusal::new(Code::Conflict, error.to_string()))
            }
            RetentionError::Ledger(error) => Self(error.into()),
            other => Self::internal(other),
        }
    }
}

impl From<LookupError> for Error {
    fn from(error: LookupError) -> Self {
        tracing::error!(%error, source = ?std::error::Error::source(&error), "the ledger cannot be read");
        Self(Refusal::internal())
    }
}

impl From<ExplainError> for Error {
    fn from(error: ExplainError) -> Self {
        if matches!(error, ExplainError::Crowded) {
            return Refusal::new(Code::Overloaded, error.to_string()).into();
        }
        Self::internal(error)
    }
}

impl Error {
    /// An error of ours whose cause is logged here, once. A change that met others too often may be asked for again.
    pub fn internal(cause: impl std::error::Error + 'static) -> Self {
        if is_contended(&cause) {
            return Self(Refusal::contended());
        }
        tracing::error!(error = %cause, source = ?cause.source(), "a request failed");
        Self(Refusal::internal())
    }
}

/// The result of a handler.
pub type Result<T> = std::result::Result<T, Error>;
