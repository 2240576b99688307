//! API keys (ID-98): `sp-live-` and 43 base64url characters of 32 random bytes, then six base62 digits of the CRC-32 over
//! all before, so that a scanner, or we, can tell a mistyped one without a look-up.

use crate::jwt::Surface;
use crate::keys::TokenClass;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crc::{CRC_32_ISO_HDLC, Crc};
use ipnet::IpNet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use systemprompt_models::{JwtAudience, Principal, Secret};
use zeroize::Zeroizing;

/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "sp-live-";
/// Length of an API key, in bytes.
pub const API_KEY_LENGTH: usize = API_KEY_PREFIX.len() + 43 + CHECKSUM_LENGTH;

const RANDOM_BYTES: usize = 32;
const CHECKSUM_LENGTH: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Why an API key could not be made or checked. A key that is unknown, expired or revoked is no error.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    #[error("the system gave no random bytes")]
    Random,
    #[error("the API keys cannot be read")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The answer of an [`ApiKeyProvider`].
pub type ApiKeyFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<VerifiedKey>, ApiKeyError>> + Send + 'a>>;

/// Whom a key stands for, and where it counts.
#[derive(Clone, Debug)]
pub struct VerifiedKey {
    pub principal: Arc<Principal>,
    /// Names of the surfaces that it counts on; every one that takes keys if empty.
    pub audiences: Box<[JwtAudience]>,
    /// Networks that it may come from; any if empty.
    pub networks: Box<[IpNet]>,
}

impl VerifiedKey {
    /// A key without bounds of its own.
    pub fn anywhere(principal: Principal) -> Self {
        Self { principal: Arc::new(principal), audiences: Box::default(), networks: Box::default() }
    }

    /// Whether it counts on a surface for a caller at `address`. A key that is bound to networks counts for nobody whose address
    /// is unknown.
    pub fn counts(&self, surface: Surface, address: Option<IpAddr>) -> bool {
        let named = self.audiences.is_empty() || surface.is_named(TokenClass::Access, &self.audiences);
        let near = self.networks.is_empty()
            || address.is_some_and(|address| {
                let address = address.to_canonical();
                self.networks.iter().any(|network| network.contains(&address))
            });
        named && near
    }
}

/// Knows the API keys. Implemented by the identity plane, which stores their digests.
pub trait ApiKeyProvider: Send + Sync {
    /// Whom `key` stands for, with the permissions that its owner has now, or `None` when it is unknown, expired or revoked.
    /// The checksum was tested before.
    fn verify<'a>(&'a self, key: &'a str) -> ApiKeyFuture<'a>;
}

/// A new API key. It is shown once; what is stored is a keyed digest and [`preview`].
///
/// # Errors
/// When the system gives no random bytes.
///
/// ```
/// use systemprompt_security::auth::api_key;
/// let key = api_key::generate().unwrap();
/// assert!(api_key::has_valid_checksum(key.expose()));
/// ```
pub fn generate() -> Result<Secret<String>, ApiKeyError> {
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    SystemRandom::new().fill(random.as_mut_slice()).map_err(|_| ApiKeyError::Random)?;
    let mut key = String::with_capacity(API_KEY_LENGTH);
    key.push_str(API_KEY_PREFIX);
    URL_SAFE_NO_PAD.encode_string(random.as_slice(), &mut key);
    let checksum = checksum(&key);
    key.push_str(&checksum);
    Ok(Secret::new(key))
}

/// Whether `text` calls itself an API key of ours.
pub fn is_api_key(text: &str) -> bool {
    text.starts_with(API_KEY_PREFIX)
}

/// Whether `text` has the form of an API key and its checksum is right. Tells nothing about whether it exists.
pub fn has_valid_checksum(text: &str) -> bool {
    let Some((body, tail)) = text.split_at_checked(API_KEY_LENGTH - CHECKSUM_LENGTH) else { return false };
    body.strip_prefix(API_KEY_PREFIX)
        .is_some_and(|random| random.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')))
        && checksum(body) == tail
}

/// The first twelve and the last four characters of a key, which lists may show.
pub fn preview(key: &str) -> Option<(&str, &str)> {
    Some((key.get(..12)?, key.get(key.len().checked_sub(4)?..)?))
}

/// CRC-32 of `body` as six base62 digits, the highest first.
fn checksum(body: &str) -> String {
    let mut rest = CRC.checksum(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get(rest as usize % BASE62.len()).copied().unwrap_or(b'0');
        rest /= BASE62.len() as u32;
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id_98_a_key_counts_where_its_audiences_and_networks_say() {
        let of = |audiences: &[JwtAudience], networks: &[&str]| VerifiedKey {
            audiences: audiences.into(),
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            ..VerifiedKey::anywhere(Principal::anonymous())
        };
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let free = of(&[], &[]);
        assert!(free.counts(Surface::Gateway, None) && free.counts(Surface::Api, at("192.0.2.1")));
        let api = of(&[JwtAudience::Api], &[]);
        assert!(api.counts(Surface::Api, None) && api.counts(Surface::Gateway, None));
        assert!(!api.counts(Surface::A2a, None) && !api.counts(Surface::Bridge, None));
        let near = of(&[], &["10.0.0.0/8", "2001:db8::/32"]);
        for (address, counts) in [
            (at("10.1.2.3"), true),
            (at("::ffff:10.1.2.3"), true),
            (at("2001:db8::1"), true),
            (at("11.0.0.1"), false),
            (None, false),
        ] {
            assert_eq!(near.counts(Surface::Api, address), counts, "{address:?}");
        }
    }

    #[test]
    fn a_key_has_the_documented_form_and_differs_each_time() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert_eq!(a.expose().len(), 57);
        assert!(a.expose() != b.expose());
        assert!(is_api_key(a.expose()) && has_valid_checksum(a.expose()));
        let (head, tail) = preview(a.expose()).unwrap();
        assert_eq!((head.len(), tail.len()), (12, 4));
    }

    /// CRC-32 of "123456789" is cbf43926 (the check value of the algorithm's catalogue).
    #[test]
    fn the_checksum_is_crc_32_in_base62() {
        let value = checksum("123456789")
            .bytes()
            .fold(0_u64, |sum, digit| sum * 62 + BASE62.iter().position(|b| *b == digit).unwrap() as u64);
        assert_eq!(value, 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn any_single_changed_character_is_noticed(at in 0_usize..API_KEY_LENGTH, with in "[A-Za-z0-9_-]") {
            let key = generate().unwrap();
            let mut changed: Vec<char> = key.expose().chars().collect();
            let with = with.chars().next().unwrap();
            prop_assume!(changed[at] != with);
            changed[at] = with;
            prop_assert!(!has_valid_checksum(&changed.iter().collect::<String>()));
        }

        #[test]
        fn no_text_makes_the_check_panic(text in "\\PC{0,80}") {
            let _ = (has_valid_checksum(&text), preview(&text));
        }
    }
}
