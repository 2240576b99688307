//! The first look at a raw segment, without parsing it: where might a string hold a secret? It may say yes too often,
//! never too seldom: whatever the full walk finds lies in a string that holds one of the places given here. A property
//! test holds that. Ordinary text gives no place at all, and then the segment is done.
//!
//! A place is: a keyword with plausible characters behind it; a `\u` escape or an escaped slash that could be part of a
//! keyword or token; a disguised character near a keyword; percent-encoded or base64 text that decodes to a keyword; a
//! run that looks random.

use super::decode::{self, is_base64};
use super::engine::LAYERS;
use super::entropy::looks_random;
use super::fold::{Fold, Folding};
use super::keywords::break_len;
use super::rules::RuleSet;
use std::ops::Range;

/// With more places than these, or than one in so many bytes of a long segment, they are not told apart: every string is looked
/// at.
const MAX_PLACES: usize = 4096;
const BYTES_A_PLACE: usize = 64;
/// Bytes around percent-encoded words that decide whether a keyword there counts.
const AROUND: usize = 512;
/// A line of base64 that begins with so many characters may continue the one before.
const MIN_NEXT: usize = 8;
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
    let room = MAX_PLACES.max(raw.len() / BYTES_A_PLACE);
    let mut look = Look { rules, folding, raw, room, places: Vec::new() };
    look.keywords();
    look.escapes();
    look.disguises();
    look.percent();
    look.base64();
    let mut sorted = look.places;
    let everywhere = sorted.len() >= room;
    sorted.sort_unstable();
    Places { sorted, everywhere }
}

struct Look<'a> {
    rules: &'a RuleSet,
    folding: &'a Folding,
    raw: &'a [u8],
    room: usize,
    places: Vec<usize>,
}

impl Look<'_> {
    /// Adds a place; false when there are enough.
    fn add(&mut self, at: usize) -> bool {
        self.places.push(at);
        self.places.len() < self.room
    }

    fn keywords(&mut self) {
        let (rules, raw) = (self.rules, self.raw);
        rules.keywords.each(raw, &mut |at, _| self.add(at));
    }

    fn escapes(&mut self) {
        for at in memchr::memmem::find_iter(self.raw, b"\\u") {
            let (c, len) = decode::escape(self.raw, at);
            let hides = u8::try_from(c).is_ok_and(|b| b < 0x80 && decode::may_be_keyword(b))
                || self.folding.of(u32::from(c)) != Fold::Keep;
            if len > 1 && hides && !self.add(at) {
                return;
            }
        }
        for at in memchr::memmem::find_iter(self.raw, b"\\/") {
            if !self.add(at) {
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
                if self.places.len() >= self.room {
                    return;
                }
            }
        }
    }

    /// Percent-encoded characters near each other are resolved together with the words that they stand in and the text around.
    fn percent(&mut self) {
        let mut next = decode::next_percent(self.raw, 0);
        let mut floor = 0;
        while let Some(first) = next {
            let start = decode::word_start(self.raw, floor, first);
            let mut end = decode::word_end(self.raw, first);
            let mut group = vec![first];
            next = decode::next_percent(self.raw, first + 1);
            while let Some(more) = next.filter(|more| *more < end + AROUND) {
                if more >= end {
                    end = decode::word_end(self.raw, more);
                    // One place for each word: strings begin and end between words.
                    group.push(more);
                }
                next = decode::next_percent(self.raw, more + 1);
            }
            floor = end;
            let around = start.saturating_sub(AROUND)..self.raw.len().min(end + AROUND);
            let text = self.raw.get(around).unwrap_or_default();
            let holds = |plus| {
                decode::percent_decode(text, plus).is_some_and(|decoded| self.has_keyword(&decoded.text))
            };
            if holds(false) || decode::is_form(text) && holds(true) {
                self.places.extend(group);
                if self.places.len() >= self.room {
                    return;
                }
            }
        }
    }

    fn base64(&mut self) {
        let mut from = 0;
        while let Some(run) = decode::next_run(self.raw, from) {
            let (end, matters) = self.run_matters(run.clone());
            from = end;
            let behind = self.behind_escape(&run);
            if (matters || !behind.is_empty() && self.run_matters(behind).1) && !self.add(run.start) {
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

    /// Where the encoding ends that a run begins, and whether it has to be looked at.
    fn run_matters(&self, run: Range<usize>) -> (usize, bool) {
        let Some(line) = self.raw.get(run.clone()).filter(|l| l.len() >= decode::MIN_RUN) else {
            return (run.end, false);
        };
        if looks_random(line) {
            return (run.end, true);
        }
        let rest = self.raw.get(run.end..).unwrap_or_default();
        let gap = break_len(rest);
        if gap > 0 {
            let next = rest.iter().skip(gap).take(MIN_NEXT).take_while(|b| is_base64(**b)).count();
            if next >= MIN_NEXT || decode::holds_text(line) {
                return (run.end, true);
            }
        }
        let mut found = false;
        let end = decode::decode_run(self.raw, run, &mut |decoded| {
            found = self.has_keyword(&decoded.text);
            !found
        });
        (end, found)
    }

    /// Whether decoded text, or what is encoded in it once more, holds a keyword with plausible characters behind it.
    fn has_keyword(&self, text: &[u8]) -> bool {
        self.within(text, LAYERS - 1)
    }

    fn within(&self, text: &[u8], layers: u8) -> bool {
        let is_plausible = |text: &[u8]| {
            let mut found = false;
            self.rules.keywords.each(text, &mut |_, _| {
                found = true;
                false
            });
            found
        };
        if is_plausible(text) || self.folding.fold(text).is_some_and(|f| is_plausible(&f.text)) {
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
