//! Checkpoints and the public keys that signed them. New ones are written by guards of the unit that records them, so that
//! neither is there without the other.

use crate::note::{Checkpoint, VerifierKey};
use crate::unit::{Cell, Guard};
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::EntryId;

/// A row of `ledger_checkpoints`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CheckpointRow {
    pub stream: String,
    pub size: i64,
    pub at: Millis,
    /// The root in lower-case hex.
    pub root: String,
    pub note: String,
    pub key_id: String,
    /// JSON: name of the witness to the time.
    pub witnessed: String,
}

/// A row of `ledger_keys`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct KeyRow {
    pub key_id: String,
    pub vkey: String,
    pub state: String,
    pub valid_from: Millis,
    pub retired_at: Option<Millis>,
    pub ledger_id: String,
}

/// Adds a checkpoint with its unit.
pub(crate) fn added(stream: &str, checkpoint: &Checkpoint, note: &str, key: &str, at: Millis) -> Guard {
    Guard {
        name: "checkpoint",
        sql: sql!(
            "INSERT INTO ledger_checkpoints (stream, size, at, root, note, key_id, witnessed)
             VALUES ($1, $2, $3, $4, $5, $6, '{}') ON CONFLICT (stream, size) DO NOTHING"
        ),
        cells: vec![
            stream.into(),
            Cell::Int(checkpoint.size as i64),
            Cell::Int(at),
            hex::encode(checkpoint.root).into(),
            note.into(),
            key.into(),
        ],
    }
}

/// Adds a public key with the unit of the first checkpoint that it signed.
pub(crate) fn key_added(key: &VerifierKey, at: Millis, entry: &EntryId) -> Guard {
    Guard {
        name: "ledger_key",
        sql: sql!(
            "INSERT INTO ledger_keys (key_id, vkey, state, valid_from, ledger_id)
             VALUES ($1, $2, 'active', $3, $4) ON CONFLICT (key_id) DO NOTHING"
        ),
        cells: vec![key.id().into(), key.to_string().into(), Cell::Int(at), entry.into()],
    }
}

/// Marks a key as replaced, with the unit that names its successor.
pub(crate) fn key_retired(key: &VerifierKey, at: Millis) -> Guard {
    Guard {
        name: "ledger_key_retired",
        sql: sql!(
            "UPDATE ledger_keys SET state = 'retired', retired_at = $1 WHERE key_id = $2 AND state = 'active'"
        ),
        cells: vec![Cell::Int(at), key.id().into()],
    }
}

/// The newest checkpoint of a stream.
pub(crate) async fn newest(db: &Db, stream: &str) -> sqlx::Result<Option<CheckpointRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT stream, size, at, root, note, key_id, witnessed FROM ledger_checkpoints
         WHERE stream = $1 ORDER BY size DESC LIMIT 1"
    )).bind(stream).fetch_optional(pool).await)
}

/// Checkpoints of a stream with more than `after` leaves, the smallest first.
pub(crate) async fn page(db: &Db, stream: &str, after: i64, limit: i64) -> sqlx::Result<Vec<CheckpointRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT stream, size, at, root, note, key_id, witnessed FROM ledger_checkpoints
         WHERE stream = $1 AND size > $2 ORDER BY size LIMIT $3"
    )).bind(stream).bind(after).bind(limit).fetch_all(pool).await)
}

/// Checkpoints of a stream with fewer than `before` leaves, the largest first.
pub(crate) async fn page_back(
    db: &Db,
    stream: &str,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<CheckpointRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT stream, size, at, root, note, key_id, witnessed FROM ledger_checkpoints
         WHERE stream = $1 AND size < $2 ORDER BY size DESC LIMIT $3"
    )).bind(stream).bind(before).bind(limit).fetch_all(pool).await)
}

/// Every public key, the oldest first.
pub(crate) async fn keys(db: &Db) -> sqlx::Result<Vec<KeyRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT key_id, vkey, state, valid_from, retired_at, ledger_id FROM ledger_keys ORDER BY valid_from, key_id"
    )).fetch_all(pool).await)
}

/// Notes who has seen a checkpoint.
pub(crate) async fn set_witnessed(db: &Db, stream: &str, size: i64, witnessed: &str) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "UPDATE ledger_checkpoints SET witnessed = $1 WHERE stream = $2 AND size = $3"
    )).bind(witnessed).bind(stream).bind(size).execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
