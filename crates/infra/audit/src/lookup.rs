//! Look-ups by session, principal, trace and entity on SQLite. The ledger's own tables carry only keys that grow with time;
//! `lookup.db` is a disposable copy of the index columns with ordinary indexes. It follows the ledger by cursor; a query
//! first projects what is still missing, so that an answer is never older than the question.

use crate::repository::entries::{After, Filter, LedgerReader, LedgerRow};
use crate::repository::lookup;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use systemprompt_database::{Db, SqliteDb};
use systemprompt_models::Tasks;
use tokio_util::sync::CancellationToken;

const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How long the background thread rests after a full step, in times of that step.
const REST: u32 = 4;
/// Niceness of the background thread.
const LEAST_URGENT: i32 = 19;
/// Entries copied at once; between two such steps others get the file.
const STEP: i64 = 2000;

/// The look-up file.
#[derive(Clone)]
pub struct Lookup {
    projector: Arc<Mutex<rusqlite::Connection>>,
    reader: LedgerReader,
    ledger: LedgerReader,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").finish_non_exhaustive()
    }
}

/// Why the look-up file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("the look-up file failed")]
    Project(#[source] rusqlite::Error),
    #[error("the look-up file cannot be read")]
    Read(#[source] sqlx::Error),
    #[error("look-up files belong to SQLite")]
    Engine,
    #[error("the projection was interrupted")]
    Interrupted,
    #[error("the following thread could not be started")]
    Thread(#[source] std::io::Error),
}

impl Lookup {
    /// Opens `lookup.db` in `folder`, made anew when it is unusable, and follows the ledger.
    pub(crate) fn open(folder: &Path, ledger: LedgerReader, tasks: &Tasks) -> Result<Self, LookupError> {
        let lookup = Self::attach(folder, ledger)?;
        let (projector, shutdown) = (Arc::clone(&lookup.projector), tasks.shutdown_token());
        let follower = std::thread::Builder::new().name("ledger-lookup".into());
        follower.spawn(move || follow_in_background(&projector, &shutdown)).map_err(LookupError::Thread)?;
        Ok(lookup)
    }

    /// Opens `lookup.db` without following; for commands that read a stopped server's database.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn attach(folder: &Path, ledger: LedgerReader) -> Result<Self, LookupError> {
        let Db::Sqlite(db) = ledger.db() else { return Err(LookupError::Engine) };
        let path = folder.join("lookup.db");
        let projector = lookup::open(&path, db.path()).or_else(|_| {
            remove(&path);
            lookup::open(&path, db.path())
        });
        let projector = projector.map_err(LookupError::Project)?;
        let reader = SqliteDb::lazy_reader(&path);
        Ok(Self {
            projector: Arc::new(Mutex::new(projector)),
            reader: LedgerReader::new(Db::Sqlite(reader)),
            ledger,
        })
    }

    /// Copies what is missing, step by step.
    async fn follow(&self) -> Result<(), LookupError> {
        loop {
            let projector = Arc::clone(&self.projector);
            let copied = tokio::task::spawn_blocking(move || {
                let conn = projector.lock().unwrap_or_else(PoisonError::into_inner);
                lookup::project(&conn, STEP)
            });
            let copied = copied.await.map_err(|_| LookupError::Interrupted)?.map_err(LookupError::Project)?;
            if (copied as i64) < STEP {
                return Ok(());
            }
        }
    }

    /// Forgets the references of entries that became stubs in a part of a stream.
    pub(crate) async fn forget(&self, stream: &str, from: i64, to: i64) -> Result<(), LookupError> {
        let (projector, stream) = (Arc::clone(&self.projector), stream.to_owned());
        let forgotten = tokio::task::spawn_blocking(move || {
            let conn = projector.lock().unwrap_or_else(PoisonError::into_inner);
            lookup::forget(&conn, &stream, from, to)
        });
        forgotten.await.map_err(|_| LookupError::Interrupted)?.map_err(LookupError::Project)?;
        Ok(())
    }

    /// A filtered page, with the record texts of the ledger.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn filtered(
        &self,
        filter: &Filter,
        after: Option<&After>,
        limit: i64,
    ) -> Result<Vec<LedgerRow>, LookupError> {
        self.follow().await?;
        let mut rows = self.reader.filtered(filter, after, limit).await.map_err(LookupError::Read)?;
        for row in &mut rows {
            self.ledger.fill_record(row).await.map_err(LookupError::Read)?;
        }
        Ok(rows)
    }
}

/// Follows the ledger with what processor time others leave: a query projects what it needs by itself, so lag costs the next
/// query time and never correctness.
fn follow_in_background(projector: &Mutex<rusqlite::Connection>, shutdown: &CancellationToken) {
    // Linux counts niceness by thread.
    if let Err(error) = rustix::process::setpriority_process(None, LEAST_URGENT) {
        tracing::debug!(%error, "the look-up thread keeps its priority");
    }
    while !shutdown.is_cancelled() {
        let started = std::time::Instant::now();
        let copied = {
            let conn = projector.lock().unwrap_or_else(PoisonError::into_inner);
            lookup::project(&conn, STEP)
        };
        match copied {
            // Behind, so the node is busy: niceness alone would still fill every gap between two batches of the writer.
            Ok(copied) if copied as i64 >= STEP => std::thread::sleep(started.elapsed() * REST),
            Ok(_) => std::thread::sleep(FOLLOW_EVERY),
            Err(error) => {
                tracing::warn!(%error, "the look-up file does not follow the ledger");
                std::thread::sleep(FOLLOW_EVERY);
            }
        }
    }
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}
