//! Redaction of text that arrives in pieces (SCR-63). Everything is released at once but the longest suffix that may begin a
//! pattern: at most 95 bytes, at most 7 when no anchor matched. Where the pieces are cut changes nothing. A stream is looked at
//! as it stands: what shows only in a reading of it is found where whole lines or messages are scanned.

use crate::redact::marker;
use crate::scanner::{Hit, Scanner};

/// Scans one stream. Feed it with [`push`](Self::push), end it with [`finish`](Self::finish).
pub struct StreamScanner {
    scanner: Scanner,
    /// Bytes that are not decided.
    held: Vec<u8>,
    /// So many of the held bytes are part of a value that was replaced already.
    covered: usize,
    /// Bytes of the stream before the held ones.
    before: usize,
}

impl StreamScanner {
    pub(crate) fn new(scanner: Scanner) -> Self {
        Self { scanner, held: Vec::new(), covered: 0, before: 0 }
    }

    /// Takes the next piece, appends what may leave to `out`, and says what was replaced in it.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Vec<Hit> {
        if self.held.is_empty() && self.scanner.is_empty() {
            out.extend_from_slice(piece);
            self.before += piece.len();
            return Vec::new();
        }
        self.held.extend_from_slice(piece);
        self.release(out, false)
    }

    /// Ends the stream: what was held leaves.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Vec<Hit> {
        self.release(out, true)
    }

    /// How many bytes wait for more.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn release(&mut self, out: &mut Vec<u8>, end: bool) -> Vec<Hit> {
        let index = self.scanner.index();
        let findings = index.find(&self.held);
        let until = if end { self.held.len() } else { findings.open_from };
        let mut hits = Vec::new();
        let mut done = self.covered;
        for region in findings.regions {
            if region.start < done && self.covered > 0 {
                // Goes on with what was replaced in an earlier piece.
                done = done.max(region.end);
                continue;
            }
            if region.start >= until {
                break;
            }
            out.extend_from_slice(self.held.get(done..region.start).unwrap_or_default());
            let name = index.name(&region);
            out.extend_from_slice(marker(&name).as_bytes());
            hits.push(Hit { name, form: region.form, offset: self.before + region.start });
            done = region.end;
        }
        out.extend_from_slice(self.held.get(done..until).unwrap_or_default());
        self.covered = done.saturating_sub(until);
        self.before += until;
        self.held.drain(..until);
        hits
    }
}
