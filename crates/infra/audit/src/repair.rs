//! Repair of a ledger that does not verify, or whose database is older than its checkpoints (AUD-54): the stream is closed as it
//! stands, and a successor begins whose first record names the old head. Nothing is rewritten.

use crate::checkpoint::{check_at_start, read_copy, retire_copy};
use crate::ledger::{Shared, StartError};
use crate::note::Note;
use crate::proof::{self, ProofError};
use crate::record::{Draft, EntryKind};
use crate::repository::entries::LedgerReader;
use crate::repository::streams::{self, Stream};
use crate::signing_key::{self, Signer};
use crate::unit::Unit;
use crate::verify::{Scope, VerifyError, check_tail, verify};
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
    #[error("the stream {0} verifies, and the next start goes on with it")]
    Intact(String),
    #[error("the stream cannot be verified")]
    Verify(#[from] VerifyError),
    #[error("the streams cannot be changed")]
    Store(#[from] sqlx::Error),
    #[error("the copy of the last checkpoint cannot be put aside")]
    Copy(#[from] std::io::Error),
}

/// Whose stream is repaired, and what it is verified against.
#[derive(Debug)]
pub struct NodeOfRepair<'a> {
    pub node_id: &'a str,
    pub origin_host: &'a str,
    pub data_dir: &'a Path,
    /// Absent when the key is lost: no stream that was signed goes on then.
    pub signer: Option<&'a Signer>,
    /// Checkpoints that are kept outside the database.
    pub notes: Vec<Note>,
}

/// Closes this node's stream, if it does not verify, and opens its successor. No server may run. The successor's first record is written by the next
/// start; `reason` stays in the row of the closed stream, and the record holds its digest.
///
/// # Errors
/// When there is no stream, it is intact, or it cannot be changed.
pub async fn repair(
    db: &Db,
    node: &NodeOfRepair<'_>,
    reason: &str,
    now: Millis,
) -> Result<Repaired, RepairError> {
    let reader = LedgerReader::new(db.clone());
    let streams = reader.streams().await?;
    let own = streams.iter().rev().find(|s| s.node_id == node.node_id && s.closed_at.is_none());
    let own = own.ok_or(RepairError::NoStream)?;
    if is_intact(&reader, own, node).await? {
        return Err(RepairError::Intact(own.stream.clone()));
    }
    let done = streams::succeed(db, node.node_id, node.origin_host, reason, now).await?;
    let (closed, successor) = done.ok_or(RepairError::NoStream)?;
    retire_copy(node.data_dir, &successor.stream)?;
    Ok(Repaired { closed, successor })
}

/// Whether a start would go on with the stream, and all of it verifies.
async fn is_intact(
    reader: &LedgerReader,
    stream: &Stream,
    node: &NodeOfRepair<'_>,
) -> Result<bool, RepairError> {
    if !signing_key::goes_on(reader.db(), node.node_id, node.signer).await? {
        return Ok(false);
    }
    if check_tail(reader, stream).await?.0.is_some() {
        return Ok(false);
    }
    let tree = match proof::restore(reader, stream).await {
        Ok(tree) => tree,
        Err(ProofError::Read(error)) => return Err(error.into()),
        Err(_) => return Ok(false),
    };
    let stored = stream.frontier.as_ref().map(|_| proof::frontier(stream));
    if stored.is_some_and(|stored| stored.as_ref() != Some(tree.frontier())) {
        return Ok(false);
    }
    // A copy that cannot be read keeps a server from starting.
    let Ok(copy) = read_copy(node.data_dir) else { return Ok(false) };
    if let Some(signer) = node.signer {
        match check_at_start(reader, stream, signer, copy.as_deref()).await {
            Ok(None) => {}
            Err(ProofError::Read(error)) => return Err(error.into()),
            Ok(Some(_)) | Err(_) => return Ok(false),
        }
    }
    let keys = node.signer.map(|signer| signer.vkey(&stream.origin)).into_iter().collect();
    let scope =
        Scope { stream: Some(stream.stream.clone()), keys, notes: node.notes.clone(), ..Scope::default() };
    Ok(verify(reader, &[], &scope).await?.is_intact())
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
            .with("closed_at", old.closed_at)
            .with("reason_sha256", hex::encode(digest(&SHA256, reason.as_bytes()))),
    );
    Shared::enqueue(shared, unit, None).await.map_err(StartError::Repair)?;
    Ok(())
}
