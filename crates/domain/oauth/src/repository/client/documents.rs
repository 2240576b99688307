//! Rows of `oauth_cimd_documents` and of the budget of fetches.

use super::ClientRepository;
use crate::models::cimd::{Logo, StoredDocument};
use systemprompt_database::{WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;

/// Most documents that are kept; those not used for the longest time go.
pub const MAX_DOCUMENTS: i64 = 10_000;
/// Milliseconds after which a host has one more fetch, and how many it may have at once.
const HOST_STEP: Millis = 1000;
const HOST_BURST: Millis = 5;
/// The same for what one network wants fetched before it has proven anything: half of what all have, so that it never takes all.
const NETWORK_STEP: Millis = 1000;
const NETWORK_BURST: Millis = 5;
/// The same for all hosts together.
const ALL_STEP: Millis = 100;
const ALL_BURST: Millis = 10;

#[derive(sqlx::FromRow)]
struct DocumentRow {
    url: String,
    document: String,
    metadata_digest: String,
    fetched_at: Millis,
    fresh_until: Millis,
    has_logo: i64,
}

impl ClientRepository {
    pub(crate) async fn document(&self, url: &str) -> sqlx::Result<Option<StoredDocument>> {
        let row: Option<DocumentRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT url, CAST(document AS TEXT) AS document, metadata_digest, fetched_at, fresh_until,
                    CAST(CASE WHEN logo IS NULL THEN 0 ELSE 1 END AS BIGINT) AS has_logo
             FROM oauth_cimd_documents WHERE url = $1"
        )).bind(url).fetch_optional(pool).await)?;
        Ok(row.map(|row| StoredDocument {
            url: row.url,
            document: row.document,
            metadata_digest: row.metadata_digest,
            fetched_at: row.fetched_at,
            fresh_until: row.fresh_until,
            has_logo: row.has_logo != 0,
        }))
    }

    /// At most `limit` kept documents behind the address `after`, by address: (address, document).
    pub(crate) async fn documents(&self, after: &str, limit: i64) -> sqlx::Result<Vec<(String, String)>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT url, CAST(document AS TEXT) AS document FROM oauth_cimd_documents WHERE url > $1 ORDER BY url LIMIT $2"
        )).bind(after).bind(limit).fetch_all(pool).await)
    }

    pub(crate) async fn document_logo(&self, url: &str) -> sqlx::Result<Option<Logo>> {
        let row: Option<(Option<Vec<u8>>, Option<String>)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT logo, logo_type FROM oauth_cimd_documents WHERE url = $1"
        )).bind(url).fetch_optional(pool).await)?;
        Ok(row.and_then(|(bytes, media_type)| Some(Logo { bytes: bytes?, media_type: media_type? })))
    }

    /// Notes a use, if the last one is older than `before`.
    pub(crate) async fn touch_document(&self, url: &str, now: Millis, before: Millis) -> sqlx::Result<()> {
        let is_due: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT url FROM oauth_cimd_documents WHERE url = $1 AND last_used_at < $2"
        )).bind(url).bind(before).fetch_optional(pool).await)?;
        if is_due.is_none() {
            return Ok(());
        }
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_cimd_documents SET last_used_at = $1 WHERE url = $2 AND last_used_at < $1"
        )).bind(now).bind(url).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Keeps a document in place of the one before. With `is_changed` the consents that were given for that one end.
    pub(crate) async fn store_document(
        &self,
        stored: &StoredDocument,
        logo: Option<&Logo>,
        is_changed: bool,
    ) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_cimd_documents (url, document, metadata_digest, fetched_at, fresh_until, logo, logo_type, last_used_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $4)
             ON CONFLICT (url) DO UPDATE SET document = excluded.document, metadata_digest = excluded.metadata_digest,
                 fetched_at = excluded.fetched_at, fresh_until = excluded.fresh_until, logo = excluded.logo,
                 logo_type = excluded.logo_type, last_used_at = excluded.last_used_at"
        ))
            .bind(&stored.url).bind(&stored.document).bind(&stored.metadata_digest).bind(stored.fetched_at)
            .bind(stored.fresh_until).bind(logo.map(|logo| logo.bytes.as_slice()))
            .bind(logo.map(|logo| logo.media_type.as_str()))
            .execute(&mut *conn).await.map(drop))?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "DELETE FROM oauth_cimd_documents WHERE url IN (
                 SELECT url FROM oauth_cimd_documents ORDER BY last_used_at DESC, url LIMIT 100 OFFSET $1)"
        )).bind(MAX_DOCUMENTS).execute(&mut *conn).await.map(drop))?;
        if is_changed {
            super::mutations::end_consents(&mut tx, &stored.url, stored.fetched_at).await?;
        }
        tx.commit().await
    }

    /// Takes a fetch from `host` out of its budget and out of that of all hosts. Returns whether both had one left.
    pub(crate) async fn take_fetch(&self, host: &str, now: Millis) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let granted = take(&mut tx, host, now, (HOST_STEP, HOST_BURST)).await?
            && take(&mut tx, "*", now, (ALL_STEP, ALL_BURST)).await?;
        if granted {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(granted)
    }

    /// Takes a fetch out of the budget of the network that asks for it.
    pub(crate) async fn take_newcomer(&self, network: &str, now: Millis) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let granted = take(&mut tx, &format!("from {network}"), now, (NETWORK_STEP, NETWORK_BURST)).await?;
        tx.commit().await?;
        Ok(granted)
    }
}

/// One guarded statement: each fetch moves the time when the budget is whole again, and none may move it further than the burst.
async fn take(
    tx: &mut WriteTx,
    name: &str,
    now: Millis,
    (step, burst): (Millis, Millis),
) -> sqlx::Result<bool> {
    let taken = on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO oauth_fetch_budget (name, full_at) VALUES ($1, CAST($2 AS BIGINT) + CAST($3 AS BIGINT))
         ON CONFLICT (name) DO UPDATE SET
             full_at = CASE WHEN oauth_fetch_budget.full_at > $2 THEN oauth_fetch_budget.full_at ELSE $2 END + $3
         WHERE oauth_fetch_budget.full_at <= $2 + $4"
    )).bind(name).bind(now).bind(step).bind(step * (burst - 1))
        .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    Ok(taken == 1)
}
