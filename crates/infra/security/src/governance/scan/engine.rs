//! Finding secrets in one decoded string: as it stands, folded, unescaped, and in what its encoded parts hold.

use super::FindingClass;
use super::decode;
use super::entropy::{GENERIC, looks_random};
use super::fold::Folding;
use super::mapped::Mapped;
use super::rules::{Rule, RuleSet};
use super::{Confidence, FindingKey};
use regex_automata::{Anchored, Input};
use std::ops::Range;
use std::sync::Arc;

/// Most findings of one string, of each class.
const MAX_HITS: usize = 64;

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
        self.plain(text, &mut hits);
        self.random(text, &mut hits);
        if memchr::memchr(b'\\', text).is_some() {
            self.decoded(&decode::unescape(text), &mut hits);
        }
        let mut from = 0;
        while let Some(word) = decode::next_percent_word(text, from) {
            from = word.end;
            self.decoded(&decode::percent_decode(text, word), &mut hits);
        }
        let mut from = 0;
        while let Some(run) = decode::next_run(text, from) {
            from = run.end;
            if let Some(decoded) = decode::decode_run(text, run) {
                self.decoded(&decoded, &mut hits);
            }
        }
        once(hits)
    }

    /// Text that was decoded from another one.
    fn decoded(&self, decoded: &Mapped, hits: &mut Vec<Hit>) {
        let mut inner = Vec::new();
        self.plain(&decoded.text, &mut inner);
        lead_back(decoded, inner, hits);
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
            let Some(found) = find(rule, text, at) else { continue };
            last = (index, found.end);
            let secret = text.get(found.clone()).unwrap_or_default();
            if let Some(confidence) = rule.judge(secret) {
                self.push(hits, &rule.id, rule.class, confidence, secret, found);
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
    if rule.before == 0 {
        let input = Input::new(text).span(at..end).anchored(Anchored::Yes);
        return rule.regex.is_match(input.clone()).then(|| secret(rule, input)).flatten();
    }
    let mut start = at.saturating_sub(rule.before);
    while start <= at {
        let found = rule.regex.find(Input::new(text).span(start..end))?;
        if found.start() > at {
            return None;
        }
        if found.end() > at {
            return secret(rule, Input::new(text).span(found.start()..end).anchored(Anchored::Yes));
        }
        start = found.end().max(start + 1);
    }
    None
}

fn secret(rule: &Rule, input: Input<'_>) -> Option<Range<usize>> {
    let mut captures = rule.regex.create_captures();
    rule.regex.search_captures(&input, &mut captures);
    captures.get_group(rule.group).or_else(|| captures.get_group(0)).map(|s| s.range())
}

fn lead_back(mapped: &Mapped, inner: Vec<Hit>, hits: &mut Vec<Hit>) {
    hits.extend(inner.into_iter().map(|hit| Hit { span: mapped.origin(hit.span.clone()), ..hit }));
}

/// Each secret once: of overlapping hits of one rule the longest, and no generic hit where a specific rule knows better.
fn once(mut hits: Vec<Hit>) -> Vec<Hit> {
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
