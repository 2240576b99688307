//! `secret_scan` (SEC-85 to SEC-87): no credential leaves in a tool call or a model request.

use super::allow::AllowList;
use super::facts::{CallFacts, Segment};
use super::findings::{self, Action, Words};
use super::params::{self, ParamError, closest, hint};
use super::policy::{GovernancePolicy, Outcome, Reads, Redaction};
use super::scan::{Finding, FindingClass, SecretScanner};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use systemprompt_config::profile::governance::History;

pub const ID: &str = "secret_scan";

const ALLOWED: [&str; 2] = ["actions", "rules"];
/// Most places that a message names.
const MAX_PLACES: usize = 5;

/// What is said of secrets.
const WORDS: Words =
    Words { reason: "secret_detected", what: "a secret", advice: "remove it and use a stored secret" };

#[derive(Deserialize, Default)]
#[serde(default)]
struct Params {
    /// By class.
    actions: Actions,
    /// By rule id; wins over its class.
    rules: BTreeMap<String, Action>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Actions {
    specific: Action,
    generic: Action,
}

impl Default for Actions {
    fn default() -> Self {
        Self { specific: Action::Block, generic: Action::Flag }
    }
}

/// The compiled policy.
pub struct SecretScan {
    scanner: Arc<SecretScanner>,
    allowed: AllowList,
    history: History,
    actions: Actions,
    rules: BTreeMap<String, Action>,
}

impl SecretScan {
    pub fn new(
        params: &Value,
        scanner: Arc<SecretScanner>,
        allowed: AllowList,
        history: History,
    ) -> Result<Self, ParamError> {
        let params: Params = params::read(params, &ALLOWED)?;
        if let Some(id) = params.rules.keys().find(|id| !scanner.knows(id)) {
            let suggestion = closest(id, scanner.rules().map(|(id, _)| id));
            let message = format!("there is no such rule{}", hint(suggestion.as_deref()));
            return Err(ParamError::value(["rules", id], message));
        }
        Ok(Self { scanner, allowed, history, actions: params.actions, rules: params.rules })
    }

    fn action(&self, finding: &Finding) -> Action {
        self.rules.get(&*finding.rule_id).copied().unwrap_or(match finding.class {
            FindingClass::Specific => self.actions.specific,
            FindingClass::Generic => self.actions.generic,
        })
    }

    /// What a finding of this call leads to: in a block that was refused in this conversation before, what the history is set to.
    fn action_here(&self, facts: &CallFacts<'_>, finding: &Finding) -> Action {
        let action = self.action(finding);
        let is_known = finding.segment.is_some_and(|segment| facts.refused_before.contains(&segment));
        match self.history {
            History::Redact if is_known => action.min(Action::Redact),
            History::Audit if is_known => Action::Flag,
            _ => action,
        }
    }

    /// The segments in which findings are to be redacted, redacted.
    fn redactions(&self, facts: &CallFacts<'_>, findings: &[Finding]) -> Vec<Redaction> {
        let mut redactions: Vec<Redaction> = Vec::new();
        for (segment, part) in facts.segments.iter().enumerate() {
            let own = || findings.iter().filter(|f| f.segment == Some(segment));
            let wanted: Vec<&Finding> = own()
                .filter(|f| f.allowed_by.is_none() && self.action_here(facts, f) == Action::Redact)
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let is_wanted = |f: &Finding| wanted.iter().any(|w| w.rule_id == f.rule_id && w.hmac == f.hmac);
            let redacted = self.scanner.redact_json_where(part.json, &is_wanted);
            let Ok(json) = redacted.map(Cow::into_owned) else { return Vec::new() };
            if !self.may_go_on(facts, segment, &part.pointer, &json) {
                return Vec::new();
            }
            redactions.push(Redaction { segment, json });
        }
        redactions
    }

    /// Whether nothing is left in a redacted segment that a mark or a refusal is meant for: only so many findings are told of one
    /// segment, and what stands behind them was not replaced.
    fn may_go_on(&self, facts: &CallFacts<'_>, index: usize, pointer: &str, json: &[u8]) -> bool {
        let Ok(mut left) = self.scanner.scan_segment(&Segment { pointer: pointer.into(), json }) else {
            return false;
        };
        for finding in &mut left {
            finding.segment = Some(index);
        }
        self.allowed.apply(facts, &mut left);
        left.iter().all(|f| f.allowed_by.is_some() || self.action_here(facts, f) == Action::Flag)
    }
}

impl GovernancePolicy for SecretScan {
    fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome {
        let mut findings = facts.names.findings().to_vec();
        for (index, segment) in facts.segments.iter().enumerate() {
            match self.scanner.scan_segment(segment) {
                Ok(mut found) => {
                    for finding in &mut found {
                        finding.segment = Some(index);
                    }
                    findings.extend(found);
                }
                Err(why) => return Outcome::fail("arguments_too_complex", why.to_string()),
            }
        }
        let action = |finding: &Finding| self.action_here(facts, finding);
        match findings::outcome(findings, facts, &self.allowed, &WORDS, &action) {
            Outcome::Redact { reason, message, findings, .. } => {
                // What stands in a name cannot be taken out of it.
                let in_names = findings.iter().any(|f| f.segment.is_none() && action(f) == Action::Redact);
                let redactions = if in_names { Vec::new() } else { self.redactions(facts, &findings) };
                Outcome::Redact { reason, message, findings, redactions }
            }
            Outcome::Fail { reason, message, findings, retry_after } => {
                let message = told_before(facts, &findings, message);
                Outcome::Fail { reason, message, findings, retry_after }
            }
            other => other,
        }
    }

    fn reads(&self, _facts: &CallFacts<'_>) -> Reads {
        Reads::Findings
    }

    fn decide_on(&self, facts: &CallFacts<'_>, findings: &[Finding]) -> Option<(Outcome, usize)> {
        let own = findings.iter().filter(|finding| self.scanner.knows(&finding.rule_id)).cloned().collect();
        let action = |finding: &Finding| self.action(finding);
        Some(findings::outcome_of_recorded(own, facts, &self.allowed, &WORDS, &action))
    }
}

/// The message, with the places that were refused before: a client that sends its history again needs to know what to take out.
fn told_before(facts: &CallFacts<'_>, findings: &[Finding], message: Cow<'static, str>) -> Cow<'static, str> {
    let known = findings.iter().filter(|f| f.blocks).filter_map(|f| f.segment);
    let known: BTreeSet<usize> = known.filter(|segment| facts.refused_before.contains(segment)).collect();
    if known.is_empty() {
        return message;
    }
    let places = known.iter().filter_map(|at| facts.segments.get(*at)).take(MAX_PLACES);
    let places: Vec<String> = places.map(|segment| format!("`{}`", segment.pointer)).collect();
    let verb = if known.len() == 1 { "was" } else { "were" };
    format!("{message}; {} {verb} refused before in this conversation and came again", places.join(", "))
        .into()
}
