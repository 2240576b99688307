//! The extraction chain: an ordered list of places, the first well-formed token wins (SEC-40 to SEC-42).
//!
//! A place that holds nothing, or something malformed, hands on to the next. A well-formed token that later fails its
//! verification ends the request: nobody resumes the chain with another source.

use super::cookie::{CookieExtractionError, CookieExtractor};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::borrow::Cow;
use systemprompt_models::Secret;

/// Shortest and longest credential, in bytes.
pub const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=8192;
/// Header in which an MCP proxy passes its assertion.
pub const MCP_PROXY_HEADER: &str = "x-mcp-proxy-auth";
/// Header in which clients of model APIs send a credential without a scheme.
pub const API_KEY_HEADER: &str = "x-api-key";

/// A place where a token may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtractionMethod {
    AuthorizationHeader,
    McpProxyHeader,
    Cookie,
}

/// Why no token was found. No variant holds any part of a header's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenExtractionError {
    #[error("no credential was found")]
    NoTokenFound,
    #[error("there is no Authorization header")]
    MissingAuthorizationHeader,
    #[error("the Authorization header must be one `Bearer <token>` of 16 to 8192 token characters")]
    InvalidAuthorizationFormat,
    #[error("there is no MCP proxy header")]
    MissingMcpProxyHeader,
    #[error("the MCP proxy header must be one `Bearer <token>` of 16 to 8192 token characters")]
    InvalidMcpProxyFormat,
    #[error("there is no Cookie header")]
    MissingCookie,
    #[error("the token cookie is malformed or occurs twice")]
    InvalidCookieFormat,
    #[error("there is no token cookie among the cookies")]
    TokenNotFoundInCookie,
}

impl TokenExtractionError {
    /// Whether something stood at the place, but not a well-formed token.
    pub fn is_malformed(self) -> bool {
        matches!(
            self,
            Self::InvalidAuthorizationFormat | Self::InvalidMcpProxyFormat | Self::InvalidCookieFormat
        )
    }
}

impl From<CookieExtractionError> for TokenExtractionError {
    fn from(error: CookieExtractionError) -> Self {
        match error {
            CookieExtractionError::MissingCookie => Self::MissingCookie,
            CookieExtractionError::InvalidCookieFormat => Self::InvalidCookieFormat,
            CookieExtractionError::TokenNotFoundInCookie => Self::TokenNotFoundInCookie,
        }
    }
}

/// A token and where it stood; the place decides about CSRF checks and is recorded.
pub struct ExtractedToken {
    pub token: Secret<String>,
    pub method: ExtractionMethod,
}

/// An ordered list of places to look for a token.
///
/// ```
/// use http::HeaderMap;
/// use systemprompt_security::extraction::{ExtractionMethod, TokenExtractor};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("cookie", "theme=dark; sid=0123456789abcdef".parse().unwrap());
///
/// let found = TokenExtractor::browser_only().with_cookie_name("sid").extract(&headers).unwrap();
/// assert_eq!(found.method, ExtractionMethod::Cookie);
/// assert!(TokenExtractor::api_only().extract(&headers).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct TokenExtractor {
    methods: Vec<ExtractionMethod>,
    cookie: CookieExtractor,
    mcp_header_name: Cow<'static, str>,
}

impl TokenExtractor {
    /// Looks at `methods` in their order. An empty list finds nothing.
    pub fn new(methods: Vec<ExtractionMethod>) -> Self {
        Self { methods, cookie: CookieExtractor::default(), mcp_header_name: Cow::Borrowed(MCP_PROXY_HEADER) }
    }

    /// `Authorization`, the MCP proxy header, the cookie.
    pub fn standard() -> Self {
        use ExtractionMethod::{AuthorizationHeader, Cookie, McpProxyHeader};
        Self::new(vec![AuthorizationHeader, McpProxyHeader, Cookie])
    }

    /// `Authorization`, the cookie.
    pub fn browser_only() -> Self {
        Self::new(vec![ExtractionMethod::AuthorizationHeader, ExtractionMethod::Cookie])
    }

    /// `Authorization` alone.
    pub fn api_only() -> Self {
        Self::new(vec![ExtractionMethod::AuthorizationHeader])
    }

    pub fn with_cookie_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.cookie = CookieExtractor::new(name);
        self
    }

    pub fn with_mcp_header_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.mcp_header_name = name.into();
        self
    }

    /// The first well-formed token of the chain.
    ///
    /// # Errors
    /// [`TokenExtractionError::NoTokenFound`] when no place holds one; [`Self::explain`] tells why each missed.
    pub fn extract(&self, headers: &HeaderMap) -> Result<ExtractedToken, TokenExtractionError> {
        self.find(headers)
            .map(|(token, method)| ExtractedToken { token: Secret::from(token), method })
            .ok_or(TokenExtractionError::NoTokenFound)
    }

    /// Like [`Self::extract`], without a copy of the token.
    pub fn find<'h>(&self, headers: &'h HeaderMap) -> Option<(&'h str, ExtractionMethod)> {
        self.methods.iter().find_map(|&method| self.look(method, headers).ok().map(|token| (token, method)))
    }

    /// Why each place of the chain holds no token; a place that holds one is left out.
    pub fn explain(&self, headers: &HeaderMap) -> Vec<(ExtractionMethod, TokenExtractionError)> {
        let misses = self.methods.iter().map(|&method| (method, self.look(method, headers)));
        misses.filter_map(|(method, result)| result.err().map(|error| (method, error))).collect()
    }

    /// The token at one place, whether or not the chain names it.
    ///
    /// # Errors
    /// The two or three kinds of that place.
    pub fn look<'h>(
        &self,
        method: ExtractionMethod,
        headers: &'h HeaderMap,
    ) -> Result<&'h str, TokenExtractionError> {
        match method {
            ExtractionMethod::AuthorizationHeader => authorization(headers),
            ExtractionMethod::McpProxyHeader => mcp_proxy(headers, &self.mcp_header_name),
            ExtractionMethod::Cookie => Ok(self.cookie.find(headers)?),
        }
    }
}

impl Default for TokenExtractor {
    fn default() -> Self {
        Self::standard()
    }
}

/// The token of the `Authorization` header.
///
/// # Errors
/// `MissingAuthorizationHeader` or `InvalidAuthorizationFormat`.
pub fn authorization(headers: &HeaderMap) -> Result<&str, TokenExtractionError> {
    match single(headers, AUTHORIZATION.as_str()) {
        Field::Absent => Err(TokenExtractionError::MissingAuthorizationHeader),
        Field::Text(text) => bearer(text).ok_or(TokenExtractionError::InvalidAuthorizationFormat),
        Field::Unusable => Err(TokenExtractionError::InvalidAuthorizationFormat),
    }
}

/// The token of the MCP proxy header, which is called `name`.
///
/// # Errors
/// `MissingMcpProxyHeader` or `InvalidMcpProxyFormat`.
pub fn mcp_proxy<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, TokenExtractionError> {
    match single(headers, name) {
        Field::Absent => Err(TokenExtractionError::MissingMcpProxyHeader),
        Field::Text(text) => bearer(text).ok_or(TokenExtractionError::InvalidMcpProxyFormat),
        Field::Unusable => Err(TokenExtractionError::InvalidMcpProxyFormat),
    }
}

/// The `x-api-key` header, which carries a token or an API key without a scheme: absent, well-formed, or malformed.
///
/// # Errors
/// `InvalidAuthorizationFormat` when the header is there but holds no well-formed credential.
pub fn api_key_header(headers: &HeaderMap) -> Result<Option<&str>, TokenExtractionError> {
    match single(headers, API_KEY_HEADER) {
        Field::Absent => Ok(None),
        Field::Text(text) if is_token(text) => Ok(Some(text)),
        Field::Text(_) | Field::Unusable => Err(TokenExtractionError::InvalidAuthorizationFormat),
    }
}

enum Field<'h> {
    Absent,
    Text(&'h str),
    /// Not text, or sent more than once.
    Unusable,
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Field<'h> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Field::Absent,
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).map_or(Field::Unusable, Field::Text),
        (Some(_), Some(_)) => Field::Unusable,
    }
}

/// The token of `Bearer <token>`: the scheme in any case, one space or more.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once(' ')?;
    let token = rest.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && is_token(token)).then_some(token)
}

/// The characters of `token68`, by their byte.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
const TOKEN68: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
        byte += 1;
    }
    table
};

/// Whether `text` is `token68` (RFC 9110 section 11.2) of an accepted length.
pub(crate) fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=').as_bytes();
    // No early end: a token is looked at on every request, and nearly every one is well-formed.
    let allowed = |ok, byte: &u8| ok & TOKEN68.get(usize::from(*byte)).copied().unwrap_or(false);
    TOKEN_BYTES.contains(&text.len()) && !body.is_empty() && body.iter().fold(true, allowed)
}

#[cfg(test)]
mod tests;
