//! Moves the write-ahead log of SQLite into the database file beside the writer, which would otherwise stand still for it: one
//! pass while the writer goes on, and a short one in the gate for what came meanwhile, so that the log starts anew.

use rusqlite::Connection;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use systemprompt_database::WriteGate;

/// Bytes of records, rows and payloads after which the log is moved; its pages take about three times as much. The sync of the
/// database holds up those of the log meanwhile: often and short is what a waiting caller notices least (p99 of 256 callers 13 ms
/// with 8 MiB, 7 to 8 with one, at the same rate).
const MOVE_AFTER: usize = 1024 * 1024;

#[derive(Default)]
struct State {
    written: usize,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    due: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that moves the log; it ends with its handle.
pub(super) struct WalMover {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WalMover {
    pub(super) fn start(conn: Connection, gate: WriteGate) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("ledger-wal".into())
            .spawn(move || move_when_due(&conn, &gate, &of_thread))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Counts what was committed.
    pub(super) fn committed(&self, bytes: usize) {
        let mut state = self.shared.lock();
        state.written += bytes;
        if state.written >= MOVE_AFTER {
            self.shared.due.notify_one();
        }
    }
}

impl Drop for WalMover {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.due.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn move_when_due(conn: &Connection, gate: &WriteGate, shared: &Shared) {
    loop {
        let mut state = shared
            .due
            .wait_while(shared.lock(), |state| state.written < MOVE_AFTER && !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return;
        }
        state.written = 0;
        drop(state);
        let moved = pass(conn).and_then(|()| {
            let _turn = gate.ledger_blocking();
            pass(conn)
        });
        if let Err(error) = moved {
            // Nothing is lost: the log stays as it is, and the writer's own bound moves it in the end.
            tracing::warn!(%error, "the write-ahead log could not be moved into the database");
        }
    }
}

fn pass(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
