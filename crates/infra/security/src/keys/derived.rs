//! HS256 keys of session-class tokens: HKDF-SHA-256 (RFC 5869) from `jwt_secret`, one per class. `jwt_secret` itself signs
//! nothing; changing it ends all such tokens.

use super::KeyError;
use aws_lc_rs::{hkdf, hmac};
use jsonwebtoken::DecodingKey;
use std::sync::Arc;
use systemprompt_models::Secret;
use zeroize::Zeroizing;

/// Fewest characters of `jwt_secret`.
pub const JWT_SECRET_MIN_LENGTH: usize = 32;

const KEY_BYTES: usize = 32;

/// What a token is, told by its `typ` and, for the three of type `session+jwt`, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenClass {
    /// RFC 9068 access token, hook tokens among them; signed by the ring.
    Access,
    /// A signed-in session.
    Session,
    /// Made by [`crate::jwt::JwtService`] for an administrator.
    Admin,
    /// A visitor who has not signed in.
    Anonymous,
}

impl TokenClass {
    pub const SESSION_CLASSES: [Self; 3] = [Self::Session, Self::Admin, Self::Anonymous];

    /// The `typ` of its header.
    pub fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Session | Self::Admin | Self::Anonymous => "session+jwt",
        }
    }

    pub fn is_session_class(self) -> bool {
        self != Self::Access
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Session => "session",
            Self::Admin => "admin",
            Self::Anonymous => "anonymous",
        }
    }
}

/// The derived key of one class.
pub struct ClassKey {
    pub(crate) kid: Arc<str>,
    pub(crate) class: TokenClass,
    pub(crate) signing: hmac::Key,
    pub(crate) verifying: DecodingKey,
}

/// The derived keys of the three session classes.
pub struct ClassKeys([ClassKey; 3]);

impl ClassKeys {
    /// Derives the keys. The info string is class and version, so a class's key can be replaced on its own.
    ///
    /// # Errors
    /// When `jwt_secret` has fewer than 32 characters.
    pub fn derive(jwt_secret: &Secret<String>) -> Result<Self, KeyError> {
        let found = jwt_secret.expose().chars().count();
        if found < JWT_SECRET_MIN_LENGTH {
            return Err(KeyError::SecretTooShort { min: JWT_SECRET_MIN_LENGTH, found });
        }
        let source = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(jwt_secret.expose().as_bytes());
        let [session, admin, anonymous] = TokenClass::SESSION_CLASSES;
        Ok(Self([derive(&source, session)?, derive(&source, admin)?, derive(&source, anonymous)?]))
    }

    /// The key of `class`; access tokens have none here.
    pub(crate) fn of(&self, class: TokenClass) -> Option<&ClassKey> {
        self.0.iter().find(|key| key.class == class)
    }

    pub(crate) fn by_kid(&self, kid: &str) -> Option<&ClassKey> {
        self.0.iter().find(|key| *key.kid == *kid)
    }
}

fn derive(source: &hkdf::Prk, class: TokenClass) -> Result<ClassKey, KeyError> {
    let kid = format!("{}-1", class.as_str());
    let info = format!("systemprompt token {kid}");
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    let info = [info.as_bytes()];
    let expanded = source.expand(&info, hkdf::HKDF_SHA256);
    expanded.and_then(|okm| okm.fill(bytes.as_mut_slice())).map_err(|_| KeyError::Generate)?;
    Ok(ClassKey {
        kid: kid.into(),
        class,
        signing: hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()),
        verifying: DecodingKey::from_secret(bytes.as_slice()),
    })
}
