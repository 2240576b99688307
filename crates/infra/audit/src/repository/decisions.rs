//! Recorded decisions in `seq` order, with no more columns than a replay looks at.

use super::entries::LedgerReader;
use systemprompt_database::{on, sql};
use systemprompt_models::Millis;

/// A recorded decision. `record` is absent where the record was pruned.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DecisionEntry {
    pub seq: i64,
    pub id: String,
    pub at: Millis,
    pub record: Option<String>,
}

impl LedgerReader {
    /// The decisions of a stream behind `after`, up to and with `to`, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn decisions(&self, stream: &str, after: i64, to: i64) -> sqlx::Result<Vec<DecisionEntry>> {
        on!(self.db(), pool => sqlx::query_as(sql!(
            "SELECT seq, id, at, record FROM ledger_entries
             WHERE stream = $1 AND seq > $2 AND seq <= $3 AND kind IN ('authz.decision', 'governance.decision')
             ORDER BY seq"
        )).bind(stream).bind(after).bind(to).fetch_all(pool).await)
    }
}
