//! What the policies over content share: what a finding leads to, and the outcome that a call's findings make together.

use super::allow::AllowList;
use super::facts::CallFacts;
use super::policy::Outcome;
use super::scan::Finding;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What a finding leads to, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    Flag,
    Redact,
    Block,
}

/// What a policy says of its findings.
pub(super) struct Words {
    /// Machine-readable reason of a refusal.
    pub(super) reason: &'static str,
    /// What the content may hold: `a secret`.
    pub(super) what: &'static str,
    /// What to do about it.
    pub(super) advice: &'static str,
}

/// The outcome of findings: the severest action of those that no entry of the allow list lets pass.
pub(super) fn outcome(
    mut findings: Vec<Finding>,
    facts: &CallFacts<'_>,
    allowed: &AllowList,
    words: &Words,
    action_of: &dyn Fn(&Finding) -> Action,
) -> Outcome {
    allowed.apply(facts, &mut findings);
    conclude(findings, words, action_of)
}

/// The outcome of findings that were made before. What was let pass then still is: the entry may have ended since.
pub(super) fn outcome_of_recorded(
    findings: Vec<Finding>,
    facts: &CallFacts<'_>,
    allowed: &AllowList,
    words: &Words,
    action_of: &dyn Fn(&Finding) -> Action,
) -> (Outcome, usize) {
    let count = findings.len();
    let (mut known, mut open): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|finding| finding.allowed_by.is_some());
    allowed.apply(facts, &mut open);
    known.append(&mut open);
    (conclude(known, words, action_of), count)
}

fn conclude(mut findings: Vec<Finding>, words: &Words, action_of: &dyn Fn(&Finding) -> Action) -> Outcome {
    let open = |f: &&Finding| f.allowed_by.is_none();
    let Some(action) = findings.iter().filter(open).map(action_of).max() else {
        if findings.is_empty() {
            return Outcome::PASS;
        }
        return Outcome::Flag { detail: "every finding is on the allow list".into(), findings };
    };
    let rules = findings.iter().filter(open).filter(|f| action_of(f) == action).map(|f| &*f.rule_id);
    let rules = rules.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
    let Words { reason, what, advice } = words;
    match action {
        Action::Flag => Outcome::Flag { detail: format!("may hold {what} ({rules})").into(), findings },
        Action::Redact => Outcome::Redact {
            reason: Cow::Borrowed(reason),
            message: format!("the content holds {what} ({rules}), which must be redacted").into(),
            findings,
            redactions: Vec::new(),
        },
        Action::Block => {
            for finding in &mut findings {
                finding.blocks = finding.allowed_by.is_none() && action_of(finding) == Action::Block;
            }
            Outcome::Fail {
                reason: Cow::Borrowed(reason),
                message: format!("the content holds {what} ({rules}); {advice}").into(),
                findings,
                retry_after: None,
            }
        }
    }
}
