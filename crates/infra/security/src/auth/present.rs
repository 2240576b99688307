//! Which of a request's credentials counts on a surface (SEC-42, GW-14).

use super::api_key::is_api_key;
use super::validation::CredentialSource;
use crate::extraction::TokenExtractionError;
use crate::extraction::cookie::CookieExtractor;
use crate::extraction::token::{api_key_header, authorization};
use crate::jwt::{Surface, UnverifiedClaims};
use http::HeaderMap;

/// What a request shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented<'h> {
    One(&'h str, CredentialSource),
    /// Two different credentials of ours; they must be the same principal's. The first one counts.
    Two(&'h str, &'h str),
    Nothing(Miss),
}

/// Why a request shows nothing usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nothing was tried.
    Absent,
    /// A header was there but held no well-formed credential.
    Header(TokenExtractionError),
    /// Only a malformed cookie was there.
    Cookie(TokenExtractionError),
}

pub(super) fn presented<'h>(
    headers: &'h HeaderMap,
    surface: Surface,
    cookies: &CookieExtractor,
    issuer: &str,
) -> Presented<'h> {
    let bearer = authorization(headers);
    let key = if surface.reads_api_key_header() { api_key_header(headers) } else { Ok(None) };
    if surface == Surface::Gateway {
        return on_gateway(bearer, key, issuer);
    }
    match (bearer, key) {
        (Ok(token), _) => Presented::One(token, CredentialSource::Bearer),
        // `x-api-key` is read when there is no `Authorization`, not when that one is malformed.
        (Err(TokenExtractionError::MissingAuthorizationHeader), Ok(Some(key))) => {
            Presented::One(key, CredentialSource::ApiKeyHeader)
        }
        (Err(bearer), key) => {
            let header = Some(bearer).filter(|error| error.is_malformed()).or(key.err());
            in_cookie(headers, surface, cookies, header)
        }
    }
}

/// Either header or both; of two, what is not ours is left to a provider that passes credentials through.
fn on_gateway<'h>(
    bearer: Result<&'h str, TokenExtractionError>,
    key: Result<Option<&'h str>, TokenExtractionError>,
    issuer: &str,
) -> Presented<'h> {
    match (bearer, key) {
        (Ok(bearer), Ok(Some(key))) if bearer != key => match (is_ours(bearer, issuer), is_ours(key, issuer))
        {
            (true, true) => Presented::Two(bearer, key),
            (false, true) => Presented::One(key, CredentialSource::ApiKeyHeader),
            (_, false) => Presented::One(bearer, CredentialSource::Bearer),
        },
        (Ok(bearer), _) => Presented::One(bearer, CredentialSource::Bearer),
        (Err(_), Ok(Some(key))) => Presented::One(key, CredentialSource::ApiKeyHeader),
        (Err(TokenExtractionError::MissingAuthorizationHeader), Ok(None)) => Presented::Nothing(Miss::Absent),
        (Err(_), _) => Presented::Nothing(Miss::Header(TokenExtractionError::InvalidAuthorizationFormat)),
    }
}

/// An API key by its prefix, a token by the issuer that it names (the one thing that unverified claims decide).
fn is_ours(text: &str, issuer: &str) -> bool {
    is_api_key(text) || UnverifiedClaims::decode(text).is_ok_and(|claims| claims.issuer() == Some(issuer))
}

fn in_cookie<'h>(
    headers: &'h HeaderMap,
    surface: Surface,
    cookies: &CookieExtractor,
    header: Option<TokenExtractionError>,
) -> Presented<'h> {
    let cookie = if surface.takes_cookies() {
        cookies.find(headers).map_err(TokenExtractionError::from)
    } else {
        Err(TokenExtractionError::MissingCookie)
    };
    match (cookie, header) {
        (Ok(token), _) => Presented::One(token, CredentialSource::Cookie),
        (Err(_), Some(error)) => Presented::Nothing(Miss::Header(error)),
        (Err(error), None) if error.is_malformed() => Presented::Nothing(Miss::Cookie(error)),
        (Err(_), None) => Presented::Nothing(Miss::Absent),
    }
}
