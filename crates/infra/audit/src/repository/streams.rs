//! Streams: one per node, claimed at start by raising its epoch, so that an earlier process of the node is fenced.

use crate::chain::genesis;
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
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
    pub closed_reason: Option<String>,
    pub predecessor: Option<String>,
    /// The tree at the head; absent for a stream that an older version wrote last.
    pub frontier: Option<Vec<u8>>,
}

/// Takes over this node's open stream, or makes its first one.
pub(crate) async fn claim(db: &Db, node_id: &str, origin_host: &str, now: Millis) -> sqlx::Result<Stream> {
    let mut tx = db.write_tx().await?;
    let claimed: Option<Stream> = on_tx!(tx, conn => sqlx::query_as(sql!(
        "UPDATE ledger_streams SET epoch = epoch + 1
         WHERE stream = (SELECT stream FROM ledger_streams WHERE node_id = $1 AND closed_at IS NULL
                         ORDER BY created_at DESC, stream DESC LIMIT 1)
         RETURNING stream, origin, node_id, epoch, head_seq, head_hash, created_at, closed_at, closed_reason, predecessor, frontier"
    )).bind(node_id).fetch_optional(&mut *conn).await)?;
    let stream = if let Some(stream) = claimed {
        stream
    } else {
        insert(&mut tx, node_id, origin_host, None, now).await?
    };
    tx.commit().await?;
    Ok(stream)
}

async fn insert(
    tx: &mut WriteTx,
    node_id: &str,
    origin_host: &str,
    predecessor: Option<&str>,
    now: Millis,
) -> sqlx::Result<Stream> {
    let tag: String = uuid_v4().simple().to_string().chars().take(8).collect();
    let name = format!("{node_id}-{tag}");
    let origin = format!("{origin_host}/ledger/{name}");
    let first = genesis(&origin);
    on_tx!(*tx, conn => sqlx::query_as(sql!(
        "INSERT INTO ledger_streams (stream, origin, node_id, epoch, head_seq, head_hash, created_at, predecessor)
         VALUES ($1, $2, $3, 1, 0, $4, $5, $6)
         RETURNING stream, origin, node_id, epoch, head_seq, head_hash, created_at, closed_at, closed_reason, predecessor, frontier"
    )).bind(name).bind(origin).bind(node_id).bind(first).bind(now).bind(predecessor).fetch_one(&mut *conn).await)
}

/// Closes this node's open stream, whatever its state, and makes its successor; `None` when there is no open stream.
pub(crate) async fn succeed(
    db: &Db,
    node_id: &str,
    origin_host: &str,
    reason: &str,
    now: Millis,
) -> sqlx::Result<Option<(Stream, Stream)>> {
    let mut tx = db.write_tx().await?;
    let closed: Option<Stream> = on_tx!(tx, conn => sqlx::query_as(sql!(
        "UPDATE ledger_streams SET epoch = epoch + 1, closed_at = $1, closed_reason = $2
         WHERE stream = (SELECT stream FROM ledger_streams WHERE node_id = $3 AND closed_at IS NULL
                         ORDER BY created_at DESC, stream DESC LIMIT 1)
         RETURNING stream, origin, node_id, epoch, head_seq, head_hash, created_at, closed_at, closed_reason, predecessor, frontier"
    )).bind(now).bind(reason).bind(node_id).fetch_optional(&mut *conn).await)?;
    let Some(closed) = closed else { return Ok(None) };
    // Later than its predecessor, so that the newest open one is found.
    let successor =
        insert(&mut tx, node_id, origin_host, Some(&closed.stream), now.max(closed.created_at + 1)).await?;
    tx.commit().await?;
    Ok(Some((closed, successor)))
}

/// All streams, oldest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(db: &Db) -> sqlx::Result<Vec<Stream>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT stream, origin, node_id, epoch, head_seq, head_hash, created_at, closed_at, closed_reason, predecessor, frontier
         FROM ledger_streams ORDER BY created_at, stream"
    )).fetch_all(pool).await)
}
