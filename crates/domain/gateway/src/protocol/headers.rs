//! Header lists. What is not named here stays on its side: credentials, cookies, hop-by-hop names, addresses, trace context
//! and every internal name.

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

/// Families of request headers on the Anthropic wire.
const REQUEST_FAMILIES: [&str; 3] = ["anthropic-", "x-stainless-", "x-claude-code-"];
const REQUEST_NAMES: [&str; 2] = ["x-app", "idempotency-key"];
const RESPONSE_FAMILIES: [&str; 2] = ["anthropic-", "openai-"];
const RESPONSE_NAMES: [&str; 3] = ["request-id", "x-request-id", "x-should-retry"];
/// Limits of the account behind a managed credential; they say nothing to the caller.
const ACCOUNT_FAMILIES: [&str; 2] = ["anthropic-ratelimit-", "x-ratelimit-"];

/// What is recorded of a client and not interpreted (GW-32).
const NOTED: [&str; 6] = [
    "x-claude-code-agent-id",
    "x-claude-code-parent-agent-id",
    "x-stainless-retry-count",
    "x-stainless-lang",
    "x-app",
    "user-agent",
];
const NOTED_CHARS: usize = 256;

/// The request headers that go upstream, each line as it came and in order.
pub fn forwarded_request_headers(from: &HeaderMap) -> HeaderMap {
    select(from, |name| {
        in_families(name, &REQUEST_FAMILIES)
            || REQUEST_NAMES.contains(&name.as_str())
            || [USER_AGENT, ACCEPT, CONTENT_TYPE].contains(name)
    })
}

/// The response headers that reach the client. An encoded body keeps the name of its encoding.
pub fn forwarded_response_headers(from: &HeaderMap) -> HeaderMap {
    select(from, |name| {
        !in_families(name, &ACCOUNT_FAMILIES)
            && (in_families(name, &RESPONSE_FAMILIES)
                || RESPONSE_NAMES.contains(&name.as_str())
                || [CONTENT_TYPE, CONTENT_ENCODING, RETRY_AFTER].contains(name))
    })
}

fn in_families(name: &HeaderName, families: &[&str]) -> bool {
    families.iter().any(|family| name.as_str().starts_with(family))
}

fn select(from: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let mut to = HeaderMap::with_capacity(from.len().min(24));
    for (name, value) in from {
        if wanted(name) {
            to.append(name.clone(), value.clone());
        }
    }
    to
}

/// A header's text for the record: 256 characters, control characters replaced.
fn note(from: &HeaderMap, name: &str) -> Option<String> {
    let value = from.get(name)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    Some(text.chars().take(NOTED_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect())
}

/// The headers of GW-32 that came, by name.
pub fn noted(from: &HeaderMap) -> Map<String, Value> {
    let notes = NOTED.iter().filter_map(|name| Some(((*name).to_owned(), Value::from(note(from, name)?))));
    notes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn lines_of_a_repeated_header_stay_apart_and_in_order() {
        let from = headers(&[
            ("anthropic-beta", "b,a"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "c"),
        ]);
        let to = forwarded_request_headers(&from);
        assert_eq!(to.get_all("anthropic-beta").iter().collect::<Vec<_>>(), ["b,a", "c"]);
        assert_eq!(to.len(), 3);
    }

    #[test]
    fn nothing_of_ours_goes_upstream() {
        let ours = [
            "authorization",
            "x-api-key",
            "cookie",
            "host",
            "connection",
            "transfer-encoding",
            "content-length",
            "accept-encoding",
            "x-forwarded-for",
            "forwarded",
            "via",
            "traceparent",
            "baggage",
            "x-trace-id",
            "x-context-id",
            "x-session-id",
            "x-user-id",
            "x-user-type",
            "x-user-permissions",
            "x-task-id",
            "x-agent-name",
            "x-ai-tool-call-id",
            "x-call-source",
            "x-client-id",
            "x-policy-version",
            "x-gateway-conversation-id",
            "x-proxy-verified",
            "x-mcp-proxy-auth",
            "x-systemprompt-key",
            "proxy-authorization",
            "origin",
            "referer",
        ];
        for name in ours {
            assert!(forwarded_request_headers(&headers(&[(name, "v")])).is_empty(), "{name}");
        }
        for name in [
            "x-stainless-lang",
            "x-claude-code-session-id",
            "x-app",
            "user-agent",
            "accept",
            "content-type",
            "idempotency-key",
        ] {
            assert_eq!(forwarded_request_headers(&headers(&[(name, "v")])).len(), 1, "{name}");
        }
    }

    #[test]
    fn only_the_listed_response_headers_come_back() {
        for name in [
            "content-type",
            "content-encoding",
            "request-id",
            "x-request-id",
            "anthropic-organization-id",
            "openai-version",
            "retry-after",
            "x-should-retry",
        ] {
            assert_eq!(forwarded_response_headers(&headers(&[(name, "v")])).len(), 1, "{name}");
        }
        for name in [
            "set-cookie",
            "server",
            "content-length",
            "transfer-encoding",
            "anthropic-ratelimit-requests-limit",
            "x-ratelimit-limit-tokens",
            "x-context-id",
            "cf-ray",
        ] {
            assert!(forwarded_response_headers(&headers(&[(name, "v")])).is_empty(), "{name}");
        }
    }

    #[test]
    fn notes_are_short_and_printable() {
        let mut from = headers(&[("x-stainless-lang", "python"), ("accept", "x")]);
        from.insert("user-agent", HeaderValue::from_bytes(b"a\tb\xff").unwrap());
        from.insert("x-app", HeaderValue::from_str(&"x".repeat(300)).unwrap());
        let notes = noted(&from);
        assert_eq!(notes.len(), 3);
        assert_eq!(notes["user-agent"], "a b\u{fffd}");
        assert_eq!(notes["x-app"].as_str().unwrap().len(), 256);
    }
}
