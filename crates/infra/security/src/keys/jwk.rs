//! Public JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037), their checks and their thumbprint (RFC 7638).

use super::{KeyError, SigningAlgorithm};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

const MIN_RSA_BITS: usize = 2048;
const MIN_RSA_EXPONENT: u64 = 65_537;
/// Members that hold private parts (RFC 7518 sections 6.2.2, 6.3.2, 6.4.1).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Coordinates on P-256.
    P256 {
        x: [u8; 32],
        y: [u8; 32],
    },
    Ed25519 {
        x: [u8; 32],
    },
}

/// A public key with what its JSON form says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    /// As given, else the thumbprint.
    pub kid: String,
    pub key: PublicKey,
    /// Whether `use` and `key_ops` allow verifying.
    pub may_verify: bool,
}

impl PublicKey {
    /// The algorithm that this key is used with.
    pub fn algorithm(&self) -> SigningAlgorithm {
        match self {
            Self::Rsa { .. } => SigningAlgorithm::Rs256,
            Self::P256 { .. } => SigningAlgorithm::Es256,
            Self::Ed25519 { .. } => SigningAlgorithm::EdDsa,
        }
    }

    /// RFC 7638: SHA-256 over the required members in lexicographic order, base64url.
    pub fn thumbprint(&self) -> String {
        // serde_json keeps objects sorted by name and writes no white space, which is the form of section 3.3.
        let required = Value::Object(self.members()).to_string();
        URL_SAFE_NO_PAD.encode(digest(&SHA256, required.as_bytes()))
    }

    /// The published form: the required members with `kid`, `alg` and `use`.
    pub fn to_jwk(&self) -> Value {
        let mut map = self.members();
        map.insert("kid".into(), self.thumbprint().into());
        map.insert("alg".into(), self.algorithm().as_str().into());
        map.insert("use".into(), "sig".into());
        Value::Object(map)
    }

    /// The members that the thumbprint covers.
    fn members(&self) -> Map<String, Value> {
        let members = match self {
            Self::Rsa { n, e } => json!({"e": b64(e), "kty": "RSA", "n": b64(n)}),
            Self::P256 { x, y } => json!({"crv": "P-256", "kty": "EC", "x": b64(x), "y": b64(y)}),
            Self::Ed25519 { x } => json!({"crv": "Ed25519", "kty": "OKP", "x": b64(x)}),
        };
        match members {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// What RFC 7518 and SEC-51 ask of a key before it may verify anything.
    fn check(self) -> Result<Self, KeyError> {
        match &self {
            Self::Rsa { n, e } => check_rsa(n, e)?,
            Self::P256 { x, y } => {
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| KeyError::NotOnCurve)?;
            }
            Self::Ed25519 { .. } => {}
        }
        Ok(self)
    }

    pub(crate) fn decoding_key(&self) -> DecodingKey {
        match self {
            Self::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Self::P256 { x, y } => DecodingKey::from_ec_der(&[&[4], x.as_slice(), y.as_slice()].concat()),
            Self::Ed25519 { x } => DecodingKey::from_ed_der(x),
        }
    }
}

impl Jwk {
    /// Reads a public key.
    ///
    /// # Errors
    /// A form, type or strength that is not accepted, or a private member.
    pub fn parse(value: &Value) -> Result<Self, KeyError> {
        let map = value.as_object().ok_or(KeyError::NotAJwk("it is no object"))?;
        if PRIVATE_MEMBERS.iter().any(|name| map.contains_key(*name)) {
            return Err(KeyError::PrivateMember);
        }
        let key = match (text(map, "kty")?, map.get("crv").and_then(Value::as_str)) {
            ("RSA", _) => PublicKey::Rsa { n: integer(map, "n")?, e: integer(map, "e")? },
            ("EC", Some("P-256")) => PublicKey::P256 { x: coordinate(map, "x")?, y: coordinate(map, "y")? },
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519 { x: coordinate(map, "x")? },
            _ => return Err(KeyError::Unsupported),
        }
        .check()?;
        if map.get("alg").is_some_and(|alg| alg.as_str() != Some(key.algorithm().as_str())) {
            return Err(KeyError::Unsupported);
        }
        let kid = match map.get("kid") {
            None => key.thumbprint(),
            Some(kid) => kid.as_str().ok_or(KeyError::NotAJwk("`kid` is no text"))?.to_owned(),
        };
        Ok(Self { kid, key, may_verify: may_verify(map) })
    }

    /// Reads a set (RFC 7517 section 5).
    ///
    /// # Errors
    /// When one key is refused, or two have the same `kid`.
    pub fn parse_set(value: &Value) -> Result<Vec<Self>, KeyError> {
        let keys =
            value.get("keys").and_then(Value::as_array).ok_or(KeyError::NotAJwk("`keys` is no list"))?;
        let keys: Vec<Self> = keys.iter().map(Self::parse).collect::<Result<_, _>>()?;
        let kids: HashSet<&str> = keys.iter().map(|key| key.kid.as_str()).collect();
        if kids.len() == keys.len() { Ok(keys) } else { Err(KeyError::DuplicateKid) }
    }
}

/// `use` absent or `sig`, and `key_ops` absent or with `verify`.
fn may_verify(map: &Map<String, Value>) -> bool {
    let use_fits = map.get("use").is_none_or(|value| value.as_str() == Some("sig"));
    let verifies = |ops: &Vec<Value>| ops.iter().any(|op| op.as_str() == Some("verify"));
    use_fits && map.get("key_ops").is_none_or(|ops| ops.as_array().is_some_and(verifies))
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyError> {
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    let exponent = e.iter().fold(0_u64, |sum, byte| sum.saturating_mul(256).saturating_add(u64::from(*byte)));
    if bits < MIN_RSA_BITS {
        Err(KeyError::RsaTooShort(bits))
    } else if exponent < MIN_RSA_EXPONENT || exponent.is_multiple_of(2) || e.len() > 8 {
        Err(KeyError::RsaExponent)
    } else if has_weak_prime_fingerprint(n) {
        Err(KeyError::RsaWeakPrimes)
    } else {
        Ok(())
    }
}

/// Primes of the flawed generator are `k·M + (65537^a mod M)` with M a product of small primes (Nemec et al., "The Return of
/// Coppersmith's Attack", CCS 2017): so the modulus lies, for every small prime, in the group that 65537 generates.
fn has_weak_prime_fingerprint(n: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
        103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.into_iter().all(|prime| {
        let rest = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            let hit = power == rest;
            power = power * (65_537 % prime) % prime;
            hit
        })
    })
}

pub(super) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn text<'a>(map: &'a Map<String, Value>, name: &str) -> Result<&'a str, KeyError> {
    map.get(name).and_then(Value::as_str).ok_or(KeyError::NotAJwk("a required member is missing or no text"))
}

fn bytes(map: &Map<String, Value>, name: &str) -> Result<Vec<u8>, KeyError> {
    URL_SAFE_NO_PAD.decode(text(map, name)?).map_err(|_| KeyError::NotAJwk("a member is not base64url"))
}

/// Base64urlUInt (RFC 7518 section 2): no leading zero byte.
fn integer(map: &Map<String, Value>, name: &str) -> Result<Vec<u8>, KeyError> {
    let bytes = bytes(map, name)?;
    match bytes.first() {
        None | Some(0) => Err(KeyError::NotAJwk("an integer is empty or begins with a zero byte")),
        Some(_) => Ok(bytes),
    }
}

fn coordinate(map: &Map<String, Value>, name: &str) -> Result<[u8; 32], KeyError> {
    bytes(map, name)?.try_into().map_err(|_| KeyError::NotAJwk("a coordinate is not 32 bytes"))
}

#[cfg(test)]
mod tests;
