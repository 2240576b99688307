//! Project Wycheproof's vectors through the check of client assertions, for every algorithm that is taken there and that the token
//! verifier does not have (A21).

use super::ClientKeys;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// How a file came out.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    all: usize,
    accepted: usize,
    /// Valid signatures that are refused, or `acceptable` ones that are taken, by their number.
    deviations: Vec<u64>,
}

/// The key of a group that is given as a point alone.
fn point(group: &Value) -> Value {
    let key = &group["publicKey"];
    let curve = if key["curve"] == "secp384r1" { "P-384" } else { "P-256" };
    let bytes = hex::decode(key["uncompressed"].as_str().unwrap()).unwrap();
    let (x, y) = bytes[1..].split_at(bytes.len() / 2);
    json!({"kty": "EC", "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

fn run(text: &str, alg: &str) -> Found {
    let file: Value = serde_json::from_str(text).unwrap();
    let mut found = Found { all: 0, accepted: 0, deviations: Vec::new() };
    for group in file["testGroups"].as_array().unwrap() {
        let jwk = group.get("publicKeyJwk").or(group.get("keyJwk")).cloned().unwrap_or_else(|| point(group));
        let keys = ClientKeys::parse(&json!({"keys": [jwk]})).unwrap();
        for test in group["tests"].as_array().unwrap() {
            found.all += 1;
            let bytes = |name: &str| hex::decode(test[name].as_str().unwrap()).unwrap();
            let number = test["tcId"].as_u64().unwrap();
            let key = keys.find(None, alg);
            let is_accepted = key.is_some_and(|key| key.verifies(alg, &bytes("msg"), &bytes("sig")));
            found.accepted += usize::from(is_accepted);
            match test["result"].as_str().unwrap() {
                "valid" if !is_accepted => found.deviations.push(number),
                "acceptable" if is_accepted => found.deviations.push(number),
                "invalid" => {
                    assert!(!is_accepted, "{alg}: {number} {} is invalid and accepted", test["comment"]);
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a21_wycheproof_ecdsa_on_p_384() {
    let found =
        run(include_str!("../../../../vectors/wycheproof/ecdsa_secp384r1_sha384_p1363_test.json"), "ES384");
    assert_eq!(found, Found { all: 280, accepted: 193, deviations: Vec::new() });
}

#[test]
fn a21_wycheproof_ecdsa_on_p_256() {
    let found =
        run(include_str!("../../../../vectors/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json"), "ES256");
    assert_eq!(found, Found { all: 262, accepted: 173, deviations: Vec::new() });
}

#[test]
fn a21_wycheproof_rsa_pss() {
    let found =
        run(include_str!("../../../../vectors/wycheproof/rsa_pss_2048_sha256_mgf1_32_test.json"), "PS256");
    assert_eq!(found, Found { all: 108, accepted: 63, deviations: Vec::new() });
}

#[test]
fn a21_wycheproof_rsa_pkcs1() {
    let found =
        run(include_str!("../../../../vectors/wycheproof/rsa_signature_2048_sha256_test.json"), "RS256");
    // The two are of keys with the exponent 3, which are refused (ID-31).
    assert_eq!(found, Found { all: 259, accepted: 7, deviations: vec![258, 259] });
}
