//! Server-sent events (WHATWG HTML section 9.2), read at whatever places the chunks are cut.

use super::{Observed, Watch};
use std::sync::Arc;
use systemprompt_leak::{Hit, Scanner};
use systemprompt_security::governance::SecretScanner;

/// Longest event that is read; a longer one passes unread.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// What the buffers keep of their room after a long event.
const KEPT_BYTES: usize = 16 * 1024;

/// Watches a stream of events.
#[derive(Debug, Default)]
pub struct SseTap {
    /// The part of a line whose end has not come.
    line: Vec<u8>,
    /// The data lines of the event whose end has not come.
    data: Vec<u8>,
    too_long: bool,
    after_cr: bool,
    at_boundary: bool,
    seen: Observed,
    watch: Watch,
}

impl SseTap {
    /// A tap that also looks for values in use.
    pub fn watching(in_use: Scanner) -> Self {
        Self { watch: Watch::new(in_use), ..Self::default() }
    }

    /// Values in use that were found up to now. The chunk that was read last completes the first of them.
    pub fn leaks(&self) -> &[Hit] {
        self.watch.found()
    }

    /// Reads a chunk. Answers where in it the last event ended, if one did: the bytes up to there are whole events.
    pub fn feed(&mut self, chunk: &[u8]) -> Option<usize> {
        self.watch.bytes(chunk);
        let mut boundary = None;
        let mut at = 0;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            // The second half of a CRLF.
            if std::mem::take(&mut self.after_cr) && rest.first() == Some(&b'\n') {
                at += 1;
                if self.at_boundary {
                    boundary = Some(at);
                }
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.at_boundary = false;
                self.keep(rest);
                break;
            };
            self.after_cr = rest.get(end) == Some(&b'\r');
            at += end + 1;
            self.at_boundary = self.end_of_line(rest.get(..end).unwrap_or_default());
            if self.at_boundary {
                boundary = Some(at);
            }
        }
        boundary
    }

    /// Bytes that its buffers take.
    pub fn memory(&self) -> usize {
        self.line.capacity() + self.data.capacity()
    }

    pub fn observed(&self) -> &Observed {
        &self.seen
    }

    /// Also notes what has the form of a secret.
    pub fn noting(&mut self, secrets: Arc<SecretScanner>) {
        self.watch.noting(secrets);
    }

    /// What was seen, of an answer whose end has come.
    pub fn take_observed(&mut self) -> Observed {
        let mut seen = std::mem::take(&mut self.seen);
        seen.secrets = self.watch.take_noted();
        seen
    }

    pub fn into_observed(mut self) -> Observed {
        self.take_observed()
    }

    fn keep(&mut self, part: &[u8]) {
        if self.too_long || self.line.len() + self.data.len() + part.len() > MAX_EVENT_BYTES {
            self.too_long = true;
            // Only whether the line is blank still counts.
            self.line.clear();
            self.line.push(b':');
        } else {
            self.line.extend_from_slice(part);
        }
    }

    /// Takes the end of a line; answers whether it was a blank one, which ends an event.
    fn end_of_line(&mut self, tail: &[u8]) -> bool {
        if self.line.is_empty() {
            return self.take_line_of(tail);
        }
        self.keep(tail);
        let line = std::mem::take(&mut self.line);
        let blank = self.take_line_of(&line);
        self.line = line;
        self.line.clear();
        self.line.shrink_to(KEPT_BYTES);
        blank
    }

    fn take_line_of(&mut self, line: &[u8]) -> bool {
        if line.is_empty() {
            if !self.data.is_empty() && !self.too_long {
                self.seen.event(&self.data, &mut self.watch);
            }
            self.data.clear();
            self.data.shrink_to(KEPT_BYTES);
            self.too_long = false;
            return true;
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if self.data.len() + data.len() > MAX_EVENT_BYTES {
                self.too_long = true;
            } else {
                // The space after the colon and the line feed between data lines are white space to JSON.
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data);
            }
        }
        false
    }
}
