//! Cross-site request forgery (SEC-44): a request that a cookie authenticates must come from our own pages. Bearer requests
//! are exempt, since a browser never adds such a header by itself.

use http::{HeaderMap, Method};

/// Whether a cookie-authenticated request may go on. `external_origin` is scheme, host and port of `api_external_url`.
///
/// ```
/// use http::{HeaderMap, Method};
/// use systemprompt_security::auth::csrf::is_allowed;
/// let mut headers = HeaderMap::new();
/// assert!(is_allowed(&Method::GET, &headers, "https://example.org"));
/// assert!(!is_allowed(&Method::POST, &headers, "https://example.org"));
/// headers.insert("origin", "https://example.org".parse().unwrap());
/// assert!(is_allowed(&Method::POST, &headers, "https://example.org"));
/// ```
pub fn is_allowed(method: &Method, headers: &HeaderMap, external_origin: &str) -> bool {
    if method.is_safe() {
        return true;
    }
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match value("sec-fetch-site") {
        Some("same-origin" | "none") => true,
        _ => value("origin").is_some_and(|origin| origin.eq_ignore_ascii_case(external_origin)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_methods_need_a_sign_of_our_own_pages() {
        for (site, origin, ok) in [
            (Some("same-origin"), None, true),
            (Some("none"), None, true),
            (Some("cross-site"), None, false),
            (Some("same-site"), Some("https://other.example.org"), false),
            (None, Some("https://example.org"), true),
            (None, Some("https://example.org.evil.test"), false),
            (None, Some("null"), false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(
                is_allowed(&Method::DELETE, &headers, "https://example.org"),
                ok,
                "{site:?} {origin:?}"
            );
        }
    }
}
