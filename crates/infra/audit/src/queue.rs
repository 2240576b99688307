//! The bounded queue between callers and the one writer. A quarter of it is kept for closing records, so that work in
//! flight can always be closed; opening records meet a full queue first.

use crate::error::LedgerError;
use crate::ledger::Receipt;
use crate::unit::{RenderedUnit, RowWrite};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a unit that nobody waits for may linger for a batch that somebody waits for, so that both share one commit.
pub(crate) const LINGER: Duration = Duration::from_millis(5);

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Whether a waiting unit was taken into a batch or withdrawn by its caller: whoever is first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim(Arc<AtomicU8>);

impl Claim {
    fn set(&self, to: u8) -> bool {
        self.0.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn take(&self) -> bool {
        self.set(TAKEN)
    }

    pub(crate) fn withdraw(&self) -> bool {
        self.set(WITHDRAWN)
    }
}

/// A unit on its way to the writer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub unit: RenderedUnit,
    pub claim: Claim,
    pub answer: oneshot::Sender<Result<Receipt, LedgerError>>,
    /// When it was queued, if nobody waits for it: it may linger for the next batch.
    pub deferred: Option<Instant>,
}

/// Bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub records: usize,
    pub bytes: usize,
    pub units: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Pending>,
    records: usize,
    /// Units that somebody waits for.
    awaited: usize,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    max_records: usize,
}

impl Queue {
    pub(crate) fn new(max_records: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), max_records }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a unit, or refuses it when its part of the queue is full.
    pub(crate) fn push(&self, pending: Pending) -> Result<(), LedgerError> {
        let mut state = self.lock();
        if state.closed {
            return Err(LedgerError::Unavailable("the node is stopping".into()));
        }
        let bound = if pending.unit.closing { self.max_records } else { self.max_records / 4 * 3 };
        let records = pending.unit.records.len();
        if state.records + records > bound {
            return Err(LedgerError::Busy);
        }
        let is_awaited = pending.deferred.is_none();
        let wakes = is_awaited || state.waiting.is_empty();
        state.records += records;
        state.awaited += usize::from(is_awaited);
        state.waiting.push_back(pending);
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for units and takes a batch of those that were not withdrawn, in the order in which they came. An empty batch means that `patience` passed; `None` that
    /// the queue was closed and is drained.
    pub(crate) fn take(&self, limits: BatchLimits, patience: Duration) -> Option<Vec<Pending>> {
        let mut state = self.lock();
        while state.awaited == 0 && !state.closed && state.records < limits.records {
            let rest = match state.waiting.front().and_then(|first| first.deferred) {
                Some(queued) => LINGER.saturating_sub(queued.elapsed()),
                None => patience,
            };
            if rest.is_zero() {
                break;
            }
            let was_idle = state.waiting.is_empty();
            let (woken, waited) =
                self.filled.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if was_idle && waited.timed_out() {
                break;
            }
        }
        if state.waiting.is_empty() && state.closed {
            return None;
        }
        let (mut records, mut bytes) = (0, 0);
        let mut batch = Vec::new();
        while let Some(next) = state.waiting.front() {
            let (size, weight) = (next.unit.records.len(), next.unit.bytes());
            let full = records + size > limits.records
                || bytes + weight > limits.bytes
                || batch.len() >= limits.units;
            if full && !batch.is_empty() {
                break;
            }
            let Some(next) = state.waiting.pop_front() else { break };
            state.records -= size;
            state.awaited -= usize::from(next.deferred.is_none());
            if next.claim.take() {
                records += size;
                bytes += weight;
                batch.push(next);
            }
        }
        Some(batch)
    }

    /// Records that wait.
    pub(crate) fn depth(&self) -> usize {
        self.lock().records
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes nothing more; what waits is still written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

impl RenderedUnit {
    /// Whether it touches rows that other transactions may hold.
    pub(crate) fn shares_rows(&self) -> bool {
        !self.guards.is_empty() || !self.changes.is_empty()
    }

    /// Tables of the rows that it opens and closes.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().map(|row| match row {
            RowWrite::Open { table, .. } | RowWrite::Close { table, .. } => table.name,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(crate::record::Rendered::bytes).sum()
    }
}
