//! The Ed25519 key that signs manifests; [`crate::manifest_signing`] uses it.

use crate::error::ManifestSigningError;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;
use systemprompt_models::Secret;
use zeroize::Zeroizing;

const SEED_BYTES: usize = 32;

/// The key that signs manifests.
#[derive(Debug)]
pub struct ManifestKey(Ed25519KeyPair);

impl ManifestKey {
    /// Equal secrets are refused whether they are equal as text or once decoded.
    pub(crate) fn from_seed(
        seed: &Secret<String>,
        jwt_secret: &Secret<String>,
    ) -> Result<Self, ManifestSigningError> {
        let text = seed.expose().trim();
        let bytes =
            STANDARD.decode(text).map(Zeroizing::new).map_err(|_| ManifestSigningError::SeedNotBase64)?;
        if bytes.len() != SEED_BYTES {
            return Err(ManifestSigningError::SeedLength(bytes.len()));
        }
        let jwt = jwt_secret.expose().as_bytes();
        if bool::from(bytes.ct_eq(jwt) | text.as_bytes().ct_eq(jwt)) {
            return Err(ManifestSigningError::SeedIsJwtSecret);
        }
        Ed25519KeyPair::from_seed_unchecked(&bytes).map(Self).map_err(|_| ManifestSigningError::SeedRejected)
    }

    /// The public half, base64.
    pub fn public_key(&self) -> String {
        STANDARD.encode(self.0.public_key().as_ref())
    }

    /// The signature over `bytes`, base64.
    pub(crate) fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.0.sign(bytes).as_ref())
    }
}
