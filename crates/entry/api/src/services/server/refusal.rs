//! How the edge says no: the body of the route's protocol, the headers that go with the code, and the name to count it under.

use crate::services::middleware::negotiation::{Form, preferred};
use crate::services::middleware::scanner;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{Code, Refusal};

/// Header that names the outcome of a decision endpoint.
pub const DECISION_HEADER: &str = "x-systemprompt-decision";
/// Header that says whether an event was stored.
pub const RECORDED_HEADER: &str = "x-systemprompt-recorded";
/// Header that says why a request was blocked.
const BLOCKED_HEADER: &str = "x-blocked-reason";
/// Its value for a banned address.
const BANNED: &str = "ip-banned";

/// The rule that blocked a request, as `x-blocked-reason` says it.
fn blocked_reason(refusal: &Refusal) -> Option<&'static str> {
    if refusal.code == Code::IpBanned {
        return Some(BANNED);
    }
    let rules = [scanner::PATH, scanner::AGENT, scanner::VELOCITY];
    rules.into_iter().find(|rule| refusal.policy.as_deref() == Some(rule))
}

/// What a refusal is counted under: the scanner's rule, else the code.
pub(super) fn reason_of(refusal: &Refusal) -> &'static str {
    blocked_reason(refusal).unwrap_or_else(|| refusal.code.as_str())
}

/// What stands in an answer for a part of the address that it would otherwise repeat.
const NOT_REPEATED: &str = "…";
/// From so many bytes on a part of an address may be a credential that somebody put there by mistake (SEC-42 asks for 16).
const MAY_BE_SECRET: usize = 16;

/// The refusal without the longer parts of the address that led to it: answers are logged by clients and proxies on their way.
pub(super) fn unrepeated(mut refusal: Refusal, asked: &Uri) -> Refusal {
    let query = asked.query().unwrap_or_default().split('&').filter_map(|pair| Some(pair.split_once('=')?.1));
    for part in asked.path().split('/').chain(query).filter(|part| part.len() >= MAY_BE_SECRET) {
        let part = percent_decode_str(part).decode_utf8_lossy();
        if refusal.public_part.as_deref() == Some(&*part) {
            continue;
        }
        let conceal = |text: &str| text.replace(&*part, NOT_REPEATED);
        if refusal.reason.contains(&*part) {
            refusal.reason = conceal(&refusal.reason).into();
        }
        for (field, message) in &mut refusal.validation_errors {
            (*field, *message) = (conceal(field), conceal(message));
        }
    }
    refusal
}

/// The protocol of a path that has no route.
pub(super) fn envelope_of(path: &str) -> Envelope {
    if path == "/v1/messages" || path.starts_with("/v1/messages/") || path.starts_with("/v1/models") {
        Envelope::Anthropic
    } else if path.starts_with("/api/v1/mcp/") && path.ends_with("/mcp") {
        Envelope::Mcp
    } else {
        Envelope::Problem
    }
}

/// The answer of a refusal in its protocol, for a hook in the form of its event; where the protocol is our own, a page for whom
/// prefers one.
pub(super) fn render(
    envelope: Envelope,
    event: Option<&str>,
    refusal: Refusal,
    accept: Option<&HeaderValue>,
) -> Response {
    let mut rendered = envelope.render_for(&refusal, event);
    let is_negotiated = envelope == Envelope::Problem;
    let body = if is_negotiated && preferred(accept, &[Form::Json, Form::Html]) == Some(Form::Html) {
        rendered.content_type = "text/html; charset=utf-8";
        page(&rendered.body)
    } else {
        rendered.body.to_string()
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    if is_negotiated {
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    }
    if let Some(seconds) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(reason) = blocked_reason(&refusal) {
        headers.insert(BLOCKED_HEADER, HeaderValue::from_static(reason));
    }
    match refusal.code {
        Code::Unauthenticated if envelope != Envelope::InferenceHook => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Code::InvalidToken => {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Code::MethodNotAllowed => {
            let allow = refusal.reason.trim_start_matches("this path takes ").to_owned();
            if let Ok(value) = HeaderValue::from_str(&allow) {
                headers.insert(header::ALLOW, value);
            }
        }
        _ => {}
    }
    match envelope {
        Envelope::Hook => {
            headers.insert(DECISION_HEADER, HeaderValue::from_static("deny"));
        }
        Envelope::HookTrack => {
            headers.insert(RECORDED_HEADER, HeaderValue::from_static("false"));
        }
        Envelope::Anthropic if refusal.code == Code::Denied => {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        Envelope::Anthropic if rendered.status == 503 => {
            headers.insert("x-should-retry", HeaderValue::from_static("true"));
        }
        _ => {}
    }
    if let Some(id) = &refusal.decision_id
        && let Ok(value) = HeaderValue::from_str(id.as_str())
    {
        headers.insert("x-systemprompt-decision-id", value);
    }
    response
}

/// A refusal as a page, without anything that has to be loaded.
fn page(problem: &Value) -> String {
    let text = |name: &str| {
        let value =
            problem.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let value = value.unwrap_or_default();
        value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    };
    let title = format!("{} {}", text("status"), text("title"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n\
         <p>{}</p>\n<p>{} {}</p>\n</html>\n",
        text("detail"),
        text("code"),
        text("trace_id")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_parts_of_the_address_are_not_repeated() {
        let asked: Uri = "/api/v1/admin/users/a-secret%20of-somebody?x=another-secret-there".parse().unwrap();
        let reason = "there is no user `a-secret of-somebody` in another-secret-there of users";
        let refusal = Refusal::new(Code::NotFound, reason).with_validation("another-secret-there", "users");
        let refusal = unrepeated(refusal, &asked);
        assert_eq!(refusal.reason, "there is no user `…` in … of users");
        assert_eq!(refusal.validation_errors, [("…".to_owned(), "users".to_owned())]);
    }

    #[test]
    fn a_browser_gets_a_page_and_a_program_json() {
        let refusal = || Refusal::new(Code::NotFound, "<script>&");
        for (accept, kind) in
            [("text/html,*/*;q=0.8", "text/html; charset=utf-8"), ("*/*", "application/problem+json")]
        {
            let accept = HeaderValue::from_static(accept);
            let answer = render(Envelope::Problem, None, refusal(), Some(&accept));
            assert_eq!(
                (&answer.headers()["content-type"], &answer.headers()["vary"]),
                (&kind.parse().unwrap(), &"Accept".parse().unwrap())
            );
            let answer = render(Envelope::Anthropic, None, refusal(), Some(&accept));
            assert_eq!(answer.headers()["content-type"], "application/json");
        }
        assert!(page(&Envelope::Problem.render(&refusal()).body).contains("<p>&lt;script&gt;&amp;</p>"));
    }
}
