//! Finding secrets in one decoded string: as it stands, folded, unescaped, and in what its encoded parts hold, two layers deep.

use super::FindingClass;
use super::decode;
use super::entropy::{GENERIC, looks_random};
use super::fold::Folding;
use super::keywords::{MAX_BREAKS, is_token};
use super::mapped::Mapped;
use super::rules::{Rule, RuleSet};
use super::{Confidence, FindingKey};
use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};
use std::ops::Range;
use std::sync::Arc;

/// Most findings of one string, of each class.
const MAX_HITS: usize = 64;
/// How many encodings may be wrapped around each other.
pub(super) const LAYERS: u8 = 2;

/// A secret in a string: the rule, and where it stands there (in its encoded form, if it is encoded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) rule: Arc<str>,
    pub(super) class: FindingClass,
    pub(super) confidence: Confidence,
    pub(super) span: Range<usize>,
    pub(super) hmac: Box<str>,
}

/// What a scan needs.
#[derive(Clone, Copy)]
pub(super) struct Engine<'a> {
    pub(super) rules: &'a RuleSet,
    pub(super) folding: &'a Folding,
    pub(super) key: &'a FindingKey,
    pub(super) generic: &'a Arc<str>,
}

impl Engine<'_> {
    /// All secrets of a string, each once, in order.
    pub(super) fn scan(&self, text: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.random(text, &mut hits);
        self.layer(text, LAYERS, &mut hits);
        once(hits)
    }

    /// Text, and what its encoded parts hold, so many layers deep.
    fn layer(&self, text: &[u8], layers: u8, hits: &mut Vec<Hit>) {
        self.plain(text, hits);
        if layers == 0 {
            return;
        }
        decode::each(text, &mut |decoded| {
            let mut inner = Vec::new();
            self.layer(&decoded.text, layers - 1, &mut inner);
            lead_back(decoded, inner, hits);
            true
        });
    }

    /// Text as it stands, and folded if it holds disguised characters.
    fn plain(&self, text: &[u8], hits: &mut Vec<Hit>) {
        self.rules(text, hits);
        if let Some(folded) = self.folding.fold(text) {
            let mut inner = Vec::new();
            self.rules(&folded.text, &mut inner);
            lead_back(&folded, inner, hits);
        }
    }

    fn rules(&self, text: &[u8], hits: &mut Vec<Hit>) {
        let mut candidates = Vec::new();
        self.rules.keywords.each(text, &mut |at, found| {
            candidates.push((found.rule, at));
            true
        });
        candidates.sort_unstable();
        candidates.dedup();
        let mut last = (usize::MAX, 0);
        for (index, at) in candidates {
            let Some(rule) = self.rules.rules.get(index).filter(|_| last.0 != index || at >= last.1) else {
                continue;
            };
            if let Some(found) = find(rule, text, at) {
                last = (index, found.end);
                let secret = text.get(found.clone()).unwrap_or_default();
                if let Some(confidence) = rule.judge(secret) {
                    self.push(hits, &rule.id, rule.class, confidence, secret, found);
                }
            } else if let Some(joined) = rule.wraps.then(|| unwrapped(text, at, rule)).flatten()
                && let Some(found) = find(rule, &joined.text, at.min(rule.before))
            {
                let secret = joined.text.get(found.clone()).unwrap_or_default();
                if let Some(confidence) = rule.judge(secret) {
                    let place = joined.origin(found.clone());
                    last = (index, place.end);
                    self.push(hits, &rule.id, rule.class, confidence, secret, place);
                }
            }
        }
    }

    /// Runs that look random.
    fn random(&self, text: &[u8], hits: &mut Vec<Hit>) {
        let mut from = 0;
        while let Some(run) = decode::next_run(text, from) {
            from = run.end;
            let bytes = text.get(run.clone()).unwrap_or_default();
            if looks_random(bytes) {
                self.push(hits, self.generic, FindingClass::Generic, Confidence::Low, bytes, run);
            }
        }
    }

    fn push(
        &self,
        hits: &mut Vec<Hit>,
        rule: &Arc<str>,
        class: FindingClass,
        confidence: Confidence,
        secret: &[u8],
        span: Range<usize>,
    ) {
        if hits.iter().filter(|h| h.class == class).count() < MAX_HITS {
            hits.push(Hit { rule: rule.clone(), class, confidence, span, hmac: self.key.digest(secret) });
        }
    }
}

/// The secret of the rule's match at the keyword that stands at `at`.
fn find(rule: &Rule, text: &[u8], at: usize) -> Option<Range<usize>> {
    let end = text.len().min(at + rule.after);
    let Some(regex) = rule.regex() else { return Some(at..end) };
    if rule.before == 0 {
        let input = Input::new(text).span(at..end).anchored(Anchored::Yes);
        return regex.is_match(input.clone()).then(|| secret(rule, regex, &input)).flatten();
    }
    let mut start = at.saturating_sub(rule.before);
    while start <= at {
        let found = regex.find(Input::new(text).span(start..end))?;
        if found.start() > at {
            return None;
        }
        if found.end() > at {
            return secret(rule, regex, &Input::new(text).span(found.start()..end).anchored(Anchored::Yes));
        }
        start = found.end().max(start + 1);
    }
    None
}

fn secret(rule: &Rule, regex: &Regex, input: &Input<'_>) -> Option<Range<usize>> {
    let mut captures = regex.create_captures();
    regex.search_captures(input, &mut captures);
    captures.get_group(rule.group).or_else(|| captures.get_group(0)).map(|s| s.range())
}

/// The text around a keyword at `at` without the line breaks that part the keyword's word, with the blanks behind them; none if that word is
/// whole.
fn unwrapped(text: &[u8], at: usize, rule: &Rule) -> Option<Mapped> {
    let window = text.get(at..text.len().min(at + rule.after))?;
    let before = at - at.min(rule.before);
    let mut joined = Mapped::default();
    joined.copy(text.get(before..at)?, before);
    let mut from = 0;
    for _ in 0..MAX_BREAKS {
        let rest = window.get(from..)?;
        let word = rest.iter().take_while(|b| is_token(**b)).count();
        let gap = rest.iter().skip(word).take_while(|b| matches!(b, b'\n' | b'\r' | b' ' | b'\t')).count();
        let parted = matches!(rest.get(word), Some(b'\n' | b'\r'))
            && rest.get(word + gap).is_some_and(|b| is_token(*b));
        if !parted {
            break;
        }
        joined.copy(rest.get(..word)?, at + from);
        from += word + gap;
    }
    if from == 0 {
        return None;
    }
    joined.copy(window.get(from..)?, at + from);
    Some(joined)
}

fn lead_back(mapped: &Mapped, inner: Vec<Hit>, hits: &mut Vec<Hit>) {
    for hit in inner {
        let span = mapped.origin(hit.span.clone());
        // Of one place that reads differently decoded, the first reading counts.
        if mapped.is_whole() || !hits.iter().any(|known| known.rule == hit.rule && known.span == span) {
            hits.push(Hit { span, ..hit });
        }
    }
}

/// Each secret once: of overlapping hits of one rule the longest, and no generic hit where a specific rule knows better.
pub(super) fn once(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by(|a, b| {
        (a.class, b.span.len(), a.span.start, &a.rule).cmp(&(b.class, a.span.len(), b.span.start, &b.rule))
    });
    let mut kept: Vec<Hit> = Vec::with_capacity(hits.len());
    for hit in hits {
        if !kept.iter().any(|k| covers(k, &hit)) {
            kept.push(hit);
        }
    }
    kept.sort_by(|a, b| (a.span.start, a.span.end, &a.rule).cmp(&(b.span.start, b.span.end, &b.rule)));
    kept
}

/// Whether `hit` says nothing that `kept` does not say.
fn covers(kept: &Hit, hit: &Hit) -> bool {
    let overlap = kept.span.start < hit.span.end && hit.span.start < kept.span.end;
    // Two secrets within one encoded run share its span, but not their digest.
    let apart = kept.span == hit.span && kept.hmac != hit.hmac;
    overlap && (*hit.rule == *GENERIC || hit.class > kept.class || kept.rule == hit.rule && !apart)
}
