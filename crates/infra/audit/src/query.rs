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

impl After {
    /// The cursor behind this entry, for pages of this filter and no other.
    pub fn cursor(&self, filter: &Filter) -> String {
        format!("{}\n{}\n{}\n{}", self.at, self.stream, self.seq, digest(filter))
    }

    /// Where a cursor goes on; `None` for what is no cursor of this filter and order.
    pub fn of_cursor(cursor: &str, filter: &Filter) -> Option<Self> {
        let parts: Vec<&str> = cursor.split('\n').collect();
        let [at, stream, seq, of] = parts.try_into().ok()?;
        let is_own = of == digest(filter);
        let after = Self { at: at.parse().ok()?, stream: stream.to_owned(), seq: seq.parse().ok()? };
        is_own.then_some(after)
    }
}

/// What tells one filter from another.
fn digest(filter: &Filter) -> String {
    let Filter { kind, actor, subject_kind, subject_id, outcome, policy, trace_id, session_id, .. } = filter;
    let texts = [
        kind,
        actor,
        subject_kind,
        subject_id,
        outcome,
        policy,
        trace_id,
        session_id,
        &filter.context_id,
        &filter.client_id,
        &filter.stream,
    ];
    let whole = serde_json::json!([texts, filter.since, filter.until, filter.ascending]).to_string();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, whole.as_bytes());
    hex::encode(digest.as_ref().get(..8).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_on_in_its_own_filter_and_order_only() {
        let after = After { at: 7, stream: "node:1".to_owned(), seq: 3 };
        let filter = Filter { actor: Some("usr_1".to_owned()), since: Some(5), ..Filter::default() };
        let cursor = after.cursor(&filter);
        assert_eq!(After::of_cursor(&cursor, &filter), Some(after));
        for other in [
            Filter::default(),
            Filter { actor: Some("usr_2".to_owned()), ..filter.clone() },
            Filter { actor: None, policy: filter.actor.clone(), ..filter.clone() },
            Filter { stream: Some("node:1".to_owned()), ..filter.clone() },
            Filter { since: None, until: Some(5), ..filter.clone() },
            Filter { ascending: true, ..filter.clone() },
        ] {
            assert_eq!(After::of_cursor(&cursor, &other), None, "{other:?}");
        }
        for bad in ["", "7", "7\nnode:1\n3", "x\nnode:1\n3\n0"] {
            assert_eq!(After::of_cursor(bad, &filter), None, "{bad:?}");
        }
    }
}
