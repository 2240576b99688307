//! Keys of tokens. Asymmetric ones live in a ring and are published (RFC 7517); those of session tokens are derived from
//! `jwt_secret`. Each is parsed once and kept.

pub mod authority;
mod der;
pub mod derived;
pub mod file;
pub mod jwk;
pub mod manifest;
pub mod private;
pub mod ring;
pub mod set;

pub use authority::TokenAuthority;
pub use derived::{ClassKeys, TokenClass};
pub use jwk::{Jwk, PublicKey};
pub use private::PrivateKey;
pub use ring::{KeyRing, MIN_PUBLISHED, Rotation};
pub use set::{KeyDescription, KeyInfo, KeySet, KeyState, KeyUse, SharedKeys, VerificationKey};

use std::fmt;
use std::path::PathBuf;
use systemprompt_audit::LedgerError;

/// Algorithms of the key ring (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SigningAlgorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl SigningAlgorithm {
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The `alg` value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Algorithms that a token of ours may name. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenAlgorithm {
    Hs256,
    Ring(SigningAlgorithm),
}

impl TokenAlgorithm {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Ring(algorithm) => algorithm.as_str(),
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "HS256" => Some(Self::Hs256),
            other => SigningAlgorithm::parse(other).map(Self::Ring),
        }
    }

    pub(crate) fn for_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Ring(SigningAlgorithm::Rs256) => jsonwebtoken::Algorithm::RS256,
            Self::Ring(SigningAlgorithm::Es256) => jsonwebtoken::Algorithm::ES256,
            Self::Ring(SigningAlgorithm::EdDsa) => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// What can be wrong with a key or with where keys are kept. Nothing of a private part is told.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("jwt_secret must have at least {min} characters, it has {found}")]
    SecretTooShort { min: usize, found: usize },
    #[error("the key is not a JSON Web Key of the expected form: {0}")]
    NotAJwk(&'static str),
    #[error("the key type, curve or `alg` is not one of RS256, ES256, EdDSA")]
    Unsupported,
    #[error("an RSA key of {0} bits; at least 2048 are needed")]
    RsaTooShort(usize),
    #[error("an RSA exponent below 65537 or even")]
    RsaExponent,
    #[error("the RSA modulus has the fingerprint of a generator with predictable primes (ROCA)")]
    RsaWeakPrimes,
    #[error("the point is not on the curve")]
    NotOnCurve,
    #[error("a public key with a private member")]
    PrivateMember,
    #[error("two keys with the same `kid`")]
    DuplicateKid,
    #[error("the `kid` of a key of the ring is not its thumbprint")]
    KidNotThumbprint,
    #[error("the private key is inconsistent")]
    PrivateKeyRejected,
    #[error("{0} can be read by others; run `chmod 600` on it")]
    FileMode(PathBuf),
    #[error("{path}: {problem}")]
    FileContent { path: PathBuf, problem: &'static str },
    #[error("{path} cannot be read or written")]
    File { path: PathBuf, source: std::io::Error },
    #[error("a key could not be generated")]
    Generate,
    #[error("there is no active {0} key with its private part on this node")]
    NoSigner(SigningAlgorithm),
    #[error(
        "there is no {0} key to rotate to; make one with `admin keys generate` and rotate ten minutes later"
    )]
    NoNext(SigningAlgorithm),
    #[error(
        "the key {kid} was published less than ten minutes ago, and verifiers may not know it yet; rotate in {wait_s} s"
    )]
    TooYoung { kid: String, wait_s: i64 },
    #[error("the key {kid} is the one that signs with {algorithm}, which is needed; rotate to another one")]
    StillNeeded { kid: String, algorithm: SigningAlgorithm },
    #[error(
        "{clients} client(s) have their ID tokens signed with {algorithm}, and {kid} is the key that does; rotate to another one, or have the clients ask for another `id_token_signed_response_alg`"
    )]
    ClientsNeed { kid: String, algorithm: SigningAlgorithm, clients: i64 },
    #[error("there is no key {0}")]
    Unknown(String),
    #[error("the key {kid} is {state} already")]
    Ended { kid: String, state: &'static str },
    #[error("the ring was changed meanwhile; look at it and decide again")]
    Changed,
    #[error("signing failed")]
    Sign,
    #[error("the keys cannot be read or written")]
    Storage(#[from] sqlx::Error),
    #[error("the key could not be recorded, so it was not made")]
    Ledger(#[from] LedgerError),
    #[error("a background task ended early")]
    Interrupted,
}
