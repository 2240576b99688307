//! Public keys that clients sign their assertions with (RFC 7517, RFC 7518). More kinds than our own ring has; keys of a set that
//! are for something else are passed over, since a set may hold them.

use aws_lc_rs::signature::{
    self, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use systemprompt_security::keys::{Jwk, PublicKey};

/// Most keys of a set that are looked at.
pub const MAX_KEYS: usize = 32;
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Algorithms of a client assertion (ID-15). No symmetric one: its key would be public.
pub const ALGORITHMS: [&str; 6] = ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"];

#[derive(Clone, Debug)]
enum Key {
    Public(PublicKey),
    /// Uncompressed point.
    P384(Vec<u8>),
}

/// A key that may verify.
#[derive(Clone, Debug)]
pub struct ClientKey {
    kid: Option<String>,
    /// The algorithm that the key is limited to.
    alg: Option<String>,
    key: Key,
}

/// Why a set is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetFault {
    #[error("a JWK Set of at most 32 keys")]
    Form,
    #[error("public keys only")]
    Private,
    #[error("a kid may stand once")]
    Duplicate,
}

/// The usable keys of a set.
#[derive(Clone, Debug, Default)]
pub struct ClientKeys(Vec<ClientKey>);

impl ClientKeys {
    /// Reads a JWK Set.
    ///
    /// # Errors
    /// What is no set, holds a private or symmetric key, or names two usable keys alike.
    pub fn parse(set: &Value) -> Result<Self, KeySetFault> {
        let items = set.get("keys").and_then(Value::as_array).ok_or(KeySetFault::Form)?;
        if items.len() > MAX_KEYS {
            return Err(KeySetFault::Form);
        }
        let mut keys: Vec<ClientKey> = Vec::with_capacity(items.len());
        for item in items {
            let map = item.as_object().ok_or(KeySetFault::Form)?;
            if PRIVATE_MEMBERS.iter().any(|name| map.contains_key(*name)) {
                return Err(KeySetFault::Private);
            }
            let Some(key) = ClientKey::parse(map) else { continue };
            if key.kid.is_some() && keys.iter().any(|known| known.kid == key.kid) {
                return Err(KeySetFault::Duplicate);
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that a header names: by `kid`, else the only one of the right type.
    pub fn find(&self, kid: Option<&str>, alg: &str) -> Option<&ClientKey> {
        let mut fitting = self.0.iter().filter(|key| key.fits(alg));
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

/// RFC 9864 gives `EdDSA` over this curve a name of its own; libraries use either.
fn same(alg: &str) -> &str {
    if alg == "Ed25519" { "EdDSA" } else { alg }
}

impl ClientKey {
    /// A key that may verify with one of [`ALGORITHMS`].
    fn parse(map: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
        let for_signatures = map.get("use").is_none_or(|value| value.as_str() == Some("sig"));
        let verifies = map.get("key_ops").is_none_or(|ops| {
            ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")))
        });
        if !for_signatures || !verifies {
            return None;
        }
        if map.get("kid").is_some_and(|kid| !kid.is_string()) {
            return None;
        }
        let key = if text("crv").as_deref() == Some("P-384") {
            Key::P384(p384(map)?)
        } else {
            // Our own reader checks strength and curve; it knows one algorithm a type, so that is compared here.
            let mut plain = map.clone();
            plain.remove("alg");
            Key::Public(Jwk::parse(&Value::Object(plain)).ok()?.key)
        };
        let found = Self { kid: text("kid"), alg: text("alg"), key };
        let is_usable = map.get("alg").is_none_or(|alg| alg.as_str().is_some_and(|alg| found.fits(alg)));
        is_usable.then_some(found)
    }

    fn fits(&self, alg: &str) -> bool {
        let of_type: &[&str] = match &self.key {
            Key::Public(PublicKey::Rsa { .. }) => &["RS256", "PS256"],
            Key::Public(PublicKey::P256 { .. }) => &["ES256"],
            Key::Public(PublicKey::Ed25519 { .. }) => &["EdDSA", "Ed25519"],
            Key::P384(_) => &["ES384"],
        };
        of_type.contains(&alg) && self.alg.as_deref().is_none_or(|own| same(own) == same(alg))
    }

    /// Whether `signature` over `input` is of this key under `alg`.
    pub fn verifies(&self, alg: &str, input: &[u8], signature: &[u8]) -> bool {
        if !self.fits(alg) {
            return false;
        }
        let done = match (&self.key, alg) {
            (Key::Public(PublicKey::Rsa { n, e }), "RS256") => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                input,
                signature,
            ),
            (Key::Public(PublicKey::Rsa { n, e }), _) => {
                RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PSS_2048_8192_SHA256, input, signature)
            }
            (Key::Public(PublicKey::P256 { x, y }), _) => {
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(input, signature)
            }
            (Key::Public(PublicKey::Ed25519 { x }), _) => {
                UnparsedPublicKey::new(&signature::ED25519, x).verify(input, signature)
            }
            (Key::P384(point), _) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(input, signature)
            }
        };
        done.is_ok()
    }
}

fn p384(map: &Map<String, Value>) -> Option<Vec<u8>> {
    if map.get("kty").and_then(Value::as_str) != Some("EC") {
        return None;
    }
    let coordinate = |name: &str| {
        let text = map.get(name).and_then(Value::as_str)?;
        URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == 48)
    };
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point).ok()?;
    Some(point)
}

#[cfg(test)]
mod vectors;
