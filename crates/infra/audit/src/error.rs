//! Why a unit was not recorded. Whatever it was to permit does not happen.

use crate::record::RecordError;
use systemprompt_models::{Code, Refusal};

/// A unit that was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The queue is full, or the unit was not taken into a batch in time. Nothing was written.
    #[error("the ledger's queue is full")]
    Busy,
    /// Other transactions hold rows that this unit's guards ask for. Nothing was written.
    #[error("rows that this call needs are being changed by others")]
    Contended,
    /// The store does not answer, or the outcome of the commit is unknown.
    #[error("the ledger cannot be written: {0}")]
    Unavailable(String),
    /// Less than `audit.min_free_bytes` are left; closing records are still written.
    #[error("the ledger's disk is nearly full")]
    DiskLow,
    /// The chain in the database does not verify; `audit verify` says where.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// Another process owns this node's stream.
    #[error("another process writes this node's stream")]
    Fenced,
    /// A guard of this unit touched another number of rows than one.
    #[error("the guard `{0}` did not hold")]
    Guard(&'static str),
    /// A companion row of this unit could not be written.
    #[error("a row of `{table}` could not be written: {cause}")]
    Row { table: &'static str, cause: String },
    /// A record of this unit breaks a rule of the record format.
    #[error("ledger_record_invalid: {0}")]
    Record(String),
    /// A permit was asked for a unit that denies.
    #[error("a unit that denies gives no permit")]
    Denial,
}

impl From<RecordError> for LedgerError {
    fn from(error: RecordError) -> Self {
        Self::Record(error.to_string())
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        let code = match &error {
            LedgerError::Busy | LedgerError::Contended => Code::LedgerBusy,
            LedgerError::Unavailable(_) => Code::LedgerUnavailable,
            LedgerError::DiskLow => Code::LedgerDiskLow,
            LedgerError::Damaged(_) => Code::LedgerDamaged,
            LedgerError::Fenced => Code::LedgerFenced,
            LedgerError::Guard(_) => Code::Conflict,
            LedgerError::Row { .. } | LedgerError::Record(_) | LedgerError::Denial => {
                tracing::error!(%error, "a unit could not be recorded");
                return Refusal::internal();
            }
        };
        Refusal::new(code, error.to_string())
    }
}
