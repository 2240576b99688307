//! An answer of our own API, and what a refusal means for the exit code (contract, `help exit-codes`).

use crate::exit::{CliError, Exit};
use crate::output::plain;
use http::HeaderMap;
use serde_json::Value;

/// Status, headers and body, whole.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn trace_id(&self) -> Option<String> {
        self.header("x-trace-id").map(str::to_owned)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The error of a refusal, in whatever protocol it came.
    pub fn refusal(&self, what: &str) -> CliError {
        let body = self.json();
        let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
        let mut error = CliError::new(exit(self.status, code), what).trace(self.trace_id());
        error.why = Some(why(self.status, &body));
        error.fix = fix(self.status, code, &body);
        error
    }
}

fn exit(status: u16, code: &str) -> Exit {
    match (status, code) {
        (401, _) => Exit::SignInNeeded,
        (403, _) => Exit::Denied,
        (404, _) => Exit::NotFound,
        (409 | 412 | 428, _) => Exit::Conflict,
        // What a filter is made of stands on the command line.
        (400, "invalid_filter") => Exit::Usage,
        (400 | 413 | 422, _) => Exit::Invalid,
        (503, "starting" | "draining") => Exit::Unreachable,
        _ => Exit::Failure,
    }
}

fn why(status: u16, body: &Value) -> String {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(plain);
    let sentence = text("/detail").or_else(|| text("/error/message"));
    let mut why = sentence.unwrap_or_else(|| format!("the server answers with status {status}"));
    let faults = body.get("validation_errors").and_then(Value::as_array);
    for fault in faults.into_iter().flatten() {
        let part = |name: &str| fault.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
        why = format!("{why}; {}: {}", part("field"), part("message"));
    }
    why
}

fn fix(status: u16, code: &str, body: &Value) -> Option<String> {
    Some(match (status, code) {
        (401, _) => {
            "start the server on this machine with `systemprompt serve`, which renews the credential, \
                     or put a token into SYSTEMPROMPT_TOKEN"
                .to_owned()
        }
        (403, "insufficient_scope") => "put an administrator's token into SYSTEMPROMPT_TOKEN".to_owned(),
        (412, _) => "somebody else changed it in between: look at it and try again".to_owned(),
        (429, _) => {
            let seconds = body.get("retry_after").and_then(Value::as_u64).unwrap_or(1);
            format!("try again in {seconds} s")
        }
        (500.., _) => {
            "`systemprompt doctor` looks for the cause; the server's log has the trace id".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(status: u16, body: &Value) -> CliError {
        let mut headers = HeaderMap::new();
        headers.insert("x-trace-id", "trc_1".parse().unwrap());
        Answer { status, headers, body: body.to_string().into_bytes() }.refusal("it cannot be done")
    }

    #[test]
    fn every_refusal_has_its_exit_code() {
        for (status, code, exit) in [
            (401, "unauthenticated", Exit::SignInNeeded),
            (403, "denied", Exit::Denied),
            (403, "insufficient_scope", Exit::Denied),
            (404, "not_found", Exit::NotFound),
            (409, "conflict", Exit::Conflict),
            (412, "precondition_failed", Exit::Conflict),
            (422, "unprocessable", Exit::Invalid),
            (400, "invalid_filter", Exit::Usage),
            (400, "bad_request", Exit::Invalid),
            (429, "rate_limited", Exit::Failure),
            (500, "internal", Exit::Failure),
            (503, "starting", Exit::Unreachable),
            (503, "ledger_unavailable", Exit::Failure),
        ] {
            assert_eq!(refused(status, &json!({"code": code})).exit, exit, "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_says_what_was_wrong_where_and_under_which_trace() {
        let body = json!({
            "code": "unprocessable", "detail": "a field is not valid",
            "validation_errors": [{"field": "access", "message": "allowed: allow, deny"}],
        });
        let error = refused(422, &body);
        assert_eq!(error.why.as_deref(), Some("a field is not valid; access: allowed: allow, deny"));
        assert_eq!(error.trace_id.as_deref(), Some("trc_1"));
        let anthropic = json!({"type": "error", "error": {"message": "Denied by secret_scan"}});
        assert_eq!(refused(400, &anthropic).why.as_deref(), Some("Denied by secret_scan"));
        assert_eq!(refused(502, &Value::Null).why.as_deref(), Some("the server answers with status 502"));
    }
}
