//! Why an entry of the allow list was not made, read or removed.

use systemprompt_audit::LedgerError;
use systemprompt_models::{Code, Refusal};

#[derive(Debug, thiserror::Error)]
pub enum AllowError {
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error("there is no entry `{0}`")]
    NotFound(String),
    #[error("at most {0} entries are held; remove some")]
    TooMany(usize),
    #[error("the allow list cannot be read or written")]
    Database(#[from] sqlx::Error),
    #[error("the change could not be recorded")]
    Ledger(#[from] LedgerError),
}

impl From<AllowError> for Refusal {
    fn from(error: AllowError) -> Self {
        match error {
            AllowError::Invalid { field, ref message } => {
                Self::new(Code::Unprocessable, "a field is not valid").with_validation(field, message.clone())
            }
            AllowError::NotFound(_) => Self::new(Code::NotFound, error.to_string()),
            AllowError::TooMany(_) => Self::new(Code::Unprocessable, error.to_string()),
            AllowError::Database(ref source) => {
                tracing::error!(%error, %source, "the allow list cannot be read or written");
                Self::internal()
            }
            AllowError::Ledger(source) => source.into(),
        }
    }
}
