//! Assertions that count, and those that are forged, used twice, or meant for something else.

use super::*;
use crate::keys::set::tests::internal_set_of;
use crate::keys::{ClassKeys, KeyState, PrivateKey};
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use systemprompt_models::ManualClock;
use systemprompt_models::ids::TraceId;

const ISSUER: &str = "http://localhost:8080";
const NOW: i64 = 1_800_000_000;
const BODY: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

struct House {
    key: Arc<PrivateKey>,
    keys: SharedKeys,
    clock: ManualClock,
    verifier: Verifier,
}

fn house() -> House {
    let key = Arc::new(PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap());
    let keys = Arc::new(ArcSwap::from_pointee(internal_set_of(&key, KeyState::Active)));
    let clock = ManualClock::at(NOW * 1000);
    let classes = Arc::new(ClassKeys::derive(&"0123456789abcdef0123456789abcdef".into()).unwrap());
    let verifier = Verifier::new(ISSUER, classes, Arc::clone(&keys), Arc::new(clock.clone()));
    House { key, keys, clock, verifier }
}

impl House {
    fn issuer(&self) -> AssertionIssuer {
        AssertionIssuer::new(ISSUER, Arc::clone(&self.keys), Arc::new(self.clock.clone()))
    }

    fn minted(&self) -> String {
        self.issuer().sign(&ada(), "demo", BODY).unwrap().expose().clone()
    }

    fn verify(&self, token: &str) -> Result<VerifiedAssertion, JwtError> {
        self.verifier.verify_assertion(token, "demo", BODY).map_err(|(error, _)| error)
    }

    fn signed(&self, header: &str, claims: &Value) -> String {
        let claims = claims.to_string();
        compact(header, claims.as_bytes(), |input| self.key.sign(input).unwrap()).expose().clone()
    }

    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        self.signed(&header(ASSERTION_TYP, "EdDSA", self.key.kid()), &claims)
    }
}

fn ada() -> Principal {
    Principal {
        user_id: "usr_ada".into(),
        session_id: "ses_1".into(),
        permissions: vec![Permission::User, Permission::Mcp],
        user_type: UserType::User,
        roles: vec!["dev".into()],
        department: Some("platform".into()),
        act_chain: vec!["agent:planner".into()],
        credential: CredentialKind::Token { jti: "jti_of_the_caller".into() },
        ..Principal::anonymous()
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "mcp:demo", "sub": "usr_ada", "session_id": "ses_1", "scope": "user",
        "jti": Jti::generate(), "iat": NOW, "exp": NOW + 30, "bind": digest_of(BODY),
    })
}

#[test]
fn an_assertion_says_who_calls_and_through_whom() {
    let house = house();
    let asserted = house.verify(&house.minted()).unwrap();
    let principal = asserted.principal;
    assert_eq!((principal.user_id.as_str(), principal.session_id.as_str()), ("usr_ada", "ses_1"));
    assert_eq!(principal.permissions, ada().permissions);
    assert_eq!((principal.roles, principal.department), (ada().roles, ada().department));
    assert_eq!(principal.act_chain, ["mcp:demo", "agent:planner"]);
    assert_eq!(asserted.issued_at, NOW);
    assert_eq!(principal.credential, CredentialKind::Token { jti: asserted.jti });

    let visitor = house.issuer().sign(&Principal::anonymous(), "demo", BODY).unwrap();
    assert!(house.verify(visitor.expose()).unwrap().principal.is_anonymous());
}

#[test]
fn case_32_replayed_for_another_server_too_old_and_another_body_are_refused() {
    let house = house();
    let token = house.minted();
    let at = |server, body| house.verifier.verify_assertion(&token, server, body).map_err(|(error, _)| error);
    assert_eq!(at("other", BODY).err(), Some(JwtError::ServerMismatch));
    assert_eq!(at("demo", b"{}").err(), Some(JwtError::BodyMismatch));
    // A refused one is not spent.
    assert!(at("demo", BODY).is_ok());
    assert_eq!(at("demo", BODY).err(), Some(JwtError::Replayed));
    let late = house.minted();
    house.clock.advance(MAX_ASSERTION_LIFE * 1000);
    assert_eq!(house.verify(&late).err(), Some(JwtError::Expired));
}

#[test]
fn every_claim_is_looked_at() {
    let house = house();
    for (name, value, want) in [
        ("iss", json!("http://elsewhere"), JwtError::IssuerMismatch),
        ("aud", json!("mcp:demo2"), JwtError::ServerMismatch),
        ("exp", json!(NOW + 31), JwtError::LifeTooLong),
        ("exp", json!(NOW), JwtError::TimesOutOfOrder),
        ("iat", json!(NOW - 40), JwtError::LifeTooLong),
        ("iat", json!(NOW + 31), JwtError::TimesOutOfOrder),
        ("bind", json!(digest_of(b"other")), JwtError::BodyMismatch),
        ("bind", json!(7), JwtError::ClaimsInvalid),
        ("sub", json!(""), JwtError::SubjectMissing),
        ("jti", json!(""), JwtError::JtiMissing),
        ("session_id", json!(""), JwtError::SessionMissing),
        ("scope", json!("root"), JwtError::ScopeInvalid),
        ("scope", json!(""), JwtError::ScopeInvalid),
        ("act", json!({"sub": ""}), JwtError::ActorChainInvalid),
        ("aud", Value::Null, JwtError::ClaimsInvalid),
    ] {
        assert_eq!(house.verify(&house.with(name, value.clone())).err(), Some(want), "{name} {value}");
    }
    assert!(house.verify(&house.with("iat", json!(NOW))).is_ok());
    let future = {
        let mut claims = claims();
        (claims["iat"], claims["exp"]) = (json!(NOW + 31), json!(NOW + 60));
        house.signed(&header(ASSERTION_TYP, "EdDSA", house.key.kid()), &claims)
    };
    assert_eq!(house.verify(&future).err(), Some(JwtError::IssuedInFuture));
}

#[test]
fn only_an_internal_key_signs_and_only_as_an_assertion() {
    let house = house();
    let kid = house.key.kid();
    let published = Arc::new(PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap());
    for (token, want) in [
        (house.signed(&header("at+jwt", "EdDSA", kid), &claims()), JwtError::TypeNotAccepted),
        (house.signed(&header(ASSERTION_TYP, "RS256", kid), &claims()), JwtError::AlgorithmMismatch),
        (house.signed(&header(ASSERTION_TYP, "none", kid), &claims()), JwtError::AlgorithmUnknown),
        (house.signed(&header(ASSERTION_TYP, "EdDSA", published.kid()), &claims()), JwtError::KeyUnknown),
        (house.signed(r#"{"typ":"mcp-proxy+jwt","alg":"EdDSA"}"#, &claims()), JwtError::KeyMissing),
    ] {
        assert_eq!(house.verify(&token).err(), Some(want), "{want:?}");
    }
    let foreign = compact(&header(ASSERTION_TYP, "EdDSA", kid), claims().to_string().as_bytes(), |input| {
        published.sign(input).unwrap()
    });
    assert_eq!(house.verify(foreign.expose()).err(), Some(JwtError::SignatureInvalid));
    // As a bearer it is nothing, on no surface.
    for surface in crate::jwt::Surface::ALL {
        let as_bearer = house.verifier.verify(&house.minted(), surface);
        assert_eq!(as_bearer.err(), Some(JwtError::TypeNotAccepted), "{surface:?}");
    }
    house.keys.store(Arc::new(internal_set_of(&house.key, KeyState::Revoked)));
    assert_eq!(house.verify(&house.with("sub", json!("usr_ada"))).err(), Some(JwtError::KeyUnknown));
    assert!(matches!(house.issuer().sign(&ada(), "demo", BODY), Err(AssertionError::Key(_))));
}

#[test]
fn a_full_memory_of_used_assertions_refuses_until_some_have_ended() {
    let house = house();
    let token = house.minted();
    for number in 0..MAX_USED as i64 {
        let spent = house.verifier.used.spend(&Jti::from(format!("jti_{number}")), NOW + 10, NOW);
        assert_eq!(spent, Ok(()));
    }
    assert_eq!(house.verify(&token).err(), Some(JwtError::TooManyAssertions));
    house.clock.advance(10_000);
    assert!(house.verify(&token).is_ok());
}

#[test]
fn a_full_chain_of_actors_makes_no_assertion() {
    let house = house();
    let act_chain = vec!["a".to_owned(); MAX_ACT_DEPTH];
    let refused = house.issuer().sign(&Principal { act_chain, ..ada() }, "demo", BODY);
    assert!(matches!(refused, Err(AssertionError::ChainTooLong)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outgoing_request_carries_the_assertion_and_nothing_of_the_caller() {
    let db = systemprompt_database::testing::TestDb::sqlite(&systemprompt_audit::testing::migrations()).await;
    let ledger = systemprompt_audit::testing::ledger(&db, &[]).await;
    let context = RequestContext::new(Arc::new(ada()), TraceId::new("trc_0123456789abcdef"));
    let mut unit = systemprompt_audit::Unit::new();
    unit.record(systemprompt_audit::Draft::new(
        systemprompt_audit::EntryKind::AuthzDecision,
        &context,
        "allow",
    ));
    let permit = ledger.commit(unit).await.unwrap();

    let house = house();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer of-the-caller-0123456789".parse().unwrap());
    headers.insert("x-mcp-proxy-auth", "Bearer of-somebody-0123456789".parse().unwrap());
    house.issuer().authorize(&permit, &context, "demo", BODY, &mut headers).unwrap();
    assert!(!headers.contains_key("authorization"));
    assert!(headers["x-mcp-proxy-auth"].is_sensitive());
    let token = crate::extraction::token::mcp_proxy(&headers, MCP_PROXY_HEADER).unwrap();
    assert_eq!(house.verify(token).unwrap().principal.user_id.as_str(), "usr_ada");
}
