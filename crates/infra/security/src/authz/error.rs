//! Errors of rule administration and of the hook's installation.

use systemprompt_audit::LedgerError;
use systemprompt_models::{Code, Refusal};

/// Why an entity or a rule was not changed or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthzError {
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error("there is no {what} `{id}`")]
    NotFound { what: &'static str, id: String },
    #[error("the rule exists already as `{0}`")]
    RuleExists(String),
    #[error("the {what} `{id}` was changed meanwhile")]
    Changed { what: &'static str, id: String },
    #[error("the configuration declares the {what} `{id}`: change it there, or deny it by another rule")]
    Declared { what: &'static str, id: String },
    #[error("a rule set holds at most {} rules", super::resolver::MAX_RULES)]
    TooManyRules,
    #[error("the rules cannot be read or written")]
    Database(#[from] sqlx::Error),
    #[error("the change could not be recorded")]
    Ledger(#[from] LedgerError),
}

impl From<AuthzError> for Refusal {
    fn from(error: AuthzError) -> Self {
        match error {
            AuthzError::Invalid { field, ref message } => {
                Self::new(Code::Unprocessable, "a field is not valid").with_validation(field, message.clone())
            }
            AuthzError::NotFound { .. } => Self::new(Code::NotFound, error.to_string()),
            AuthzError::RuleExists(_) => Self::new(Code::RuleExists, error.to_string()),
            AuthzError::Changed { .. } => Self::new(Code::PreconditionFailed, error.to_string()),
            AuthzError::Declared { .. } => Self::new(Code::Conflict, error.to_string()),
            AuthzError::TooManyRules => Self::new(Code::TooManyRules, error.to_string()),
            AuthzError::Database(source) => {
                tracing::error!(error = %source, "rules cannot be read or written");
                Self::internal()
            }
            AuthzError::Ledger(source) => source.into(),
        }
    }
}

/// Why a decision hook was not installed; the start fails.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthzBootstrapError {
    #[error("a decision hook is installed already")]
    AlreadyInstalled,
    #[error(
        "governance.authz.hook.mode `unrestricted` needs `acknowledgement: {}`",
        systemprompt_config::profile::governance::UNRESTRICTED_ACKNOWLEDGEMENT
    )]
    NotAcknowledged,
}
