//! Whether the ledger takes records, and why not.

use crate::error::LedgerError;

/// State of this node's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Ready,
    /// The store failed; it is tried each second.
    Unavailable(String),
    /// Closing records are still written.
    DiskLow,
    /// The chain does not verify; reads only.
    Damaged(String),
    /// The database is older than the checkpoint that this node kept outside it; reads only.
    RolledBack(String),
    /// Another process owns the stream.
    Fenced,
}

impl Condition {
    /// Refuses what cannot be taken now.
    pub(crate) fn admit(&self, closing: bool) -> Result<(), LedgerError> {
        match self {
            Self::Ready => Ok(()),
            // A closing record is queued even now: the writer answers it once the store is back, or refuses it.
            Self::DiskLow | Self::Unavailable(_) if closing => Ok(()),
            Self::DiskLow => Err(LedgerError::DiskLow),
            Self::Unavailable(why) => Err(LedgerError::Unavailable(why.clone())),
            Self::Damaged(why) | Self::RolledBack(why) => Err(LedgerError::Damaged(why.clone())),
            Self::Fenced => Err(LedgerError::Fenced),
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// What was found, where more is known than the code.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Unavailable(why) | Self::Damaged(why) | Self::RolledBack(why) => Some(why),
            Self::Ready | Self::DiskLow | Self::Fenced => None,
        }
    }

    /// Short code for probes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ready => "ok",
            Self::Unavailable(_) => "ledger_unavailable",
            Self::DiskLow => "ledger_disk_low",
            Self::Damaged(_) => "ledger_damaged",
            Self::RolledBack(_) => "ledger_rollback",
            Self::Fenced => "ledger_fenced",
        }
    }
}
