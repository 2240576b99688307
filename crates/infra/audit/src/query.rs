//! Filtered pages of the ledger on either engine, with the cursor that continues them.

use crate::ledger::Ledger;
use crate::lookup::{Lookup, LookupError};
use crate::repository::entries::{After, Filter, LedgerReader, LedgerRow};

/// Largest page (AUD-60).
pub const MAX_PAGE: i64 = 500;

/// A page and where the next begins.
#[derive(Clone, Debug)]
pub struct Page {
    pub rows: Vec<LedgerRow>,
    pub next: Option<After>,
}

/// Reads a page: through the look-up file where the SQLite ledger has no index for the filter, else from the ledger.
///
/// # Errors
/// When a file cannot be read.
pub async fn page(
    reader: &LedgerReader,
    lookup: Option<&Lookup>,
    filter: &Filter,
    after: Option<&After>,
    limit: i64,
) -> Result<Page, LookupError> {
    let limit = limit.clamp(1, MAX_PAGE);
    let mut rows = match lookup {
        Some(lookup) if filter.needs_lookup() => lookup.filtered(filter, after, limit + 1).await?,
        _ => reader.filtered(filter, after, limit + 1).await.map_err(LookupError::Read)?,
    };
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let next = match rows.last() {
        Some(last) if more => Some(After { at: last.at, stream: last.stream.clone(), seq: last.seq }),
        _ => None,
    };
    Ok(Page { rows, next })
}

impl Ledger {
    /// Reads a page of this ledger.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn query(
        &self,
        filter: &Filter,
        after: Option<&After>,
        limit: i64,
    ) -> Result<Page, LookupError> {
        page(&self.reader(), self.lookup(), filter, after, limit).await
    }
}
