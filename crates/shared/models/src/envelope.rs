//! How a refusal looks in each protocol (SEC-1): status and JSON body. Headers that follow from it (`retry-after`,
//! `www-authenticate`) are added by the edge.

use crate::hook;
use crate::refusal::{Code, Refusal};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The protocol whose error form a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// RFC 9457 problem+json, our own API.
    Problem,
    /// `/v1/messages*`, `/v1/models*`.
    Anthropic,
    /// JSON-RPC 2.0 on MCP routes; refusals of the edge keep their HTTP status.
    Mcp,
    /// RFC 6749 section 5.2, the authorization server.
    OAuth,
    /// `hooks/govern`: always 200 with an explicit deny, since hook clients go on at any other status.
    Hook,
    /// `hooks/track`: always 200 and an empty object; a header says that nothing was recorded.
    HookTrack,
    /// `hooks/inference`: 401 for whom its signature does not show, else 200 with an explicit deny.
    InferenceHook,
}

/// A refusal in its protocol's form.
#[derive(Debug)]
pub struct Rendered {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Value,
}

impl Envelope {
    pub fn render(self, refusal: &Refusal) -> Rendered {
        self.render_for(refusal, None)
    }

    /// As [`Self::render`], in the form of the hook event that is answered, where it is known.
    pub fn render_for(self, refusal: &Refusal, event: Option<&str>) -> Rendered {
        match self {
            Self::Problem => problem(refusal),
            Self::Anthropic => anthropic(refusal),
            Self::Mcp => mcp(refusal),
            Self::OAuth => oauth(refusal),
            Self::Hook => hook(refusal, event),
            Self::HookTrack => Rendered { status: 200, content_type: JSON, body: json!({}) },
            Self::InferenceHook => inference(refusal),
        }
    }
}

const JSON: &str = "application/json";
/// Longest reason of an inference hook's verdict, in characters.
const MAX_DENY_REASON: usize = 500;

/// The verdict of an inference hook that denies.
pub fn inference_denial(reason: &str, reference: Option<&str>) -> Value {
    let reason: String = reason.chars().take(MAX_DENY_REASON).collect();
    match reference {
        Some(id) => json!({"action": "deny", "deny_reason": reason, "reference_id": id}),
        None => json!({"action": "deny", "deny_reason": reason}),
    }
}

fn inference(refusal: &Refusal) -> Rendered {
    let status = if refusal.status() == 401 { 401 } else { 200 };
    let reference = refusal.decision_id.as_ref().map(crate::ids::DecisionId::entry);
    let reason = refusal.sentence();
    let body = inference_denial(&reason, reference.as_ref().map(AsRef::as_ref));
    Rendered { status, content_type: JSON, body }
}

/// Errors that no endpoint of the authorization server made: of the edge, or of a credential that does not count.
fn oauth(refusal: &Refusal) -> Rendered {
    let error = match refusal.code {
        Code::Unauthenticated | Code::InvalidToken => "invalid_token",
        Code::InsufficientScope => "insufficient_scope",
        Code::RateLimited => "temporarily_unavailable",
        code => match code.status() {
            403 => "access_denied",
            409 => "conflict",
            503 => "temporarily_unavailable",
            status if status >= 500 => "server_error",
            _ => "invalid_request",
        },
    };
    // Descriptions are ASCII (RFC 6749 section 5.2).
    let description: String = refusal.sentence().chars().filter(|c| matches!(c, ' '..='~')).collect();
    let description = description.replace(['"', '\\'], "'");
    let mut body = json!({"error": error, "error_description": description});
    if let (Some(trace), Some(map)) = (&refusal.trace_id, body.as_object_mut()) {
        map.insert("trace_id".into(), Value::from(trace.as_str()));
    }
    Rendered { status: refusal.status(), content_type: JSON, body }
}

fn problem(refusal: &Refusal) -> Rendered {
    let mut body = json!({
        "type": "about:blank",
        "title": title(refusal.status()),
        "status": refusal.status(),
        "code": refusal.code.as_str(),
        "detail": refusal.reason,
    });
    if let Some(map) = body.as_object_mut() {
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("policy", refusal.policy.as_deref().map(Value::from));
        put("rule_id", refusal.rule_id.clone().map(Value::from));
        put("decision_id", refusal.decision_id.as_ref().map(|id| Value::from(id.as_str())));
        put("retry_after", refusal.retry_after.map(Value::from));
        put("trace_id", refusal.trace_id.as_ref().map(|id| Value::from(id.as_str())));
        put("findings", refusal.findings.as_deref().cloned());
        if !refusal.validation_errors.is_empty() {
            let list = refusal.validation_errors.iter();
            let list = list.map(|(field, message)| json!({"field": field, "message": message}));
            put("validation_errors", Some(Value::Array(list.collect())));
        }
    }
    Rendered { status: refusal.status(), content_type: "application/problem+json", body }
}

fn anthropic(refusal: &Refusal) -> Rendered {
    let (status, kind) = match refusal.code {
        // SDK clients read 403 as "sign in again" (GW-16), so a denial is a bad request here.
        Code::Denied | Code::InsufficientScope => (400, "invalid_request_error"),
        Code::BodyTooLarge => (413, "request_too_large"),
        Code::Overloaded => (529, "overloaded_error"),
        code => match code.status() {
            401 => (401, "authentication_error"),
            404 => (404, "not_found_error"),
            429 => (429, "rate_limit_error"),
            502 => (502, "api_error"),
            503 => (503, "api_error"),
            504 => (504, "timeout_error"),
            500 => (500, "api_error"),
            status => (status, "invalid_request_error"),
        },
    };
    let message = match refusal.code {
        Code::LedgerBusy
        | Code::LedgerUnavailable
        | Code::LedgerDiskLow
        | Code::LedgerDamaged
        | Code::LedgerFenced => "the audit record could not be written; the request was not sent".to_owned(),
        _ => refusal.sentence(),
    };
    let mut body = json!({"type": "error", "error": {"type": kind, "message": message}});
    if let (Some(trace), Some(map)) = (&refusal.trace_id, body.as_object_mut()) {
        map.insert("request_id".into(), Value::from(trace.as_str()));
    }
    Rendered { status, content_type: "application/json", body }
}

fn mcp(refusal: &Refusal) -> Rendered {
    let status = refusal.status();
    let code = match status {
        503 => 5030,
        _ => -32600,
    };
    let mut data = json!({"code": refusal.code.as_str()});
    if let (Some(trace), Some(map)) = (&refusal.trace_id, data.as_object_mut()) {
        map.insert("trace_id".into(), Value::from(trace.as_str()));
    }
    let body =
        json!({"jsonrpc": "2.0", "error": {"code": code, "message": refusal.sentence(), "data": data}});
    Rendered { status, content_type: "application/json", body }
}

fn hook(refusal: &Refusal, event: Option<&str>) -> Rendered {
    let mut reason = format!("{}: {}", refusal.code.as_str(), refusal.sentence());
    for (field, message) in &refusal.validation_errors {
        let _ = write!(reason, "; {field}: {message}");
    }
    Rendered { status: 200, content_type: "application/json", body: hook::denial(event, &reason) }
}

/// The standard phrase of a status (RFC 9110 section 15), as the `title` of a problem.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One refusal of each column of the table: not authenticated, denied, throttled, own fault, ledger down.
    fn refusals() -> [Refusal; 5] {
        let of = |code, reason: &'static str| Refusal::new(code, reason).with_trace("trc_1".into());
        [
            of(Code::Unauthenticated, "send a credential"),
            Refusal::denied("tool_blocklist", "tool_blocked").with_trace("trc_1".into()).with_rule("rul_1"),
            of(Code::RateLimited, "too many").with_retry_after(7),
            Refusal::internal().with_trace("trc_1".into()),
            of(Code::LedgerUnavailable, "the record could not be written"),
        ]
    }

    /// Where each envelope says what is wrong, and where the trace id.
    fn said(envelope: Envelope, body: &Value) -> (Value, Value) {
        let (kind, trace) = match envelope {
            Envelope::Problem => ("/code", "/trace_id"),
            Envelope::Anthropic => ("/error/type", "/request_id"),
            Envelope::Mcp => ("/error/data/code", "/error/data/trace_id"),
            Envelope::OAuth => ("/error", "/trace_id"),
            Envelope::Hook => ("/hookSpecificOutput/permissionDecision", ""),
            Envelope::HookTrack => ("", ""),
            Envelope::InferenceHook => ("/action", ""),
        };
        let at = |pointer: &str| match pointer {
            "" => Value::Null,
            pointer => body.pointer(pointer).cloned().unwrap_or(json!("missing")),
        };
        (at(kind), at(trace))
    }

    #[test]
    fn one_refusal_looks_as_each_protocol_wants_it() {
        let none = Value::Null;
        let table: [(Envelope, [(u16, Value); 5]); 7] = [
            (
                Envelope::Problem,
                [
                    (401, json!("unauthenticated")),
                    (403, json!("denied")),
                    (429, json!("rate_limited")),
                    (500, json!("internal")),
                    (503, json!("ledger_unavailable")),
                ],
            ),
            (
                Envelope::Anthropic,
                [
                    (401, json!("authentication_error")),
                    (400, json!("invalid_request_error")),
                    (429, json!("rate_limit_error")),
                    (500, json!("api_error")),
                    (503, json!("api_error")),
                ],
            ),
            (
                Envelope::Mcp,
                [
                    (401, json!("unauthenticated")),
                    (403, json!("denied")),
                    (429, json!("rate_limited")),
                    (500, json!("internal")),
                    (503, json!("ledger_unavailable")),
                ],
            ),
            (
                Envelope::OAuth,
                [
                    (401, json!("invalid_token")),
                    (403, json!("access_denied")),
                    (429, json!("temporarily_unavailable")),
                    (500, json!("server_error")),
                    (503, json!("temporarily_unavailable")),
                ],
            ),
            (Envelope::Hook, [200; 5].map(|status| (status, json!("deny")))),
            (Envelope::HookTrack, [200; 5].map(|status| (status, none.clone()))),
            (Envelope::InferenceHook, [401, 200, 200, 200, 200].map(|status| (status, json!("deny")))),
        ];
        for (envelope, row) in table {
            for (refusal, (status, kind)) in refusals().into_iter().zip(row) {
                let rendered = envelope.render_for(&refusal, Some("PreToolUse"));
                let code = refusal.code.as_str();
                let (said, trace) = said(envelope, &rendered.body);
                assert_eq!((rendered.status, said), (status, kind), "{envelope:?} {code}");
                assert!(trace.is_null() || trace == "trc_1", "{envelope:?} {code}: {}", rendered.body);
                // The reason is never lost, but where the answer has no room for one.
                let sentence = refusal.sentence();
                let is_told = rendered.body.to_string().contains(&sentence);
                let is_of_the_ledger =
                    envelope == Envelope::Anthropic && refusal.code == Code::LedgerUnavailable;
                let is_told_in_parts =
                    envelope == Envelope::Problem && rendered.body["policy"] == "tool_blocklist";
                assert!(
                    is_told || is_told_in_parts || is_of_the_ledger || envelope == Envelope::HookTrack,
                    "{envelope:?} {code}: {}",
                    rendered.body
                );
            }
        }
        let problem = Envelope::Problem.render(&refusals()[1]).body;
        assert_eq!((&problem["policy"], &problem["rule_id"]), (&json!("tool_blocklist"), &json!("rul_1")));
        assert_eq!(Envelope::Problem.render(&refusals()[2]).body["retry_after"], 7);
    }

    #[test]
    fn a_verdict_of_the_inference_hook_keeps_within_its_bounds() {
        let denial = inference_denial(&"é".repeat(600), Some("led_1"));
        assert_eq!(denial["deny_reason"].as_str().unwrap().chars().count(), 500);
        assert_eq!(denial["reference_id"], "led_1");
        assert!(inference_denial("no", None).get("reference_id").is_none());
    }
}
