//! When and how checkpoints are made (AUD-42): a signed note of the tree, its row, the record that names it, and the copy outside
//! the database by which an older database is found out at the next start (AUD-54).

use crate::ledger::Shared;
use crate::note::{Checkpoint, Note, SigningKey, VerifierKey};
use crate::payload::{Payload, Role};
use crate::proof::{ProofError, TreeReader, frontier};
use crate::record::{Draft, EntryKind};
use crate::repository::checkpoints;
use crate::repository::entries::LedgerReader;
use crate::repository::streams::Stream;
use crate::signing_key::{self, CommandError, Signer, Signers, SigningKeyError};
use crate::tree::merkle;
use crate::unit::Unit;
use crate::verify::links::LINK;
use crate::witness::Witnesses;
use crate::{LedgerError, chain};
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_models::{Millis, Tasks};
use tokio::sync::Mutex;

/// How often it is looked whether a checkpoint is due; under load they are not made more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Streams whose heads a record lists; above, it holds the root over the list.
const MAX_HEADS: usize = 64;

/// What checkpoints are made with; section `audit.checkpoint` and `audit.witness` of the profile.
pub struct CheckpointOptions {
    pub signers: Signers,
    /// New records after which one is made.
    pub records: u64,
    /// Time after which one is made when there are new records.
    pub every: Duration,
    /// Time after which one is made when there are none.
    pub heartbeat: Duration,
    pub witnesses: Witnesses,
}

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the streams cannot be read")]
    Read(#[from] sqlx::Error),
    #[error("the checkpoint could not be recorded")]
    Ledger(#[from] LedgerError),
    #[error("the copy of the checkpoint cannot be written to {0}")]
    Copy(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Sign(#[from] CommandError),
    #[error(transparent)]
    Key(#[from] SigningKeyError),
    #[error("a background task ended early")]
    Interrupted,
}

/// Where the last checkpoint stands.
#[derive(Debug, Default)]
struct Last {
    size: u64,
    at: Millis,
    key_known: bool,
    /// A rotation that is recorded: the next checkpoint is the old key's last.
    next: Option<SigningKey>,
}

/// When checkpoints are due, and who sees them.
struct Schedule {
    records: u64,
    every: Duration,
    heartbeat: Duration,
    witnesses: Witnesses,
}

/// Makes the checkpoints of one stream.
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    reader: LedgerReader,
    stream: Arc<str>,
    origin: String,
    /// What the row of the stream says for as long as this process writes it.
    row: Value,
    signer: ArcSwap<Signer>,
    /// Where the key lies, if it lies in a file.
    key_path: Option<PathBuf>,
    options: Schedule,
    copy: PathBuf,
    last: Mutex<Last>,
}

impl Checkpointer {
    /// Reads where the last checkpoint stands.
    pub(crate) async fn open(
        shared: Arc<Shared>,
        reader: LedgerReader,
        stream: &Stream,
        options: CheckpointOptions,
        data_dir: &Path,
    ) -> sqlx::Result<Arc<Self>> {
        let CheckpointOptions { signers, records, every, heartbeat, witnesses } = options;
        let newest = checkpoints::newest(reader.db(), &stream.stream).await?;
        let own = signers.current.vkey(&stream.origin).id();
        let key_known = checkpoints::keys(reader.db()).await?.iter().any(|key| key.key_id == own);
        let last = Last {
            size: newest.as_ref().map_or(0, |row| row.size as u64),
            at: newest.as_ref().map_or(stream.created_at, |row| row.at),
            key_known,
            next: signers.next,
        };
        witnesses.restore(reader.db(), &stream.stream).await?;
        Ok(Arc::new(Self {
            shared,
            reader,
            stream: stream.stream.as_str().into(),
            origin: stream.origin.clone(),
            row: told_row(stream),
            signer: ArcSwap::from_pointee(signers.current),
            key_path: signers.path,
            options: Schedule { records, every, heartbeat, witnesses },
            copy: copy_path(data_dir),
            last: Mutex::new(last),
        }))
    }

    /// Makes what is due until shutdown.
    pub(crate) fn run(self: &Arc<Self>, tasks: &Tasks) {
        let (maker, shutdown) = (Arc::clone(self), tasks.shutdown_token());
        tasks.spawn("checkpoints", async move {
            while !shutdown.is_cancelled() && !maker.shared.queue.is_closed() {
                if maker.shared.condition.load().is_ready()
                    && maker.is_due().await
                    && let Err(error) = maker.make().await
                {
                    tracing::warn!(stream = %maker.stream, %error, "no checkpoint was made");
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        });
        self.options.witnesses.run(&self.reader, &self.stream, &self.shared.clock, tasks);
    }

    async fn is_due(&self) -> bool {
        let (size, at) = {
            let last = self.last.lock().await;
            (last.size, last.at)
        };
        // The record of the last checkpoint is no reason for the next.
        let new = self.shared.head.load().frontier().size().saturating_sub(size + 1);
        let age = self.shared.clock.now().saturating_sub(at).max(0) as u64;
        let after = |limit: Duration| age >= limit.as_millis() as u64;
        new >= self.options.records || (new > 0 && after(self.options.every)) || after(self.options.heartbeat)
    }

    /// Makes a checkpoint of what is committed; false when there is nothing yet, or nothing since the last.
    pub(crate) async fn make(&self) -> Result<bool, CheckpointError> {
        let mut last = self.last.lock().await;
        self.make_one(&mut last).await
    }

    async fn make_one(&self, last: &mut Last) -> Result<bool, CheckpointError> {
        let head = self.shared.head.load_full();
        let size = head.frontier().size();
        if size == 0 || size == last.size {
            return Ok(false);
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root: head.frontier().root() };
        let signer = self.signer.load_full();
        let note = signer.sign(&checkpoint).await?;
        let key = signer.vkey(&self.origin);
        let now = self.shared.clock.now();
        let (heads, list) = heads(&self.reader.streams().await?, &self.stream, &checkpoint);
        let mut unit = Unit::new();
        let entry = unit.record(
            Draft::system(EntryKind::SystemCheckpoint, "ok")
                .with("size", size as i64)
                .with("root", hex::encode(checkpoint.root))
                .with("note_sha256", note_digest(&note))
                .with("key_id", key.id())
                .with("made_at", now)
                .with("row", self.row.clone())
                .with("heads", heads.get("heads").cloned().unwrap_or_default())
                .with("heads_root", heads.get("heads_root").cloned().unwrap_or_default())
                .with("heads_count", heads.get("heads_count").cloned().unwrap_or_default())
                .with_payload(list),
        );
        unit.require(checkpoints::added(&self.stream, &checkpoint, &note, &key.id(), now));
        if !last.key_known {
            unit.require(checkpoints::key_added(&key, now, &entry));
        }
        Shared::enqueue(&self.shared, unit, None).await?;
        (last.size, last.at, last.key_known) = (size, now, true);
        let copy = self.copy.clone();
        let written = tokio::task::spawn_blocking(move || write_copy(&copy, &note)).await;
        written
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| CheckpointError::Copy(self.copy.clone(), source))?;
        self.options.witnesses.offer(size, now);
        if let (Some(path), Some(next)) = (self.key_path.clone(), last.next.take()) {
            // The old key has signed the record that names the new one.
            let moved = tokio::task::spawn_blocking(move || signing_key::promote(&path)).await;
            moved.map_err(|_| CheckpointError::Interrupted)??;
            self.signer.store(Arc::new(next.into()));
        }
        Ok(true)
    }

    /// Puts a new key in the place of the one that signs: a record names both, the old key signs a checkpoint over it, the new
    /// one the next.
    pub(crate) async fn rotate(&self, draft: Draft) -> Result<VerifierKey, CheckpointError> {
        let path = self.key_path.clone().ok_or(SigningKeyError::NoFile("a command"))?;
        let mut last = self.last.lock().await;
        // One that was recorded and not carried out comes first; and the old key must be known before it is replaced.
        if last.next.is_some() || !last.key_known {
            self.make_one(&mut last).await?;
        }
        let old = self.signer.load().vkey(&self.origin);
        let made = tokio::task::spawn_blocking(move || {
            let path = signing_key::next_path(&path);
            // What an earlier attempt left, whose record was never written.
            let _ = fs::remove_file(&path);
            signing_key::make(&path)
        });
        let next = made.await.map_err(|_| CheckpointError::Interrupted)??;
        let (new, now) = (next.vkey(&self.origin), self.shared.clock.now());
        let mut unit = Unit::new();
        let entry = unit.record(
            draft
                .with("old_key", STANDARD.encode(old.public()))
                .with("new_key", STANDARD.encode(new.public()))
                .with("made_at", now),
        );
        // Later than any before, since the newest of a stream's keys is the one that signs.
        unit.require(checkpoints::key_retired(&old, now));
        unit.require(checkpoints::key_added(&new, now.saturating_add(1), &entry));
        Shared::enqueue(&self.shared, unit, None).await?;
        last.next = Some(next);
        self.make_one(&mut last).await?;
        self.make_one(&mut last).await?;
        Ok(new)
    }

    /// Shows the last checkpoint to the witnesses once more, before the node ends.
    pub(crate) async fn show(&self) {
        self.options.witnesses.show(&self.reader, &self.stream, self.shared.clock.now()).await;
    }

    pub(crate) fn witnesses(&self) -> &Witnesses {
        &self.options.witnesses
    }

    /// The public key that signs now.
    pub(crate) fn vkey(&self) -> VerifierKey {
        self.signer.load().vkey(&self.origin)
    }
}

/// The columns of a stream's row that no record of its own tells, so that they are in the chain as well.
fn told_row(stream: &Stream) -> Value {
    let mut row = json!({
        "node_id": stream.node_id,
        "epoch": stream.epoch,
        "created_at": stream.created_at,
    });
    if let (Some(row), Some(predecessor)) = (row.as_object_mut(), &stream.predecessor) {
        row.insert("predecessor".to_owned(), predecessor.as_str().into());
    }
    row
}

/// SHA-256 of a note in lower-case hex.
pub(crate) fn note_digest(note: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, note.as_bytes()))
}

/// The heads of all streams, so that each stream anchors the others: `heads{stream: {size, root}}`, above 64 streams the tree
/// root over the list, sorted by name, one leaf `<stream>\n<size>\n<root in hex>\n` each, and the list as a payload.
fn heads(streams: &[Stream], own: &str, checkpoint: &Checkpoint) -> (Map<String, Value>, Option<Payload>) {
    let mut list = Map::new();
    for stream in streams {
        let head = if stream.stream == own {
            Some((checkpoint.size, checkpoint.root))
        } else {
            frontier(stream).filter(|f| f.size() > 0).map(|f| (f.size(), f.root()))
        };
        if let Some((size, root)) = head {
            list.insert(stream.stream.clone(), json!({"size": size, "root": hex::encode(root)}));
        }
    }
    let mut members = Map::new();
    if list.len() <= MAX_HEADS {
        members.insert("heads".into(), Value::Object(list));
        return (members, None);
    }
    let text = |value: Option<&Value>| value.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    let leaves: Vec<_> = list
        .iter()
        .map(|(stream, head)| {
            let (size, root) = (text(head.get("size")), text(head.get("root")));
            let line = format!("{stream}\n{}\n{}\n", size.unwrap_or_default(), root.unwrap_or_default());
            chain::leaf_digest(line.as_bytes())
        })
        .collect();
    members.insert("heads_root".into(), hex::encode(merkle(&leaves)).into());
    members.insert("heads_count".into(), leaves.len().into());
    (members, Some(Payload::of(Role::Heads, &list)))
}

/// `<data>/ledger/last-checkpoint`.
pub fn copy_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger").join("last-checkpoint")
}

/// The newest note that this node made, from outside its database.
///
/// # Errors
/// A file that cannot be read.
pub fn read_copy(data_dir: &Path) -> io::Result<Option<String>> {
    match File::open(copy_path(data_dir)) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(crate::note::MAX_NOTE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            // What is no text is no note either; that is found where the note is read.
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_copy(path: &Path, note: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Puts the copy aside, when a repair has accepted that it no longer fits.
pub(crate) fn retire_copy(data_dir: &Path, stream: &str) -> io::Result<()> {
    let path = copy_path(data_dir);
    match fs::rename(&path, path.with_file_name(format!("last-checkpoint.before-{stream}"))) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the check at start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartFinding {
    Damaged(String),
    RolledBack(String),
}

/// The check at start (AUD-54): the newest stored checkpoint and the copy outside the database fit the stored tree.
pub(crate) async fn check_at_start(
    reader: &LedgerReader,
    stream: &Stream,
    signer: &Signer,
    copy: Option<&str>,
) -> Result<Option<StartFinding>, ProofError> {
    let keys = keys_at_start(reader, stream, signer).await?;
    let damaged = |why: String| Ok(Some(StartFinding::Damaged(why)));
    if let Some(row) = checkpoints::newest(reader.db(), &stream.stream).await? {
        let parsed = row.note.parse::<Note>().and_then(|note| Ok((note.unverified_checkpoint()?, note)));
        let Ok((checkpoint, note)) = parsed else {
            return damaged(format!("checkpoint_altered at {} size {}", stream.stream, row.size));
        };
        if note.verify(&keys).is_err() {
            return damaged(format!("checkpoint_signature at {} size {}", stream.stream, row.size));
        }
        if checkpoint.size > stream.head_seq as u64 {
            return damaged(format!("tail_missing at {} seq {}", stream.stream, stream.head_seq + 1));
        }
        if !fits(reader, stream, &checkpoint).await? {
            return damaged(format!("checkpoint_mismatch at {} size {}", stream.stream, checkpoint.size));
        }
    }
    let Some(copy) = copy else { return Ok(None) };
    let Ok(note) = copy.parse::<Note>() else {
        return damaged("checkpoint_altered in ledger/last-checkpoint".to_owned());
    };
    let Ok(checkpoint) = note.unverified_checkpoint() else {
        return damaged("checkpoint_altered in ledger/last-checkpoint".to_owned());
    };
    let own = signer.vkey(&checkpoint.origin);
    if note.verify(keys.iter().chain([&own])).is_err() {
        return damaged("checkpoint_signature in ledger/last-checkpoint".to_owned());
    }
    let of = reader.streams().await?.into_iter().find(|s| s.origin == checkpoint.origin);
    let Some(of) = of else {
        let why =
            format!("the stream of ledger/last-checkpoint, {}, is not in this database", checkpoint.origin);
        return Ok(Some(StartFinding::RolledBack(why)));
    };
    if checkpoint.size > of.head_seq as u64 {
        let why = format!(
            "{} ends at seq {}, but ledger/last-checkpoint has {} records",
            of.stream, of.head_seq, checkpoint.size
        );
        return Ok(Some(StartFinding::RolledBack(why)));
    }
    if !fits(reader, &of, &checkpoint).await? {
        return damaged(format!("checkpoint_mismatch at {} size {}", of.stream, checkpoint.size));
    }
    Ok(None)
}

/// The key that signs, and the one that it replaced: a rotation may have ended before the new key signed anything.
async fn keys_at_start(
    reader: &LedgerReader,
    stream: &Stream,
    signer: &Signer,
) -> sqlx::Result<Vec<VerifierKey>> {
    let own = signer.vkey(&stream.origin);
    let mut keys = vec![own.clone()];
    let rows = checkpoints::keys(reader.db()).await?;
    let Some(row) = rows.iter().find(|row| row.key_id == own.id()) else { return Ok(keys) };
    let entry = reader.by_id(&row.ledger_id).await?.filter(|entry| entry.kind == LINK);
    let record = entry.and_then(|entry| serde_json::from_str::<Value>(entry.record.as_deref()?).ok());
    let old = record.as_ref().and_then(|record| record.pointer("/detail/old_key")?.as_str());
    let replaced = rows.iter().filter_map(|row| row.vkey.parse::<VerifierKey>().ok());
    keys.extend(replaced.filter(|key| key.name() == own.name() && old.is_some_and(|old| key.is_public(old))));
    Ok(keys)
}

async fn fits(reader: &LedgerReader, stream: &Stream, checkpoint: &Checkpoint) -> Result<bool, ProofError> {
    let mut tree = TreeReader::new(reader, &stream.stream, stream.head_seq as u64);
    match tree.root(checkpoint.size).await {
        Ok(root) => Ok(root == checkpoint.root),
        Err(ProofError::Read(error)) => Err(ProofError::Read(error)),
        Err(_) => Ok(false),
    }
}

/// What is kept outside the database.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    pub notes: Vec<Note>,
    /// Whether the node's own copy is there and is no checkpoint: the next start would call the ledger damaged.
    pub is_copy_altered: bool,
}

/// The notes outside the database: the node's own copy, and files of witnesses.
pub fn outside_notes(data_dir: &Path, files: &[PathBuf]) -> Outside {
    let mut outside = Outside::default();
    match read_copy(data_dir) {
        Ok(None) => {}
        Ok(Some(text)) => match text.parse::<Note>() {
            Ok(note) if note.unverified_checkpoint().is_ok() => outside.notes.push(note),
            _ => outside.is_copy_altered = true,
        },
        Err(error) => {
            tracing::warn!(%error, "the copy of the last checkpoint cannot be read");
        }
    }
    for file in files {
        match fs::read_to_string(file) {
            Ok(text) => match crate::note::split(&text) {
                Ok(found) => outside.notes.extend(found),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "no checkpoints can be read from a file");
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "a file of checkpoints cannot be read");
            }
        }
    }
    outside
}

#[cfg(test)]
mod tests;
