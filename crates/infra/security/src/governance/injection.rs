//! `prompt_injection` (SEC-91): text that speaks to the model instead of being spoken about. It looks for hidden characters, phrases
//! that set a role aside, instructions that are encoded, and descriptions of tools that give orders. Whoever wants to get around
//! such a list can: it makes the careless visible and is no protection.

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
use aho_corasick::AhoCorasick;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;
use unicode_normalization::UnicodeNormalization;

pub const ID: &str = "prompt_injection";

const WORDS: Words = Words {
    reason: "prompt_injection",
    what: "instructions to the model",
    advice: "take them out, or put what is quoted where it is read as data",
};

const HIDDEN: &str = "hidden-unicode";
const OVERRIDE: &str = "role-override";
const ENCODED: &str = "encoded-instructions";
const IMPERATIVE: &str = "tool-description-imperative";
const KINDS: [&str; 4] = [HIDDEN, OVERRIDE, ENCODED, IMPERATIVE];

/// Phrases that set aside what the model was told, in normalised text.
const OVERRIDES: [&str; 24] = [
    "ignore previous instructions",
    "ignore all previous instructions",
    "ignore the previous instructions",
    "ignore the above instructions",
    "ignore your instructions",
    "ignore all instructions",
    "ignore any previous instructions",
    "ignore prior instructions",
    "disregard previous instructions",
    "disregard all previous instructions",
    "disregard the above",
    "disregard your instructions",
    "forget your instructions",
    "forget all previous instructions",
    "forget everything above",
    "override your instructions",
    "override the system prompt",
    "you are no longer bound",
    "reveal your system prompt",
    "print your system prompt",
    "new system prompt:",
    "you are now in developer mode",
    "act as if you have no restrictions",
    "do anything now",
];
/// Orders to the model as they stand in descriptions of tools.
const IMPERATIVES: [&str; 12] = [
    "do not tell the user",
    "don't tell the user",
    "do not mention this to the user",
    "without telling the user",
    "without informing the user",
    "hide this from the user",
    "before using any other tool",
    "you must call this tool first",
    "always call this tool before",
    "<important>",
    "<system>",
    "[system]",
];
/// Shortest base64 that is decoded.
const MIN_ENCODED: usize = 24;

/// Whether this policy makes findings of this name.
pub(super) fn knows(id: &str) -> bool {
    KINDS.contains(&id)
}

/// The compiled policy.
pub struct PromptInjection {
    scanner: Arc<SecretScanner>,
    allowed: AllowList,
    seen: SeenText,
    phrases: AhoCorasick,
    kinds: Kinds,
}

impl PromptInjection {
    pub fn new(params: &Value, scanner: Arc<SecretScanner>, allowed: AllowList) -> Result<Self, ParamError> {
        let kinds = Kinds::read(params, KINDS.into_iter(), "finding")?;
        let phrases = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(OVERRIDES.iter().chain(&IMPERATIVES))
            .map_err(|e| ParamError::value([], e))?;
        let seen = SeenText::new();
        Ok(Self { scanner, allowed, seen, phrases, kinds })
    }

    fn action(&self, finding: &Finding) -> Action {
        self.kinds.action(&finding.rule_id)
    }

    fn look(&self, segment: &Segment<'_>) -> Result<Vec<Finding>, TooComplex> {
        let mut findings = Vec::new();
        self.scanner.strings(segment.json, &mut |text, pointer| {
            let mut add = |kind, span: Range<usize>, confidence| {
                if findings.len() < MAX_FINDINGS {
                    findings.push(self.scanner.finding_of(kind, (text, span), pointer(), confidence));
                }
            };
            if let Some(span) = hidden(text) {
                add(HIDDEN, span, Confidence::High);
            }
            for (kind, span) in self.phrases_in(text) {
                add(kind, span, Confidence::Medium);
            }
            for (span, decoded) in encoded(text) {
                if !self.phrases_in(&decoded).is_empty() {
                    add(ENCODED, span, Confidence::Medium);
                }
            }
        })?;
        Ok(findings)
    }

    /// Phrases in a text, with white space and compatibility characters read plainly. Where that changes the text, the whole of it
    /// is the place.
    fn phrases_in(&self, text: &str) -> Vec<(&'static str, Range<usize>)> {
        let is_plain = text.is_ascii() && !text.contains("  ") && !text.contains(['\n', '\t', '\r']);
        let plain = (!is_plain).then(|| plain(text));
        let searched = plain.as_deref().unwrap_or(text);
        let mut found: Vec<(&'static str, Range<usize>)> = Vec::new();
        for hit in self.phrases.find_iter(searched) {
            let kind = if hit.pattern().as_usize() < OVERRIDES.len() { OVERRIDE } else { IMPERATIVE };
            let span = if plain.is_some() { 0..text.len() } else { hit.range() };
            if !found.iter().any(|(k, s)| *k == kind && *s == span) {
                found.push((kind, span));
            }
        }
        found
    }
}

/// NFKC without what is not shown, runs of white space as one space.
fn plain(text: &str) -> String {
    let shown = text.nfkc().filter(|c| {
        !is_hidden(*c) && !matches!(*c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
    });
    let mut out = String::with_capacity(text.len());
    for c in shown {
        if !c.is_whitespace() {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

/// The first character that is there to be read by a model alone: tags, bidirectional controls, and runs of variation selectors.
fn hidden(text: &str) -> Option<Range<usize>> {
    if text.is_ascii() {
        return None;
    }
    let mut selectors = 0;
    for (at, c) in text.char_indices() {
        selectors =
            if matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}') { selectors + 1 } else { 0 };
        if is_hidden(c) || selectors >= 4 {
            return Some(at..at + c.len_utf8());
        }
    }
    None
}

fn is_hidden(c: char) -> bool {
    matches!(c, '\u{e0000}'..='\u{e007f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Base64 in a text that decodes to text.
fn encoded(text: &str) -> Vec<(Range<usize>, String)> {
    use base64::Engine as _;
    let mut found = Vec::new();
    let mut at = 0;
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/'))) {
        let start = at;
        at += word.len();
        at += text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        if word.len() < MIN_ENCODED || word.len() > 64 * 1024 || found.len() >= 64 {
            continue;
        }
        let whole = word.get(..word.len() - word.len() % 4).unwrap_or_default();
        if let Ok(bytes) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(whole)
            && let Ok(decoded) = String::from_utf8(bytes)
        {
            found.push((start..start + word.len(), decoded));
        }
    }
    found
}

impl GovernancePolicy for PromptInjection {
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
