//! How a call can end without an answer, and what the caller is told of it.

use crate::repository::tool_usage::Status;
use crate::services::schema::Violation;
use crate::services::stdio::StdioError;
use crate::services::supervisor::StartError;
use systemprompt_audit::LedgerError;
use systemprompt_models::ids::DecisionId;
use systemprompt_models::{Code, Refusal};

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no such tool")]
    UnknownTool,
    /// Told as a result with `isError`, so that an agent can go on (MCP-65); `code` is the machine-readable reason.
    #[error("{refusal}")]
    Refused { refusal: Box<Refusal>, code: &'static str },
    #[error(transparent)]
    Start(StartError),
    #[error("the call could not be recorded")]
    Ledger(LedgerError),
    #[error("the server ended during the call")]
    Crashed,
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the call was cancelled")]
    Cancelled,
}

/// Policy and reason of refusals for a fault of the call itself, as they are recorded.
pub(super) const NOT_OFFERED: (&str, &str) = ("tool_filter", "tool_not_offered");
pub(super) const INVALID_ARGUMENTS: (&str, &str) = ("argument_validation", "invalid_arguments");
pub(super) const DUPLICATE: (&str, &str) = ("duplicate_call", "duplicate_call");

/// Labels of decisions on entities; every other policy belongs to the pipeline.
const ENTITY_POLICIES: [&str; 11] = [
    "unknown_entity",
    "user_deny",
    "role_deny",
    "department_deny",
    "not_assigned",
    "actor_deny",
    "authz_stale",
    "authz_default_deny",
    "authz_disabled",
    "authz_unrestricted",
    "default_included",
];

/// The code of a refusal (MCP-65).
pub fn refusal_code(refusal: &Refusal) -> &'static str {
    match refusal.policy.as_deref() {
        Some(policy) if ENTITY_POLICIES.contains(&policy) => "denied_by_policy",
        Some(policy) if policy.contains("secret") => "secret_in_arguments",
        _ => "governance_denied",
    }
}

impl CallError {
    pub(super) fn refused(refusal: Refusal) -> Self {
        let code = refusal_code(&refusal);
        Self::Refused { refusal: Box::new(refusal), code }
    }

    fn with_code(refusal: Refusal, code: &'static str) -> Self {
        Self::Refused { refusal: Box::new(refusal), code }
    }

    pub(super) fn busy() -> Self {
        let refusal = Refusal::new(Code::Overloaded, "the server is busy; try again in a moment");
        Self::with_code(refusal, "busy")
    }

    pub(super) fn duplicate(decision: DecisionId) -> Self {
        let reason = "this tool use was carried out already; a tool use runs once";
        Self::with_code(Refusal::new(Code::Conflict, reason).with_decision(decision), "duplicate_call")
    }

    pub(super) fn invalid_arguments(violations: &[Violation], decision: DecisionId) -> Self {
        let told = violations.iter().map(|v| {
            let place = if v.pointer.is_empty() { "/" } else { &v.pointer };
            format!("{place}: {}", v.message)
        });
        let told = told.collect::<Vec<_>>().join("; ");
        let reason = format!("the arguments do not fit the tool's inputSchema: {told}");
        let refusal = Refusal::new(Code::Unprocessable, reason).with_decision(decision);
        Self::with_code(refusal, "invalid_arguments")
    }
}

impl From<StartError> for CallError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Ledger(error) => Self::Ledger(error),
            other => Self::Start(other),
        }
    }
}

impl From<LedgerError> for CallError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<StdioError> for CallError {
    fn from(error: StdioError) -> Self {
        match error {
            StdioError::Closed => Self::Crashed,
            StdioError::Timeout => Self::Timeout,
            StdioError::Cancelled => Self::Cancelled,
            StdioError::Busy => Self::busy(),
            StdioError::TooLarge => {
                let reason = "the server's answer is larger than this server may give";
                Self::with_code(Refusal::new(Code::Upstream, reason), "result_too_large")
            }
        }
    }
}

/// Status and kind of the row of a call that ended so.
pub(super) fn row_of(error: StdioError) -> (Status, &'static str) {
    match error {
        StdioError::Closed => (Status::Failed, "upstream_crashed"),
        StdioError::TooLarge => (Status::Failed, "result_too_large"),
        StdioError::Timeout => (Status::Timeout, "timeout"),
        StdioError::Cancelled => (Status::Cancelled, "cancelled"),
        StdioError::Busy => (Status::Failed, "busy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_the_code_of_who_refused() {
        for (policy, code) in [
            ("role_deny", "denied_by_policy"),
            ("not_assigned", "denied_by_policy"),
            ("secret_scan", "secret_in_arguments"),
            ("secret_leak", "secret_in_arguments"),
            ("tool_blocklist", "governance_denied"),
            ("rate_limit", "governance_denied"),
        ] {
            assert_eq!(refusal_code(&Refusal::denied(policy, "x")), code, "{policy}");
        }
    }

    #[test]
    fn invalid_arguments_name_each_place() {
        let violation = |p: &str| Violation { pointer: p.into(), message: "is wrong".into() };
        let CallError::Refused { refusal, code } =
            CallError::invalid_arguments(&[violation(""), violation("/a")], DecisionId::generate())
        else {
            panic!("refused")
        };
        assert_eq!(code, "invalid_arguments");
        assert!(refusal.reason.ends_with("/: is wrong; /a: is wrong"), "{}", refusal.reason);
    }
}
