//! How far each sink has got.

use super::entries::LedgerReader;
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

/// A row of `ledger_export_cursors`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CursorRow {
    pub sink: String,
    pub stream: String,
    pub seq: i64,
    pub updated_at: Millis,
    pub last_error: Option<String>,
}

impl LedgerReader {
    /// The cursors of a sink.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cursors(&self, sink: &str) -> sqlx::Result<Vec<CursorRow>> {
        on!(self.db(), pool => sqlx::query_as(sql!(
            "SELECT sink, stream, seq, updated_at, last_error FROM ledger_export_cursors WHERE sink = $1 ORDER BY stream"
        )).bind(sink).fetch_all(pool).await)
    }
}

/// Moves a cursor, or says why it stands.
pub(crate) async fn store(db: &Db, row: &CursorRow) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "INSERT INTO ledger_export_cursors (sink, stream, seq, updated_at, last_error) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (sink, stream) DO UPDATE SET seq = $3, updated_at = $4, last_error = $5"
    ))
        .bind(row.sink.as_str())
        .bind(row.stream.as_str())
        .bind(row.seq)
        .bind(row.updated_at)
        .bind(row.last_error.as_deref())
        .execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
