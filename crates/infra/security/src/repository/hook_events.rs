//! Events that hooks of coding agents told.

use systemprompt_database::{Db, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::HookEventId;

/// An event to store.
pub(crate) struct EventRow<'a> {
    pub id: HookEventId,
    pub event_key: String,
    pub user_id: &'a str,
    pub session_id: String,
    pub event: String,
    pub tool_use_id: Option<String>,
    pub tool_name: Option<String>,
    pub plugin_id: Option<String>,
    pub trace_id: &'a str,
    pub payload: String,
    pub created_at: Millis,
}

/// Stores an event, unless one of its key is stored.
pub(crate) async fn insert(db: &Db, row: EventRow<'_>) -> Result<(), sqlx::Error> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "INSERT INTO hook_events (id, event_key, user_id, session_id, event, tool_use_id, tool_name, plugin_id, trace_id,
                                  payload, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (event_key) DO NOTHING"
    ))
        .bind(row.id.as_str())
        .bind(&row.event_key)
        .bind(row.user_id)
        .bind(&row.session_id)
        .bind(&row.event)
        .bind(row.tool_use_id.as_deref())
        .bind(row.tool_name.as_deref())
        .bind(row.plugin_id.as_deref())
        .bind(row.trace_id)
        .bind(&row.payload)
        .bind(row.created_at)
        .execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}

/// Removes events from before `until`, some at a time so that nobody waits behind it.
pub(crate) async fn forget(db: &Db, until: Millis) -> Result<u64, sqlx::Error> {
    let mut tx = db.write_tx().await?;
    let gone = on_tx!(tx, conn => sqlx::query(sql!(
        "DELETE FROM hook_events
         WHERE id IN (SELECT id FROM hook_events WHERE created_at < $1 ORDER BY created_at LIMIT 1000)"
    )).bind(until).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(gone)
}
