//! `secret_scan` (SEC-85 to SEC-87): no credential leaves in a tool call or a model request.

use super::facts::CallFacts;
use super::params::{self, ParamError, closest, hint};
use super::policy::{GovernancePolicy, Outcome};
use super::scan::{Finding, FindingClass, SecretScanner};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const ID: &str = "secret_scan";

const ALLOWED: [&str; 2] = ["actions", "rules"];

/// What a finding leads to, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Flag,
    Redact,
    Block,
}

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
    actions: Actions,
    rules: BTreeMap<String, Action>,
}

impl SecretScan {
    pub fn new(params: &Value, scanner: Arc<SecretScanner>) -> Result<Self, ParamError> {
        let params: Params = params::read(params, &ALLOWED)?;
        if let Some(id) = params.rules.keys().find(|id| !scanner.knows(id)) {
            let suggestion = closest(id, scanner.rules().map(|(id, _)| id));
            let message = format!("there is no such rule{}", hint(suggestion.as_deref()));
            return Err(ParamError::value(["rules", id], message));
        }
        Ok(Self { scanner, actions: params.actions, rules: params.rules })
    }

    fn action(&self, finding: &Finding) -> Action {
        self.rules.get(&*finding.rule_id).copied().unwrap_or(match finding.class {
            FindingClass::Specific => self.actions.specific,
            FindingClass::Generic => self.actions.generic,
        })
    }
}

impl GovernancePolicy for SecretScan {
    fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome {
        let mut findings = facts.names.findings().to_vec();
        for segment in facts.segments {
            match self.scanner.scan_segment(segment) {
                Ok(found) => findings.extend(found),
                Err(why) => return Outcome::fail("arguments_too_complex", why.to_string()),
            }
        }
        let Some(action) = findings.iter().map(|f| self.action(f)).max() else {
            return Outcome::PASS;
        };
        let rules: BTreeSet<&str> =
            findings.iter().filter(|f| self.action(f) == action).map(|f| &*f.rule_id).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        match action {
            Action::Flag => Outcome::Flag { detail: format!("may hold a secret ({rules})").into(), findings },
            Action::Redact => Outcome::Redact {
                reason: "secret_detected".into(),
                message: format!("the content holds a secret ({rules}), which must be redacted").into(),
                findings,
            },
            Action::Block => Outcome::Fail {
                reason: "secret_detected".into(),
                message: format!("the content holds a secret ({rules}); remove it and use a stored secret")
                    .into(),
                findings,
                retry_after: None,
            },
        }
    }
}
