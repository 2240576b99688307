//! Rows of bans. What adds or removes one raises the epoch in its own transaction.

use crate::bans::{Ban, BanError, BanSource, parse_network};
use std::collections::HashMap;
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::BanId;

/// Bans whose hits one transaction writes: on SQLite the ledger waits for it.
const HITS_AT_ONCE: usize = 256;

/// Reads and writes `banned_ips`.
#[derive(Clone, Debug)]
pub(crate) struct BanRepository {
    db: Db,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    network: String,
    reason: String,
    source: String,
    created_by: String,
    created_at: Millis,
    expires_at: Option<Millis>,
    hits: i64,
    last_hit_at: Option<Millis>,
}

impl Row {
    /// A row that cannot be read is an error: leaving it out would unban somebody.
    fn ban(self) -> Result<Ban, BanError> {
        match (parse_network(&self.network), BanSource::parse(&self.source)) {
            (Some(network), Some(source)) => Ok(Ban {
                id: BanId::new(self.id),
                network,
                reason: self.reason,
                source,
                created_by: self.created_by,
                created_at: self.created_at,
                expires_at: self.expires_at,
                hits: self.hits,
                last_hit_at: self.last_hit_at,
            }),
            _ => Err(BanError::Row(self.id)),
        }
    }
}

impl BanRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    pub async fn epoch(&self) -> sqlx::Result<i64> {
        let (epoch,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!("SELECT epoch FROM ban_epoch WHERE one = 1"))
            .fetch_one(pool).await)?;
        Ok(epoch)
    }

    /// The bans in force behind the id `after`, by id.
    pub async fn active(&self, after: &str, now: Millis, limit: i64) -> Result<Vec<Ban>, BanError> {
        let rows: Vec<Row> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, network, reason, source, created_by, created_at, expires_at, hits, last_hit_at
             FROM banned_ips
             WHERE id > $1 AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
             ORDER BY id LIMIT $3"
        )).bind(after).bind(now).bind(limit).fetch_all(pool).await)?;
        rows.into_iter().map(Row::ban).collect()
    }

    /// A ban in force.
    pub async fn find(&self, id: &str, now: Millis) -> Result<Option<Ban>, BanError> {
        let row: Option<Row> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, network, reason, source, created_by, created_at, expires_at, hits, last_hit_at
             FROM banned_ips
             WHERE id = $1 AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"
        )).bind(id).bind(now).fetch_optional(pool).await)?;
        row.map(Row::ban).transpose()
    }

    /// The id of the ban in force of exactly this network.
    pub async fn of_network(&self, network: &str, now: Millis) -> sqlx::Result<Option<String>> {
        let row: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id FROM banned_ips
             WHERE network = $1 AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
             ORDER BY id LIMIT 1"
        )).bind(network).bind(now).fetch_optional(pool).await)?;
        Ok(row.map(|(id,)| id))
    }

    /// How often a network was banned automatically, as far as its rows are kept.
    pub async fn automatic_count(&self, network: &str) -> sqlx::Result<i64> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM banned_ips WHERE network = $1 AND source <> 'manual'"
        )).bind(network).fetch_one(pool).await)?;
        Ok(count)
    }

    /// The oldest automatic ban in force.
    pub async fn oldest_automatic(&self, now: Millis) -> Result<Option<Ban>, BanError> {
        let row: Option<Row> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, network, reason, source, created_by, created_at, expires_at, hits, last_hit_at
             FROM banned_ips
             WHERE source <> 'manual' AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > $1)
             ORDER BY id LIMIT 1"
        )).bind(now).fetch_optional(pool).await)?;
        row.map(Row::ban).transpose()
    }

    pub async fn insert(&self, ban: &Ban) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO banned_ips (id, network, reason, source, created_by, created_at, expires_at, hits)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0)"
        ))
            .bind(ban.id.as_str()).bind(ban.network.to_string()).bind(&ban.reason).bind(ban.source.as_str())
            .bind(&ban.created_by).bind(ban.created_at).bind(ban.expires_at)
            .execute(&mut *conn).await.map(drop))?;
        finish(tx).await
    }

    /// Deletes a ban. Returns whether there was one.
    pub async fn delete(&self, id: &str) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let deleted = on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM banned_ips WHERE id = $1"))
            .bind(id).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        finish(tx).await?;
        Ok(deleted > 0)
    }

    /// Adds refused requests to their bans: id to (count, last time).
    pub async fn add_hits(&self, hits: &HashMap<BanId, (i64, Millis)>) -> sqlx::Result<()> {
        let hits: Vec<_> = hits.iter().collect();
        for some in hits.chunks(HITS_AT_ONCE) {
            let mut tx = self.db.write_tx().await?;
            for (id, (count, last)) in some {
                on_tx!(tx, conn => sqlx::query(sql!(
                    "UPDATE banned_ips SET hits = hits + $1, last_hit_at = $2 WHERE id = $3"
                )).bind(count).bind(last).bind(id.as_str()).execute(&mut *conn).await.map(drop))?;
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// Whether a ban has ended that is not marked, or a mark is older than `before`.
    pub async fn has_ended(&self, now: Millis, before: Millis) -> sqlx::Result<bool> {
        let row: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id FROM banned_ips WHERE (ended_at IS NULL AND expires_at <= $1) OR ended_at < $2 LIMIT 1"
        )).bind(now).bind(before).fetch_optional(pool).await)?;
        Ok(row.is_some())
    }

    /// Marks bans whose end has come and is not recorded yet; only one node gets each. Returns (id, source).
    pub async fn claim_ended(&self, now: Millis, limit: i64) -> sqlx::Result<Vec<(String, String)>> {
        let mut tx = self.db.write_tx().await?;
        let rows: Vec<(String, String)> = on_tx!(tx, conn => sqlx::query_as(sql!(
            "UPDATE banned_ips SET ended_at = $1
             WHERE ended_at IS NULL AND id IN
                 (SELECT id FROM banned_ips WHERE ended_at IS NULL AND expires_at <= $1 ORDER BY id LIMIT $2)
             RETURNING id, source"
        )).bind(now).bind(limit).fetch_all(&mut *conn).await)?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Takes a mark back: the end could not be recorded.
    pub async fn unclaim_ended(&self, id: &str) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!("UPDATE banned_ips SET ended_at = NULL WHERE id = $1"))
            .bind(id).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Deletes what ended before `before`.
    pub async fn purge(&self, before: Millis) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM banned_ips WHERE ended_at < $1"))
            .bind(before).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }
}

/// Raises the epoch and commits.
async fn finish(mut tx: WriteTx) -> sqlx::Result<()> {
    on_tx!(tx, conn => sqlx::query(sql!("UPDATE ban_epoch SET epoch = epoch + 1 WHERE one = 1"))
        .execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
