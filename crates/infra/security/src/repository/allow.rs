//! Rows of the allow list. What adds or removes one raises the epoch in its own transaction.

use crate::governance::allow::Allowance;
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;

/// Reads and writes `governance_allowlist`.
#[derive(Clone, Debug)]
pub(crate) struct AllowRepository {
    db: Db,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    rule_id: String,
    hmac: Option<String>,
    tool: Option<String>,
    pointer: Option<String>,
    reason: String,
    owner: String,
    created_by: String,
    created_at: Millis,
    expires_at: Option<Millis>,
}

impl From<Row> for Allowance {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            rule_id: row.rule_id,
            hmac: row.hmac,
            tool: row.tool,
            pointer: row.pointer,
            reason: row.reason,
            owner: row.owner,
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
        }
    }
}

impl AllowRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    pub async fn epoch(&self) -> sqlx::Result<i64> {
        let (epoch,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT epoch FROM governance_allowlist_epoch WHERE one = 1"
        )).fetch_one(pool).await)?;
        Ok(epoch)
    }

    /// The entries in force behind the id `after`, by id.
    pub async fn active(&self, after: &str, now: Millis, limit: i64) -> sqlx::Result<Vec<Allowance>> {
        let rows: Vec<Row> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, rule_id, hmac, tool, pointer, reason, owner, created_by, created_at, expires_at
             FROM governance_allowlist
             WHERE id > $1 AND (expires_at IS NULL OR expires_at > $2)
             ORDER BY id LIMIT $3"
        )).bind(after).bind(now).bind(limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(Allowance::from).collect())
    }

    /// An entry in force.
    pub async fn find(&self, id: &str, now: Millis) -> sqlx::Result<Option<Allowance>> {
        let row: Option<Row> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, rule_id, hmac, tool, pointer, reason, owner, created_by, created_at, expires_at
             FROM governance_allowlist
             WHERE id = $1 AND (expires_at IS NULL OR expires_at > $2)"
        )).bind(id).bind(now).fetch_optional(pool).await)?;
        Ok(row.map(Allowance::from))
    }

    pub async fn insert(&self, entry: &Allowance) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO governance_allowlist
                 (id, rule_id, hmac, tool, pointer, reason, owner, created_by, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        ))
            .bind(&*entry.id).bind(&entry.rule_id).bind(&entry.hmac).bind(&entry.tool).bind(&entry.pointer)
            .bind(&entry.reason).bind(&entry.owner).bind(&entry.created_by).bind(entry.created_at)
            .bind(entry.expires_at)
            .execute(&mut *conn).await.map(drop))?;
        finish(tx).await
    }

    /// Deletes an entry. Returns whether there was one.
    pub async fn delete(&self, id: &str) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let deleted = on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM governance_allowlist WHERE id = $1"))
            .bind(id).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        finish(tx).await?;
        Ok(deleted > 0)
    }

    /// Deletes what ended before `before`.
    pub async fn purge(&self, before: Millis) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM governance_allowlist WHERE expires_at < $1"))
            .bind(before).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }
}

/// Raises the epoch and commits.
async fn finish(mut tx: WriteTx) -> sqlx::Result<()> {
    on_tx!(tx, conn => sqlx::query(sql!(
        "UPDATE governance_allowlist_epoch SET epoch = epoch + 1 WHERE one = 1"
    )).execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
