//! The bounded queue between callers and the one writer. A quarter of it is kept for closing records, so that work in
//! flight can always be closed; opening records meet a full queue first.

use crate::error::LedgerError;
use crate::ledger::Receipt;
use crate::unit::RenderedUnit;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

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
        state.records += records;
        state.waiting.push_back(pending);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for units and takes a batch of those that were not withdrawn. An empty batch means that `patience` passed; `None` that
    /// the queue was closed and is drained.
    pub(crate) fn take(&self, limits: BatchLimits, patience: Duration) -> Option<Vec<Pending>> {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            state = self.filled.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
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
    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(crate::record::Rendered::bytes).sum()
    }
}
