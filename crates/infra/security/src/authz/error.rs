//! Errors of rule administration and of the hook's installation.

use crate::standard_webhooks::InvalidSecret;
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
    #[error("the {what} `{id}` is there already; name the version that you have seen")]
    VersionRequired { what: &'static str, id: String },
    #[error("{rules} rule(s) name the {what} `{id}`")]
    InUse { what: &'static str, id: String, rules: i64 },
    #[error("the key was used before, with another request")]
    OtherRequest,
    #[error("the key was used before, and the rule `{0}` that was made under it is gone: take another key")]
    KeyUsed(String),
    #[error("a rule set holds at most {0} rules, and what its patterns expand to is bounded too")]
    TooManyRules(usize),
    #[error("the rules could not be compiled")]
    NotCompiled,
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
            AuthzError::VersionRequired { .. } => {
                let reason = format!("{error}: send If-Match with its ETag");
                Self::new(Code::PreconditionRequired, reason)
            }
            AuthzError::Declared { .. } | AuthzError::InUse { .. } => {
                Self::new(Code::Conflict, error.to_string())
            }
            AuthzError::OtherRequest => Self::new(Code::IdempotencyMismatch, error.to_string()),
            AuthzError::KeyUsed(_) => Self::new(Code::IdempotencyKeyUsed, error.to_string()),
            AuthzError::NotCompiled => Self::internal(),
            AuthzError::TooManyRules(_) => Self::new(Code::TooManyRules, error.to_string()),
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
    #[error("governance.authz.hook.mode `webhook` needs `url`")]
    NoUrl,
    #[error(
        "governance.authz.hook.mode `webhook` needs the secret `authz_webhook_secret`: `whsec_` and base64 of 24 to 64 bytes"
    )]
    NoWebhookSecret,
    #[error("the secret `authz_webhook_secret` cannot be used: {0}")]
    WebhookSecret(InvalidSecret),
    #[error("governance.authz.hook.url cannot be used: {0}")]
    Webhook(String),
}
