//! The automaton over the values in use. It finds anchors, the first eight bytes of every pattern, and compares the rest in
//! place: so it stays small when there are many values, and at most 95 bytes of a stream can ever be undecided.

use crate::forms::{Form, FormText};
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a pattern that the automaton looks for.
const ANCHOR: usize = 8;
/// A form longer than this is cut into windows (SCR-61).
const MAX_PATTERN: usize = 96;
/// Length of a window.
const WINDOW: usize = 64;
/// Distance between windows: any 95 bytes of a long form hold a whole window.
const STRIDE: usize = 32;
/// Up to so many anchors the automaton is a full table, which is faster and larger (about 4 KiB an anchor).
const TABLE_ANCHORS: usize = 512;

/// A value with its forms.
pub(crate) struct Guarded {
    pub name: Arc<str>,
    pub texts: Vec<FormText>,
}

impl Guarded {
    pub(crate) fn bytes(&self) -> usize {
        self.texts.iter().map(|t| t.bytes.len()).sum()
    }
}

/// A pattern: a part of one form of one value.
struct Pattern {
    value: usize,
    text: usize,
    range: Range<usize>,
}

/// A pattern that was found.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    pub start: usize,
    pub end: usize,
    pub value: usize,
    pub form: Form,
}

/// What a text holds.
pub(crate) struct Findings {
    /// Non-overlapping, in order.
    pub regions: Vec<Match>,
    /// From here on the text may be the beginning of a pattern.
    pub open_from: usize,
}

/// Immutable; a change of the values makes a new one.
#[derive(Default)]
pub(crate) struct Index {
    values: Vec<Arc<Guarded>>,
    /// Sorted by their bytes, so that those of one anchor stand together.
    patterns: Vec<Pattern>,
    /// Per anchor, its patterns; the anchors are in order.
    groups: Vec<Range<usize>>,
    automaton: Option<AhoCorasick>,
}

impl Index {
    pub(crate) fn build(values: Vec<Arc<Guarded>>) -> Result<Self, aho_corasick::BuildError> {
        let mut index = Self { patterns: patterns(&values), values, groups: Vec::new(), automaton: None };
        let mut order: Vec<usize> = (0..index.patterns.len()).collect();
        order.sort_by(|a, b| index.bytes_at(*a).cmp(index.bytes_at(*b)));
        order.dedup_by(|a, b| index.bytes_at(*a) == index.bytes_at(*b));
        let mut slots: Vec<Option<Pattern>> =
            std::mem::take(&mut index.patterns).into_iter().map(Some).collect();
        index.patterns = order.iter().filter_map(|i| slots.get_mut(*i).and_then(Option::take)).collect();

        let mut from = 0;
        for i in 1..=index.patterns.len() {
            if i == index.patterns.len() || index.anchor(i) != index.anchor(from) {
                index.groups.push(from..i);
                from = i;
            }
        }
        if index.groups.is_empty() {
            return Ok(index);
        }
        let kind = if index.groups.len() <= TABLE_ANCHORS {
            AhoCorasickKind::DFA
        } else {
            AhoCorasickKind::ContiguousNFA
        };
        let anchors = index.groups.iter().map(|group| index.anchor(group.start));
        index.automaton = Some(AhoCorasick::builder().kind(Some(kind)).prefilter(false).build(anchors)?);
        Ok(index)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.automaton.is_none()
    }

    pub(crate) fn name(&self, found: &Match) -> Arc<str> {
        self.values.get(found.value).map_or_else(|| Arc::from(""), |v| v.name.clone())
    }

    fn bytes(&self, pattern: &Pattern) -> &[u8] {
        let text = self.values.get(pattern.value).and_then(|v| v.texts.get(pattern.text));
        text.and_then(|t| t.bytes.get(pattern.range.clone())).unwrap_or_default()
    }

    fn bytes_at(&self, i: usize) -> &[u8] {
        self.patterns.get(i).map(|p| self.bytes(p)).unwrap_or_default()
    }

    fn anchor(&self, i: usize) -> &[u8] {
        let bytes = self.bytes_at(i);
        bytes.get(..ANCHOR).unwrap_or(bytes)
    }

    fn form(&self, pattern: &Pattern) -> Form {
        let text = self.values.get(pattern.value).and_then(|v| v.texts.get(pattern.text));
        text.map_or(Form::Plain, |t| t.form)
    }

    /// Everything that `text` holds, and where it could still become something.
    pub(crate) fn find(&self, text: &[u8]) -> Findings {
        let mut open_from = text.len();
        let mut matches = Vec::new();
        let Some(automaton) = &self.automaton else { return Findings { regions: matches, open_from } };
        for anchor in automaton.find_overlapping_iter(text) {
            let rest = text.get(anchor.start()..).unwrap_or_default();
            let group = self.groups.get(anchor.pattern().as_usize()).cloned().unwrap_or_default();
            for pattern in self.patterns.get(group).unwrap_or_default() {
                let bytes = self.bytes(pattern);
                if rest.starts_with(bytes) {
                    let end = anchor.start() + bytes.len();
                    let (value, form) = (pattern.value, self.form(pattern));
                    matches.push(Match { start: anchor.start(), end, value, form });
                } else if bytes.starts_with(rest) {
                    open_from = open_from.min(anchor.start());
                }
            }
        }
        let tail = text.len().saturating_sub(ANCHOR - 1)..text.len();
        let begins = tail.into_iter().find(|at| text.get(*at..).is_some_and(|rest| self.begins_anchor(rest)));
        Findings { regions: merge(matches), open_from: begins.map_or(open_from, |at| open_from.min(at)) }
    }

    fn begins_anchor(&self, rest: &[u8]) -> bool {
        let first = self.groups.partition_point(|group| self.anchor(group.start) < rest);
        self.groups.get(first).is_some_and(|group| self.anchor(group.start).starts_with(rest))
    }

    /// Regions of `text`, those included that only show with the white space taken out.
    pub(crate) fn regions(&self, text: &[u8]) -> Vec<Match> {
        let mut found = self.find(text).regions;
        if text.iter().any(u8::is_ascii_whitespace) {
            found.extend(self.wrapped(text));
            found = merge(found);
        }
        found
    }

    /// Base64 and hex that an encoder broke into lines.
    fn wrapped(&self, text: &[u8]) -> Vec<Match> {
        let solid: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        let mut found = self.find(&solid).regions;
        found.retain(|m| m.form.is_wrapped());
        if found.is_empty() {
            return found;
        }
        let places: Vec<usize> =
            text.iter().enumerate().filter(|(_, b)| !b.is_ascii_whitespace()).map(|(at, _)| at).collect();
        for m in &mut found {
            let place = |at: usize| places.get(at).copied().unwrap_or(text.len());
            (m.start, m.end) = (place(m.start), place(m.end - 1) + 1);
        }
        found
    }
}

fn patterns(values: &[Arc<Guarded>]) -> Vec<Pattern> {
    let mut list = Vec::new();
    for (value, guarded) in values.iter().enumerate() {
        for (text, form) in guarded.texts.iter().enumerate() {
            list.extend(windows(form.bytes.len()).map(|range| Pattern { value, text, range }));
        }
    }
    list
}

/// The whole of a short form; overlapping windows of a long one, the last at its end.
fn windows(length: usize) -> impl Iterator<Item = Range<usize>> {
    let whole = (length <= MAX_PATTERN).then_some(0..length);
    let last = length.saturating_sub(WINDOW);
    let starts = if whole.is_some() { 0..0 } else { 0..last };
    let tail = whole.is_none().then_some(last..length);
    whole.into_iter().chain(starts.step_by(STRIDE).map(|at| at..at + WINDOW)).chain(tail)
}

/// Joins what overlaps. A region bears the name of what begins first, of the longest if several do.
fn merge(mut matches: Vec<Match>) -> Vec<Match> {
    matches.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
    let mut regions: Vec<Match> = Vec::with_capacity(matches.len());
    for m in matches {
        match regions.last_mut() {
            Some(last) if m.start < last.end => last.end = last.end.max(m.end),
            _ => regions.push(m),
        }
    }
    regions
}
