//! Rows of `user_api_keys`.

use crate::api_keys::ApiKey;
use crate::at_rest::Digest;
use crate::models::oauth::api::Page;
use systemprompt_audit::Guard;
use systemprompt_database::{Db, Deleted, on, on_tx, sql};
use systemprompt_models::auth::scope_of;
use systemprompt_models::ids::{ApiKeyId, UserId};
use systemprompt_models::{Millis, parse_permissions};
use systemprompt_security::session::next_epoch;

/// `last_used_at` is written at most this often.
const TOUCH_EVERY_MS: Millis = 60_000;

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: String,
    user_id: String,
    name: String,
    prefix: String,
    suffix: String,
    scopes: String,
    /// Space-separated.
    audiences: Option<String>,
    allowed_cidrs: Option<String>,
    created_at: Millis,
    expires_at: Option<Millis>,
    last_used_at: Option<Millis>,
    revoked_at: Option<Millis>,
}

#[derive(sqlx::FromRow)]
struct DigestedRow {
    #[sqlx(flatten)]
    key: KeyRow,
    digest: String,
}

impl KeyRow {
    /// The key; nothing of a row whose bounds this version cannot read.
    fn key(self) -> Option<ApiKey> {
        let words = |text: Option<String>| -> Vec<String> {
            text.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
        };
        let cidrs = words(self.allowed_cidrs).iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
        Some(ApiKey {
            id: ApiKeyId::new(self.id),
            user_id: UserId::new(self.user_id),
            name: self.name,
            prefix: self.prefix,
            suffix: self.suffix,
            // A scope that this version cannot read gives nothing.
            scopes: parse_permissions(&self.scopes).unwrap_or_default(),
            audiences: words(self.audiences),
            allowed_cidrs: cidrs,
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
            revoked_at: self.revoked_at,
        })
    }
}

/// A list as its column has it: nothing if it is empty.
fn listed<T: ToString>(items: &[T]) -> Option<String> {
    (!items.is_empty()).then(|| items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// Holds while a key counts.
pub(crate) fn stands(id: &str, now: Millis) -> Guard {
    Guard {
        name: "key_ended",
        sql: sql!(
            "UPDATE user_api_keys SET last_used_at = last_used_at
             WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"
        ),
        cells: vec![id.into(), now.into()],
    }
}

/// Reads and writes API keys.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeyRepository {
    db: Db,
}

impl ApiKeyRepository {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }

    /// Inserts a key unless its owner has `limit` live ones; false when that is so.
    pub(crate) async fn insert(
        &self,
        key: &ApiKey,
        digest: &Digest,
        now: Millis,
        limit: i64,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        // The owner's row is locked, so that two inserts at once see each other.
        on_tx!(tx, conn => sqlx::query(sql!("UPDATE users SET version = version WHERE id = $1"))
            .bind(key.user_id.as_str()).execute(&mut *conn).await.map(drop))?;
        let inserted = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO user_api_keys (id, user_id, name, prefix, suffix, digest, scopes, audiences, allowed_cidrs, created_at,
                 expires_at, pepper_id)
             SELECT $1, $2, $3, $4, $5, $6, $7, CAST($8 AS TEXT), CAST($9 AS TEXT), CAST($10 AS BIGINT), CAST($11 AS BIGINT), $12
             WHERE (SELECT COUNT(*) FROM user_api_keys
                    WHERE user_id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $10)) < $13"
        ))
            .bind(key.id.as_str()).bind(key.user_id.as_str()).bind(&key.name).bind(&key.prefix).bind(&key.suffix)
            .bind(&digest.hex).bind(scope_of(&key.scopes)).bind(listed(&key.audiences)).bind(listed(&key.allowed_cidrs))
            .bind(now).bind(key.expires_at).bind(&*digest.pepper_id).bind(limit)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(inserted == 1)
    }

    pub(crate) async fn by_id(&self, id: &str) -> sqlx::Result<Option<ApiKey>> {
        let row: Option<KeyRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, user_id, name, prefix, suffix, scopes, audiences, allowed_cidrs, created_at, expires_at,
                    last_used_at, revoked_at
             FROM user_api_keys WHERE id = $1"
        )).bind(id).fetch_optional(pool).await)?;
        Ok(row.and_then(KeyRow::key))
    }

    /// The live key with one of these digests, and which it is.
    pub(crate) async fn live_by_digest(
        &self,
        (present, previous): (&str, &str),
        now: Millis,
    ) -> sqlx::Result<Option<(ApiKey, String)>> {
        let row: Option<DigestedRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, user_id, name, prefix, suffix, scopes, audiences, allowed_cidrs, created_at, expires_at,
                    last_used_at, revoked_at, digest
             FROM user_api_keys
             WHERE digest IN ($1, $2) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)"
        )).bind(present).bind(previous).bind(now).fetch_optional(pool).await)?;
        Ok(row.and_then(|row| Some((row.key.key()?, row.digest))))
    }

    /// Gives a key the digest under the present pepper.
    pub(crate) async fn redigest(&self, id: &str, old: &str, new: &Digest) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE user_api_keys SET digest = $1, pepper_id = $2 WHERE id = $3 AND digest = $4"
        )).bind(&new.hex).bind(&*new.pepper_id).bind(id).bind(old).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    pub(crate) async fn page(&self, page: Page<'_>, user_id: Option<&str>) -> sqlx::Result<Vec<ApiKey>> {
        let rows: Vec<KeyRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, user_id, name, prefix, suffix, scopes, audiences, allowed_cidrs, created_at, expires_at,
                    last_used_at, revoked_at
             FROM user_api_keys
             WHERE id > $1 AND (CAST($2 AS TEXT) IS NULL OR user_id = $2)
             ORDER BY id LIMIT $3"
        )).bind(page.after).bind(user_id).bind(page.limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().filter_map(KeyRow::key).collect())
    }

    /// Notes a use, at most once a minute.
    pub(crate) async fn touch(&self, id: &str, now: Millis) -> sqlx::Result<()> {
        let due: Option<(i64,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT created_at FROM user_api_keys WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)"
        )).bind(id).bind(now - TOUCH_EVERY_MS).fetch_optional(pool).await)?;
        if due.is_none() {
            return Ok(());
        }
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!("UPDATE user_api_keys SET last_used_at = $1 WHERE id = $2"))
            .bind(now).bind(id).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Deletes at most `limit` keys that ended before `before`. Their ids tell when they were made, so that no younger
    /// one is looked at.
    pub(crate) async fn delete_ended(&self, before: Millis, limit: i64) -> sqlx::Result<Deleted> {
        let statement = sql!(
            "DELETE FROM user_api_keys WHERE id IN
                 (SELECT id FROM user_api_keys WHERE (revoked_at < $1 OR expires_at < $1) AND id < $2 ORDER BY id LIMIT $3)"
        );
        let below = format!("{}{before:012x}", ApiKeyId::PREFIX);
        self.db.delete_some(statement, before, Some(&below), limit).await
    }

    /// Ends a live key; false when it is none. The epoch of revocations rises with it, so that other nodes forget the key.
    pub(crate) async fn revoke(&self, id: &str, now: Millis) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        next_epoch(&mut tx).await?;
        let revoked = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE user_api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL"
        )).bind(now).bind(id).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        // What was dead is no news to other nodes.
        if revoked == 1 {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(revoked == 1)
    }
}
