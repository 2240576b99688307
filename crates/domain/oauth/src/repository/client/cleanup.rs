//! Clients that nobody used.

use super::ClientRepository;
use systemprompt_database::{on, sql};
use systemprompt_models::Millis;

impl ClientRepository {
    /// Ids of at most `limit` registered clients that were not used, or not made, after `before`.
    pub(crate) async fn unused_registered(&self, before: Millis, limit: i64) -> sqlx::Result<Vec<String>> {
        let rows: Vec<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT client_id FROM oauth_clients
             WHERE kind = 'registered' AND created_at < $1 AND (last_used_at IS NULL OR last_used_at < $1)
             ORDER BY client_id LIMIT $2"
        )).bind(before).bind(limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Id of the oldest registered client that was made before `before` and never used.
    pub(crate) async fn oldest_never_used(&self, before: Millis) -> sqlx::Result<Option<String>> {
        let row: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT client_id FROM oauth_clients
             WHERE kind = 'registered' AND created_at < $1 AND last_used_at IS NULL
             ORDER BY created_at, client_id LIMIT 1"
        )).bind(before).fetch_optional(pool).await)?;
        Ok(row.map(|(id,)| id))
    }
}
