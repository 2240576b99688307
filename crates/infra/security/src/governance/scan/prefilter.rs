//! The first look at a raw segment, without parsing it: where might a string hold a secret? It may say yes too often,
//! never too seldom: whatever the full walk finds lies in a string that holds one of the places given here. A property
//! test holds that. Ordinary text gives no place at all, and then the segment is done.
//!
//! A place is: a keyword with plausible characters behind it; a `\u` escape or an escaped slash that could be part of a
//! keyword or token; a disguised character near a keyword; percent-encoded or base64 text that decodes to a keyword; a
//! run that looks random.

use super::decode;
use super::engine::LAYERS;
use super::entropy::looks_random;
use super::fold::{Fold, Folding};
use super::rules::RuleSet;
use std::ops::Range;

/// Places beyond this number are not told apart: every string is looked at.
const MAX_PLACES: usize = 4096;
/// Bytes around a disguised character in which a keyword, or the characters behind it, may be interrupted by it.
const NEAR: usize = 64;

/// Where strings have to be looked at.
pub(super) struct Places {
    sorted: Vec<usize>,
    everywhere: bool,
}

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty() && !self.everywhere
    }

    /// Whether the string at `span` has to be looked at.
    pub(super) fn touch(&self, span: &Range<usize>) -> bool {
        let first = self.sorted.partition_point(|p| *p < span.start);
        self.everywhere || self.sorted.get(first).is_some_and(|p| *p < span.end)
    }
}

/// The places of a raw segment.
pub(super) fn places(rules: &RuleSet, folding: &Folding, raw: &[u8]) -> Places {
    let mut look = Look { rules, folding, raw, places: Vec::new() };
    look.keywords();
    look.escapes();
    look.disguises();
    look.percent();
    look.base64();
    let mut sorted = look.places;
    let everywhere = sorted.len() >= MAX_PLACES;
    sorted.sort_unstable();
    Places { sorted, everywhere }
}

struct Look<'a> {
    rules: &'a RuleSet,
    folding: &'a Folding,
    raw: &'a [u8],
    places: Vec<usize>,
}

impl Look<'_> {
    /// Adds a place; false when there are enough.
    fn add(places: &mut Vec<usize>, at: usize) -> bool {
        places.push(at);
        places.len() < MAX_PLACES
    }

    fn keywords(&mut self) {
        let places = &mut self.places;
        self.rules.keywords.each(self.raw, &mut |at, _| Self::add(places, at));
    }

    fn escapes(&mut self) {
        for at in memchr::memmem::find_iter(self.raw, b"\\u") {
            let (c, len) = decode::escape(self.raw, at);
            let hides = u8::try_from(c).is_ok_and(|b| b < 0x80 && decode::may_be_keyword(b))
                || self.folding.of(u32::from(c)) != Fold::Keep;
            if len > 1 && hides && !Self::add(&mut self.places, at) {
                return;
            }
        }
        for at in memchr::memmem::find_iter(self.raw, b"\\/") {
            if !Self::add(&mut self.places, at) {
                return;
            }
        }
    }

    /// Disguised characters near each other are folded together with the text around them; if that holds a keyword,
    /// each of them is a place.
    fn disguises(&mut self) {
        let mut next = self.folding.next(self.raw, 0);
        while let Some(found) = next {
            let mut group = vec![found.start];
            let mut end = found.end;
            next = self.folding.next(self.raw, end);
            while let Some(more) = next.clone().filter(|n| n.start < end + NEAR) {
                group.push(more.start);
                end = more.end;
                next = self.folding.next(self.raw, end);
            }
            let around = found.start.saturating_sub(NEAR)..self.raw.len().min(end + NEAR);
            let folded = self.raw.get(around).and_then(|text| self.folding.fold(text));
            if folded.is_some_and(|f| self.rules.keywords.any(&f.text)) {
                self.places.extend(group);
                if self.places.len() >= MAX_PLACES {
                    return;
                }
            }
        }
    }

    fn percent(&mut self) {
        let mut from = 0;
        while let Some(word) = decode::next_percent_word(self.raw, from) {
            from = word.end;
            let start = word.start;
            let decoded = decode::percent_decode(self.raw, word);
            if self.has_keyword(&decoded.text) && !Self::add(&mut self.places, start) {
                return;
            }
        }
    }

    fn base64(&mut self) {
        let mut from = 0;
        while let Some(run) = decode::next_run(self.raw, from) {
            from = run.end;
            let plain = self.run_matters(run.clone()) || self.run_matters(self.behind_escape(&run));
            if plain && !Self::add(&mut self.places, run.start) {
                return;
            }
        }
    }

    /// The run without the letters of an escape that it seems to begin with, as in `\nQUtJ`.
    fn behind_escape(&self, run: &Range<usize>) -> Range<usize> {
        if run.start.checked_sub(1).and_then(|at| self.raw.get(at)) != Some(&b'\\') {
            return run.end..run.end;
        }
        let letters = if self.raw.get(run.start) == Some(&b'u') { 5 } else { 1 };
        (run.start + letters).min(run.end)..run.end
    }

    fn run_matters(&self, run: Range<usize>) -> bool {
        let Some(line) = self.raw.get(run.clone()).filter(|l| l.len() >= decode::MIN_RUN) else {
            return false;
        };
        if looks_random(line) {
            return true;
        }
        let breaks = matches!(self.raw.get(run.end), Some(b'\\' | b'\n' | b'\r'));
        if breaks && decode::may_wrap(line) && decode::looks_like_text(line) {
            return true;
        }
        decode::decode_run(self.raw, run).is_some_and(|d| self.has_keyword(&d.text))
    }

    /// Whether decoded text, or what is encoded in it once more, holds a keyword.
    fn has_keyword(&self, text: &[u8]) -> bool {
        self.within(text, LAYERS - 1)
    }

    fn within(&self, text: &[u8], layers: u8) -> bool {
        let keywords = &self.rules.keywords;
        if keywords.any(text) || self.folding.fold(text).is_some_and(|f| keywords.any(&f.text)) {
            return true;
        }
        let mut found = false;
        if layers > 0 {
            decode::each(text, &mut |decoded| {
                found = self.within(&decoded.text, layers - 1);
                !found
            });
        }
        found
    }
}
