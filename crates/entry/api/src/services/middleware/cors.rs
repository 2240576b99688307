//! Which pages of other origins may read answers (SEC-19): exact origins with credentials; public documents everyone, without.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const EXPOSED: &str = "x-trace-id, etag, retry-after, ratelimit, ratelimit-policy, www-authenticate, dpop-nonce, mcp-session-id, \
                       x-policy-version";
/// Request headers that a page may send; a name that ends in `-` stands for all that begin so.
const ALLOWED: [&str; 11] = [
    "authorization",
    "content-type",
    "x-api-key",
    "x-trace-id",
    "x-context-id",
    "x-policy-version",
    "idempotency-key",
    "if-match",
    "last-event-id",
    "mcp-",
    "anthropic-",
];
/// Seconds for which a browser may remember the answer to a preflight.
const MAX_AGE: &str = "600";
/// Most request headers that a preflight may name.
const MAX_NAMES: usize = 32;

/// How far a path is open to pages of other origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A public document: `*`, without credentials.
    Public,
    /// The listed origins, with credentials.
    Listed,
    /// Nobody: pages, and what sets or reads the cookie of a sign-in (ID-4).
    Nobody,
}

/// Endpoints of the authorization server that read no cookie.
const OPEN_ENDPOINTS: [&str; 8] =
    ["token", "register", "revoke", "introspect", "userinfo", "par", "device_authorization", "health"];
/// Pages at the root.
const PAGES: [&str; 4] = ["/login", "/device", "/setup", "/webauthn"];

/// The sharing of a path.
pub fn sharing(path: &str) -> Sharing {
    if path.starts_with("/.well-known/") || path == "/api/v1/openapi.json" {
        return Sharing::Public;
    }
    let endpoint =
        path.strip_prefix("/api/v1/core/oauth/").map(|rest| rest.split('/').next().unwrap_or_default());
    match endpoint {
        Some("clients") => Sharing::Listed,
        Some(name) if OPEN_ENDPOINTS.contains(&name) => Sharing::Public,
        Some(_) => Sharing::Nobody,
        None => {
            let is_page = PAGES.iter().any(|page| {
                path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if is_page { Sharing::Nobody } else { Sharing::Listed }
        }
    }
}

/// Whether a browser asks what it may send.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether pages of the origin that a request names may read the answer.
pub fn is_allowed(headers: &HeaderMap, sharing: Sharing, listed: &[String]) -> bool {
    match sharing {
        Sharing::Public => true,
        Sharing::Nobody => false,
        Sharing::Listed => headers
            .get(header::ORIGIN)
            .is_some_and(|origin| listed.iter().any(|one| one.as_bytes() == origin.as_bytes())),
    }
}

/// The answer to a preflight of an allowed origin.
pub fn preflight(asked: &HeaderMap) -> (StatusCode, HeaderMap) {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    let names = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let names = names.unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase());
    let names: Vec<String> = names.filter(|name| may_send(name)).take(MAX_NAMES).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(", "))
        && !names.is_empty()
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, value);
    }
    (StatusCode::NO_CONTENT, headers)
}

fn may_send(name: &str) -> bool {
    let fits = |known: &str| if known.ends_with('-') { name.starts_with(known) } else { name == known };
    HeaderName::from_bytes(name.as_bytes()).is_ok() && ALLOWED.iter().any(|known| fits(known))
}

/// Marks an answer. `origin` is the one that the request named.
pub fn apply(answer: &mut HeaderMap, origin: Option<&HeaderValue>, sharing: Sharing, listed: &[String]) {
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    let value = match sharing {
        Sharing::Public => HeaderValue::from_static("*"),
        Sharing::Listed if listed.iter().any(|one| one.as_bytes() == origin.as_bytes()) => {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            origin.clone()
        }
        Sharing::Listed | Sharing::Nobody => return,
    };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_origins_get_credentials_public_documents_none_and_others_nothing() {
        let listed = ["https://app.example".to_owned()];
        for (path, origin, allowed, credentials) in [
            ("/api/v1/hooks", "https://app.example", Some("https://app.example"), true),
            ("/api/v1/hooks", "https://app.example:8443", None, false),
            ("/api/v1/hooks", "https://evil.example", None, false),
            ("/api/v1/hooks", "null", None, false),
            ("/.well-known/jwks.json", "https://evil.example", Some("*"), false),
            ("/api/v1/openapi.json", "https://evil.example", Some("*"), false),
        ] {
            let mut answer = HeaderMap::new();
            apply(&mut answer, Some(&origin.parse().unwrap()), sharing(path), &listed);
            let got = answer.get("access-control-allow-origin").map(|v| v.to_str().unwrap());
            assert_eq!(got, allowed, "{path} {origin}");
            assert_eq!(answer.contains_key("access-control-allow-credentials"), credentials);
            assert_eq!(answer["vary"], "Origin");
        }
    }

    #[test]
    fn a_preflight_names_only_headers_that_may_be_sent() {
        let mut asked = HeaderMap::new();
        asked.insert(
            "access-control-request-headers",
            "Authorization, x-evil, Mcp-Session-Id, anthropic-version, cookie".parse().unwrap(),
        );
        let (status, headers) = preflight(&asked);
        assert_eq!(status, 204);
        assert_eq!(
            headers["access-control-allow-headers"],
            "authorization, mcp-session-id, anthropic-version"
        );
    }
}
