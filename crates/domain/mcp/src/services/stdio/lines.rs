//! The lines of a connection: read within their bound, taken apart, written one after the other.

use super::{Answer, CloseReason, Shared, StdioError, Waiter};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Lines in a row that are no JSON-RPC before the child counts as broken.
pub(super) const MAX_GARBAGE: u32 = 100;
/// How often such a line is logged.
const GARBAGE_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A message as far as it must be read.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Shared {
    /// Takes one line; says whether it was a message.
    fn take(&self, line: &[u8]) -> bool {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(line) else { return false };
        match (message.method, message.id) {
            (Some(method), Some(id)) => self.refuse(&method, id),
            (Some(method), None) => self.notified(&method, message.params),
            (None, Some(id)) => {
                let Ok(id) = id.get().parse() else { return false };
                let answer = match (message.result, message.error) {
                    (Some(result), None) => Answer::Result(result.to_owned()),
                    (None, Some(error)) => Answer::Error(error.to_owned()),
                    _ => return false,
                };
                self.answer(id, Ok(answer));
            }
            (None, None) => return false,
        }
        true
    }

    /// Requests of a child to us: it may ask whether we live, and nothing else.
    fn refuse(&self, method: &str, id: &RawValue) {
        let answer = match method {
            "ping" => "\"result\":{}".to_owned(),
            _ => "\"error\":{\"code\":-32601,\"message\":\"this client offers no such method\"}".to_owned(),
        };
        let message = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},{answer}}}\n", id.get());
        let _ = self.outgoing.try_send(message.into());
    }

    fn notified(&self, method: &str, params: Option<&RawValue>) {
        match method {
            "notifications/progress" => self.progress(params),
            "notifications/tools/list_changed" => self.list_changed.store(true, Ordering::Release),
            _ => {}
        }
    }

    fn progress(&self, params: Option<&RawValue>) {
        let Some(params) = params.and_then(|p| serde_json::from_str::<Value>(p.get()).ok()) else { return };
        let Some(id) = params.get("progressToken").and_then(Value::as_u64) else { return };
        let pending = self.lock();
        if let Some(Waiter { progress: Some(progress), moved, .. }) = pending.calls.get(&id) {
            let _ = progress.try_send(params);
            moved.notify_one();
        }
    }

    /// Fails the call that a line which is too long begins to answer.
    fn too_large(&self, beginning: &[u8]) {
        if let Some(id) = leading_id(beginning) {
            self.answer(id, Err(StdioError::TooLarge));
        }
    }
}

/// The id near the beginning of an answer, which JSON-RPC libraries write before the result.
fn leading_id(line: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(line.get(..line.len().min(256))?).into_owned();
    let (_, rest) = head.split_once("\"id\"")?;
    let digits = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits.get(..end)?.parse().ok()
}

pub(super) async fn read<R: AsyncRead + Unpin>(shared: Arc<Shared>, input: R, limit: usize) {
    let mut reader = BufReader::with_capacity(64 * 1024, input);
    let mut line = Vec::new();
    let mut last_log: Option<Instant> = None;
    let reason = loop {
        line.clear();
        match read_line(&mut reader, &mut line, limit).await {
            Ok(Line::Whole) => {}
            Ok(Line::TooLong) => {
                shared.too_large(&line);
                break CloseReason::LineTooLong;
            }
            Ok(Line::End) | Err(_) => break CloseReason::Ended,
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if shared.take(&line) {
            shared.garbage.store(0, Ordering::Relaxed);
            continue;
        }
        let count = shared.garbage.fetch_add(1, Ordering::Relaxed) + 1;
        if last_log.is_none_or(|at| at.elapsed() >= GARBAGE_LOG_INTERVAL) {
            last_log = Some(Instant::now());
            let text = String::from_utf8_lossy(line.get(..line.len().min(200)).unwrap_or_default());
            let text = shared.scanner.redact_text(&text).map_or_else(|| text.to_string(), |(clean, _)| clean);
            tracing::warn!(server = %shared.server, line = %text.escape_debug(), "an MCP server wrote a line that is no JSON-RPC");
        }
        if count >= MAX_GARBAGE {
            break CloseReason::NotJsonRpc;
        }
    };
    shared.close(reason);
}

pub(super) async fn write<W: AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    mut output: W,
    mut queue: mpsc::Receiver<Bytes>,
) {
    loop {
        let message = tokio::select! {
            biased;
            () = shared.closed.cancelled() => break,
            message = queue.recv() => message,
            () = shared.end_input.cancelled() => None,
        };
        let Some(message) = message else { break };
        if output.write_all(&message).await.is_err() || output.flush().await.is_err() {
            shared.close(CloseReason::Ended);
            break;
        }
    }
    let _ = output.shutdown().await;
}

/// What was read.
pub(crate) enum Line {
    Whole,
    /// The line goes on beyond the limit; its beginning was read.
    TooLong,
    End,
}

/// Reads one line of at most `limit` bytes, without its end. What stands after the last line end counts as a line.
pub(crate) async fn read_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    line: &mut Vec<u8>,
    limit: usize,
) -> std::io::Result<Line> {
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(if line.is_empty() { Line::End } else { Line::Whole });
        }
        let (part, used, ended) = match available.iter().position(|b| *b == b'\n') {
            Some(at) => (available.get(..at).unwrap_or_default(), at + 1, true),
            None => (available, available.len(), false),
        };
        let fits = limit.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..fits).unwrap_or_default());
        let whole = fits == part.len();
        reader.consume(used);
        match (whole, ended) {
            (false, _) => return Ok(Line::TooLong),
            (true, true) => return Ok(Line::Whole),
            (true, false) => {}
        }
    }
}
