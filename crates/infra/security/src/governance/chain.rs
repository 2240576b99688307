//! What the pipeline returns: each policy's result in order, the verdict, and what was found. It is what
//! `governance_decisions` keeps of a call.

use super::leaks::Leaks;
use super::policy::Redaction;
use super::scan::Finding;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use systemprompt_models::{Code, Refusal};

/// Policy of a decision that was made while the whole pipeline is switched off.
pub const DISABLED_POLICY: &str = "governance_disabled";
/// Policy of a decision that every policy let pass.
pub const PASSED_POLICY: &str = "governance";

/// What a policy made of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkResult {
    Pass,
    /// It denies.
    Fail,
    /// It lets pass, and wants it seen.
    Flag,
    /// It does not apply, or an earlier policy denied.
    Skip,
    /// It is switched off.
    Disabled,
    /// It could not decide, which denies.
    Fault,
}

/// One policy of a chain. The members stand in the order of canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Entries of the allow list that let findings pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_by: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'static, str>>,
    /// Time that the policy took, in microseconds.
    pub elapsed_us: u64,
    pub policy_id: Arc<str>,
    pub result: LinkResult,
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The policy that refuses.
    pub policy: Arc<str>,
    /// Its machine-readable reason (`secret_detected`, `secret_in_use`, `scope_violation`, `tool_blocked`, `rate_limit_exceeded`,
    /// `arguments_too_complex`, `policy_fault`, or an extension's own).
    pub reason: Cow<'static, str>,
    /// The reason as a sentence. It repeats no content of the call.
    pub message: Cow<'static, str>,
}

/// What becomes of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    /// It may go on once the secrets found are redacted. Who cannot edit the call must refuse it.
    Redact(Denial),
    Deny(Denial),
}

/// The result of the pipeline for one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub links: Vec<Link>,
    pub verdict: Verdict,
    pub findings: Vec<Finding>,
    /// Whole seconds after which a repeat may pass.
    pub retry_after: Option<u32>,
    /// Values in use that the call brought along.
    #[serde(default, skip_serializing_if = "Leaks::is_empty")]
    pub leaks: Leaks,
    /// What a call that may go on redacted is changed to.
    #[serde(skip)]
    pub redactions: Vec<Redaction>,
}

impl Chain {
    /// The chain of a call that is refused before the policies are asked, for a fault of the call itself.
    pub fn refused(denial: Denial) -> Self {
        let link = Link {
            allowed_by: Vec::new(),
            detail: Some(denial.reason.clone()),
            elapsed_us: 0,
            policy_id: denial.policy.clone(),
            result: LinkResult::Fail,
        };
        Self {
            links: vec![link],
            verdict: Verdict::Deny(denial),
            findings: Vec::new(),
            retry_after: None,
            leaks: Leaks::default(),
            redactions: Vec::new(),
        }
    }

    /// Segments that are why the call is refused, each once.
    pub fn blocking_segments(&self) -> Vec<usize> {
        let mut segments: Vec<usize> =
            self.findings.iter().filter(|f| f.blocks).filter_map(|f| f.segment).collect();
        segments.sort_unstable();
        segments.dedup();
        segments
    }

    /// Whether the call goes on as it is.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// Whether the secret rules looked through all of the content and found nothing.
    pub fn is_known_clean(&self) -> bool {
        let is_pass =
            |link: &Link| &*link.policy_id == super::secret_scan::ID && link.result == LinkResult::Pass;
        self.findings.is_empty() && self.links.iter().any(is_pass)
    }

    /// Why the call does not go on as it is.
    pub fn denial(&self) -> Option<&Denial> {
        match &self.verdict {
            Verdict::Allow => None,
            Verdict::Redact(denial) | Verdict::Deny(denial) => Some(denial),
        }
    }

    /// The policy that decided: the one that refuses, else [`PASSED_POLICY`] or [`DISABLED_POLICY`].
    pub fn policy(&self) -> &str {
        match self.denial() {
            Some(denial) => &denial.policy,
            None if self.links.iter().all(|l| l.result == LinkResult::Disabled) => DISABLED_POLICY,
            None => PASSED_POLICY,
        }
    }

    /// The refusal of a call that may not go on as it is.
    pub fn refusal(&self) -> Option<Refusal> {
        let denial = self.denial()?;
        let policy = Cow::Owned(denial.policy.to_string());
        let mut refusal = Refusal::denied(policy, denial.message.clone());
        if let Some(rule) = self.findings.iter().find(|f| f.class == super::scan::FindingClass::Specific)
            && &*denial.policy == super::secret_scan::ID
        {
            refusal = refusal.with_rule(rule.rule_id.to_string());
        }
        if let Some(seconds) = self.retry_after {
            refusal.code = Code::RateLimited;
            refusal.retry_after = Some(seconds);
        }
        Some(refusal)
    }

    /// The links as canonical JSON, for the column `evaluated_rules`.
    pub fn evaluated_rules(&self) -> String {
        // Without a second pass: `Link` is written in canonical order.
        serde_json::to_string(&self.links).unwrap_or_else(|_| "[]".to_owned())
    }

    /// The findings as canonical JSON, for the column `findings`.
    pub fn findings_json(&self) -> String {
        let none = || "[]".to_owned();
        if self.findings.is_empty() {
            return none();
        }
        serde_json_canonicalizer::to_string(&self.findings).unwrap_or_else(|_| none())
    }
}
