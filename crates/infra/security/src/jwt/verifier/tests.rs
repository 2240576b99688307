//! Forged and odd tokens, one error each (acceptance case 6), and the matrix of classes and surfaces (SEC-54).

use super::*;
use crate::jwt::Surface;
use crate::jwt::sign::{compact, header};
use crate::keys::set::tests::set_of;
use crate::keys::{KeyState, PrivateKey, SigningAlgorithm};
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;
use systemprompt_models::{ManualClock, RateLimitTier, Secret};

const ISSUER: &str = "http://localhost:8080";
const NOW: i64 = 1_800_000_000;

/// One key of each algorithm, for all tests of this file.
static KEYS: LazyLock<Vec<Arc<PrivateKey>>> = LazyLock::new(|| {
    SigningAlgorithm::ALL
        .into_iter()
        .map(|algorithm| Arc::new(PrivateKey::generate(algorithm).unwrap()))
        .collect()
});

fn rsa() -> &'static Arc<PrivateKey> {
    &KEYS[0]
}

fn classes() -> Arc<ClassKeys> {
    Arc::new(ClassKeys::derive(&"0123456789abcdef0123456789abcdef".into()).unwrap())
}

fn verifier() -> Verifier {
    let keys: Vec<_> = KEYS.iter().map(|key| (key, KeyState::Active, None)).collect();
    let keys = Arc::new(ArcSwap::from_pointee(set_of(&keys)));
    Verifier::new(ISSUER, classes(), keys, Arc::new(ManualClock::at(NOW * 1000)))
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "usr_1", "aud": ["api"], "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": "jti_1",
        "scope": "user", "user_type": "user", "roles": ["dev"], "session_id": "ses_1", "rate_limit_tier": "user",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => drop(claims.as_object_mut().unwrap().insert(name.into(), value)),
    }
    claims
}

fn signed(header: &str, claims: &[u8], key: &PrivateKey) -> String {
    compact(header, claims, |input| key.sign(input).unwrap()).expose().clone()
}

fn access_by(key: &PrivateKey, claims: &Value) -> String {
    let header = header("at+jwt", key.algorithm().as_str(), key.kid());
    signed(&header, claims.to_string().as_bytes(), key)
}

fn access(claims: &Value) -> String {
    access_by(&KEYS[2], claims)
}

fn hmac(header: &str, claims: &[u8], key: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    compact(header, claims, |input| aws_lc_rs::hmac::sign(&key, input).as_ref().to_vec()).expose().clone()
}

fn of_class(class: TokenClass, claims: &Value) -> String {
    let classes = classes();
    let key = classes.of(class).unwrap();
    let header = header(class.typ(), "HS256", &key.kid);
    let token = compact(&header, claims.to_string().as_bytes(), |input| {
        aws_lc_rs::hmac::sign(&key.signing, input).as_ref().to_vec()
    });
    token.expose().clone()
}

fn refused(token: &str) -> JwtError {
    verifier().verify(token, Surface::Api).unwrap_err()
}

#[test]
fn a_token_of_each_algorithm_verifies() {
    for key in KEYS.iter() {
        let verified = verifier().verify(&access_by(key, &claims()), Surface::Api).unwrap();
        assert_eq!((verified.class, &*verified.kid), (TokenClass::Access, key.kid()));
        assert_eq!(verified.expires_at(), (NOW + 60) * 1000);
        assert_eq!(
            (verified.claims.sub.as_str(), verified.claims.roles.as_slice()),
            ("usr_1", &["dev".to_owned()][..])
        );
    }
    for class in TokenClass::SESSION_CLASSES {
        let verified =
            verifier().verify(&of_class(class, &with("aud", json!(["web"]))), Surface::Site).unwrap();
        assert_eq!(verified.class, class);
    }
}

/// Acceptance case 6: nine forgeries, nine different errors.
#[test]
fn case_6_each_forgery_is_refused_at_a_step_of_its_own() {
    let good = claims().to_string();
    let (kid, alg) = (rsa().kid(), "RS256");
    let public = serde_json::to_vec(&rsa().public().to_jwk()).unwrap();
    let deep = (0..6).fold(json!({"sub": "a"}), |act, _| json!({"sub": "a", "act": act}));
    let header_with = |extra: &str| format!(r#"{{"typ":"at+jwt","alg":"{alg}","kid":"{kid}",{extra}}}"#);
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(header("at+jwt", "none", kid)),
        URL_SAFE_NO_PAD.encode(&good)
    );
    let doubled = good.replacen('{', r#"{"sub":"usr_admin","#, 1);
    let forgeries = [
        ("none", signed(&header("at+jwt", "none", kid), good.as_bytes(), rsa()), JwtError::AlgorithmUnknown),
        ("none, unsigned", unsigned, JwtError::Malformed),
        (
            "HS256 with the public key",
            hmac(&header("at+jwt", "HS256", kid), good.as_bytes(), &public),
            JwtError::AlgorithmMismatch,
        ),
        ("swapped typ", signed(&header("JWT", alg, kid), good.as_bytes(), rsa()), JwtError::TypeNotAccepted),
        (
            "jwk header",
            signed(&header_with(r#""jwk":{}"#), good.as_bytes(), rsa()),
            JwtError::HeaderForbiddenMember,
        ),
        (
            "unknown kid",
            signed(&header("at+jwt", alg, "other"), good.as_bytes(), rsa()),
            JwtError::KeyUnknown,
        ),
        ("other aud", access(&with("aud", json!(["mcp"]))), JwtError::AudienceMismatch),
        ("other iss", access(&with("iss", json!("http://localhost:8081"))), JwtError::IssuerMismatch),
        ("act depth 6", access(&with("act", deep)), JwtError::ActorChainInvalid),
        (
            "duplicate claim",
            signed(&header("at+jwt", alg, kid), doubled.as_bytes(), rsa()),
            JwtError::ClaimsDuplicateMember,
        ),
    ];
    let mut errors = HashMap::new();
    for (name, token, want) in forgeries {
        assert_eq!(refused(&token), want, "{name}");
        assert!(errors.insert(want, name).is_none(), "{want:?} twice");
        let refusal = systemprompt_models::Refusal::from(crate::error::AuthError::from(want));
        assert_eq!((refusal.status(), refusal.reason.as_ref()), (401, "the token is not valid here"));
    }
}

#[test]
fn the_form_comes_first() {
    let token = access(&claims());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (head, body) = input.split_once('.').unwrap();
    let long_header = format!(r#"{{"typ":"at+jwt","x":"{}"}}"#, "x".repeat(1024));
    let in_header = |json: &str| format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode(json));
    for (token, want) in [
        ("a".repeat(8193), JwtError::TooLong),
        (String::new(), JwtError::Malformed),
        ("a.b".to_owned(), JwtError::Malformed),
        (format!("{head}..{signature}"), JwtError::Malformed),
        (format!("{token}."), JwtError::Malformed),
        (format!("{input}.x.{signature}"), JwtError::Malformed),
        (format!("{input}.{signature}=="), JwtError::Malformed),
        (
            format!("{input}.{}", signature.replacen(|c: char| c.is_ascii_alphanumeric(), "+", 1)),
            JwtError::Malformed,
        ),
        (format!("a.{body}.{signature}"), JwtError::Malformed),
        (in_header(&long_header), JwtError::HeaderTooLong),
        (in_header("[]"), JwtError::HeaderInvalid),
        (in_header("\u{fc}"), JwtError::HeaderInvalid),
        (in_header(r#"{"typ":1}"#), JwtError::HeaderInvalid),
        (in_header(r#"{"typ":"at+jwt","typ":"at+jwt"}"#), JwtError::HeaderDuplicateMember),
        (in_header(r#"{"crit":[]}"#), JwtError::HeaderForbiddenMember),
        (in_header(r#"{"jku":null}"#), JwtError::HeaderForbiddenMember),
        (in_header(r#"{"x5u":""}"#), JwtError::HeaderForbiddenMember),
        (in_header(r#"{"x5c":[]}"#), JwtError::HeaderForbiddenMember),
        (in_header(r#"{"zip":"DEF"}"#), JwtError::HeaderForbiddenMember),
        (in_header("{}"), JwtError::TypeNotAccepted),
        (in_header(r#"{"typ":"AT+JWT"}"#), JwtError::TypeNotAccepted),
        (in_header(r#"{"typ":"mcp-proxy+jwt"}"#), JwtError::TypeNotAccepted),
        (in_header(r#"{"typ":"at+jwt"}"#), JwtError::KeyMissing),
        (in_header(r#"{"typ":"session+jwt","kid":"session-0"}"#), JwtError::KeyUnknown),
        (in_header(&format!(r#"{{"typ":"session+jwt","kid":"{}"}}"#, KEYS[2].kid())), JwtError::KeyUnknown),
        (in_header(r#"{"typ":"at+jwt","kid":"session-1"}"#), JwtError::KeyUnknown),
        (in_header(&format!(r#"{{"typ":"at+jwt","kid":"{}"}}"#, KEYS[2].kid())), JwtError::AlgorithmUnknown),
        (in_header(&header("at+jwt", "RS256", KEYS[2].kid())), JwtError::AlgorithmMismatch),
    ] {
        assert_eq!(refused(&token), want, "{token}");
    }
}

#[test]
fn every_claim_is_checked() {
    let chain = |depth| (1..depth).fold(json!({"sub": "a"}), |act, _| json!({"sub": "a", "act": act}));
    for (name, value, want) in [
        ("iss", Value::Null, Some(JwtError::IssuerMismatch)),
        ("iss", json!("http://localhost:8080/"), Some(JwtError::IssuerMismatch)),
        ("iss", json!(1), Some(JwtError::ClaimsInvalid)),
        ("aud", Value::Null, Some(JwtError::AudienceMismatch)),
        ("aud", json!([]), Some(JwtError::AudienceMismatch)),
        ("aud", json!("api"), None),
        ("aud", json!(["mcp", "api"]), None),
        ("aud", json!(7), Some(JwtError::ClaimsInvalid)),
        ("exp", Value::Null, Some(JwtError::TimeMissing)),
        ("nbf", Value::Null, Some(JwtError::TimeMissing)),
        ("iat", Value::Null, Some(JwtError::TimeMissing)),
        ("exp", json!("soon"), Some(JwtError::ClaimsInvalid)),
        ("exp", json!(NOW), Some(JwtError::TimesOutOfOrder)),
        ("exp", json!(NOW + 1), None),
        ("exp", json!(i64::MAX), None),
        ("nbf", json!(NOW + 30), None),
        ("nbf", json!(NOW + 31), Some(JwtError::NotYetValid)),
        ("nbf", json!(NOW + 60), Some(JwtError::TimesOutOfOrder)),
        ("iat", json!(NOW + 30), None),
        ("iat", json!(NOW + 31), Some(JwtError::IssuedInFuture)),
        ("sub", Value::Null, Some(JwtError::SubjectMissing)),
        ("sub", json!(""), Some(JwtError::SubjectMissing)),
        ("jti", json!(""), Some(JwtError::JtiMissing)),
        ("session_id", Value::Null, Some(JwtError::SessionMissing)),
        ("act", chain(5), None),
        ("act", chain(6), Some(JwtError::ActorChainInvalid)),
        ("act", json!({"sub": ""}), Some(JwtError::ActorChainInvalid)),
        ("act", json!({"act": {"sub": "a"}}), Some(JwtError::ClaimsInvalid)),
        ("scope", Value::Null, Some(JwtError::ScopeInvalid)),
        ("scope", json!(""), Some(JwtError::ScopeInvalid)),
        ("scope", json!("user root"), Some(JwtError::ScopeInvalid)),
        ("scope", json!("user ".repeat(17)), Some(JwtError::ScopeInvalid)),
        ("scope", json!("user admin"), Some(JwtError::UserTypeMismatch)),
        ("user_type", json!("admin"), Some(JwtError::UserTypeMismatch)),
        ("user_type", Value::Null, Some(JwtError::UserTypeMismatch)),
    ] {
        let found = verifier().verify(&access(&with(name, value.clone())), Surface::Api).err();
        assert_eq!(found, want, "{name} = {value}");
    }
    let mut ended = claims();
    for (name, at) in [("iat", NOW - 60), ("nbf", NOW - 60), ("exp", NOW)] {
        ended[name] = json!(at);
    }
    assert_eq!(refused(&access(&ended)), JwtError::Expired);
    assert_eq!(
        refused(&signed(&header("at+jwt", "EdDSA", KEYS[2].kid()), b"[]", &KEYS[2])),
        JwtError::ClaimsInvalid
    );
}

#[test]
fn a_token_cannot_raise_its_own_tier() {
    for (tier, want) in [
        (json!("admin"), RateLimitTier::User),
        (json!("mcp"), RateLimitTier::User),
        (json!("anon"), RateLimitTier::Anon),
        (Value::Null, RateLimitTier::User),
    ] {
        let verified = verifier().verify(&access(&with("rate_limit_tier", tier)), Surface::Api).unwrap();
        assert_eq!(verified.claims.rate_limit_tier, want);
    }
}

#[test]
fn a_key_that_may_not_verify_or_is_revoked_does_not() {
    let token = access(&claims());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW * 1000));
    for (state, want) in [
        (KeyState::Next, None),
        (KeyState::Active, None),
        (KeyState::Removed, Some(JwtError::KeyUnknown)),
        (KeyState::Revoked, Some(JwtError::KeyUnknown)),
    ] {
        let keys = Arc::new(ArcSwap::from_pointee(set_of(&[(&KEYS[2], state, None)])));
        let verifier = Verifier::new(ISSUER, classes(), keys, Arc::clone(&clock));
        assert_eq!(verifier.verify(&token, Surface::Api).err(), want, "{state:?}");
    }
    let set = set_of(&[(&KEYS[2], KeyState::Active, None)]);
    let info = set.list().remove(0);
    let for_encryption = VerificationKey::new(info, KEYS[2].public().clone(), false);
    let set = crate::keys::KeySet::new(1, vec![for_encryption], Vec::new());
    let verifier = Verifier::new(ISSUER, classes(), Arc::new(ArcSwap::from_pointee(set)), clock);
    assert_eq!(verifier.verify(&token, Surface::Api).err(), Some(JwtError::KeyUseNotAllowed));
}

#[test]
fn a_class_key_signs_for_its_class_and_secret_alone() {
    let web = with("aud", json!(["web"])).to_string();
    let other = ClassKeys::derive(&"another secret of 32 characters!".into()).unwrap();
    let (session, admin) = (other.of(TokenClass::Session).unwrap(), other.of(TokenClass::Admin).unwrap());
    let sign = |key: &aws_lc_rs::hmac::Key, kid: &str| -> Secret<String> {
        compact(&header("session+jwt", "HS256", kid), web.as_bytes(), |input| {
            aws_lc_rs::hmac::sign(key, input).as_ref().to_vec()
        })
    };
    assert_eq!(refused(sign(&session.signing, "session-1").expose()), JwtError::SignatureInvalid);
    let ours = classes();
    let ours = ours.of(TokenClass::Session).unwrap();
    assert!(verifier().verify(sign(&ours.signing, "session-1").expose(), Surface::Api).is_ok());
    assert_eq!(refused(sign(&ours.signing, "admin-1").expose()), JwtError::SignatureInvalid);
    assert_eq!(refused(sign(&admin.signing, "admin-1").expose()), JwtError::SignatureInvalid);
    assert!(matches!(
        ClassKeys::derive(&"short".into()),
        Err(crate::keys::KeyError::SecretTooShort { found: 5, .. })
    ));
}

/// Eight kinds of tokens on nine surfaces (SEC-54); ID tokens and proxy assertions are never bearers here.
#[test]
fn case_7_tokens_count_on_the_surfaces_of_their_kind_alone() {
    use Surface as S;
    let to = |audiences: &[&str]| with("aud", json!(audiences));
    let typed = |typ: &str, aud: &[&str]| {
        let key = rsa();
        signed(&header(typ, "RS256", key.kid()), to(aud).to_string().as_bytes(), key)
    };
    let kinds: [(&str, String, &[Surface]); 8] = [
        ("access api", access(&to(&["api"])), &[S::Api, S::Gateway, S::Webhook]),
        ("access mcp a2a", access(&to(&["mcp", "a2a"])), &[S::Mcp, S::A2a]),
        ("hook", access(&to(&["hook"])), &[S::Hooks]),
        ("id token", typed("JWT", &["api", "web"]), &[]),
        ("session", of_class(TokenClass::Session, &to(&["web"])), &[S::Site, S::Api, S::Hooks]),
        (
            "admin",
            of_class(TokenClass::Admin, &to(&["web", "api"])),
            &[S::Site, S::Api, S::Gateway, S::Hooks],
        ),
        ("anonymous", of_class(TokenClass::Anonymous, &to(&["web"])), &[S::Site, S::Api]),
        ("proxy assertion", typed("mcp-proxy+jwt", &["mcp", "mcp:demo"]), &[]),
    ];
    let verifier = verifier();
    for (kind, token, surfaces) in kinds {
        for surface in Surface::ALL {
            let found = verifier.verify(&token, surface);
            assert_eq!(found.is_ok(), surfaces.contains(&surface), "{kind} on {surface:?}: {found:?}");
        }
    }
}

#[test]
fn a_resource_uri_counts_at_its_resource() {
    let token = access(&with("aud", json!(["http://localhost:8080/api/v1/mcp/demo/mcp"])));
    let at = |resource| verifier().verify(&token, Target { resource, ..Target::from(Surface::Mcp) });
    assert!(at(Some("http://LOCALHOST:8080/api/v1/mcp/demo/mcp")).is_ok());
    assert_eq!(
        at(Some("http://localhost:8080/api/v1/mcp/other/mcp")).unwrap_err(),
        JwtError::AudienceMismatch
    );
    assert_eq!(at(None).unwrap_err(), JwtError::AudienceMismatch);
}

proptest! {
    #[test]
    fn any_changed_character_is_refused(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.-]") {
        let token = of_class(TokenClass::Session, &with_aud_web());
        let mut changed: Vec<char> = token.chars().collect();
        let at = at.index(changed.len());
        let with = with.chars().next().unwrap();
        prop_assume!(changed[at] != with);
        changed[at] = with;
        let changed: String = changed.into_iter().collect();
        prop_assert!(verifier().verify(&changed, Surface::Api).is_err());
    }

    #[test]
    fn no_text_makes_the_verifier_panic(
        header in "\\PC{0,60}",
        claims in "\\PC{0,60}",
        raw in "[A-Za-z0-9_.-]{0,120}",
    ) {
        let token = format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        prop_assert!(verifier().verify(&token, Surface::Api).is_err());
        prop_assert!(verifier().verify(&raw, Surface::Api).is_err());
        let _ = crate::jwt::UnverifiedClaims::decode(&token);
    }
}

fn with_aud_web() -> Value {
    with("aud", json!(["web"]))
}
