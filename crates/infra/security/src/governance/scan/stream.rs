//! Text that comes in pieces (SEC-90). What is found depends on the text alone and not on where it was cut: the text is read in
//! steps whose places are a function of what stands in it, however it arrives.

use super::{Finding, MAX_FINDINGS, SecretScanner};
use super::{engine::Hit, finding, keywords::is_token};
use memchr::memmem;
use std::ops::Range;
use std::sync::Arc;

/// What is kept of the text before, so that a secret which is cut is found: the longest token of most rules.
pub const OVERLAP: usize = 512;
/// Text is read on when at least so much of it has come.
const STEP: usize = 256;
/// Most that is kept while a key in PEM form or a long token goes on.
const MAX_KEPT: usize = 20 * 1024;
const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const PEM_KIND: &[u8] = b"PRIVATE KEY";
const PEM_END: &[u8] = b"-----END ";

/// Finds secrets in a text that is given piece by piece. It keeps at most `MAX_KEPT` bytes and a step, and holds nothing back:
/// a finding comes with the piece that completes it, or up to an overlap later.
pub struct StreamScanner {
    scanner: Arc<SecretScanner>,
    /// The end of what was read, then what was not read yet.
    text: Vec<u8>,
    read: usize,
    /// Place of `text` in the whole.
    base: usize,
    /// What was told of the text kept, as places in the whole.
    told: Vec<(Arc<str>, Range<usize>)>,
    count: usize,
    pointer: Arc<str>,
}

impl std::fmt::Debug for StreamScanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamScanner").field("base", &self.base).finish_non_exhaustive()
    }
}

impl StreamScanner {
    /// A scanner of one text; its findings bear `pointer`.
    pub fn new(scanner: Arc<SecretScanner>, pointer: &str) -> Self {
        Self {
            scanner,
            text: Vec::new(),
            read: 0,
            base: 0,
            told: Vec::new(),
            count: 0,
            pointer: pointer.into(),
        }
    }

    /// Reads a piece; gives the findings that are certain by now, with their places in the whole text.
    pub fn push(&mut self, mut piece: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        while !piece.is_empty() {
            // The more is kept, the larger the next step, so that a long token costs no more than a few readings.
            let step = STEP.max(self.read / 2);
            let wanted = (self.read + step).saturating_sub(self.text.len());
            let (now, later) = piece.split_at(wanted.min(piece.len()));
            self.text.extend_from_slice(now);
            piece = later;
            if self.text.len() - self.read >= step {
                self.read(false, &mut findings);
            }
        }
        findings
    }

    /// The findings in what has not been told yet; the text is at its end.
    pub fn finish(mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.read(true, &mut findings);
        findings
    }

    fn read(&mut self, is_end: bool, findings: &mut Vec<Finding>) {
        let hits = if self.count < MAX_FINDINGS { self.scanner.hits_in_text(&self.text) } else { Vec::new() };
        let end = self.text.len();
        // With the character ahead, since rules look at it.
        let mut keep =
            end.saturating_sub(OVERLAP).min(self.open_token().min(self.open_pem()).saturating_sub(1));
        for hit in hits {
            // One that reaches the end may go on, and what stood there then may be another secret or none.
            if hit.span.end == end && !is_end {
                keep = keep.min(hit.span.start.saturating_sub(1));
                continue;
            }
            self.tell(hit, findings);
        }
        if is_end {
            return;
        }
        let keep = keep.max(end.saturating_sub(MAX_KEPT));
        self.text.drain(..keep);
        self.text.shrink_to(2 * MAX_KEPT);
        self.base += keep;
        self.read = self.text.len();
        let base = self.base;
        self.told.retain(|(_, span)| span.end > base);
    }

    fn tell(&mut self, hit: Hit, findings: &mut Vec<Finding>) {
        let span = self.base + hit.span.start..self.base + hit.span.end;
        // What begins where the kept text begins was seen before with what stands ahead of it.
        let cut = self.base > 0 && hit.span.start == 0;
        let known = |(rule, told): &(Arc<str>, Range<usize>)| {
            *rule == hit.rule && told.start < span.end && span.start < told.end
        };
        if cut || self.count >= MAX_FINDINGS || self.told.iter().any(known) {
            return;
        }
        self.count += 1;
        self.told.push((hit.rule.clone(), span.clone()));
        findings.push(finding(Hit { span, ..hit }, &self.pointer));
    }

    /// Where the token begins that reaches the end, which a later piece may complete.
    fn open_token(&self) -> usize {
        self.text.len() - self.text.iter().rev().take_while(|b| is_token(**b)).count()
    }

    /// Where a private key in PEM form begins whose end has not come.
    fn open_pem(&self) -> usize {
        let none = self.text.len();
        let Some(begin) = memmem::rfind(&self.text, PEM_BEGIN) else { return none };
        let rest = self.text.get(begin..).unwrap_or_default();
        let is_key = memmem::find(rest.get(..64).unwrap_or(rest), PEM_KIND).is_some() || rest.len() < 64;
        // The end's own line belongs to the key.
        let ended = memmem::find(rest, PEM_END).is_some_and(|at| rest.len() > at + 64);
        if is_key && !ended { begin } else { none }
    }
}
