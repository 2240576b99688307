//! Repair of a ledger that does not verify, or whose database is older than its checkpoints (AUD-54): the stream is closed as it
//! stands, and a successor begins whose first record names the old head. Nothing is rewritten.

use crate::checkpoint::retire_copy;
use crate::ledger::{Shared, StartError};
use crate::record::{Draft, EntryKind};
use crate::repository::entries::LedgerReader;
use crate::repository::streams::{self, Stream};
use crate::unit::Unit;
use aws_lc_rs::digest::{SHA256, digest};
use std::path::Path;
use systemprompt_database::Db;
use systemprompt_models::Millis;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    pub closed: Stream,
    pub successor: Stream,
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error("this node has no open stream")]
    NoStream,
    #[error("the streams cannot be changed")]
    Store(#[from] sqlx::Error),
    #[error("the copy of the last checkpoint cannot be put aside")]
    Copy(#[from] std::io::Error),
}

/// Closes this node's stream and opens its successor. No server may run. The successor's first record is written by the next
/// start; `reason` stays in the row of the closed stream, and the record holds its digest.
///
/// # Errors
/// When there is no stream, or it cannot be changed.
pub async fn repair(
    db: &Db,
    node_id: &str,
    origin_host: &str,
    data_dir: &Path,
    reason: &str,
    now: Millis,
) -> Result<Repaired, RepairError> {
    let done = streams::succeed(db, node_id, origin_host, reason, now).await?;
    let (closed, successor) = done.ok_or(RepairError::NoStream)?;
    retire_copy(data_dir, &successor.stream)?;
    Ok(Repaired { closed, successor })
}

/// Writes the first record of a stream that succeeds another.
pub(crate) async fn record(
    shared: &Shared,
    reader: &LedgerReader,
    stream: &Stream,
) -> Result<(), StartError> {
    let Some(name) = stream.predecessor.as_ref().filter(|_| stream.head_seq == 0) else { return Ok(()) };
    let streams = reader.streams().await.map_err(StartError::Read)?;
    let Some(old) = streams.into_iter().find(|stream| stream.stream == *name) else { return Ok(()) };
    let reason = old.closed_reason.unwrap_or_default();
    let mut unit = Unit::new();
    unit.record(
        Draft::system(EntryKind::SystemRepair, "ok")
            .with("predecessor", old.stream)
            .with("head_seq", old.head_seq)
            .with("head_hash", old.head_hash)
            .with("reason_sha256", hex::encode(digest(&SHA256, reason.as_bytes()))),
    );
    Shared::enqueue(shared, unit, None).await.map_err(StartError::Repair)?;
    Ok(())
}
