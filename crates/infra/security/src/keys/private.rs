//! Private keys: made, parsed once, kept, and asked to sign. An RSA key that is parsed for each signature costs 2.5 times
//! as much as one that is kept.

use super::der::rsa_parts;
use super::jwk::b64;
use super::{KeyError, PublicKey, SigningAlgorithm};
use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::fmt::Write as _;
use systemprompt_models::Secret;
use zeroize::Zeroizing;

/// A key that signs. Its debug form shows the `kid` alone.
pub struct PrivateKey {
    kid: String,
    public: PublicKey,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The members of a private JSON Web Key.
#[derive(Deserialize)]
pub(super) struct PrivateJwk {
    kty: String,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<Secret<String>>,
    p: Option<Secret<String>>,
    q: Option<Secret<String>>,
    dp: Option<Secret<String>>,
    dq: Option<Secret<String>>,
    qi: Option<Secret<String>>,
}

impl PrivateKey {
    /// A new key. RSA has 2048 bits and takes about a tenth of a second.
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, KeyError> {
        let pair = match algorithm {
            SigningAlgorithm::Rs256 => {
                RsaKeyPair::generate(KeySize::Rsa2048).map(|key| Pair::Rsa(Box::new(key)))
            }
            SigningAlgorithm::Es256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::P256)
            }
            SigningAlgorithm::EdDsa => Ed25519KeyPair::generate().map(Pair::Ed25519),
        };
        Self::new(pair.map_err(|_| KeyError::Generate)?)
    }

    /// The key inside a PKCS#8 structure.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let rsa = || RsaKeyPair::from_pkcs8(der).ok().map(|key| Pair::Rsa(Box::new(key)));
        let p256 = || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok().map(Pair::P256);
        let ed25519 = || Ed25519KeyPair::from_pkcs8(der).ok().map(Pair::Ed25519);
        Self::new(rsa().or_else(p256).or_else(ed25519).ok_or(KeyError::PrivateKeyRejected)?)
    }

    pub(super) fn from_jwk(jwk: &PrivateJwk) -> Result<Self, KeyError> {
        let pair = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => rsa_pair(jwk)?,
            ("EC", Some("P-256")) => {
                let point =
                    [&[4], public(jwk.x.as_ref())?.as_slice(), public(jwk.y.as_ref())?.as_slice()].concat();
                let d = private(jwk.d.as_ref())?;
                EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &d, &point)
                    .map(Pair::P256)
                    .map_err(|_| KeyError::PrivateKeyRejected)?
            }
            ("OKP", Some("Ed25519")) => {
                Ed25519KeyPair::from_seed_and_public_key(&private(jwk.d.as_ref())?, &public(jwk.x.as_ref())?)
                    .map(Pair::Ed25519)
                    .map_err(|_| KeyError::PrivateKeyRejected)?
            }
            _ => return Err(KeyError::Unsupported),
        };
        Self::new(pair)
    }

    fn new(pair: Pair) -> Result<Self, KeyError> {
        let public = public_key(&pair)?;
        let public = super::Jwk::parse(&public.to_jwk())?.key;
        Ok(Self { kid: public.thumbprint(), public, pair })
    }

    /// The RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.public.algorithm()
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The JWS signature over `input` (RFC 7518 sections 3.3 and 3.4, RFC 8037 section 3.1).
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn sign(&self, input: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature).map_err(|_| KeyError::Sign)?;
                Ok(signature)
            }
            Pair::P256(key) => {
                key.sign(&random, input).map(|s| s.as_ref().to_vec()).map_err(|_| KeyError::Sign)
            }
            Pair::Ed25519(key) => Ok(key.sign(input).as_ref().to_vec()),
        }
    }

    /// Writes the key as a private JSON Web Key.
    pub(super) fn write_jwk(&self, out: &mut Zeroizing<String>) -> Result<(), KeyError> {
        let (kid, alg) = (&self.kid, self.algorithm());
        let _ = write!(out, r#"{{"kid":"{kid}","alg":"{alg}","use":"sig","#);
        match &self.pair {
            Pair::Rsa(key) => {
                let der = key.as_der().map_err(|_| KeyError::PrivateKeyRejected)?;
                let parts = rsa_parts(der.as_ref())?;
                let _ = write!(out, r#""kty":"RSA","n":"{}","e":"{}""#, b64(parts.n), b64(parts.e));
                let private = [
                    ("d", parts.d),
                    ("p", parts.p),
                    ("q", parts.q),
                    ("dp", parts.dp),
                    ("dq", parts.dq),
                    ("qi", parts.qi),
                ];
                for (name, value) in private {
                    write_private(out, name, value);
                }
            }
            Pair::P256(key) => {
                if let PublicKey::P256 { x, y } = &self.public {
                    let _ = write!(out, r#""kty":"EC","crv":"P-256","x":"{}","y":"{}""#, b64(x), b64(y));
                }
                let d = key.private_key().as_be_bytes().map_err(|_| KeyError::PrivateKeyRejected)?;
                write_private(out, "d", d.as_ref());
            }
            Pair::Ed25519(key) => {
                if let PublicKey::Ed25519 { x } = &self.public {
                    let _ = write!(out, r#""kty":"OKP","crv":"Ed25519","x":"{}""#, b64(x));
                }
                let seed = key
                    .seed()
                    .and_then(|seed| seed.as_be_bytes())
                    .map_err(|_| KeyError::PrivateKeyRejected)?;
                write_private(out, "d", seed.as_ref());
            }
        }
        out.push('}');
        Ok(())
    }
}

fn write_private(out: &mut Zeroizing<String>, name: &str, value: &[u8]) {
    let text = Zeroizing::new(b64(value));
    let _ = write!(out, r#","{name}":"{}""#, *text);
}

fn public_key(pair: &Pair) -> Result<PublicKey, KeyError> {
    match pair {
        Pair::Rsa(key) => {
            let der = key.as_der().map_err(|_| KeyError::PrivateKeyRejected)?;
            let parts = rsa_parts(der.as_ref())?;
            Ok(PublicKey::Rsa { n: parts.n.to_vec(), e: parts.e.to_vec() })
        }
        Pair::P256(key) => {
            let point = key.public_key().as_ref().strip_prefix(&[4]).and_then(|xy| xy.split_at_checked(32));
            let (x, y) = point.ok_or(KeyError::NotOnCurve)?;
            let (x, y) = (x.try_into(), y.try_into());
            let (Ok(x), Ok(y)) = (x, y) else { return Err(KeyError::NotOnCurve) };
            Ok(PublicKey::P256 { x, y })
        }
        Pair::Ed25519(key) => {
            let x = key.public_key().as_ref().try_into().map_err(|_| KeyError::PrivateKeyRejected)?;
            Ok(PublicKey::Ed25519 { x })
        }
    }
}

fn rsa_pair(jwk: &PrivateJwk) -> Result<Pair, KeyError> {
    let components: KeyPairComponents<Vec<u8>, Zeroizing<Vec<u8>>> = KeyPairComponents {
        public_key: PublicKeyComponents { n: public(jwk.n.as_ref())?, e: public(jwk.e.as_ref())? },
        d: private(jwk.d.as_ref())?,
        p: private(jwk.p.as_ref())?,
        q: private(jwk.q.as_ref())?,
        dP: private(jwk.dp.as_ref())?,
        dQ: private(jwk.dq.as_ref())?,
        qInv: private(jwk.qi.as_ref())?,
    };
    RsaKeyPair::from_components(&components)
        .map(|key| Pair::Rsa(Box::new(key)))
        .map_err(|_| KeyError::PrivateKeyRejected)
}

fn public(member: Option<&String>) -> Result<Vec<u8>, KeyError> {
    let text = member.ok_or(KeyError::NotAJwk("a public member is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::NotAJwk("a member is not base64url"))
}

fn private(member: Option<&Secret<String>>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = member.ok_or(KeyError::NotAJwk("a private member is missing"))?;
    URL_SAFE_NO_PAD
        .decode(text.expose())
        .map(Zeroizing::new)
        .map_err(|_| KeyError::NotAJwk("a member is not base64url"))
}
