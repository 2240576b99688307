//! The trait of a governance policy, built in or an extension's.

use super::facts::CallFacts;
use super::scan::Finding;
use std::borrow::Cow;

/// A segment as it may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// Its place among the call's segments.
    pub segment: usize,
    pub json: Vec<u8>,
}

/// What a policy says of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass {
        detail: Option<Cow<'static, str>>,
    },
    /// The call goes on; somebody should look.
    Flag {
        detail: Cow<'static, str>,
        findings: Vec<Finding>,
    },
    /// The call may go on with the findings redacted.
    Redact {
        reason: Cow<'static, str>,
        message: Cow<'static, str>,
        findings: Vec<Finding>,
        /// What to put in place of segments; who cannot do that refuses the call, and so it is where this is empty.
        redactions: Vec<Redaction>,
    },
    /// The call is refused: machine-readable reason, sentence for people.
    Fail {
        reason: Cow<'static, str>,
        message: Cow<'static, str>,
        findings: Vec<Finding>,
        /// Whole seconds after which a repeat may pass, where waiting helps.
        retry_after: Option<u32>,
    },
    /// The policy has nothing to say about calls of this kind.
    Skip {
        detail: Cow<'static, str>,
    },
    /// The policy could not decide. The call is refused.
    Fault {
        detail: Cow<'static, str>,
    },
}

impl Outcome {
    pub const PASS: Self = Self::Pass { detail: None };

    pub fn fail(reason: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Fail { reason: reason.into(), message: message.into(), findings: Vec::new(), retry_after: None }
    }
}

/// What a policy decides by: a replay of a recorded decision has no more of the call than was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The facts of the call, the names among them.
    Names,
    /// The content. Of a tool call the arguments are retained.
    Arguments,
    /// Findings in the content, which are kept with the decision.
    Findings,
}

/// One layer of the pipeline. It decides from the facts alone and does no I/O: it runs on the path of every call, and
/// one that takes longer than 100 ms counts as a fault, as does one that panics.
pub trait GovernancePolicy: Send + Sync + 'static {
    fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome;

    /// What it decides this call by.
    fn reads(&self, _facts: &CallFacts<'_>) -> Reads {
        Reads::Arguments
    }

    /// The outcome of what was found in a call before, and how many of `findings` are of this policy. None unless it decides by
    /// findings.
    fn decide_on(&self, _facts: &CallFacts<'_>, _findings: &[Finding]) -> Option<(Outcome, usize)> {
        None
    }
}
