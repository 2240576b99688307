//! Project Wycheproof's vectors for Ed25519, JSON Web Signature and JSON Web Key, through the parts that every token passes here:
//! the reading of keys, the reading of the compact form and its header, and the one check of a signature.

use super::compact::Compact;
use super::verifier::check_signature;
use crate::keys::{Jwk, TokenAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Fewest bytes of an HS256 key; ours have exactly as many.
const MIN_HMAC: usize = 32;

/// A key as the verifier sees it.
struct Key {
    kid: String,
    algorithm: TokenAlgorithm,
    may_verify: bool,
    decoding: DecodingKey,
}

fn groups(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    file["testGroups"].as_array().unwrap().clone()
}

/// The keys of a group, if its set is one that we read. HS256 keys are derived here and never read from a set, so a set of such
/// keys is taken apart by hand; one beside a public key is refused by the reader of sets.
fn keys(group: &Value) -> Option<Vec<Key>> {
    let given = group.get("public").or(group.get("private"))?;
    let list = given.get("keys").map_or_else(|| vec![given.clone()], |keys| keys.as_array().unwrap().clone());
    if list.iter().all(|key| key["kty"] == "oct") {
        return hmac_keys(&list);
    }
    let set = Jwk::parse_set(&json!({"keys": list})).ok()?;
    let key = |jwk: Jwk| Key {
        algorithm: TokenAlgorithm::Ring(jwk.key.algorithm()),
        decoding: jwk.key.decoding_key(),
        may_verify: jwk.may_verify,
        kid: jwk.kid,
    };
    Some(set.into_iter().map(key).collect())
}

fn hmac_keys(list: &[Value]) -> Option<Vec<Key>> {
    let kids: HashSet<&str> = list.iter().filter_map(|key| key["kid"].as_str()).collect();
    let key = |key: &Value| {
        let bytes = URL_SAFE_NO_PAD.decode(key["k"].as_str()?).ok()?;
        (key["alg"] == "HS256" && bytes.len() >= MIN_HMAC).then(|| Key {
            kid: key["kid"].as_str().unwrap_or_default().to_owned(),
            algorithm: TokenAlgorithm::Hs256,
            may_verify: true,
            decoding: DecodingKey::from_secret(&bytes),
        })
    };
    (kids.len() == list.len()).then(|| list.iter().map(key).collect())?
}

fn accepts(group: &Value, jws: &Value) -> bool {
    let (Some(keys), Some(text)) = (keys(group), jws.as_str()) else { return false };
    let Ok(parts) = Compact::split(text) else { return false };
    let Ok(header) = parts.header() else { return false };
    let Some(key) = keys.iter().find(|key| Some(&key.kid) == header.kid.as_ref()) else { return false };
    check_signature(&header, &parts, key.algorithm, key.may_verify, &key.decoding).is_ok()
        && parts.claims().is_ok()
}

/// The algorithm that a signed text names, as far as its header can be read.
fn names_our_algorithm(jws: &Value) -> bool {
    let header = jws.as_str().and_then(|text| text.split('.').next());
    let header = header.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header: Value = header.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    header["alg"].as_str().is_some_and(|alg| TokenAlgorithm::parse(alg).is_some())
}

/// Valid signatures of our algorithms that are refused all the same, and why.
const STRICTER: [(&str, &str); 2] = [
    ("emptyPayload", "a token without claims is none: no part may be empty"),
    ("InvalidCharacterInsertedInPayload", "`?` is no character of base64url (RFC 7515 section 2)"),
];

/// (cases, accepted, valid ones of our algorithms that the list above explains, invalid ones that are the very text of a valid
/// one of their group: two cases about padding lost theirs in the file).
fn run(text: &str) -> (usize, usize, usize, usize) {
    let (mut all, mut accepted, mut explained, mut contradicted) = (0, 0, 0, 0);
    for group in groups(text) {
        let tests = group["tests"].as_array().unwrap();
        let is_valid_elsewhere =
            |jws: &Value| tests.iter().any(|test| test["result"] == "valid" && test["jws"] == *jws);
        for test in tests {
            all += 1;
            let name = format!("{} {}", test["tcId"], test["comment"]);
            let is_accepted = accepts(&group, &test["jws"]);
            accepted += usize::from(is_accepted);
            match test["result"].as_str().unwrap() {
                "valid" if names_our_algorithm(&test["jws"]) && !is_accepted => {
                    let reason = STRICTER.iter().find(|(comment, _)| test["comment"] == *comment);
                    assert!(reason.is_some(), "{name} is valid and refused");
                    explained += 1;
                }
                "valid" => {}
                _ if is_valid_elsewhere(&test["jws"]) => contradicted += 1,
                _ => assert!(!is_accepted, "{name} is invalid and accepted"),
            }
        }
    }
    (all, accepted, explained, contradicted)
}

#[test]
fn case_2_wycheproof_ed25519_agrees_in_all_151() {
    let mut all = 0;
    for group in groups(include_str!("../../vectors/wycheproof/ed25519_test.json")) {
        let key = Jwk::parse(&group["publicKeyJwk"]).unwrap().key;
        for test in group["tests"].as_array().unwrap() {
            all += 1;
            let message = hex::decode(test["msg"].as_str().unwrap()).unwrap();
            let signature = URL_SAFE_NO_PAD.encode(hex::decode(test["sig"].as_str().unwrap()).unwrap());
            let algorithm = TokenAlgorithm::Ring(key.algorithm()).for_jsonwebtoken();
            let found = jsonwebtoken::crypto::verify(&signature, &message, &key.decoding_key(), algorithm);
            assert_eq!(
                found.unwrap_or(false),
                test["result"] == "valid",
                "{} {}",
                test["tcId"],
                test["comment"]
            );
        }
    }
    assert_eq!(all, 151);
}

#[test]
fn case_3_wycheproof_json_web_signature_has_no_invalid_case_accepted() {
    let found = run(include_str!("../../vectors/wycheproof/json_web_signature_test.json"));
    // 17 and the two that contradict themselves.
    assert_eq!(found, (401, 19, 2, 2));
}

#[test]
fn case_3_wycheproof_json_web_key_has_no_invalid_case_accepted() {
    let found = run(include_str!("../../vectors/wycheproof/json_web_key_test.json"));
    assert_eq!(found, (26, 3, 0, 0));
}

#[test]
fn a22_rfc_7515_a_4_and_a_5_are_of_algorithms_that_nobody_signs_tokens_with_here() {
    let es512 = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    let header = Compact::split(es512).unwrap().header().unwrap();
    assert!(TokenAlgorithm::parse(header.alg.as_deref().unwrap()).is_none());
    let unsecured = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
    assert!(Compact::split(unsecured).is_err(), "no part may be empty");
    assert!(TokenAlgorithm::parse("none").is_none());
}
