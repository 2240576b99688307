//! Signatures over JSON values: RFC 8785 canonical form, Ed25519 (RFC 8032). The key comes from a secret of its own, so
//! that whoever learns the token secret cannot sign a manifest.

use crate::error::ManifestSigningError;
pub use crate::keys::manifest::ManifestKey;
use serde::Serialize;
use systemprompt_models::Secret;

mod numbers;

/// The key of `manifest_signing_secret_seed` (`seed`: base64 of exactly 32 bytes).
///
/// # Errors
/// A seed of another form, or one that equals `jwt_secret`.
pub fn signing_key(
    seed: &Secret<String>,
    jwt_secret: &Secret<String>,
) -> Result<ManifestKey, ManifestSigningError> {
    ManifestKey::from_seed(seed, jwt_secret)
}

/// The RFC 8785 form of `value`.
///
/// # Errors
/// A number that is not finite or an integer beyond ±2^53, which readers would not agree on.
///
/// ```
/// use systemprompt_security::manifest_signing::canonicalize;
/// let value = serde_json::json!({"b": 1.0, "a": "\u{20ac}"});
/// assert_eq!(canonicalize(&value).unwrap(), "{\"a\":\"\u{20ac}\",\"b\":1}");
/// assert!(canonicalize(&9_007_199_254_740_993_u64).is_err());
/// ```
pub fn canonicalize<T: Serialize>(value: &T) -> Result<String, ManifestSigningError> {
    value.serialize(numbers::Numbers)?;
    serde_json_canonicalizer::to_string(value).map_err(ManifestSigningError::NotJson)
}

/// The signature over the canonical form of `value`, base64.
///
/// # Errors
/// As [`canonicalize`].
pub fn sign_value<T: Serialize>(key: &ManifestKey, value: &T) -> Result<String, ManifestSigningError> {
    Ok(key.sign(canonicalize(value)?.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    fn key() -> ManifestKey {
        signing_key(&STANDARD.encode([7; 32]).into(), &"x".repeat(32).into()).unwrap()
    }

    #[test]
    fn a_signature_covers_the_canonical_bytes() {
        let signature = STANDARD.decode(sign_value(&key(), &json!({"b": 2, "a": [1]})).unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, STANDARD.decode(key().public_key()).unwrap());
        assert!(public.verify(br#"{"a":[1],"b":2}"#, &signature).is_ok());
        assert!(public.verify(br#"{"a":[1],"b":3}"#, &signature).is_err());
    }

    #[test]
    fn case_1_rfc_8785_vectors_are_equal_byte_for_byte() {
        const PAIRS: [(&str, &str); 6] = [
            (
                include_str!("../vectors/jcs/input/arrays.json"),
                include_str!("../vectors/jcs/output/arrays.json"),
            ),
            (
                include_str!("../vectors/jcs/input/french.json"),
                include_str!("../vectors/jcs/output/french.json"),
            ),
            (
                include_str!("../vectors/jcs/input/structures.json"),
                include_str!("../vectors/jcs/output/structures.json"),
            ),
            (
                include_str!("../vectors/jcs/input/unicode.json"),
                include_str!("../vectors/jcs/output/unicode.json"),
            ),
            (
                include_str!("../vectors/jcs/input/values.json"),
                include_str!("../vectors/jcs/output/values.json"),
            ),
            (
                include_str!("../vectors/jcs/input/weird.json"),
                include_str!("../vectors/jcs/output/weird.json"),
            ),
        ];
        for (input, output) in PAIRS {
            let value: serde_json::Value = serde_json::from_str(input).unwrap();
            assert_eq!(canonicalize(&value).unwrap(), output);
        }
    }

    #[test]
    fn numbers_that_readers_disagree_on_are_refused() {
        for (value, ok) in [
            (json!(9_007_199_254_740_992_u64), true),
            (json!(9_007_199_254_740_993_u64), false),
            (json!([{"x": -9_007_199_254_740_993_i64}]), false),
            (json!(1e300), true),
        ] {
            assert_eq!(canonicalize(&value).is_ok(), ok, "{value}");
        }
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(matches!(canonicalize(&bad), Err(ManifestSigningError::NumberOutOfRange)));
            let nested = std::collections::BTreeMap::from([("a", [Some((1, bad))])]);
            assert!(matches!(canonicalize(&nested), Err(ManifestSigningError::NumberOutOfRange)));
        }
    }

    #[test]
    fn a_seed_is_32_bytes_of_its_own() {
        let jwt: Secret<String> = "j".repeat(32).into();
        for (seed, ok) in [
            (STANDARD.encode([1; 32]), true),
            (STANDARD.encode([1; 31]), false),
            ("not base64!".to_owned(), false),
            (STANDARD.encode("j".repeat(32)), false),
        ] {
            assert_eq!(signing_key(&seed.into(), &jwt).is_ok(), ok);
        }
    }
}
