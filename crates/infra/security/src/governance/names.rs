//! The short strings that a call brings along beside its content: ids and names of the caller's choosing. They are stored with
//! the decision, so they are looked through before anything is: a secret in one of them refuses the call and is not stored.

use super::scan::{Finding, FindingClass, SecretScanner};
use systemprompt_leak::{Hit, Scanner};
use systemprompt_models::ids::{CallId, ContextId, TraceId};

/// Parts the words of a tool's name; a rule that wants a secret to begin a word finds it behind that as well.
pub(super) const PARTED: &str = "__";

/// No rule knows a shorter secret.
const SHORTEST: usize = 12;

/// Whether an id is one of ours, which most calls bring alone.
fn is_generated(name: &str) -> bool {
    [TraceId::PREFIX, CallId::PREFIX, ContextId::PREFIX].into_iter().any(|prefix| {
        let is_digit = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
        name.strip_prefix(prefix).is_some_and(|hex| hex.len() == 32 && hex.bytes().all(is_digit))
    })
}

/// The names of one call, read once.
#[derive(Clone, Debug, Default)]
pub struct Names {
    findings: Vec<Finding>,
    leaks: Vec<(&'static str, Hit)>,
}

impl Names {
    /// Looks through the strings that are given with the pointers that findings in them bear.
    pub(super) fn look<'n>(
        names: impl IntoIterator<Item = (&'static str, Option<&'n str>)>,
        secrets: &SecretScanner,
        in_use: &Scanner,
    ) -> Self {
        let mut text = String::with_capacity(256);
        let mut ends = Vec::with_capacity(10);
        let mut may_hold = false;
        for (pointer, name) in names {
            let Some(name) = name else { continue };
            may_hold |= name.len() >= SHORTEST && !is_generated(name);
            let mut add = |name: &str| {
                text.push_str(name);
                text.push('\n');
                ends.push((text.len(), pointer));
            };
            add(name);
            if name.contains(PARTED) {
                add(&name.replace(PARTED, "\n\n"));
            }
        }
        let place = |offset: usize| {
            let at = ends.partition_point(|(end, _)| *end <= offset);
            let start = at.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |(end, _)| *end);
            (ends.get(at).map_or("", |(_, pointer)| *pointer), offset - start)
        };
        // What only looks random is no finding here: that is what ids look like.
        let mut findings = if may_hold { secrets.scan_text(&text) } else { Vec::new() };
        findings.retain(|finding| finding.class == FindingClass::Specific);
        for finding in &mut findings {
            let (pointer, offset) = place(finding.offset);
            (finding.pointer, finding.offset) = (pointer.into(), offset);
        }
        findings.dedup_by(|a, b| (&a.rule_id, &a.pointer, a.offset) == (&b.rule_id, &b.pointer, b.offset));
        let leaks = in_use.scan_request(text.as_bytes()).into_iter().map(|hit| {
            let (pointer, offset) = place(hit.offset);
            (pointer, Hit { offset, ..hit })
        });
        Self { findings, leaks: leaks.collect() }
    }

    /// Whether all of them may be stored as they are.
    pub fn are_clean(&self) -> bool {
        self.findings.is_empty() && self.leaks.is_empty()
    }

    /// Secrets that a rule knows.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Values in use, with the pointers of the names.
    pub(super) fn leaks(&self) -> &[(&'static str, Hit)] {
        &self.leaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_ours_are_told_from_others() {
        assert!(is_generated(TraceId::generate().as_str()) && is_generated(CallId::generate().as_str()));
        for id in [
            "",
            "trc_",
            "toolu_01A09q90qw90lq917835lq9",
            "trc_AKIAQYLPMN5HM7PZXA2R00000000000A",
            "0123456789abcdef",
        ] {
            assert!(!is_generated(id), "{id}");
        }
    }
}
