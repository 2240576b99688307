//! The stored tree: complete tiles, the roots of a row of tiles, and the leaves.

use crate::repository::streams::Stream;
use crate::tree::{Frontier, Tile};
use systemprompt_database::{Db, on, on_tx, sql};

/// The 256 hashes of a complete tile.
pub(crate) async fn tile(db: &Db, stream: &str, level: u32, tile: u64) -> sqlx::Result<Option<Vec<u8>>> {
    on!(db, pool => sqlx::query_scalar(sql!(
        "SELECT hashes FROM ledger_tiles WHERE stream = $1 AND level = $2 AND tile = $3"
    )).bind(stream).bind(i64::from(level)).bind(tile as i64).fetch_optional(pool).await)
}

/// The roots of the tiles `from..to` of a level, in order: what a row of the level above begins with.
pub(crate) async fn roots(
    db: &Db,
    stream: &str,
    level: u32,
    from: u64,
    to: u64,
) -> sqlx::Result<Vec<Vec<u8>>> {
    on!(db, pool => sqlx::query_scalar(sql!(
        "SELECT root FROM ledger_tiles WHERE stream = $1 AND level = $2 AND tile >= $3 AND tile < $4 ORDER BY tile"
    )).bind(stream).bind(i64::from(level)).bind(from as i64).bind(to as i64).fetch_all(pool).await)
}

/// The leaves `from..to`, counted from 0, in order.
pub(crate) async fn leaves(db: &Db, stream: &str, from: u64, to: u64) -> sqlx::Result<Vec<String>> {
    on!(db, pool => sqlx::query_scalar(sql!(
        "SELECT hash FROM ledger_entries WHERE stream = $1 AND seq > $2 AND seq <= $3 ORDER BY seq"
    )).bind(stream).bind(from as i64).bind(to as i64).fetch_all(pool).await)
}

/// Stores the tree of a stream that an older version wrote, which kept none.
pub(crate) async fn store(db: &Db, stream: &Stream, frontier: &Frontier, tiles: &[Tile]) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    for tile in tiles {
        let (level, index) = (i64::from(tile.level), tile.index as i64);
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO ledger_tiles (stream, level, tile, root, hashes) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (stream, level, tile) DO NOTHING"
        ))
            .bind(stream.stream.as_str())
            .bind(level)
            .bind(index)
            .bind(tile.root.to_vec())
            .bind(tile.hashes.concat())
            .execute(&mut *conn).await.map(drop))?;
    }
    on_tx!(tx, conn => sqlx::query(sql!(
        "UPDATE ledger_streams SET frontier = $1 WHERE stream = $2 AND epoch = $3 AND head_seq = $4"
    ))
        .bind(frontier.to_bytes())
        .bind(stream.stream.as_str())
        .bind(stream.epoch)
        .bind(stream.head_seq)
        .execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
