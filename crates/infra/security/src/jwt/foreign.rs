//! Tokens that are no access tokens of ours: those of trusted issuers, under their keys, and our own ID tokens. Only the
//! signature is judged here; what the claims must say is the caller's to ask.

use super::compact::{Compact, Header, MAX_DEPTH};
use super::verifier::{Verifier, check_signature};
use crate::error::JwtError;
use crate::keys::{Jwk, SigningAlgorithm, TokenAlgorithm};
use serde_json::{Map, Value};
use systemprompt_models::json::{JsonFault, check_object};

/// The `kid` of a token, by which its key is chosen. Nothing of it is verified.
///
/// # Errors
/// What is no token, or names no key.
pub fn unverified_kid(token: &str) -> Result<String, JwtError> {
    Compact::split(token)?.header()?.kid.ok_or(JwtError::KeyMissing)
}

/// The claims of a token that one of `keys` signed. The algorithm is the key's and must be among `algorithms`; there is no `none`
/// and no shared secret.
///
/// # Errors
/// A form that is refused, a `kid` that none of the keys has, or a wrong signature.
pub fn verify_foreign(
    token: &str,
    keys: &[Jwk],
    algorithms: &[SigningAlgorithm],
) -> Result<Map<String, Value>, JwtError> {
    let parts = Compact::split(token)?;
    let header = parts.header()?;
    let kid = header.kid.as_deref().ok_or(JwtError::KeyMissing)?;
    let key = keys.iter().find(|key| key.kid == kid).ok_or(JwtError::KeyUnknown)?;
    let algorithm = key.key.algorithm();
    if !algorithms.contains(&algorithm) {
        return Err(JwtError::AlgorithmMismatch);
    }
    check_signature(
        &header,
        &parts,
        TokenAlgorithm::Ring(algorithm),
        key.may_verify,
        &key.key.decoding_key(),
    )?;
    claims(&parts)
}

impl Verifier {
    /// The claims of an ID token of ours, whoever it is for and whether it has ended or not.
    ///
    /// # Errors
    /// What is no ID token of this issuer under one of its published keys.
    pub fn verify_id_token(&self, token: &str) -> Result<Map<String, Value>, JwtError> {
        let parts = Compact::split(token)?;
        let header: Header = parts.header()?;
        if header.typ.as_deref().is_some_and(|typ| typ != "JWT") {
            return Err(JwtError::TypeNotAccepted);
        }
        let keys = self.keys.load();
        let kid = header.kid.as_deref().ok_or(JwtError::KeyMissing)?;
        let key = keys.verification_key(kid, self.clock().now()).ok_or(JwtError::KeyUnknown)?;
        let algorithm = TokenAlgorithm::Ring(key.algorithm());
        check_signature(&header, &parts, algorithm, key.may_verify, &key.decoding)?;
        let claims = claims(&parts)?;
        match claims.get("iss").and_then(Value::as_str) {
            Some(issuer) if issuer == self.issuer() => Ok(claims),
            _ => Err(JwtError::IssuerMismatch),
        }
    }
}

fn claims(parts: &Compact<'_>) -> Result<Map<String, Value>, JwtError> {
    let json = parts.claims()?;
    check_object(&json, MAX_DEPTH).map_err(|fault| match fault {
        JsonFault::Duplicate(_) => JwtError::ClaimsDuplicateMember,
        _ => JwtError::ClaimsInvalid,
    })?;
    serde_json::from_slice(&json).map_err(|_| JwtError::ClaimsInvalid)
}

#[cfg(test)]
mod tests {
    use super::super::sign::{compact, header};
    use super::*;
    use crate::keys::PrivateKey;
    use aws_lc_rs::hmac;

    fn signed(key: &PrivateKey, alg: &str, kid: &str) -> String {
        let token = compact(&header("JWT", alg, kid), br#"{"sub":"a"}"#, |input| key.sign(input).unwrap());
        token.expose().clone()
    }

    #[test]
    fn a_foreign_token_counts_under_the_algorithm_of_its_key_alone() {
        use SigningAlgorithm::{EdDsa, Es256, Rs256};
        let all = [Rs256, Es256, EdDsa];
        for algorithm in all {
            let key = PrivateKey::generate(algorithm).unwrap();
            let keys = [Jwk::parse(&key.public().to_jwk()).unwrap()];
            let good = signed(&key, algorithm.as_str(), key.kid());
            assert_eq!(verify_foreign(&good, &keys, &all).unwrap()["sub"], "a");
            assert_eq!(unverified_kid(&good).unwrap(), key.kid());
            let others: Vec<_> = all.into_iter().filter(|other| *other != algorithm).collect();
            assert_eq!(verify_foreign(&good, &keys, &others), Err(JwtError::AlgorithmMismatch));
            assert_eq!(verify_foreign(&good, &[], &all), Err(JwtError::KeyUnknown));
            for wrong in ["none", "HS256", others[0].as_str()] {
                assert!(verify_foreign(&signed(&key, wrong, key.kid()), &keys, &all).is_err(), "{wrong}");
            }
            // The public key as the secret of an HMAC.
            let public = key.public().to_jwk().to_string();
            let forged = compact(&header("JWT", "HS256", key.kid()), br#"{"sub":"a"}"#, |input| {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), input).as_ref().to_vec()
            });
            assert!(verify_foreign(forged.expose(), &keys, &all).is_err());
            let mut broken = good.clone();
            broken.insert(good.len() - 10, 'A');
            assert!(verify_foreign(&broken, &keys, &all).is_err());
        }
    }
}
