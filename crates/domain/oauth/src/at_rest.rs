//! What is stored of a secret: HMAC-SHA-256 under a key of its own purpose, derived from the pepper (ID-103). With two peppers
//! (one that replaces the other) a value is looked for under both.

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use std::sync::Arc;
use systemprompt_models::Secret;

/// Shortest pepper, in characters.
pub const MIN_PEPPER: usize = 32;

macro_rules! labels {
    ($($name:ident = $text:literal;)*) => {
        /// What a digest is of; no two purposes share a key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Label { $($name,)* }

        impl Label {
            const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

labels! {
    AuthCode = "auth-code";
    RefreshToken = "refresh-token";
    RefreshDerive = "refresh-derive";
    DeviceCode = "device-code";
    UserCode = "user-code";
    Par = "par";
    ClientSecret = "client-secret";
    RegistrationToken = "registration-token";
    ApiKey = "api-key";
    ExchangeCode = "exchange-code";
    SetupToken = "setup-token";
    RecoveryCode = "recovery-code";
    Flow = "flow";
    AuthAttempt = "auth-attempt";
    Csrf = "csrf";
    SessionName = "session-name";
    UnknownCredential = "unknown-credential";
}

/// Why no digest can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PepperError {
    #[error("oauth_at_rest_pepper must have at least {MIN_PEPPER} characters, it has {0}")]
    TooShort(usize),
    #[error("no key can be derived from oauth_at_rest_pepper")]
    Derive,
}

/// A digest and the pepper that it was made under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// 32 bytes in hex.
    pub hex: String,
    pub pepper_id: Arc<str>,
}

struct Pepper {
    id: Arc<str>,
    keys: Vec<hmac::Key>,
}

/// Makes digests of secrets.
#[derive(Clone)]
pub struct AtRest(Arc<[Pepper]>);

impl std::fmt::Debug for AtRest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|pepper| &pepper.id)).finish()
    }
}

impl AtRest {
    /// `pepper` is the secret `oauth_at_rest_pepper`, `previous` the one that it replaced.
    ///
    /// # Errors
    /// A pepper that is too short.
    pub fn new(pepper: &Secret<String>, previous: Option<&Secret<String>>) -> Result<Self, PepperError> {
        let peppers = std::iter::once(pepper).chain(previous);
        peppers.map(Pepper::derive).collect::<Result<Vec<_>, _>>().map(|all| Self(all.into()))
    }

    /// The digest under the present pepper.
    pub fn digest(&self, label: Label, value: &str) -> Digest {
        self.0.first().map_or_else(
            || Digest { hex: String::new(), pepper_id: "".into() },
            |pepper| Digest { hex: pepper.hex(label, value.as_bytes()), pepper_id: Arc::clone(&pepper.id) },
        )
    }

    /// The digest of a secret that was just made.
    pub fn digest_of(&self, label: Label, secret: &Secret<String>) -> Digest {
        self.digest(label, secret.expose())
    }

    /// The digests under which `value` may be stored: the present one, then the one before.
    pub fn candidates(&self, label: Label, value: &str) -> (String, String) {
        let mut all = self.0.iter().map(|pepper| pepper.hex(label, value.as_bytes()));
        let present = all.next().unwrap_or_default();
        let previous = all.next().unwrap_or_else(|| present.clone());
        (present, previous)
    }

    /// As [`Self::candidates`], of a secret that was made again.
    pub fn candidates_of(&self, label: Label, secret: &Secret<String>) -> (String, String) {
        self.candidates(label, secret.expose())
    }

    /// The tag of `value` under the pepper of this id; of the present one if there is no such pepper. For what is derived rather
    /// than stored.
    pub fn tag(&self, label: Label, pepper_id: &str, value: &[u8]) -> Vec<u8> {
        let named = self.0.iter().find(|pepper| &*pepper.id == pepper_id).or_else(|| self.0.first());
        named.map(|pepper| pepper.tag(label, value)).unwrap_or_default()
    }
}

impl Pepper {
    fn derive(pepper: &Secret<String>) -> Result<Self, PepperError> {
        let text = pepper.expose();
        if text.chars().count() < MIN_PEPPER {
            return Err(PepperError::TooShort(text.chars().count()));
        }
        let source = Salt::new(HKDF_SHA256, b"systemprompt/at-rest/1").extract(text.as_bytes());
        let expand = |info: &str| -> Result<[u8; 32], PepperError> {
            let mut key = [0; 32];
            source
                .expand(&[info.as_bytes()], HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut key))
                .map_err(|_| PepperError::Derive)?;
            Ok(key)
        };
        let of = |label: &Label| Ok(hmac::Key::new(hmac::HMAC_SHA256, &expand(label.as_str())?));
        let keys = Label::ALL.iter().map(of).collect::<Result<_, PepperError>>()?;
        let id = expand("pepper-id")?;
        Ok(Self { id: hex::encode(id.get(..4).unwrap_or_default()).into(), keys })
    }

    fn tag(&self, label: Label, value: &[u8]) -> Vec<u8> {
        let key = self.keys.get(label as usize);
        key.map(|key| hmac::sign(key, value).as_ref().to_vec()).unwrap_or_default()
    }

    fn hex(&self, label: Label, value: &[u8]) -> String {
        hex::encode(self.tag(label, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::from(text)
    }

    #[test]
    fn purposes_and_peppers_have_keys_of_their_own() {
        let (old, new) =
            (secret("0123456789abcdef0123456789abcdef"), secret("fedcba9876543210fedcba9876543210"));
        let before = AtRest::new(&old, None).unwrap();
        let after = AtRest::new(&new, Some(&old)).unwrap();
        let digest = before.digest(Label::AuthCode, "x");
        assert_eq!(digest.hex.len(), 64);
        assert_ne!(digest.hex, before.digest(Label::Par, "x").hex);
        assert_eq!(after.candidates(Label::AuthCode, "x").1, digest.hex);
        assert_ne!(after.digest(Label::AuthCode, "x"), digest);
        assert_eq!(
            after.tag(Label::RefreshDerive, &digest.pepper_id, b"x"),
            before.tag(Label::RefreshDerive, "", b"x")
        );
    }

    #[test]
    fn a_short_pepper_is_refused() {
        assert_eq!(AtRest::new(&secret("short"), None).err(), Some(PepperError::TooShort(5)));
    }
}
