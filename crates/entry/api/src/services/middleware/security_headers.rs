//! Security headers of every answer (SEC-17).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::collections::BTreeMap;

/// The headers of this deployment, made once.
#[derive(Clone, Debug)]
pub struct SecurityHeaders {
    always: Vec<(HeaderName, HeaderValue)>,
}

impl SecurityHeaders {
    /// `overrides` is `server.security_headers`; HSTS is added where clients come by https.
    pub fn new(external_url: &str, overrides: &BTreeMap<String, String>) -> Self {
        let mut values: BTreeMap<&str, &str> = BTreeMap::from([
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
            ("cross-origin-opener-policy", "same-origin"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ]);
        if external_url.starts_with("https://") {
            values.insert("strict-transport-security", "max-age=63072000");
        }
        values.extend(overrides.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let parsed = values.into_iter().filter_map(|(name, value)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        });
        Self { always: parsed.collect() }
    }

    /// Adds what the route has not set itself. Answers to somebody signed in are not stored by caches.
    pub fn apply(&self, headers: &mut HeaderMap, signed_in: bool) {
        for (name, value) in &self.always {
            if !headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
        if signed_in && !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}
