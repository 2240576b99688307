//! JSON-RPC over the standard streams of a child: one message a line (MCP-15). The pending calls, the waiting lines and the
//! length of a line are bounded; a call ends with its answer, its deadline or its cancellation, whichever comes first.

mod lines;

pub(crate) use lines::{Line, read_line};

use crate::wire::raw::{RawObject, quoted};
use bytes::Bytes;
use lines::{read, write};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use systemprompt_leak::Scanner;
use systemprompt_models::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Calls that may wait for their answers.
const MAX_PENDING: usize = 1024;
/// Lines that may wait to be written.
const MAX_OUTGOING: usize = 256;

/// What a child answered: the bytes of `result` or of `error`.
#[derive(Debug)]
pub enum Answer {
    Result(Box<RawValue>),
    Error(Box<RawValue>),
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StdioError {
    #[error("the server ended during the call")]
    Closed,
    #[error("the answer is longer than the limit")]
    TooLarge,
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the call was cancelled")]
    Cancelled,
    #[error("the server has {MAX_PENDING} unanswered calls")]
    Busy,
}

/// Why a connection is of no more use; the child must be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The child closed its output, or its input could not be written.
    Ended,
    LineTooLong,
    NotJsonRpc,
}

/// Bounds and wishes of one call.
#[derive(Debug)]
pub struct CallOptions {
    /// Time for an answer; each progress notification grants it anew.
    pub timeout: Duration,
    /// Time for the whole call, whatever progress is told.
    pub max: Duration,
    pub cancel: CancellationToken,
    /// Receives the parameters of progress notifications; what does not fit is dropped.
    pub progress: Option<mpsc::Sender<Value>>,
}

impl CallOptions {
    /// A call of our own: no progress, not cancellable.
    pub fn within(timeout: Duration) -> Self {
        Self { timeout, max: timeout, cancel: CancellationToken::new(), progress: None }
    }
}

/// The connection to a child. Clones share it.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    server: Box<str>,
    pending: Mutex<Pending>,
    outgoing: mpsc::Sender<Bytes>,
    closed: CancellationToken,
    end_input: CancellationToken,
    list_changed: AtomicBool,
    garbage: AtomicU32,
    scanner: Scanner,
}

#[derive(Default)]
struct Pending {
    next: u64,
    calls: HashMap<u64, Waiter>,
    closed: Option<CloseReason>,
}

struct Waiter {
    answer: oneshot::Sender<Result<Answer, StdioError>>,
    progress: Option<mpsc::Sender<Value>>,
    moved: Arc<Notify>,
}

impl Connection {
    /// Speaks over `input` (the child's output) and `output` (its input). `scanner` cleans what is logged.
    pub fn open<R, W>(
        server: &str,
        (input, output): (R, W),
        line_limit: usize,
        scanner: Scanner,
        tasks: &Tasks,
    ) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (outgoing, queue) = mpsc::channel(MAX_OUTGOING);
        let shared = Arc::new(Shared {
            server: server.into(),
            pending: Mutex::default(),
            outgoing,
            closed: CancellationToken::new(),
            end_input: CancellationToken::new(),
            list_changed: AtomicBool::new(false),
            garbage: AtomicU32::new(0),
            scanner,
        });
        tasks.spawn("mcp stdio reader", read(Arc::clone(&shared), input, line_limit));
        tasks.spawn("mcp stdio writer", write(Arc::clone(&shared), output, queue));
        Self(shared)
    }

    /// Makes a call. `params` must hold no progress token: the id of the call is put there if progress is wanted.
    ///
    /// # Errors
    /// [`StdioError`]; on a timeout or a cancellation the child is told.
    pub async fn call(
        &self,
        method: &str,
        params: Option<RawObject<'_>>,
        options: CallOptions,
    ) -> Result<Answer, StdioError> {
        let moved = Arc::new(Notify::new());
        let wants_progress = options.progress.is_some();
        let (mut call, mut answer) = self.register(options.progress, Arc::clone(&moved))?;
        let message = request(call.id, method, params, wants_progress);
        let hard = Instant::now() + options.max;
        let mut deadline = hard.min(Instant::now() + options.timeout);
        tokio::select! {
            sent = self.0.outgoing.send(message) => sent.map_err(|_| StdioError::Closed)?,
            () = self.0.closed.cancelled() => {}
            () = tokio::time::sleep_until(deadline) => return Err(StdioError::Timeout),
        }
        call.sent = true;
        loop {
            tokio::select! {
                biased;
                outcome = &mut answer => return outcome.unwrap_or(Err(StdioError::Closed)),
                () = options.cancel.cancelled() => {
                    call.reason = "cancelled by the client";
                    return Err(StdioError::Cancelled);
                }
                () = tokio::time::sleep_until(deadline) => {
                    call.reason = "no answer in time";
                    return Err(StdioError::Timeout);
                }
                () = moved.notified() => deadline = hard.min(Instant::now() + options.timeout),
            }
        }
    }

    /// Tells the child something that it does not answer.
    pub async fn notify(&self, method: &str) -> Result<(), StdioError> {
        let message = format!("{{\"jsonrpc\":\"2.0\",\"method\":{}}}\n", quoted(method));
        self.0.outgoing.send(message.into()).await.map_err(|_| StdioError::Closed)
    }

    /// Closes the child's input, by which a well-behaved child ends.
    pub fn end_input(&self) {
        self.0.end_input.cancel();
    }

    /// Waits until the connection is of no more use.
    pub async fn closed(&self) -> CloseReason {
        self.0.closed.cancelled().await;
        self.0.lock().closed.unwrap_or(CloseReason::Ended)
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Whether the child said since the last question that its tools changed.
    pub fn take_list_changed(&self) -> bool {
        self.0.list_changed.swap(false, Ordering::AcqRel)
    }

    fn register(
        &self,
        progress: Option<mpsc::Sender<Value>>,
        moved: Arc<Notify>,
    ) -> Result<(Registered, oneshot::Receiver<Result<Answer, StdioError>>), StdioError> {
        let mut pending = self.0.lock();
        if pending.closed.is_some() {
            return Err(StdioError::Closed);
        }
        if pending.calls.len() >= MAX_PENDING {
            return Err(StdioError::Busy);
        }
        pending.next += 1;
        let id = pending.next;
        let (answer, waiting) = oneshot::channel();
        pending.calls.insert(id, Waiter { answer, progress, moved });
        let call =
            Registered { shared: Arc::clone(&self.0), id, sent: false, reason: "the call was given up" };
        Ok((call, waiting))
    }
}

/// A call that the child may still answer. When it goes before its answer came, the child is told.
struct Registered {
    shared: Arc<Shared>,
    id: u64,
    sent: bool,
    reason: &'static str,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let unanswered = self.shared.lock().calls.remove(&self.id).is_some();
        if unanswered && self.sent {
            let (id, reason) = (self.id, self.reason);
            let message = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id},\"reason\":\"{reason}\"}}}}\n"
            );
            // A full queue means that the child does not read; it then does not stop either.
            let _ = self.shared.outgoing.try_send(message.into());
        }
    }
}

/// The line of a call. With progress wanted its id stands as progress token in `_meta`.
fn request(id: u64, method: &str, params: Option<RawObject<'_>>, progress: bool) -> Bytes {
    let id_text = id.to_string();
    let token = RawValue::from_string(id_text.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned());
    let params = params.map(|params| {
        let meta = params.get("_meta").and_then(RawObject::read).unwrap_or_default();
        let meta = if progress { meta.with("progressToken", &token) } else { meta.without("progressToken") };
        if meta.members().next().is_none() {
            return params.without("_meta").to_raw();
        }
        let meta = meta.to_raw();
        params.with("_meta", &meta).to_raw()
    });
    let params = params.map_or_else(String::new, |p| format!(",\"params\":{}", one_line(p.get())));
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id_text},\"method\":{}{params}}}\n", quoted(method)).into()
}

/// JSON text without line ends. Inside strings they are escaped, so those that stand are white space.
fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ").into() } else { text.into() }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every call that waits. The first reason stands.
    fn close(&self, reason: CloseReason) {
        let calls = {
            let mut pending = self.lock();
            pending.closed.get_or_insert(reason);
            std::mem::take(&mut pending.calls)
        };
        for waiter in calls.into_values() {
            let _ = waiter.answer.send(Err(StdioError::Closed));
        }
        self.closed.cancel();
    }

    fn answer(&self, id: u64, answer: Result<Answer, StdioError>) {
        let waiter = self.lock().calls.remove(&id);
        if let Some(waiter) = waiter {
            let _ = waiter.answer.send(answer);
        } else {
            tracing::debug!(server = %self.server, id, "late answer of an MCP server dropped");
        }
    }
}

#[cfg(test)]
mod tests;
