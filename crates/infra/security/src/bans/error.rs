//! Why a ban was not made, read or removed.

use systemprompt_audit::LedgerError;
use systemprompt_models::{Code, Refusal};

#[derive(Debug, thiserror::Error)]
pub enum BanError {
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error("there is no ban `{0}`")]
    NotFound(String),
    #[error("the network is banned already, by `{0}`; remove that one to change it")]
    Exists(String),
    #[error("the ban would cover {0}; repeat it with `force` if that is meant")]
    WouldLockOut(&'static str),
    #[error("at most {0} bans are held; remove some")]
    TooMany(usize),
    #[error("the row of the ban `{0}` cannot be read; mend or delete it in `banned_ips`")]
    Row(String),
    #[error("the bans cannot be read or written")]
    Database(#[from] sqlx::Error),
    #[error("the change could not be recorded")]
    Ledger(#[from] LedgerError),
}

impl From<BanError> for Refusal {
    fn from(error: BanError) -> Self {
        match error {
            BanError::Invalid { field, ref message } => {
                Self::new(Code::Unprocessable, "a field is not valid").with_validation(field, message.clone())
            }
            BanError::NotFound(_) => Self::new(Code::NotFound, error.to_string()),
            BanError::Exists(_) => Self::new(Code::BanExists, error.to_string()),
            BanError::WouldLockOut(_) => Self::new(Code::WouldLockOut, error.to_string()),
            BanError::TooMany(_) => Self::new(Code::TooManyBans, error.to_string()),
            BanError::Row(_) | BanError::Database(_) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "bans cannot be read or written");
                Self::internal()
            }
            BanError::Ledger(source) => source.into(),
        }
    }
}
