//! The compact form of a token and its header, before anything is verified (RFC 7515 sections 3.1 and 4.1).

use crate::error::JwtError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use systemprompt_models::json::{JsonFault, check_object};

pub(super) const MAX_TOKEN_BYTES: usize = 8192;
const MAX_HEADER_BYTES: usize = 1024;
/// Deepest nesting of a header or of claims.
pub(super) const MAX_DEPTH: usize = 32;

/// The parts of a token, still encoded.
#[derive(Clone, Copy)]
pub(super) struct Compact<'t> {
    /// What the signature covers: the first two parts and the dot between them.
    pub input: &'t str,
    header: &'t str,
    claims: &'t str,
    pub signature: &'t str,
}

/// The header members that have a say here.
#[derive(Deserialize)]
pub(super) struct Header {
    pub typ: Option<String>,
    pub alg: Option<String>,
    pub kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    jwk: bool,
    #[serde(default, deserialize_with = "present")]
    jku: bool,
    #[serde(default, deserialize_with = "present")]
    x5u: bool,
    #[serde(default, deserialize_with = "present")]
    x5c: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
}

/// Whether a member is there, whatever its value; for fields with `default`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'t> Compact<'t> {
    /// Length, number of parts, alphabet.
    pub(super) fn split(token: &'t str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::TooLong);
        }
        let (input, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = input.split_once('.').ok_or(JwtError::Malformed)?;
        let is_base64url = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if [header, claims, signature].into_iter().all(is_base64url) {
            Ok(Self { input, header, claims, signature })
        } else {
            Err(JwtError::Malformed)
        }
    }

    pub(super) fn header(&self) -> Result<Header, JwtError> {
        let json = decode(self.header)?;
        if json.len() > MAX_HEADER_BYTES {
            return Err(JwtError::HeaderTooLong);
        }
        check_object(&json, MAX_DEPTH).map_err(|fault| match fault {
            JsonFault::Duplicate(_) => JwtError::HeaderDuplicateMember,
            _ => JwtError::HeaderInvalid,
        })?;
        let header: Header = serde_json::from_slice(&json).map_err(|_| JwtError::HeaderInvalid)?;
        if header.crit || header.jwk || header.jku || header.x5u || header.x5c || header.zip {
            Err(JwtError::HeaderForbiddenMember)
        } else {
            Ok(header)
        }
    }

    /// The JSON of the claims. Not to be read before the signature was checked, but through
    /// [`super::UnverifiedClaims`].
    pub(super) fn claims(&self) -> Result<Vec<u8>, JwtError> {
        decode(self.claims)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)
}
