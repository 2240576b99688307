//! Literals of RFC 7515 appendix A, RFC 7517 appendix A.1, RFC 7638 section 3.1 and RFC 8037 appendix A.

use super::*;
use crate::keys::TokenAlgorithm;

const RFC7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
const RFC7515_A2_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn verifies(key: &PublicKey, token: &str) -> bool {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let algorithm = TokenAlgorithm::Ring(key.algorithm()).for_jsonwebtoken();
    jsonwebtoken::crypto::verify(signature, input.as_bytes(), &key.decoding_key(), algorithm).unwrap()
}

/// The token with one bit of its signature changed.
fn spoilt(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[10] ^= 1;
    format!("{input}.{}", b64(&bytes))
}

#[test]
fn case_4_rfc_7638_thumbprint() {
    let jwk =
        Jwk::parse(&json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}))
            .unwrap();
    assert_eq!(jwk.kid, "2011-04-29");
    assert_eq!(jwk.key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn case_4_rfc_7517_a_1_set() {
    let set = Jwk::parse_set(&json!({"keys": [
        {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
         "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "enc", "kid": "1"},
        {"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"},
    ]}))
    .unwrap();
    let read: Vec<_> =
        set.iter().map(|jwk| (jwk.kid.as_str(), jwk.key.algorithm(), jwk.may_verify)).collect();
    assert_eq!(read, [("1", SigningAlgorithm::Es256, false), ("2011-04-29", SigningAlgorithm::Rs256, true)]);
}

/// RFC 7517 appendix A.2 and A.3: private and symmetric keys, which no set that is read here may hold, alone or beside public ones.
#[test]
fn a22_rfc_7517_a_2_and_a_3_hold_nothing_that_is_read_as_a_public_key() {
    let public = json!({"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "enc", "kid": "1"});
    let mut private = public.clone();
    private["d"] = "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE".into();
    let rsa = json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        "d": "X4cTteJY_gn4FYPsXB8rdXix5vwsg1FLN5E3EaG6RJoVH-HLLKD9M7dx5oo7GURknchnrRweUkC7hT5fJLM0WbFAKNLWY2vv7B6NqXSzUvxT0_YSfqijwp3RTzlBaCxWp4doFk5N2o8Gy_nHNKroADIkJ46pRUohsXywbReAdYaMwFs9tv8d_cPVY3i07a3t8MN6TNwm0dSawm9v47UiCl3Sk5ZiG7xojPLu4sbg1U2jx4IBTNBznbJSzFHK66jT8bgkuqsk0GjskDJk19Z4qwjwbsnn4j2WBii3RL-Us2lGVkY8fkFzme1z0HbIkfz0Y6mqnOYtqc0X4jfcKoAC8Q"});
    let wrap = json!({"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"});
    let mac = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        "kid": "HMAC key used in JWS spec Appendix A.1 example"});
    for key in [private, rsa, wrap, mac] {
        assert!(matches!(Jwk::parse(&key), Err(KeyError::PrivateMember)), "{}", key["kty"]);
        assert!(Jwk::parse_set(&json!({"keys": [public.clone(), key.clone()]})).is_err(), "{}", key["kty"]);
    }
}

#[test]
fn case_4_rfc_8037_a_3_thumbprint_and_a_4_signature() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = Jwk::parse(&json!({"kty": "OKP", "crv": "Ed25519", "x": x})).unwrap().key;
    assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(verifies(&key, token));
    assert!(!verifies(&key, &spoilt(token)));
}

#[test]
fn case_4_rfc_7515_a_1_hs256() {
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let key = DecodingKey::from_secret(&URL_SAFE_NO_PAD.decode(secret).unwrap());
    let input = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}");
    let algorithm = TokenAlgorithm::Hs256.for_jsonwebtoken();
    for (signature, want) in [
        ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", true),
        ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXo", false),
    ] {
        let found = jsonwebtoken::crypto::verify(signature, input.as_bytes(), &key, algorithm);
        assert_eq!(found.unwrap_or(false), want);
    }
}

#[test]
fn case_4_rfc_7515_a_2_rs256() {
    let key = Jwk::parse(&json!({"kty": "RSA", "n": RFC7515_A2_N, "e": "AQAB"})).unwrap().key;
    let token = format!(
        "eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    assert!(verifies(&key, &token));
    assert!(!verifies(&key, &spoilt(&token)));
}

#[test]
fn case_4_rfc_7515_a_3_es256() {
    let key =
        Jwk::parse(&json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}))
        .unwrap()
        .key;
    let token = format!(
        "eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    assert!(verifies(&key, &token));
    assert!(!verifies(&key, &spoilt(&token)));
}

#[test]
fn weak_or_odd_keys_are_refused() {
    type Check = fn(&KeyError) -> bool;
    let ed = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let short = b64(&[0xff; 255]);
    let zero_first = b64(&[&[0], [0xff; 256].as_slice()].concat());
    let rows: [(Value, Check); 12] = [
        (json!([]), |e| matches!(e, KeyError::NotAJwk(_))),
        (json!({"kty": "oct", "x": ed}), |e| matches!(e, KeyError::Unsupported)),
        (json!({"kty": "oct", "k": ed}), |e| matches!(e, KeyError::PrivateMember)),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": ed, "d": ed}), |e| matches!(e, KeyError::PrivateMember)),
        (json!({"kty": "OKP", "crv": "Ed448", "x": ed}), |e| matches!(e, KeyError::Unsupported)),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": ed, "alg": "RS256"}), |e| {
            matches!(e, KeyError::Unsupported)
        }),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), |e| matches!(e, KeyError::NotAJwk(_))),
        (json!({"kty": "EC", "crv": "P-256", "x": ed, "y": ed}), |e| matches!(e, KeyError::NotOnCurve)),
        (json!({"kty": "RSA", "n": short, "e": "AQAB"}), |e| matches!(e, KeyError::RsaTooShort(2040))),
        (json!({"kty": "RSA", "n": RFC7638_N, "e": "Aw"}), |e| matches!(e, KeyError::RsaExponent)),
        (json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAC"}), |e| matches!(e, KeyError::RsaExponent)),
        (json!({"kty": "RSA", "n": zero_first, "e": "AQAB"}), |e| matches!(e, KeyError::NotAJwk(_))),
    ];
    for (value, check) in rows {
        let error = Jwk::parse(&value).unwrap_err();
        assert!(check(&error), "{value}: {error:?}");
    }
    let twice = json!({"kty": "OKP", "crv": "Ed25519", "x": ed});
    assert!(matches!(Jwk::parse_set(&json!({"keys": [twice, twice]})), Err(KeyError::DuplicateKid)));
}

/// 65537^129 has, for every prime, the remainder of a power of 65537, as the flawed generator's moduli have.
#[test]
fn predictable_primes_are_recognised() {
    let mut n = vec![1_u8];
    for _ in 0..129 {
        // n * 65537 = (n << 16) + n, little-endian.
        let shifted = [&[0, 0], n.as_slice()].concat();
        let mut carry = 0;
        n = (0..=shifted.len())
            .map(|i| {
                let sum =
                    carry + u32::from(*shifted.get(i).unwrap_or(&0)) + u32::from(*n.get(i).unwrap_or(&0));
                carry = sum >> 8;
                sum as u8
            })
            .collect();
        while n.last() == Some(&0) {
            n.pop();
        }
    }
    n.reverse();
    assert!(matches!(check_rsa(&n, &[1, 0, 1]), Err(KeyError::RsaWeakPrimes)));
    let sound = URL_SAFE_NO_PAD.decode(RFC7638_N).unwrap();
    assert!(check_rsa(&sound, &[1, 0, 1]).is_ok());
}

#[test]
fn use_and_key_ops_decide_whether_a_key_verifies() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for (extra, want) in [
        (json!({}), true),
        (json!({"use": "sig"}), true),
        (json!({"use": "enc"}), false),
        (json!({"use": 1}), false),
        (json!({"key_ops": ["verify"]}), true),
        (json!({"key_ops": ["encrypt", "verify"]}), true),
        (json!({"key_ops": ["sign"]}), false),
        (json!({"key_ops": []}), false),
        (json!({"use": "sig", "key_ops": "verify"}), false),
    ] {
        let mut value = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert_eq!(Jwk::parse(&value).unwrap().may_verify, want, "{extra}");
    }
}
