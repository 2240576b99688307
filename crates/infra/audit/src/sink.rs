//! Sinks (AUD-63): the records of this node as they come, for a file, an HTTP endpoint or a syslog server. At least once and in
//! `seq` order: the cursor moves when the other side has taken a batch. Nothing waits for a sink; one that fails is tried again.

mod file;
mod syslog;

use crate::export::{Format, jsonl, ocsf};
use crate::repository::cursors::{self, CursorRow};
use crate::repository::entries::{Filter, LedgerReader, LedgerRow};
use crate::repository::streams::Stream;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use syslog::Connection;
use systemprompt_events::{Hub, Topic};
use systemprompt_models::{Clock, Millis, Tasks};
use systemprompt_net::egress::{Egress, EgressError};
use systemprompt_net::stream::{StreamError, TlsTarget};

/// Records of one batch.
const BATCH: i64 = 500;
/// Pause after a failure; it doubles up to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Longest wait for the other side to take a batch.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A trickle is gathered for so long, so that a sink costs a write of its cursor a few times a second at most.
const GATHER: Duration = Duration::from_millis(250);
/// How often it is looked without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest error that a cursor keeps.
const MAX_ERROR: usize = 500;

/// Where records go.
#[derive(Clone, Debug)]
pub enum SinkTarget {
    /// A file that lines are appended to.
    File(PathBuf),
    /// An address that takes a batch as `POST`, a line a record.
    Http { url: String, egress: Egress },
    /// RFC 5424 over TLS with octet counting (RFC 5425).
    Syslog(TlsTarget),
}

/// A sink of the profile.
#[derive(Clone, Debug)]
pub struct Sink {
    pub name: String,
    pub format: Format,
    pub filter: Filter,
    pub target: SinkTarget,
}

/// Why the other side did not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error("the endpoint answered {0}")]
    Status(u16),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the file or connection cannot be written: {0}")]
    Io(#[from] std::io::Error),
    #[error("the other side did not take it within 30 s")]
    Timeout,
    #[error("the other side closed the connection")]
    Closed,
    #[error("the ledger or the cursor cannot be read or written")]
    Store(#[from] sqlx::Error),
    #[error("a background task ended early")]
    Interrupted,
}

/// How far a sink is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkLag {
    pub name: String,
    pub records: u64,
    /// Age of the oldest record that was not taken.
    pub seconds: u64,
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    records: u64,
    oldest: Option<Millis>,
    last_error: Option<String>,
}

/// All sinks of a node. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Sinks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    list: Vec<Sink>,
    standings: Mutex<Vec<Standing>>,
}

impl Sinks {
    pub fn new(list: Vec<Sink>) -> Self {
        let standings = Mutex::new(vec![Standing::default(); list.len()]);
        Self(Arc::new(Inner { list, standings }))
    }

    /// How far each is behind.
    pub fn lags(&self, now: Millis) -> Vec<SinkLag> {
        let standings = self.0.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = |(sink, standing): (&Sink, &Standing)| SinkLag {
            name: sink.name.clone(),
            records: standing.records,
            seconds: standing.oldest.map_or(0, |at| (now.saturating_sub(at).max(0) / 1000) as u64),
            last_error: standing.last_error.clone(),
        };
        self.0.list.iter().zip(standings.iter()).map(lag).collect()
    }

    fn set(&self, number: usize, change: impl FnOnce(&mut Standing)) {
        let mut standings = self.0.standings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = standings.get_mut(number) {
            change(standing);
        }
    }

    /// Hands on what comes, until shutdown. A node hands on the streams that it wrote; the other nodes do the same for theirs.
    pub fn run(
        &self,
        reader: &LedgerReader,
        node_id: &str,
        hub: &Hub,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) {
        for (number, sink) in self.0.list.iter().enumerate() {
            let mut runner = Runner {
                sinks: self.clone(),
                number,
                sink: sink.clone(),
                reader: reader.clone(),
                node_id: node_id.to_owned(),
                clock: Arc::clone(clock),
                cursors: None,
                connection: None,
            };
            let (mut listener, shutdown) = (hub.listen(Topic::Ledger), tasks.shutdown_token());
            tasks.spawn("sink", async move {
                let mut pause = Duration::ZERO;
                while !shutdown.is_cancelled() {
                    match runner.step().await {
                        Ok(true) => {
                            pause = Duration::ZERO;
                            continue;
                        }
                        Ok(false) => pause = Duration::ZERO,
                        Err(error) => {
                            pause = (pause * 2).clamp(RETRY.0, RETRY.1);
                            runner.failed(&error, pause).await;
                        }
                    }
                    if pause.is_zero() {
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            _ = listener.changed() => tokio::time::sleep(GATHER).await,
                            () = tokio::time::sleep(LOOK_EVERY) => {}
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
}

/// One sink at work.
struct Runner {
    sinks: Sinks,
    number: usize,
    sink: Sink,
    reader: LedgerReader,
    node_id: String,
    clock: Arc<dyn Clock>,
    /// By stream; read from the database at first.
    cursors: Option<HashMap<String, i64>>,
    connection: Option<Connection>,
}

impl Runner {
    /// Hands the next batch on; true when there may be more.
    async fn step(&mut self) -> Result<bool, SinkError> {
        if self.cursors.is_none() {
            let rows = self.reader.cursors(&self.sink.name).await?;
            self.cursors = Some(rows.into_iter().map(|row| (row.stream, row.seq)).collect());
        }
        let streams = self.reader.streams().await?;
        let own: Vec<&Stream> = streams.iter().filter(|stream| stream.node_id == self.node_id).collect();
        let behind: i64 = own.iter().map(|stream| stream.head_seq - self.cursor(&stream.stream)).sum();
        for stream in own {
            let after = self.cursor(&stream.stream);
            if after >= stream.head_seq {
                continue;
            }
            let rows = self.reader.page(&stream.stream, after, BATCH).await?;
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
            let oldest = first.at;
            self.sinks.set(self.number, |standing| {
                (standing.records, standing.oldest) = (behind.max(0) as u64, Some(oldest));
            });
            let wanted: Vec<&LedgerRow> =
                rows.iter().filter(|row| row.record.is_some() && self.sink.filter.matches(row)).collect();
            if !wanted.is_empty() {
                self.send(&wanted).await?;
            }
            self.store(&stream.stream, last.seq, None).await?;
            let left = behind - rows.len() as i64;
            self.sinks.set(self.number, |standing| {
                let oldest = standing.oldest.filter(|_| left > 0);
                *standing = Standing { records: left.max(0) as u64, oldest, last_error: None };
            });
            return Ok(true);
        }
        self.sinks.set(self.number, |standing| *standing = Standing::default());
        Ok(false)
    }

    fn cursor(&self, stream: &str) -> i64 {
        self.cursors.as_ref().and_then(|cursors| cursors.get(stream)).copied().unwrap_or_default()
    }

    async fn store(&mut self, stream: &str, seq: i64, last_error: Option<String>) -> sqlx::Result<()> {
        let (sink, updated_at) = (self.sink.name.clone(), self.clock.now());
        let row = CursorRow { sink, stream: stream.to_owned(), seq, updated_at, last_error };
        cursors::store(self.reader.db(), &row).await?;
        if let Some(cursors) = &mut self.cursors {
            cursors.insert(row.stream, seq);
        }
        Ok(())
    }

    async fn failed(&mut self, error: &SinkError, pause: Duration) {
        self.connection = None;
        let text: String = error.to_string().chars().take(MAX_ERROR).collect();
        tracing::warn!(sink = self.sink.name, %error, retry_in_s = pause.as_secs(), "a sink takes no records");
        self.sinks.set(self.number, |standing| standing.last_error = Some(text.clone()));
        // For the doctor, who reads the database. That it cannot be written is no further news.
        let own = self.reader.streams().await.ok();
        let own = own.and_then(|list| list.into_iter().rev().find(|stream| stream.node_id == self.node_id));
        if let Some(stream) = own.filter(|_| self.cursors.is_some()) {
            let at = self.cursor(&stream.stream);
            let _ = self.store(&stream.stream, at, Some(text)).await;
        }
    }

    async fn send(&mut self, rows: &[&LedgerRow]) -> Result<(), SinkError> {
        let done = tokio::time::timeout(TIMEOUT, self.send_now(rows)).await;
        done.map_err(|_| SinkError::Timeout)?
    }

    async fn send_now(&mut self, rows: &[&LedgerRow]) -> Result<(), SinkError> {
        let format = self.sink.format;
        match &self.sink.target {
            SinkTarget::File(path) => {
                let (path, text) = (path.clone(), lines(rows, format));
                let written = tokio::task::spawn_blocking(move || file::append(&path, &text)).await;
                Ok(written.map_err(|_| SinkError::Interrupted)??)
            }
            SinkTarget::Http { url, egress } => {
                let request = egress
                    .request(http::Method::POST, url)?
                    .header(http::header::CONTENT_TYPE, "application/x-ndjson")
                    .timeout(TIMEOUT)
                    .body(lines(rows, format));
                let status = egress.send(request).await?.status();
                if status.is_success() { Ok(()) } else { Err(SinkError::Status(status.as_u16())) }
            }
            SinkTarget::Syslog(target) => {
                let connection = match self.connection.take() {
                    Some(connection) => self.connection.insert(connection),
                    None => self.connection.insert(Connection::open(target).await?),
                };
                connection.send(rows, &self.node_id, |row| line(row, format)).await
            }
        }
    }
}

fn lines(rows: &[&LedgerRow], format: Format) -> String {
    let mut text = String::new();
    for row in rows {
        text.push_str(&line(row, format));
        text.push('\n');
    }
    text
}

/// A record as one line without its end.
fn line(row: &LedgerRow, format: Format) -> String {
    match format {
        Format::Ocsf => ocsf::event(row).map(|event| event.to_string()).unwrap_or_default(),
        Format::Jsonl | Format::Csv => {
            let mut text = String::new();
            jsonl::record(&mut text, row, None, None);
            text.truncate(text.trim_end().len());
            text
        }
    }
}

impl LedgerReader {
    /// How far a sink of the node is behind, as the database tells it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sink_lag(&self, sink: &str, node_id: &str, now: Millis) -> sqlx::Result<SinkLag> {
        let cursors = self.cursors(sink).await?;
        let mut lag = SinkLag { name: sink.to_owned(), ..SinkLag::default() };
        for stream in self.streams().await?.iter().filter(|stream| stream.node_id == node_id) {
            let cursor = cursors.iter().find(|row| row.stream == stream.stream);
            let after = cursor.map_or(0, |row| row.seq);
            lag.last_error = cursor.and_then(|row| row.last_error.clone()).or(lag.last_error);
            if let Some(first) = self.page(&stream.stream, after, 1).await?.first() {
                lag.records += (stream.head_seq - after).max(0) as u64;
                lag.seconds = lag.seconds.max((now.saturating_sub(first.at).max(0) / 1000) as u64);
            }
        }
        Ok(lag)
    }
}

#[cfg(test)]
mod tests;
