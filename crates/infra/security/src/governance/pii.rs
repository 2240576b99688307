//! `pii` (SEC-91): personal data in what leaves. It flags unless told otherwise, and blocks only what it can vouch for: a number
//! whose check digits are right, an address that parses, or a pattern that a word beside it explains.

mod recognise;
#[cfg(test)]
mod tests;

use super::allow::AllowList;
use super::facts::{CallFacts, Segment};
use super::findings::{self, Action, Words};
use super::kinds::Kinds;
use super::params::ParamError;
use super::policy::{GovernancePolicy, Outcome, Reads};
use super::scan::{Confidence, Finding, MAX_FINDINGS, SecretScanner, TooComplex};
use super::seen_text::SeenText;
use recognise::{RECOGNISERS, Recogniser};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

pub const ID: &str = "pii";

const WORDS: Words =
    Words { reason: "personal_data", what: "personal data", advice: "leave it out or mask it" };

/// Whether this policy makes findings of this name.
pub(super) fn knows(id: &str) -> bool {
    RECOGNISERS.iter().any(|r| r.id() == id)
}

/// A match: its kind, its place in the text, and how sure it is.
type Hit = (&'static str, Range<usize>, Confidence);

/// The compiled policy.
pub struct Pii {
    scanner: Arc<SecretScanner>,
    allowed: AllowList,
    seen: SeenText,
    kinds: Kinds,
}

impl Pii {
    pub fn new(params: &Value, scanner: Arc<SecretScanner>, allowed: AllowList) -> Result<Self, ParamError> {
        let kinds = Kinds::read(params, RECOGNISERS.iter().map(Recogniser::id), "personal data")?;
        let seen = SeenText::new();
        Ok(Self { scanner, allowed, seen, kinds })
    }

    /// What a finding leads to. One without a valid check and without a word that explains it is flagged at most.
    fn action(&self, finding: &Finding) -> Action {
        let wanted = self.kinds.action(&finding.rule_id);
        if finding.confidence == Confidence::Low { wanted.min(Action::Flag) } else { wanted }
    }

    fn look(&self, segment: &Segment<'_>) -> Result<Vec<Finding>, TooComplex> {
        let mut findings = Vec::new();
        if !recognise::may_hold(segment.json) {
            return Ok(findings);
        }
        self.scanner.strings(segment.json, &mut |given, pointer| {
            if findings.len() >= MAX_FINDINGS {
                return;
            }
            // Digits of full width are digits, and a space that does not break is a space.
            let folded = self.scanner.plain_text(given);
            let plain = folded.as_ref().map_or(given, |(plain, _)| plain);
            if !recognise::may_hold(plain.as_bytes()) {
                return;
            }
            let text = &*recognise::without_long_words(plain);
            let mut hits: Vec<Hit> = Vec::new();
            for recogniser in &RECOGNISERS {
                recogniser.find(text, &mut |span, confidence| {
                    if hits.len() < MAX_FINDINGS {
                        hits.push((recogniser.id(), span, confidence));
                    }
                });
            }
            for (kind, span, confidence) in hits.iter().filter(|hit| !is_part(hit, &hits)).cloned() {
                if findings.len() < MAX_FINDINGS {
                    let place = folded.as_ref().map_or(span.clone(), |(_, origin)| origin(span.clone()));
                    let found = self.scanner.finding_of(kind, (text, span), pointer(), confidence);
                    findings.push(Finding { offset: place.start, length: place.len(), ..found });
                }
            }
        })?;
        self.scanner.numbers(segment.json, &mut |number, pointer| {
            if findings.len() < MAX_FINDINGS && recognise::is_card_number(number) {
                let whole = (number, 0..number.len());
                findings.push(self.scanner.finding_of(
                    recognise::CARD_ID,
                    whole,
                    pointer(),
                    Confidence::High,
                ));
            }
        });
        Ok(findings)
    }
}

/// Whether a match is a part of one that says more: a part of a card's number looks like a telephone's, and an address may hold one of
/// the other version.
fn is_part((_, span, confidence): &Hit, hits: &[Hit]) -> bool {
    hits.iter().any(|(_, other, sure)| {
        let overlaps = other.start < span.end && span.start < other.end;
        let holds = other.start <= span.start && span.end <= other.end && other != span;
        overlaps && sure > confidence || holds && sure == confidence
    })
}

impl GovernancePolicy for Pii {
    fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome {
        let mut findings = Vec::new();
        for segment in facts.segments {
            match self.seen.or_look(segment, || self.look(segment)) {
                Ok(found) => findings.extend(found),
                Err(why) => return Outcome::fail("arguments_too_complex", why.to_string()),
            }
        }
        findings::outcome(findings, facts, &self.allowed, &WORDS, &|finding| self.action(finding))
    }

    fn reads(&self, _facts: &CallFacts<'_>) -> Reads {
        Reads::Findings
    }

    fn decide_on(&self, facts: &CallFacts<'_>, findings: &[Finding]) -> Option<(Outcome, usize)> {
        let own = findings.iter().filter(|finding| knows(&finding.rule_id)).cloned().collect();
        let action = |finding: &Finding| self.action(finding);
        Some(findings::outcome_of_recorded(own, facts, &self.allowed, &WORDS, &action))
    }
}
