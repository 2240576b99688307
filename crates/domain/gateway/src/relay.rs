//! The way of an answer back to the client: bytes as they come, whole events, a tap on a copy, and one end (GW-50 to GW-57).

#[cfg(test)]
mod tests;

use crate::closing::{Ending, OpenCall};
use crate::providers::{ProviderError, UpstreamBody};
use crate::settle::Outcome;
use crate::stream_tap::{Observed, SseTap, note};
use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures_util::Stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use systemprompt_audit::Role;
use systemprompt_audit::payload::Tally;
use systemprompt_leak::{Hit, Scanner};
use systemprompt_models::Tasks;
use systemprompt_security::governance::{SecretScanner, Segment};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// Largest part of an event that is held back until its end comes; a longer event passes as it comes.
const MAX_HELD_BYTES: usize = 1024 * 1024;
/// Silence after which a ping is put in.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long a stream may go on when the node stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// Bounds in time of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLimits {
    pub idle: Duration,
    /// From now on.
    pub total: Duration,
    pub ping: Duration,
}

/// How the bytes of the answer are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    /// One that is not read here; it passes unread.
    Other,
}

impl Encoding {
    pub fn of(headers: &http::HeaderMap) -> Self {
        match headers.get(http::header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None | Some(b"identity" | b"") => Self::Identity,
            Some(b"gzip" | b"x-gzip") => Self::Gzip,
            Some(_) => Self::Other,
        }
    }
}

/// The tap, behind whatever decodes its copy.
enum Tap {
    Plain(Box<SseTap>),
    Gzip(Box<GzDecoder<Unpacked>>),
    /// The copy could not be decoded from some point on, or not at all.
    Blind(Observed),
}

#[derive(Default)]
struct Unpacked(SseTap);

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Tap {
    fn new(encoding: Encoding, in_use: Scanner) -> Self {
        let tap = SseTap::watching(in_use);
        match encoding {
            Encoding::Identity => Self::Plain(Box::new(tap)),
            Encoding::Gzip => Self::Gzip(Box::new(GzDecoder::new(Unpacked(tap)))),
            Encoding::Other => Self::Blind(Observed::default()),
        }
    }

    /// Values in use that the answer holds, as far as it could be read.
    fn leaks(&self) -> &[Hit] {
        match self {
            Self::Plain(tap) => tap.leaks(),
            Self::Gzip(decoder) => decoder.get_ref().0.leaks(),
            Self::Blind(_) => &[],
        }
    }

    /// Reads a chunk; answers where its last whole event ends, where that can be told.
    fn feed(&mut self, chunk: &[u8]) -> Option<usize> {
        match self {
            Self::Plain(tap) => tap.feed(chunk),
            Self::Gzip(decoder) => {
                if decoder.write_all(chunk).and_then(|()| decoder.flush()).is_err() {
                    let seen = decoder.get_ref().0.observed().clone();
                    *self = Self::Blind(seen);
                }
                None
            }
            Self::Blind(_) => None,
        }
    }

    fn observed(&self) -> &Observed {
        match self {
            Self::Plain(tap) => tap.observed(),
            Self::Gzip(decoder) => decoder.get_ref().0.observed(),
            Self::Blind(seen) => seen,
        }
    }
}

/// A streamed answer. Dropping it before its end cancels the upstream request and closes the call as aborted.
pub struct ReplyStream {
    upstream: Option<UpstreamBody>,
    tap: Tap,
    readable: bool,
    /// Whether events are kept whole: identity encoding, and no event beyond the bound is passing.
    whole_events: bool,
    oversized: bool,
    held: Vec<Bytes>,
    held_bytes: usize,
    out: VecDeque<Bytes>,
    limits: StreamLimits,
    began: Instant,
    last_in: Instant,
    last_out: Instant,
    draining_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    shutdown: CancellationToken,
    hash: digest::Context,
    tally: Option<Tally>,
    bytes: u64,
    pings: u32,
    call: Option<OpenCall>,
}

impl std::fmt::Debug for ReplyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyStream")
            .field("call", &self.call)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

enum Alarm {
    Ping,
    Silent,
    TooLong,
    Draining,
}

impl ReplyStream {
    pub(crate) fn new(
        upstream: UpstreamBody,
        encoding: Encoding,
        limits: StreamLimits,
        in_use: Scanner,
        tasks: &Tasks,
    ) -> Self {
        let now = Instant::now();
        Self {
            upstream: Some(upstream),
            tap: Tap::new(encoding, in_use),
            readable: encoding != Encoding::Other,
            whole_events: encoding == Encoding::Identity,
            oversized: false,
            held: Vec::new(),
            held_bytes: 0,
            out: VecDeque::new(),
            limits,
            began: now,
            last_in: now,
            last_out: now,
            draining_since: None,
            timer: None,
            shutdown: tasks.shutdown_token(),
            hash: digest::Context::new(&SHA256),
            tally: Tally::new(),
            bytes: 0,
            pings: 0,
            call: None,
        }
    }

    /// Also notes what has the form of a secret.
    pub(crate) fn noting(mut self, secrets: Arc<SecretScanner>) -> Self {
        match &mut self.tap {
            Tap::Plain(tap) => tap.noting(secrets),
            Tap::Gzip(decoder) => decoder.get_mut().0.noting(secrets),
            Tap::Blind(_) => {}
        }
        self
    }

    /// Closes `call` when this stream ends, in whatever way.
    pub(crate) fn closing(mut self, call: OpenCall) -> Self {
        self.call = Some(call);
        self
    }

    fn take(&mut self, chunk: Bytes) {
        self.last_in = Instant::now();
        if self.bytes == 0
            && let Some(call) = &mut self.call
        {
            call.first_byte();
        }
        self.hash.update(&chunk);
        if let Some(tally) = &mut self.tally {
            tally.add(&chunk);
        }
        self.bytes += chunk.len() as u64;
        let boundary = self.tap.feed(&chunk);
        if !self.tap.leaks().is_empty() {
            self.withhold();
            return;
        }
        if !self.whole_events {
            self.out.push_back(chunk);
            return;
        }
        let rest = match boundary {
            Some(end) => {
                self.release();
                self.oversized = false;
                self.out.push_back(chunk.slice(..end));
                chunk.slice(end..)
            }
            None => chunk,
        };
        if rest.is_empty() {
            return;
        }
        self.held_bytes += rest.len();
        self.held.push(rest);
        if self.oversized || self.held_bytes > MAX_HELD_BYTES {
            self.oversized = true;
            self.release();
        }
    }

    /// Lets go what was held back.
    fn release(&mut self) {
        self.out.extend(self.held.drain(..));
        self.held_bytes = 0;
    }

    /// The upstream came to its proper end.
    fn end(&mut self) {
        self.release();
        let seen = self.tap.observed();
        let outcome = match (&seen.error_type, seen.complete || !self.readable) {
            (Some(_), _) => Outcome::UpstreamError,
            (None, true) => Outcome::Ok,
            (None, false) => Outcome::UpstreamBroken,
        };
        self.finish(outcome, None);
    }

    /// The upstream is lost: the incomplete event is thrown away and an error event says so.
    fn break_off(&mut self, kind: &str, message: &str, error_type: &str) {
        self.end_with(kind, message, Outcome::UpstreamBroken, error_type);
    }

    /// Throws away what is held back and ends with an error event, if one can stand here.
    fn end_with(&mut self, kind: &str, message: &str, outcome: Outcome, error_type: &str) {
        self.held.clear();
        self.held_bytes = 0;
        if self.whole_events && !self.oversized {
            let message = serde_json::Value::from(message);
            let event = format!(
                "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":{message}}}}}\n\n"
            );
            self.out.push_back(Bytes::from(event));
        }
        self.finish(outcome, Some(error_type));
    }

    /// The answer holds a value in use, which this chunk completes: the chunk and what was held back stay here, and the stream
    /// ends.
    fn withhold(&mut self) {
        let message = leak_message(self.tap.leaks());
        tracing::warn!(message, "a streamed answer was cut off");
        self.end_with("api_error", &message, Outcome::UpstreamError, LEAK_ERROR);
    }

    fn finish(&mut self, outcome: Outcome, error_type: Option<&str>) {
        self.upstream = None;
        self.timer = None;
        let Some(call) = self.call.take() else { return };
        let leaks = self.tap.leaks().to_vec();
        let digest = std::mem::replace(&mut self.hash, digest::Context::new(&SHA256)).finish();
        let tap = std::mem::replace(&mut self.tap, Tap::Blind(Observed::default()));
        let observed = match tap {
            Tap::Plain(tap) => tap.into_observed(),
            Tap::Gzip(mut decoder) => decoder.get_mut().0.take_observed(),
            Tap::Blind(seen) => seen,
        };
        call.end(Ending {
            outcome,
            error_type: error_type.map(Box::from),
            observed,
            response_sha256: digest.as_ref().try_into().ok(),
            response_bytes: self.bytes,
            injected_pings: self.pings,
            charged: true,
            leaks,
            response: self.tally.take().map(|tally| tally.finish(Role::Response)),
        });
    }

    /// Waits for the next bound in time.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        loop {
            if self.shutdown.is_cancelled() && self.draining_since.is_none() {
                self.draining_since = Some(Instant::now());
            }
            let at_boundary = self.whole_events && !self.oversized;
            let due = [
                Some((self.last_in + self.limits.idle, Alarm::Silent)),
                Some((self.began + self.limits.total, Alarm::TooLong)),
                self.draining_since.map(|since| (since + DRAIN_LIMIT, Alarm::Draining)),
                at_boundary.then(|| (self.last_out + self.limits.ping, Alarm::Ping)),
            ];
            let Some((at, alarm)) = due.into_iter().flatten().min_by_key(|(at, _)| *at) else {
                return Poll::Pending;
            };
            let now = Instant::now();
            if at <= now {
                return Poll::Ready(alarm);
            }
            // The timer is set once and looked at when it fires: bytes that come meanwhile only move the bound.
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Ping => {
                self.pings += 1;
                self.out.push_back(Bytes::from_static(PING));
            }
            Alarm::Silent => self.break_off("timeout_error", "upstream silent", "timeout"),
            Alarm::TooLong => {
                self.break_off("timeout_error", "the time for this call is over", "total_timeout");
            }
            Alarm::Draining => self.break_off("api_error", "gateway shutting down", "draining"),
        }
    }
}

impl Stream for ReplyStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(bytes) = this.out.pop_front() {
                this.last_out = Instant::now();
                return Poll::Ready(Some(Ok(bytes)));
            }
            let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
            match upstream.poll_chunk(cx) {
                Poll::Ready(Some(Ok(chunk))) => this.take(chunk),
                Poll::Ready(Some(Err(error))) => {
                    this.break_off("api_error", "upstream connection lost", error.kind());
                }
                Poll::Ready(None) => this.end(),
                Poll::Pending => {
                    let alarm = ready!(this.poll_alarm(cx));
                    this.alarm(alarm);
                }
            }
        }
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        // Dropping the body cancels the request; what was seen until now is billed. A client may close as soon as it has read
        // the last event, before the upstream ends the body.
        let complete = self.tap.observed().complete;
        self.finish(if complete { Outcome::Ok } else { Outcome::ClientAborted }, None);
    }
}

/// Reads a whole answer of at most `limit` bytes. `idle` bounds each wait.
pub(crate) async fn read_whole(
    mut body: UpstreamBody,
    limit: usize,
    idle: Duration,
    mut first_byte: impl FnMut(),
) -> Result<Bytes, (ProviderError, u64)> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut size = 0_usize;
    loop {
        let next = std::future::poll_fn(|cx| body.poll_chunk(cx));
        let chunk = match tokio::time::timeout(idle, next).await {
            Err(_) => return Err((ProviderError::Silent, size as u64)),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err((error, size as u64)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        first_byte();
        size = size.saturating_add(chunk.len());
        if size > limit {
            return Err((ProviderError::TooLarge(limit), size as u64));
        }
        chunks.push(chunk);
    }
    Ok(match chunks.len() {
        0 => Bytes::new(),
        1 => chunks.swap_remove(0),
        _ => chunks.concat().into(),
    })
}

/// What a whole answer tells, decoded if need be, and the values in use that it holds.
pub(crate) fn observe_whole(
    body: &[u8],
    encoding: Encoding,
    limit: usize,
    in_use: &Scanner,
    secrets: &SecretScanner,
) -> (Observed, Vec<Hit>) {
    use std::io::Read as _;
    let look = |plain: &[u8]| {
        let mut observed = Observed::of_body(plain);
        // An answer that is too deep to be looked through is passed on all the same: what is found is only noted.
        let found = secrets.scan_segment(&Segment { pointer: "".into(), json: plain }).unwrap_or_default();
        note(&mut observed.secrets, &found);
        (observed, in_use.scan_request(plain))
    };
    match encoding {
        Encoding::Identity => look(body),
        Encoding::Gzip => {
            let mut plain = Vec::new();
            let read = flate2::read::GzDecoder::new(body).take(limit as u64).read_to_end(&mut plain);
            read.map(|_| look(&plain)).unwrap_or_default()
        }
        Encoding::Other => (Observed::default(), Vec::new()),
    }
}

/// Kind of the error of an answer that held a value in use.
pub(crate) const LEAK_ERROR: &str = "secret_leak";

/// What a client is told of an answer that held values in use. It names the secret.
pub(crate) fn leak_message(leaks: &[Hit]) -> String {
    let name = leaks.first().map_or("", |hit| &*hit.name);
    format!("the answer held the value of `{name}`, which is in use here; it is withheld")
}
