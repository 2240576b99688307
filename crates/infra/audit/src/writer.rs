//! The one writer of a stream: takes what is queued, gives each record its place, writes, commits, answers all waiters.
//!
//! A batch is one transaction. When a companion row fails, the batch is rolled back and repeated unit by unit behind
//! savepoints, so that one bad row sinks its own unit alone and no `seq` is lost (AUD-14). When the outcome of a commit is
//! unknown, the stream's head in the store says what happened (AUD-15).
//!
//! Guards lock rows that other transactions change too, and a table may be locked as a whole while an index is made. When others were
//! preferred the batch is rolled back, which lets them through, and tried again; then each unit stands in a transaction of its own, so
//! that only those whose rows are still held are refused. The ledger stays ready: nothing is wrong with its store.

use crate::chain::{Chain, Entry};
use crate::condition::Condition;
use crate::disk::DiskGuard;
use crate::error::LedgerError;
use crate::ledger::{Receipt, Shared};
use crate::queue::Pending;
use crate::tree::{Hash, Tile};
use crate::unit::{Guard, RenderedUnit, RowWrite};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use systemprompt_events::Topic;
use systemprompt_models::Millis;
use tokio::sync::oneshot;

/// How often an idle writer looks whether a failed store is back.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How often a transaction is tried whose rows others hold.
const ATTEMPTS: u32 = 2;
/// How long one batch may wait for rows that others hold, past a unit under way; everybody else's records wait with it.
const CONTENDED_FOR: Duration = Duration::from_secs(4);

/// What went wrong in the store.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// A companion row was refused; the store is fine.
    Row { table: &'static str, cause: String },
    /// The store is full (disk or quota).
    Full(String),
    /// Another transaction holds a row, or was preferred; the store is fine and nothing of this one was written.
    Contended(String),
    /// Anything else: connection lost, I/O error.
    Failed(String),
}

/// A store that the writer drives; one transaction at a time.
pub(crate) trait Store: Send {
    fn begin(&mut self) -> Result<(), StoreError>;
    fn savepoint(&mut self) -> Result<(), StoreError>;
    fn rollback_to_savepoint(&mut self) -> Result<(), StoreError>;
    fn release_savepoint(&mut self) -> Result<(), StoreError>;
    /// Rows that the guard touched.
    fn guard(&mut self, guard: &Guard) -> Result<u64, StoreError>;
    fn insert(&mut self, stream: &str, entries: &[Entry<'_>], rows: &[&RowWrite]) -> Result<(), StoreError>;
    /// Adds tiles that the batch has completed.
    fn insert_tiles(&mut self, stream: &str, tiles: &[Tile]) -> Result<(), StoreError>;
    /// Moves the stream's head, and the frontier of its tree, from `old` to `new`; false when another process has moved it.
    fn move_head(&mut self, old: &Chain, new: &Chain) -> Result<bool, StoreError>;
    fn commit(&mut self) -> Result<(), StoreError>;
    fn rollback(&mut self);
    /// The stream's head as the store has it; opens a lost connection anew.
    fn head(&mut self, stream: &str) -> Result<(i64, String), StoreError>;
}

type Outcome = Result<Receipt, LedgerError>;
type Answer = oneshot::Sender<Outcome>;

/// How a batch ended.
enum Batch {
    Committed {
        chain: Chain,
        outcomes: Vec<Outcome>,
    },
    Fenced,
    /// Nothing was written.
    Failed(StoreError),
    /// The commit was sent; only the store knows.
    Unknown {
        chain: Chain,
        outcomes: Vec<Outcome>,
        error: StoreError,
    },
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    store: Box<dyn Store>,
    chain: Chain,
    disk: DiskGuard,
    last_units: usize,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, store: Box<dyn Store>, chain: Chain, disk: DiskGuard) -> Self {
        Self { shared, store, chain, disk, last_units: 0 }
    }

    pub(crate) fn run(mut self) {
        while let Some(batch) = self.shared.queue.take(self.shared.limits, PROBE_EVERY) {
            if matches!(**self.shared.condition.load(), Condition::Unavailable(_)) && !self.probe() {
                refuse(batch, &LedgerError::Unavailable("the store does not answer".into()));
                continue;
            }
            if batch.is_empty() {
                continue;
            }
            self.last_units = batch.len();
            self.write(batch);
            if self.last_units > 1 && !self.shared.group.batch_window.is_zero() {
                std::thread::sleep(self.shared.group.batch_window);
            }
        }
    }

    /// Whether a failed store is back: its head can be read and an empty transaction be committed.
    fn probe(&mut self) -> bool {
        let back = self
            .store
            .head(&self.chain.stream)
            .is_ok_and(|(seq, hash)| seq == self.chain.head_seq && hash == self.chain.head_hash)
            && self
                .store
                .begin()
                .and_then(|()| self.store.move_head(&self.chain, &self.chain))
                .is_ok_and(|same| same)
            && self.store.commit().is_ok();
        if back {
            tracing::info!(stream = %self.chain.stream, "the ledger can be written again");
            self.shared.condition.store(Arc::new(Condition::Ready));
        } else {
            self.store.rollback();
            self.disk.release_reserve();
        }
        back
    }

    fn write(&mut self, batch: Vec<Pending>) {
        let started = Instant::now();
        let now = self.shared.clock.now();
        let (units, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|pending| (pending.unit, pending.answer)).unzip();
        let outcomes = self.write_all(&units, now, (started, ATTEMPTS));
        self.answer(units, answers, outcomes);
    }

    fn write_all(
        &mut self,
        units: &[RenderedUnit],
        now: Millis,
        (started, attempts): (Instant, u32),
    ) -> Vec<Outcome> {
        match self.write_units(units, now, attempts) {
            Batch::Committed { chain, outcomes } => {
                self.advance(chain, started);
                outcomes
            }
            Batch::Fenced => {
                tracing::error!(stream = %self.chain.stream, "another process writes this stream; this node stops writing");
                self.shared.condition.store(Arc::new(Condition::Fenced));
                repeat(&LedgerError::Fenced, units.len())
            }
            Batch::Failed(StoreError::Contended(_)) if units.len() > 1 => {
                self.write_each(units, now, started)
            }
            Batch::Failed(StoreError::Contended(cause)) => {
                tracing::warn!(stream = %self.chain.stream, cause, "a unit was refused: others hold its rows");
                repeat(&LedgerError::Contended, units.len())
            }
            Batch::Failed(error) => repeat(&self.fail(error), units.len()),
            Batch::Unknown { chain, outcomes, error } => {
                let refusal = self.fail(error);
                if self.settle(&chain) {
                    self.advance(chain, started);
                    self.shared.condition.store(Arc::new(Condition::Ready));
                    outcomes
                } else {
                    repeat(&refusal, units.len())
                }
            }
        }
    }

    /// Each unit in a transaction of its own, so that it holds no rows but its own. When the batch has waited too long, those with
    /// guards are not tried any more, nor those with rows of a table on which one without guards met a lock.
    fn write_each(&mut self, units: &[RenderedUnit], now: Millis, started: Instant) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(units.len());
        let mut locked: Vec<&'static str> = Vec::new();
        for unit in units.chunks(1) {
            let shares_rows = unit.iter().any(RenderedUnit::shares_rows);
            let tables = || unit.iter().flat_map(RenderedUnit::tables);
            let waits = shares_rows || tables().any(|table| locked.contains(&table));
            let is_late = waits && started.elapsed() >= CONTENDED_FOR;
            let mut outcome = match outcomes.last() {
                // What has failed meanwhile fails for the rest too.
                Some(Err(error @ (LedgerError::Unavailable(_) | LedgerError::Fenced))) => repeat(error, 1),
                _ if is_late => repeat(&LedgerError::Contended, 1),
                _ => self.write_all(unit, now, (Instant::now(), 1)),
            };
            if !shares_rows && matches!(outcome.last(), Some(Err(LedgerError::Contended))) {
                locked.extend(tables());
            }
            outcomes.append(&mut outcome);
        }
        outcomes
    }

    /// Answers whoever waits for a batch. More than one are woken from within their runtime, which is cheaper than from here,
    /// one after another; the units go along, since their memory comes from there.
    fn answer(&self, units: Vec<RenderedUnit>, answers: Vec<Answer>, outcomes: Vec<Outcome>) {
        let alone = answers.len() == 1;
        let send = move || {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(outcome);
            }
            drop(units);
        };
        if alone {
            send();
        } else {
            self.shared.callers.spawn(async move { send() });
        }
    }

    fn advance(&mut self, chain: Chain, started: Instant) {
        let counters = &self.shared.counters;
        counters.records.fetch_add((chain.head_seq - self.chain.head_seq) as u64, Ordering::Relaxed);
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.commit_micros.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.shared.head.store(Arc::clone(&chain.tree));
        self.chain = chain;
        self.shared.hub.notify(Topic::Ledger);
    }

    /// Turns the ledger unavailable and says what the callers are told.
    fn fail(&mut self, error: StoreError) -> LedgerError {
        let cause = match error {
            StoreError::Full(cause) => {
                self.disk.release_reserve();
                cause
            }
            StoreError::Failed(cause) | StoreError::Contended(cause) | StoreError::Row { cause, .. } => cause,
        };
        tracing::error!(stream = %self.chain.stream, cause, "the ledger cannot be written");
        self.shared.condition.store(Arc::new(Condition::Unavailable(cause.clone())));
        LedgerError::Unavailable(cause)
    }

    /// Whether the store has taken the batch that ends in `chain`. Asks until it answers; meanwhile all appends are refused.
    fn settle(&mut self, chain: &Chain) -> bool {
        loop {
            match self.store.head(&chain.stream) {
                Ok((seq, hash)) => return seq == chain.head_seq && hash == chain.head_hash,
                Err(_) if self.shared.queue.is_closed() => return false,
                Err(_) => std::thread::sleep(PROBE_EVERY),
            }
        }
    }

    /// Tries a batch up to `attempts` times while others hold its rows.
    fn write_units(&mut self, units: &[RenderedUnit], now: Millis, mut attempts: u32) -> Batch {
        let mut each_alone = false;
        loop {
            match self.attempt(units, now, each_alone) {
                Batch::Failed(StoreError::Row { .. }) if !each_alone => each_alone = true,
                Batch::Failed(StoreError::Contended(_)) if attempts > 1 => attempts -= 1,
                other => return other,
            }
        }
    }

    /// One transaction over all units; with `each_alone` every unit stands behind a savepoint of its own.
    fn attempt(&mut self, units: &[RenderedUnit], now: Millis, each_alone: bool) -> Batch {
        if let Err(error) = self.store.begin() {
            self.store.rollback();
            return Batch::Failed(error);
        }
        let mut chain = self.chain.clone();
        let written = if each_alone {
            self.write_alone(units, now, &mut chain)
        } else {
            self.write_together(units, now, &mut chain)
        };
        let outcomes = match written {
            Ok(Some(outcomes)) => outcomes,
            Ok(None) => {
                self.store.rollback();
                return Batch::Fenced;
            }
            Err(error) => {
                self.store.rollback();
                return Batch::Failed(error);
            }
        };
        match self.store.commit() {
            Ok(()) => Batch::Committed { chain, outcomes },
            Err(error @ StoreError::Contended(_)) => {
                self.store.rollback();
                Batch::Failed(error)
            }
            Err(error) => {
                self.store.rollback();
                Batch::Unknown { chain, outcomes, error }
            }
        }
    }

    /// All units at once. The head moves before the entries are written: that is what finds out that another process owns
    /// the stream (`None`).
    fn write_together(
        &mut self,
        units: &[RenderedUnit],
        now: Millis,
        chain: &mut Chain,
    ) -> Result<Option<Vec<Outcome>>, StoreError> {
        let mut outcomes = Vec::with_capacity(units.len());
        let mut entries = Vec::with_capacity(units.len() * 2);
        let mut rows = Vec::with_capacity(units.len() * 2);
        for unit in units {
            if let Some(refusal) = self.guards_refuse(unit)? {
                outcomes.push(Err(refusal));
                continue;
            }
            outcomes.push(seal(unit, now, chain, &mut entries));
            if matches!(outcomes.last(), Some(Ok(_))) {
                rows.extend(&unit.rows);
            }
        }
        let tiles = chain.grow(entries.iter().map(|entry| entry.leaf));
        if !self.store.move_head(&self.chain, chain)? {
            return Ok(None);
        }
        self.store.insert(&chain.stream, &entries, &rows)?;
        if !tiles.is_empty() {
            self.store.insert_tiles(&chain.stream, &tiles)?;
        }
        Ok(Some(outcomes))
    }

    /// Each unit behind a savepoint of its own; `None` as in `write_together`.
    fn write_alone(
        &mut self,
        units: &[RenderedUnit],
        now: Millis,
        chain: &mut Chain,
    ) -> Result<Option<Vec<Outcome>>, StoreError> {
        if !self.store.move_head(&self.chain, &self.chain)? {
            return Ok(None);
        }
        let mut outcomes = Vec::with_capacity(units.len());
        let mut leaves = Vec::with_capacity(units.len() * 2);
        for unit in units {
            self.store.savepoint()?;
            let mut candidate = chain.clone();
            let before = leaves.len();
            let outcome = match self.write_one(unit, now, &mut candidate, &mut leaves) {
                Ok(outcome) => outcome,
                Err(StoreError::Row { table, cause }) => Err(LedgerError::Row { table, cause }),
                Err(error) => return Err(error),
            };
            if outcome.is_ok() {
                *chain = candidate;
            } else {
                self.store.rollback_to_savepoint()?;
                leaves.truncate(before);
            }
            self.store.release_savepoint()?;
            outcomes.push(outcome);
        }
        let tiles = chain.grow(leaves.into_iter());
        if !tiles.is_empty() {
            self.store.insert_tiles(&chain.stream, &tiles)?;
        }
        Ok(self.store.move_head(&self.chain, chain)?.then_some(outcomes))
    }

    fn write_one(
        &mut self,
        unit: &RenderedUnit,
        now: Millis,
        chain: &mut Chain,
        leaves: &mut Vec<Hash>,
    ) -> Result<Outcome, StoreError> {
        for guard in &unit.guards {
            if self.store.guard(guard)? != 1 {
                return Ok(Err(LedgerError::Guard(guard.name)));
            }
        }
        for change in &unit.changes {
            self.store.guard(change)?;
        }
        let mut entries = Vec::with_capacity(unit.records.len());
        let outcome = seal(unit, now, chain, &mut entries);
        if outcome.is_ok() {
            let rows: Vec<_> = unit.rows.iter().collect();
            self.store.insert(&chain.stream, &entries, &rows)?;
            leaves.extend(entries.iter().map(|entry| entry.leaf));
        }
        Ok(outcome)
    }

    /// Runs a unit's guards and then its changes; if a guard does not hold, what the earlier ones did is taken back.
    fn guards_refuse(&mut self, unit: &RenderedUnit) -> Result<Option<LedgerError>, StoreError> {
        if unit.guards.is_empty() && unit.changes.is_empty() {
            return Ok(None);
        }
        self.store.savepoint()?;
        for guard in &unit.guards {
            if self.store.guard(guard)? != 1 {
                self.store.rollback_to_savepoint()?;
                self.store.release_savepoint()?;
                return Ok(Some(LedgerError::Guard(guard.name)));
            }
        }
        for change in &unit.changes {
            self.store.guard(change)?;
        }
        self.store.release_savepoint()?;
        Ok(None)
    }
}

/// Gives the records of a unit their places; on an error none of them is placed.
fn seal<'a>(unit: &'a RenderedUnit, now: Millis, chain: &mut Chain, entries: &mut Vec<Entry<'a>>) -> Outcome {
    let (before, placed) = (chain.clone(), entries.len());
    for rendered in &unit.records {
        match chain.seal(rendered, now) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                *chain = before;
                entries.truncate(placed);
                return Err(error.into());
            }
        }
    }
    match entries.get(placed) {
        Some(first) => {
            Ok(Receipt { stream: Arc::clone(&chain.stream), seq: first.seq, id: first.id().clone() })
        }
        None => Err(LedgerError::Record("a unit without a record".into())),
    }
}

fn repeat(error: &LedgerError, times: usize) -> Vec<Outcome> {
    (0..times).map(|_| Err(error.clone())).collect()
}

fn refuse(batch: Vec<Pending>, error: &LedgerError) {
    for pending in batch {
        let _ = pending.answer.send(Err(error.clone()));
    }
}
