//! A request to our own API.

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// How long an answer may take where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What stands in a path or a query as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is asked of the server.
pub struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
    /// Instead of the client's own token.
    pub(super) token: Option<&'a str>,
    pub(super) timeout: Duration,
}

impl<'a> Ask<'a> {
    fn new(method: Method, path: &str) -> Self {
        let path = path.to_owned();
        Self { method, path, headers: Vec::new(), body: None, token: None, timeout: TIMEOUT }
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn options(path: &str) -> Self {
        Self::new(Method::OPTIONS, path)
    }

    pub fn post(path: &str, body: &Value) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    pub fn put(path: &str, body: &Value) -> Self {
        Self::new(Method::PUT, path).json(body)
    }

    pub fn patch(path: &str, body: &Value) -> Self {
        Self::new(Method::PATCH, path).json(body)
    }

    pub fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path)
    }

    fn json(self, body: &Value) -> Self {
        self.bytes(body.to_string().into_bytes())
    }

    /// A body as it is.
    pub fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a query parameter, if there is a value for it.
    pub fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let sign = if self.path.contains('?') { '&' } else { '?' };
            let _ = write!(self.path, "{sign}{name}={}", encoded(&value.to_string()));
        }
        self
    }

    pub fn token(mut self, token: &'a str) -> Self {
        self.token = Some(token);
        self
    }

    /// How long the whole answer may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Text as a segment of a path or a value of a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_segments_are_encoded() {
        let ask = Ask::get("/a").query("x", Some("1 & 2")).query("none", None::<i64>).query("n", Some(5));
        assert_eq!(ask.path, "/a?x=1%20%26%202&n=5");
        assert_eq!(encoded("../é"), "..%2F%C3%A9");
    }
}
