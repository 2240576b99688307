//! Blocks that were refused in a conversation.

use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

/// Reads and writes `governance_seen`.
#[derive(Clone, Debug)]
pub(crate) struct SeenRepository {
    db: Db,
}

impl SeenRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Whether the block was refused in the context since `since`.
    pub async fn was_refused(&self, context: &str, hash: &str, since: Millis) -> sqlx::Result<bool> {
        let row: Option<(i64,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT at FROM governance_seen WHERE context_id = $1 AND block_hash = $2 AND outcome = 'refused' AND at >= $3"
        )).bind(context).bind(hash).bind(since).fetch_optional(pool).await)?;
        Ok(row.is_some())
    }

    /// Notes that blocks were refused.
    pub async fn note(&self, context: &str, hashes: &[String], at: Millis) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        for hash in hashes {
            on_tx!(tx, conn => sqlx::query(sql!(
                "INSERT INTO governance_seen (context_id, block_hash, outcome, at) VALUES ($1, $2, 'refused', $3)
                 ON CONFLICT (context_id, block_hash) DO UPDATE SET at = excluded.at, outcome = excluded.outcome"
            )).bind(context).bind(hash).bind(at).execute(&mut *conn).await.map(drop))?;
        }
        tx.commit().await
    }

    /// Deletes what was noted before `before`.
    pub async fn purge(&self, before: Millis) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM governance_seen WHERE at < $1"))
            .bind(before).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }
}
