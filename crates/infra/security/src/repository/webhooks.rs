//! Ids of signed messages that were taken.

use systemprompt_database::{Db, on_tx, sql};
use systemprompt_models::Millis;

/// Takes an id; false if it is taken.
pub(crate) async fn take(
    db: &Db,
    endpoint: &str,
    id: &str,
    now: Millis,
    until: Millis,
) -> Result<bool, sqlx::Error> {
    let mut tx = db.write_tx().await?;
    let taken = on_tx!(tx, conn => sqlx::query(sql!(
        "INSERT INTO webhook_replays (endpoint, webhook_id, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (endpoint, webhook_id) DO UPDATE SET expires_at = $3 WHERE webhook_replays.expires_at <= $4"
    )).bind(endpoint).bind(id).bind(until).bind(now).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(taken == 1)
}

/// Removes ids whose time is over.
pub(crate) async fn forget(db: &Db, now: Millis) -> Result<u64, sqlx::Error> {
    let mut tx = db.write_tx().await?;
    let gone = on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM webhook_replays WHERE expires_at <= $1"))
        .bind(now).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(gone)
}
