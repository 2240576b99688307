//! The one way to say no. A refusal carries the same code and reason to the log, the metric, the ledger and the body;
//! [`crate::envelope`] renders it for each protocol.

use crate::ids::{DecisionId, TraceId};
use std::borrow::Cow;

macro_rules! codes {
    ($($name:ident = $text:literal, $status:literal;)*) => {
        /// Machine-readable reason of a refusal; the string form is the `code` member of problem+json.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($name,)* }

        impl Code {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// HTTP status on our own API; other protocols map it in their envelope.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request", 400;
    InvalidRequest = "invalid_request", 400;
    InvalidCursor = "invalid_cursor", 400;
    InvalidFilter = "invalid_filter", 400;
    SessionMismatch = "session_mismatch", 400;
    Unauthenticated = "unauthenticated", 401;
    InvalidToken = "invalid_token", 401;
    Denied = "denied", 403;
    InsufficientScope = "insufficient_scope", 403;
    CsrfRejected = "csrf_rejected", 403;
    ScannerBlocked = "scanner_blocked", 403;
    IpBanned = "ip_banned", 403;
    OriginNotAllowed = "origin_not_allowed", 403;
    NotFound = "not_found", 404;
    MethodNotAllowed = "method_not_allowed", 405;
    NotAcceptable = "not_acceptable", 406;
    Timeout = "timeout", 408;
    Conflict = "conflict", 409;
    RuleExists = "rule_exists", 409;
    IdempotencyKeyUsed = "idempotency_key_used", 409;
    LastAdminRule = "last_admin_rule", 409;
    BanExists = "ban_exists", 409;
    WouldLockOut = "would_lock_out", 409;
    PreconditionFailed = "precondition_failed", 412;
    BodyTooLarge = "body_too_large", 413;
    UriTooLong = "uri_too_long", 414;
    UnsupportedMediaType = "unsupported_media_type", 415;
    HostNotAllowed = "host_not_allowed", 421;
    InvalidConfiguration = "invalid_configuration", 422;
    Unprocessable = "unprocessable", 422;
    IdempotencyMismatch = "idempotency_mismatch", 422;
    TooManyRules = "too_many_rules", 422;
    TooManyBans = "too_many_bans", 422;
    PreconditionRequired = "precondition_required", 428;
    RateLimited = "rate_limited", 429;
    HeadersTooLarge = "headers_too_large", 431;
    Internal = "internal", 500;
    Upstream = "upstream", 502;
    Overloaded = "overloaded", 503;
    Starting = "starting", 503;
    Draining = "draining", 503;
    PolicyVersionUnavailable = "policy_version_unavailable", 503;
    RevocationUnavailable = "revocation_unavailable", 503;
    BanListUnavailable = "ban_list_unavailable", 503;
    LedgerBusy = "ledger_busy", 503;
    LedgerUnavailable = "ledger_unavailable", 503;
    LedgerDiskLow = "ledger_disk_low", 503;
    LedgerDamaged = "ledger_damaged", 503;
    LedgerFenced = "ledger_fenced", 503;
    UpstreamTimeout = "upstream_timeout", 504;
}

/// A call that is not carried out, and why.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: Code,
    /// What was wrong, where, and what would be right. Never repeats secret or offending content.
    pub reason: Cow<'static, str>,
    /// The governance policy or rule band that decided, if a decision was made.
    pub policy: Option<Cow<'static, str>>,
    pub rule_id: Option<String>,
    pub decision_id: Option<DecisionId>,
    /// Whole seconds after which a repeat may pass.
    pub retry_after: Option<u32>,
    /// Parts of the input that were wrong, as (JSON pointer or field, message).
    pub validation_errors: Vec<(String, String)>,
    /// What a validation found, with its places: the `findings` member of problem+json.
    pub findings: Option<Box<serde_json::Value>>,
    pub trace_id: Option<TraceId>,
    /// A part of the address that the reason repeats and that is public, as the id of a key that exists.
    pub public_part: Option<Box<str>>,
}

impl Refusal {
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason: reason.into(),
            policy: None,
            rule_id: None,
            decision_id: None,
            retry_after: match code {
                Code::LedgerBusy | Code::Overloaded | Code::Starting => Some(1),
                Code::LedgerUnavailable | Code::LedgerDiskLow | Code::LedgerDamaged | Code::LedgerFenced => {
                    Some(5)
                }
                _ => None,
            },
            validation_errors: Vec::new(),
            findings: None,
            trace_id: None,
            public_part: None,
        }
    }

    /// A denial by `policy`.
    pub fn denied(policy: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { policy: Some(policy.into()), ..Self::new(Code::Denied, reason) }
    }

    /// An error of our own: the client learns only that it happened, the caller logs the cause.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "an internal error happened; the trace id finds it in the log")
    }

    /// A change that met others of the same rows more often than it is tried.
    pub fn contended() -> Self {
        Self::new(Code::Overloaded, "others change the same rows; try again shortly")
    }

    pub fn status(&self) -> u16 {
        self.code.status()
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub fn with_trace(mut self, trace_id: TraceId) -> Self {
        self.trace_id = Some(trace_id);
        self
    }

    pub fn with_decision(mut self, decision_id: DecisionId) -> Self {
        self.decision_id = Some(decision_id);
        self
    }

    pub fn with_rule(mut self, rule_id: impl Into<String>) -> Self {
        self.rule_id = Some(rule_id.into());
        self
    }

    /// Says that the reason may repeat this part of the address: it is no credential that stands there by mistake.
    pub fn with_public_part(mut self, part: impl Into<Box<str>>) -> Self {
        self.public_part = Some(part.into());
        self
    }

    pub fn with_validation(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.validation_errors.push((field.into(), message.into()));
        self
    }

    pub fn with_findings(mut self, findings: serde_json::Value) -> Self {
        self.findings = Some(Box::new(findings));
        self
    }

    /// `Denied by <policy>: <reason> (decision <id>)`, the sentence that model clients and tool clients get.
    pub fn sentence(&self) -> String {
        let decision = self.decision_id.as_ref().map_or_else(String::new, |id| format!(" (decision {id})"));
        match &self.policy {
            Some(policy) => format!("Denied by {policy}: {}{decision}", self.reason),
            None => format!("{}{decision}", self.reason),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.sentence())
    }
}

impl std::error::Error for Refusal {}
