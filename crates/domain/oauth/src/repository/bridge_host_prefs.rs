//! Rows of the hosts that a user lets their bridge serve.

use super::turns::turn;
use systemprompt_database::{Db, on_tx, sql};

/// Most hosts of one user.
const MAX_HOSTS: i64 = 100;

/// Writes which hosts a bridge serves.
#[derive(Clone, Debug)]
pub struct BridgeHostPrefsRepository {
    db: Db,
}

impl BridgeHostPrefsRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Notes whether a host is enabled. False for one host too many.
    pub(crate) async fn set(&self, user_id: &str, host: &str, enabled: bool) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        turn("host prefs", user_id).holds_in(&mut tx).await?;
        let done = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO bridge_host_prefs (user_id, host, enabled)
             SELECT $1, $2, CAST($3 AS BIGINT)
             WHERE (SELECT COUNT(*) FROM bridge_host_prefs WHERE user_id = $1 AND host <> $2) < CAST($4 AS BIGINT)
             ON CONFLICT (user_id, host) DO UPDATE SET enabled = excluded.enabled"
        ))
            .bind(user_id).bind(host).bind(i64::from(enabled)).bind(MAX_HOSTS)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(done == 1)
    }
}
