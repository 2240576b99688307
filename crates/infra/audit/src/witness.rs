//! Witnesses (AUD-44): somebody else keeps the newest checkpoint, so that a ledger that is rewritten or cut is found out even
//! when its key was stolen. A newer checkpoint covers all older ones, so only the newest is shown. Nothing waits for a witness.

use crate::repository::checkpoints::{self, CheckpointRow};
use crate::repository::entries::LedgerReader;
use serde_json::{Map, Value};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use systemprompt_database::Db;
use systemprompt_models::{Clock, Millis, Tasks};
use systemprompt_net::egress::{Egress, EgressError};
use tokio::sync::Notify;

/// Longest wait for the answer of an HTTP witness.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while the node ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failure; it doubles up to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Checkpoints that are looked through for the last one that a witness has.
const MAX_BACK: usize = 10_000;
const PAGE: i64 = 500;

/// Somebody who keeps checkpoints.
#[derive(Clone, Debug)]
pub enum Witness {
    /// A file that notes are appended to, best on another machine's disk.
    File(PathBuf),
    /// An address that takes the note as `POST`, `text/plain`.
    Http { url: String, egress: Egress },
}

/// Why a witness does not have a checkpoint.
#[derive(Debug, thiserror::Error)]
enum WitnessError {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error("the witness answered {0}")]
    Status(u16),
    #[error("the file cannot be written")]
    File(#[from] std::io::Error),
    #[error("a background task ended early")]
    Interrupted,
}

impl Witness {
    /// What it is called in `ledger_checkpoints.witnessed`; nothing that may be secret in a URL.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => format!("file:{}", path.display()),
            Self::Http { url, .. } => {
                let address = url.split(['?', '#']).next().unwrap_or_default();
                let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
                let authority = rest.split('/').next().unwrap_or_default();
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                format!("http:{host}{}", rest.get(authority.len()..).unwrap_or_default())
            }
        }
    }

    async fn show(&self, note: &str, limit: Duration) -> Result<(), WitnessError> {
        match self {
            Self::File(path) => {
                let (path, note) = (path.clone(), format!("{note}\n"));
                let written = tokio::task::spawn_blocking(move || append(&path, &note)).await;
                Ok(written.map_err(|_| WitnessError::Interrupted)??)
            }
            Self::Http { url, egress } => {
                let request = egress
                    .request(http::Method::POST, url)?
                    .header(http::header::CONTENT_TYPE, "text/plain; charset=utf-8")
                    .timeout(limit)
                    .body(note.to_owned());
                let status = egress.send(request).await?.status();
                if status.is_success() { Ok(()) } else { Err(WitnessError::Status(status.as_u16())) }
            }
        }
    }
}

fn append(path: &Path, note: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    file.write_all(note.as_bytes())?;
    file.sync_data()
}

/// What a witness has, and since when it misses something.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    size: u64,
    missing_since: Option<Millis>,
}

#[derive(Default)]
struct Inner {
    list: Vec<Witness>,
    seen: Mutex<Vec<Seen>>,
    offered: Notify,
    /// One change of a row at a time.
    turn: tokio::sync::Mutex<()>,
}

/// All witnesses of a node. Clones are the same.
#[derive(Clone, Default)]
pub struct Witnesses(Arc<Inner>);

impl std::fmt::Debug for Witnesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Witnesses {
    pub fn new(list: Vec<Witness>) -> Self {
        let seen = Mutex::new(vec![Seen::default(); list.len()]);
        Self(Arc::new(Inner { list, seen, ..Inner::default() }))
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.0.list.iter().map(Witness::name).collect()
    }

    /// The files of file witnesses.
    pub fn files(&self) -> Vec<&Path> {
        let files = self.0.list.iter().map(|witness| match witness {
            Witness::File(path) => Some(path.as_path()),
            Witness::Http { .. } => None,
        });
        files.flatten().collect()
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the database what each has.
    pub(crate) async fn restore(&self, db: &Db, stream: &str) -> sqlx::Result<()> {
        let found = standing(db, stream, &self.names()).await?;
        *self.seen() = found;
        Ok(())
    }

    /// Says that there is a new checkpoint.
    pub(crate) fn offer(&self, size: u64, at: Millis) {
        for seen in self.seen().iter_mut().filter(|seen| seen.size < size) {
            seen.missing_since.get_or_insert(at);
        }
        self.0.offered.notify_waiters();
    }

    /// Age of the oldest checkpoint that some witness does not have, in milliseconds; `None` when there is no witness.
    pub fn unwitnessed_ms(&self, now: Millis) -> Option<Millis> {
        let seen = self.seen();
        (!seen.is_empty()).then(|| {
            let oldest = seen.iter().filter_map(|seen| seen.missing_since).min();
            oldest.map_or(0, |since| now.saturating_sub(since).max(0))
        })
    }

    /// Shows what each does not have yet, until shutdown.
    pub(crate) fn run(
        &self,
        reader: &LedgerReader,
        stream: &Arc<str>,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) {
        for number in 0..self.0.list.len() {
            let (own, reader, stream) = (self.clone(), reader.clone(), Arc::clone(stream));
            let (clock, shutdown) = (Arc::clone(clock), tasks.shutdown_token());
            tasks.spawn("witness", async move {
                let mut pause = Duration::ZERO;
                while !shutdown.is_cancelled() {
                    let offered = own.0.offered.notified();
                    pause = match own.catch_up(number, &reader, &stream, clock.now(), ANSWER_TIMEOUT).await {
                        Ok(()) => Duration::ZERO,
                        Err(error) => {
                            tracing::warn!(witness = own.name(number), %error, "a witness has no checkpoint");
                            (pause * 2).clamp(RETRY.0, RETRY.1)
                        }
                    };
                    if pause.is_zero() {
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            () = offered => {}
                            // A row that could not be marked, or an offer between two looks.
                            () = tokio::time::sleep(RETRY.1) => {}
                        }
                    } else {
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                }
            });
        }
    }

    /// Shows the newest checkpoint to all who lack it, once, shortly.
    pub(crate) async fn show(&self, reader: &LedgerReader, stream: &str, now: Millis) {
        for number in 0..self.0.list.len() {
            if let Err(error) = self.catch_up(number, reader, stream, now, LAST_TIMEOUT).await {
                tracing::warn!(witness = self.name(number), %error, "a witness has no checkpoint of the stop");
            }
        }
    }

    fn name(&self, number: usize) -> String {
        self.0.list.get(number).map(Witness::name).unwrap_or_default()
    }

    async fn catch_up(
        &self,
        number: usize,
        reader: &LedgerReader,
        stream: &str,
        now: Millis,
        limit: Duration,
    ) -> Result<(), ShowError> {
        let Some(witness) = self.0.list.get(number) else { return Ok(()) };
        let has = self.seen().get(number).copied().unwrap_or_default().size;
        let Some(newest) = checkpoints::newest(reader.db(), stream).await? else { return Ok(()) };
        if newest.size as u64 <= has {
            return Ok(());
        }
        witness.show(&newest.note, limit).await?;
        self.mark(number, reader.db(), &newest, now).await?;
        Ok(())
    }

    async fn mark(&self, number: usize, db: &Db, row: &CheckpointRow, now: Millis) -> sqlx::Result<()> {
        let _turn = self.0.turn.lock().await;
        let rows = checkpoints::page(db, &row.stream, row.size - 1, 1).await?;
        let mut witnessed = rows.first().map(witnesses_of).unwrap_or_default();
        witnessed.insert(self.name(number), now.into());
        checkpoints::set_witnessed(db, &row.stream, row.size, &Value::Object(witnessed).to_string()).await?;
        let newest = checkpoints::newest(db, &row.stream).await?;
        if let Some(seen) = self.seen().get_mut(number) {
            let behind = newest.filter(|newest| newest.size > row.size);
            *seen = Seen { size: row.size as u64, missing_since: behind.map(|newest| newest.at) };
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum ShowError {
    #[error(transparent)]
    Witness(#[from] WitnessError),
    #[error("the checkpoints cannot be read or marked")]
    Read(#[from] sqlx::Error),
}

fn witnesses_of(row: &CheckpointRow) -> Map<String, Value> {
    serde_json::from_str(&row.witnessed).unwrap_or_default()
}

/// What each of the named witnesses has of a stream, the newest checkpoints first.
async fn standing(db: &Db, stream: &str, names: &[String]) -> sqlx::Result<Vec<Seen>> {
    let mut seen = vec![Seen::default(); names.len()];
    let (mut before, mut looked) = (i64::MAX, 0);
    while looked < MAX_BACK && seen.iter().any(|seen| seen.size == 0) {
        let rows = checkpoints::page_back(db, stream, before, PAGE).await?;
        for row in &rows {
            let witnessed = witnesses_of(row);
            for (seen, name) in seen.iter_mut().zip(names).filter(|(seen, _)| seen.size == 0) {
                if witnessed.contains_key(name) {
                    seen.size = row.size as u64;
                } else {
                    seen.missing_since = Some(row.at);
                }
            }
        }
        let Some(last) = rows.last() else { break };
        (before, looked) = (last.size, looked + rows.len());
    }
    Ok(seen)
}

impl LedgerReader {
    /// Age of the oldest checkpoint of a stream that one of the named witnesses does not have, in milliseconds.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unwitnessed_ms(&self, stream: &str, names: &[String], now: Millis) -> sqlx::Result<Millis> {
        let seen = standing(self.db(), stream, names).await?;
        let oldest = seen.iter().filter_map(|seen| seen.missing_since).min();
        Ok(oldest.map_or(0, |since| now.saturating_sub(since).max(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_net::egress::{Class, client};

    #[test]
    fn a_witness_is_named_without_what_may_be_secret() {
        let egress = client(Class::Operator).unwrap();
        for (url, name) in [
            ("https://w.example/notes", "http:w.example/notes"),
            ("https://user:pw@w.example:8443/notes?token=x#y", "http:w.example:8443/notes"),
            ("https://w.example", "http:w.example"),
        ] {
            assert_eq!(Witness::Http { url: url.into(), egress: egress.clone() }.name(), name);
        }
        assert_eq!(Witness::File("/mnt/w".into()).name(), "file:/mnt/w");
    }
}
