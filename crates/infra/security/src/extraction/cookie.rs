//! The token cookie (RFC 6265 section 4.2.1). A name that occurs twice is refused: whoever can set a cookie for a parent
//! domain must not choose which session counts.

use super::token::is_token;
use http::HeaderMap;
use http::header::COOKIE;
use std::borrow::Cow;
use systemprompt_models::Secret;

/// Name of the cookie that carries a session token, unless another is chosen.
pub const DEFAULT_COOKIE_NAME: &str = "access_token";
/// Most cookies that are looked at.
const MAX_COOKIES: usize = 64;
/// Most bytes of all Cookie headers together.
const MAX_COOKIE_BYTES: usize = 16 * 1024;

/// Why the cookies hold no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CookieExtractionError {
    #[error("there is no Cookie header")]
    MissingCookie,
    #[error(
        "the token cookie is malformed or occurs twice, or there are more than 64 cookies or 16 KiB of them"
    )]
    InvalidCookieFormat,
    #[error("there is no token cookie among the cookies")]
    TokenNotFoundInCookie,
}

/// Reads one named cookie.
///
/// ```
/// use systemprompt_security::extraction::CookieExtractor;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("cookie", "access_token=\"0123456789abcdef\"".parse().unwrap());
/// assert_eq!(CookieExtractor::default().find(&headers), Ok("0123456789abcdef"));
/// ```
#[derive(Clone, Debug)]
pub struct CookieExtractor {
    name: Cow<'static, str>,
}

impl Default for CookieExtractor {
    fn default() -> Self {
        Self::new(DEFAULT_COOKIE_NAME)
    }
}

impl CookieExtractor {
    /// Reads the cookie called `name`; names are case-sensitive.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into() }
    }

    /// The token of the cookie.
    ///
    /// # Errors
    /// See [`CookieExtractionError`].
    pub fn extract(&self, headers: &HeaderMap) -> Result<Secret<String>, CookieExtractionError> {
        self.find(headers).map(Secret::from)
    }

    /// Like [`Self::extract`], without a copy.
    ///
    /// # Errors
    /// See [`CookieExtractionError`].
    pub fn find<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, CookieExtractionError> {
        let lines = headers.get_all(COOKIE);
        if lines.iter().next().is_none() {
            return Err(CookieExtractionError::MissingCookie);
        }
        if lines.iter().map(http::HeaderValue::len).sum::<usize>() > MAX_COOKIE_BYTES {
            return Err(CookieExtractionError::InvalidCookieFormat);
        }
        let pairs = lines.iter().flat_map(|line| line.as_bytes().split(|&b| b == b';'));
        let mut found = None;
        for (count, pair) in pairs.enumerate() {
            if count == MAX_COOKIES {
                return Err(CookieExtractionError::InvalidCookieFormat);
            }
            let Some(value) = self.value_of(pair.trim_ascii()) else { continue };
            if found.replace(value).is_some() {
                return Err(CookieExtractionError::InvalidCookieFormat);
            }
        }
        let value = found.ok_or(CookieExtractionError::TokenNotFoundInCookie)?;
        let text = std::str::from_utf8(unquoted(value)).ok().filter(|text| is_token(text));
        text.ok_or(CookieExtractionError::InvalidCookieFormat)
    }

    fn value_of<'h>(&self, pair: &'h [u8]) -> Option<&'h [u8]> {
        pair.strip_prefix(self.name.as_bytes())?.strip_prefix(b"=")
    }
}

/// `value` without one pair of double quotes around it.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}
