//! Streams: one per node, claimed at start by raising its epoch, so that an earlier process of the node is fenced.

use crate::chain::genesis;
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::uuid_v4;

/// A row of `ledger_streams`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Stream {
    pub stream: String,
    pub origin: String,
    pub node_id: String,
    pub epoch: i64,
    pub head_seq: i64,
    pub head_hash: String,
    pub created_at: Millis,
    pub closed_at: Option<Millis>,
}

/// Takes over this node's open stream, or makes its first one.
pub(crate) async fn claim(db: &Db, node_id: &str, origin_host: &str, now: Millis) -> sqlx::Result<Stream> {
    let mut tx = db.write_tx().await?;
    let claimed: Option<Stream> = on_tx!(tx, conn => sqlx::query_as(sql!(
        "UPDATE ledger_streams SET epoch = epoch + 1
         WHERE stream = (SELECT stream FROM ledger_streams WHERE node_id = $1 AND closed_at IS NULL
                         ORDER BY created_at DESC, stream DESC LIMIT 1)
         RETURNING stream, origin, node_id, epoch, head_seq, head_hash, created_at, closed_at"
    )).bind(node_id).fetch_optional(&mut *conn).await)?;
    let stream = if let Some(stream) = claimed {
        stream
    } else {
        let tag: String = uuid_v4().simple().to_string().chars().take(8).collect();
        let name = format!("{node_id}-{tag}");
        let origin = format!("{origin_host}/ledger/{name}");
        let first = genesis(&origin);
        on_tx!(tx, conn => sqlx::query_as(sql!(
                "INSERT INTO ledger_streams (stream, origin, node_id, epoch, head_seq, head_hash, created_at)
                 VALUES ($1, $2, $3, 1, 0, $4, $5)
                 RETURNING stream, origin, node_id, epoch, head_seq, head_hash, created_at, closed_at"
            )).bind(name).bind(origin).bind(node_id).bind(first).bind(now).fetch_one(&mut *conn).await)?
    };
    tx.commit().await?;
    Ok(stream)
}

/// All streams, oldest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(db: &Db) -> sqlx::Result<Vec<Stream>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT stream, origin, node_id, epoch, head_seq, head_hash, created_at, closed_at
         FROM ledger_streams ORDER BY created_at, stream"
    )).fetch_all(pool).await)
}
