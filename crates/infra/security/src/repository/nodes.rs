//! Rows of the nodes.

use crate::nodes::NodeName;
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

pub(crate) struct NodeRow<'a> {
    pub name: &'a NodeName,
    pub boot_id: &'a str,
    pub started_at: Millis,
    pub lease_until: Millis,
    pub state: &'static str,
}

pub(crate) async fn put(db: &Db, row: NodeRow<'_>) -> Result<(), sqlx::Error> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "INSERT INTO nodes (instance_id, boot_id, address, version, started_at, lease_until, state)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (instance_id) DO UPDATE SET
             boot_id = $2, address = $3, version = $4, started_at = $5, lease_until = $6, state = $7"
    ))
        .bind(&row.name.instance_id)
        .bind(row.boot_id)
        .bind(&row.name.address)
        .bind(row.name.version)
        .bind(row.started_at)
        .bind(row.lease_until)
        .bind(row.state)
        .execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}

/// How many nodes live at `now`.
pub(crate) async fn count(db: &Db, now: Millis) -> Result<i64, sqlx::Error> {
    let (count,): (i64,) = on!(db, pool => sqlx::query_as(sql!(
        "SELECT COUNT(*) FROM nodes WHERE state = 'serving' AND lease_until > $1"
    )).bind(now).fetch_one(pool).await)?;
    Ok(count)
}

/// Removes nodes whose lease ended before `until`.
pub(crate) async fn forget(db: &Db, until: Millis) -> Result<(), sqlx::Error> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM nodes WHERE lease_until < $1"))
        .bind(until).execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
