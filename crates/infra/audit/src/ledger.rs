//! The ledger: the one place where records become durable. `commit` gives a permit, `append` a receipt; both only after the
//! record is on disk.

use crate::chain::Chain;
use crate::checkpoint::{self, CheckpointError, CheckpointOptions, Checkpointer, Outside, StartFinding};
use crate::condition::Condition;
use crate::disk::DiskGuard;
use crate::error::LedgerError;
use crate::lookup::Lookup;
use crate::note::VerifierKey;
use crate::payload::PayloadPolicy;
use crate::proof::{self, ProofError};
use crate::queue::{BatchLimits, Claim, Pending, Queue};
use crate::record::{Draft, EntryKind};
use crate::repair;
use crate::repository::entries::LedgerReader;
use crate::repository::{Statements, open_store};
use crate::repository::{payloads, streams};
use crate::signing_key::SigningKeyError;
use crate::tree::Tree;
use crate::unit::{Table, Unit};
use crate::verify;
use crate::writer::Writer;
use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use systemprompt_database::{Db, Engine};
use systemprompt_events::Hub;
use systemprompt_leak::Scanner;
use systemprompt_models::ids::EntryId;
use systemprompt_models::{Clock, Millis, RequestContext, Tasks};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Bounds of group commit; section `audit.group` of the profile.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// How long the writer gathers more before it writes; only after a batch of more than one unit.
    pub batch_window: Duration,
    pub batch_max_records: usize,
    pub batch_max_bytes: usize,
    /// Records that may wait; a quarter of it is kept for closing records.
    pub queue_max: usize,
    /// How long a unit may wait to be taken into a batch.
    pub append_timeout: Duration,
    /// How long a caller waits for the commit of a batch that holds its unit.
    pub commit_timeout: Duration,
}

impl GroupOptions {
    /// The defaults of an engine.
    pub fn for_engine(engine: Engine) -> Self {
        Self {
            batch_window: Duration::ZERO,
            batch_max_records: match engine {
                Engine::Sqlite => 256,
                Engine::Postgres => 512,
            },
            batch_max_bytes: 1024 * 1024,
            queue_max: 8192,
            append_timeout: Duration::from_secs(2),
            commit_timeout: Duration::from_secs(10),
        }
    }
}

/// Most units in one batch on SQLite, so that other writers get their turn soon.
const BATCH_UNITS_SQLITE: usize = 64;
const BATCH_UNITS_POSTGRES: usize = 512;

/// What a ledger is started with.
pub struct LedgerOptions {
    /// `server.instance_id`: one stream per node.
    pub node_id: String,
    /// Host of `jwt_issuer`; the origin of a stream is `<host>/ledger/<stream>`.
    pub origin_host: String,
    /// Folder whose free space is watched, and which holds `ledger.reserve` and `lookup.db`.
    pub data_dir: PathBuf,
    /// Below this many free bytes opening records are refused.
    pub min_free_bytes: u64,
    pub group: GroupOptions,
    /// Woken after each commit.
    pub hub: Hub,
    /// Values in use, which never reach a record or a row (AUD-8).
    pub leak: Scanner,
    /// How payloads are kept.
    pub payloads: PayloadPolicy,
    /// Checkpoints of the tree; only tests of other rooms do without.
    pub checkpoints: Option<CheckpointOptions>,
}

/// Where a unit's first record stands. `id` is that record's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub stream: Arc<str>,
    pub seq: i64,
    pub id: EntryId,
}

/// Proof that the record of an effect is durable. An upstream, a child process or a token issuer takes it by value, so the
/// effect cannot happen before, or twice.
#[must_use = "a permit is spent on the effect that was recorded"]
#[derive(Debug)]
pub struct Permit {
    receipt: Receipt,
}

impl Permit {
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}

/// Counters since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerMetrics {
    pub records: u64,
    pub refused: u64,
    pub batches: u64,
    pub commit_micros: u64,
    pub queue_depth: u64,
    /// Values in use that were taken out of records and rows.
    pub scrubbed: u64,
    /// Age of the oldest checkpoint that some witness does not have; absent without a witness.
    pub unwitnessed_seconds: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub records: AtomicU64,
    pub refused: AtomicU64,
    pub batches: AtomicU64,
    pub commit_micros: AtomicU64,
    pub scrubbed: AtomicU64,
}

/// What the handle and the writer share.
pub(crate) struct Shared {
    pub queue: Queue,
    pub condition: ArcSwap<Condition>,
    /// The tree as it is committed.
    pub head: ArcSwap<Tree>,
    pub counters: Counters,
    pub clock: Arc<dyn Clock>,
    pub group: GroupOptions,
    pub limits: BatchLimits,
    pub hub: Hub,
    /// Where those run who wait for the writer.
    pub callers: Handle,
    leak: Scanner,
    payloads: ArcSwap<PayloadPolicy>,
    db: Db,
}

/// The ledger. Clones share one writer.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    db: Db,
    stream: Arc<str>,
    tables: &'static [&'static Table],
    lookup: Option<Lookup>,
    checkpointer: Option<Arc<Checkpointer>>,
    data_dir: PathBuf,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// One retention run or erasure at a time.
    clearing: tokio::sync::Mutex<()>,
}

/// Why the ledger did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the ledger's stream could not be claimed")]
    Claim(#[source] sqlx::Error),
    #[error("the ledger's end could not be read")]
    Read(#[source] sqlx::Error),
    #[error("the ledger's writer could not open its store: {0}")]
    Store(String),
    #[error("the ledger's look-up file could not be opened: {0}")]
    Lookup(String),
    #[error("the copy of the last checkpoint could not be read")]
    Copy(#[source] std::io::Error),
    #[error(transparent)]
    Key(#[from] SigningKeyError),
    #[error("the repair could not be recorded: {0}")]
    Repair(#[source] crate::error::LedgerError),
    #[error("the ledger's thread could not be started")]
    Thread(#[source] std::io::Error),
}

impl Ledger {
    /// Claims this node's stream, checks its last 1,024 records, and starts the writer. A chain that does not verify leaves the
    /// ledger readable and refusing (AUD-54).
    ///
    /// # Errors
    /// When the store cannot be opened, or the stream not be claimed.
    pub async fn start(
        db: &Db,
        tables: &'static [&'static Table],
        options: LedgerOptions,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let claimed = streams::claim(db, &options.node_id, &options.origin_host, clock.now())
            .await
            .map_err(StartError::Claim)?;
        let reader = LedgerReader::new(db.clone());
        let (damage, last_at) = verify::check_tail(&reader, &claimed).await.map_err(StartError::Read)?;
        let (condition, tree) = examine(&reader, &claimed, &options, damage).await?;
        let chain = Chain {
            stream: claimed.stream.as_str().into(),
            epoch: claimed.epoch,
            head_seq: claimed.head_seq,
            head_hash: claimed.head_hash.clone(),
            last_at,
            tree: Arc::new(tree),
        };
        let engine = db.engine();
        let shared = Arc::new(Shared {
            queue: Queue::new(options.group.queue_max),
            condition: ArcSwap::from_pointee(condition),
            head: ArcSwap::new(Arc::clone(&chain.tree)),
            counters: Counters::default(),
            hub: options.hub,
            callers: Handle::current(),
            leak: options.leak,
            payloads: ArcSwap::from_pointee(options.payloads),
            db: db.clone(),
            clock,
            group: options.group,
            limits: BatchLimits {
                records: options.group.batch_max_records,
                bytes: options.group.batch_max_bytes,
                units: match engine {
                    Engine::Sqlite => BATCH_UNITS_SQLITE,
                    Engine::Postgres => BATCH_UNITS_POSTGRES,
                },
            },
        });
        let stream = Arc::clone(&chain.stream);
        let store =
            open_store(db, Statements::for_tables(engine, tables)).await.map_err(StartError::Store)?;
        let disk = DiskGuard::new(&options.data_dir, options.min_free_bytes);
        let writer = Writer::new(Arc::clone(&shared), store, chain, disk.clone());
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || writer.run())
            .map_err(StartError::Thread)?;
        disk.watch(Arc::clone(&shared), tasks);
        if shared.condition.load().is_ready() {
            repair::record(&shared, &reader, &claimed).await?;
        }
        let checkpointer = match options.checkpoints {
            None => None,
            Some(checkpoints) => {
                let maker = Checkpointer::open(
                    Arc::clone(&shared),
                    reader.clone(),
                    &claimed,
                    checkpoints,
                    &options.data_dir,
                );
                let maker = maker.await.map_err(StartError::Read)?;
                maker.run(tasks);
                Some(maker)
            }
        };
        let lookup = match db {
            Db::Sqlite(_) => Some(
                Lookup::open(&options.data_dir, reader, tasks)
                    .map_err(|e| StartError::Lookup(e.to_string()))?,
            ),
            Db::Postgres(_) => None,
        };
        Ok(Self(Arc::new(Inner {
            shared,
            db: db.clone(),
            stream,
            tables,
            lookup,
            checkpointer,
            data_dir: options.data_dir,
            writer: Mutex::new(Some(thread)),
            clearing: tokio::sync::Mutex::default(),
        })))
    }

    /// Records a unit that permits an effect.
    ///
    /// # Errors
    /// Any [`LedgerError`]; the effect must then not happen.
    pub async fn commit(&self, unit: Unit) -> Result<Permit, LedgerError> {
        if unit.is_denial() {
            return Err(LedgerError::Denial);
        }
        Shared::enqueue(&self.0.shared, unit, None).await.map(|receipt| Permit { receipt })
    }

    /// Records a unit that permits nothing: a denial, the end of something, an administrative act.
    ///
    /// # Errors
    /// Any [`LedgerError`]; what the unit says must then not be acted upon.
    pub async fn append(&self, unit: Unit) -> Result<Receipt, LedgerError> {
        Shared::enqueue(&self.0.shared, unit, None).await
    }

    /// Records the end of something for which nobody waits. It goes with the next batch, a few milliseconds later at most, so
    /// that it costs no commit of its own while the node is busy.
    ///
    /// # Errors
    /// Any [`LedgerError`].
    pub async fn append_deferred(&self, unit: Unit) -> Result<Receipt, LedgerError> {
        Shared::enqueue(&self.0.shared, unit, Some(Instant::now())).await
    }

    /// The stream that this node writes.
    pub fn stream(&self) -> &Arc<str> {
        &self.0.stream
    }

    /// Makes a checkpoint of what is committed, if anything was since the last; false when nothing was.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn make_checkpoint(&self) -> Result<bool, CheckpointError> {
        match &self.0.checkpointer {
            Some(maker) => maker.make().await,
            None => Ok(false),
        }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(crate) fn now(&self) -> Millis {
        self.0.shared.clock.now()
    }

    /// Held by whoever takes payloads or records away.
    pub(crate) fn clearing(&self) -> &tokio::sync::Mutex<()> {
        &self.0.clearing
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.shared.queue.is_closed()
    }

    #[cfg(test)]
    pub(crate) fn shared_for_tests(&self) -> Arc<Shared> {
        Arc::clone(&self.0.shared)
    }

    /// The public key that this node signs its checkpoints with.
    pub fn vkey(&self) -> Option<VerifierKey> {
        self.0.checkpointer.as_ref().map(|maker| maker.vkey())
    }

    /// Puts a new key in the place of the one that signs checkpoints, by order of `by`; returns it.
    ///
    /// # Errors
    /// When it cannot be made or recorded, or when no file holds the key.
    pub async fn rotate_key(&self, by: &RequestContext) -> Result<VerifierKey, CheckpointError> {
        let maker = self.0.checkpointer.as_ref();
        let maker = maker.ok_or(CheckpointError::Key(SigningKeyError::NoFile("nobody")))?;
        maker.rotate(Draft::new(EntryKind::SystemLedgerKey, by, "ok")).await
    }

    /// Checkpoints that are kept outside the database: the node's own copy, and the files of file witnesses. A file that holds
    /// something else is left out with a line in the log.
    pub async fn outside_notes(&self) -> Outside {
        let files: Vec<PathBuf> = match &self.0.checkpointer {
            Some(maker) => maker.witnesses().files().iter().map(|path| path.to_path_buf()).collect(),
            None => Vec::new(),
        };
        let data_dir = self.0.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || checkpoint::outside_notes(&data_dir, &files));
        read.await.unwrap_or_default()
    }

    /// Keeps payloads in another way from now on.
    pub fn keep_payloads(&self, policy: PayloadPolicy) {
        self.0.shared.payloads.store(Arc::new(policy));
    }

    /// How payloads are kept.
    pub fn payload_policy(&self) -> Arc<PayloadPolicy> {
        self.0.shared.payloads.load_full()
    }

    /// Whether opening records are taken at present, and if not, why.
    pub fn condition(&self) -> Arc<Condition> {
        self.0.shared.condition.load_full()
    }

    /// Reads of the ledger, this node's and every other's.
    pub fn reader(&self) -> LedgerReader {
        LedgerReader::new(self.0.db.clone())
    }

    /// The look-up file of SQLite; PostgreSQL has indexes instead.
    pub fn lookup(&self) -> Option<&Lookup> {
        self.0.lookup.as_ref()
    }

    /// The companion tables.
    pub fn tables(&self) -> &'static [&'static Table] {
        self.0.tables
    }

    pub fn metrics(&self) -> LedgerMetrics {
        let counters = &self.0.shared.counters;
        LedgerMetrics {
            records: counters.records.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            commit_micros: counters.commit_micros.load(Ordering::Relaxed),
            queue_depth: self.0.shared.queue.depth() as u64,
            scrubbed: counters.scrubbed.load(Ordering::Relaxed),
            unwitnessed_seconds: self.0.checkpointer.as_ref().and_then(|maker| {
                let age = maker.witnesses().unwitnessed_ms(self.0.shared.clock.now());
                age.map(|ms| (ms / 1000) as u64)
            }),
        }
    }

    /// Makes the last checkpoint, writes what waits and ends the writer. Nothing is taken afterwards.
    pub async fn stop(&self) {
        if let Some(maker) = &self.0.checkpointer
            && self.condition().is_ready()
        {
            if let Err(error) = maker.make().await {
                tracing::warn!(stream = %self.0.stream, %error, "the stop has no checkpoint");
            }
            maker.show().await;
        }
        self.0.shared.queue.close();
        let thread = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Shared {
    pub(crate) async fn enqueue(
        shared: &Self,
        unit: Unit,
        deferred: Option<Instant>,
    ) -> Result<Receipt, LedgerError> {
        let result = Self::try_enqueue(shared, unit, deferred).await;
        if result.is_err() {
            shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn try_enqueue(
        shared: &Self,
        mut unit: Unit,
        deferred: Option<Instant>,
    ) -> Result<Receipt, LedgerError> {
        shared.condition.load().admit(unit.is_closing())?;
        if !shared.leak.is_empty() {
            shared.counters.scrubbed.fetch_add(unit.scrub(&shared.leak), Ordering::Relaxed);
        }
        let taken_out = unit.seal(&shared.payloads.load(), &shared.leak)?;
        shared.counters.scrubbed.fetch_add(taken_out, Ordering::Relaxed);
        let large = unit.take_large_bodies();
        if !large.is_empty()
            && let Err(error) = payloads::write_bodies(&shared.db, large, shared.clock.now()).await
        {
            if !unit.is_closing() {
                return Err(LedgerError::Unavailable(error.to_string()));
            }
            // The end of what is under way is recorded even on a full disk; what its body was, is committed to.
            tracing::warn!(%error, "a long payload could not be stored; its record commits to it alone");
            unit.forget_large_bodies();
        }
        let unit = unit.render()?;
        let (answer, mut result) = oneshot::channel();
        let claim = Claim::default();
        // A caller that goes away before its unit was taken leaves no record of an effect that never happens.
        let _withdraw = WithdrawOnDrop(claim.clone());
        shared.queue.push(Pending { unit, claim: claim.clone(), answer, deferred })?;
        let answered = match tokio::time::timeout(shared.group.append_timeout, &mut result).await {
            Ok(answered) => answered,
            Err(_) if claim.withdraw() => return Err(LedgerError::Busy),
            Err(_) => tokio::time::timeout(shared.group.commit_timeout, result)
                .await
                .map_err(|_| LedgerError::Unavailable("the commit takes too long".into()))?,
        };
        answered.unwrap_or_else(|_| Err(LedgerError::Unavailable("the writer has ended".into())))
    }
}

/// What the checks at start say of the stream beside its last records, and its tree.
async fn examine(
    reader: &LedgerReader,
    stream: &streams::Stream,
    options: &LedgerOptions,
    damage: Option<String>,
) -> Result<(Condition, Tree), StartError> {
    let damaged = |why: String| Ok((Condition::Damaged(why), Tree::default()));
    if let Some(damage) = damage {
        return damaged(damage);
    }
    let tree = match proof::restore(reader, stream).await {
        Ok(tree) => tree,
        Err(ProofError::Read(error)) => return Err(StartError::Read(error)),
        Err(error) => return damaged(error.to_string()),
    };
    let stored = stream.frontier.as_ref().map(|_| proof::frontier(stream));
    if stored.is_some_and(|stored| stored.as_ref() != Some(tree.frontier())) {
        return damaged(format!("frontier_altered at {} seq {}", stream.stream, stream.head_seq));
    }
    let Some(checkpoints) = &options.checkpoints else { return Ok((Condition::Ready, tree)) };
    let copy = checkpoint::read_copy(&options.data_dir).map_err(StartError::Copy)?;
    let found =
        checkpoint::check_at_start(reader, stream, &checkpoints.signers.current, copy.as_deref()).await;
    match found {
        Ok(None) => Ok((Condition::Ready, tree)),
        Ok(Some(StartFinding::Damaged(why))) => Ok((Condition::Damaged(why), tree)),
        Ok(Some(StartFinding::RolledBack(why))) => Ok((Condition::RolledBack(why), tree)),
        Err(ProofError::Read(error)) => Err(StartError::Read(error)),
        Err(error) => damaged(error.to_string()),
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("stream", &self.0.stream).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

struct WithdrawOnDrop(Claim);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

#[cfg(test)]
mod tests;
