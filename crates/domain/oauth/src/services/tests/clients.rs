//! Clients: how they prove themselves, what ends with them, and what the installation makes of its own.

use super::plane::{Plane, context, planes, planes_with, word};
use crate::constants::SP_CLI;
use crate::error::OauthResult;
use crate::models::clients::api::shown;
use crate::models::oauth::api::Page;
use crate::repository::oauth::cleanup::Ended;
use crate::services::clients::{ClientError, cleanup, managed, seed};
use crate::services::validation::client_assertion::ASSERTION_TYPE;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use systemprompt_config::profile::identity::AssertionAudience;
use systemprompt_models::ids::{TraceId, UserId};
use systemprompt_models::{Clock as _, Permission, Principal, RequestContext, UserType};

use super::plane::{ISSUER, START};

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// The key pairs of a client.
struct Keys {
    ed: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
}

impl Keys {
    fn new() -> Self {
        Self {
            ed: Ed25519KeyPair::generate().unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        }
    }

    fn set(&self) -> Value {
        let ec = |pair: &EcdsaKeyPair, crv: &str, half: usize| {
            let point = pair.public_key().as_ref();
            json!({"kty": "EC", "crv": crv, "kid": crv, "x": b64(&point[1..=half]), "y": b64(&point[half + 1..])})
        };
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(self.ed.public_key().as_ref())},
            ec(&self.p256, "P-256", 32),
            ec(&self.p384, "P-384", 48),
        ]})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match header["alg"].as_str().unwrap() {
            "EdDSA" => self.ed.sign(input.as_bytes()).as_ref().to_vec(),
            "ES256" => self.p256.sign(&random, input.as_bytes()).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, input.as_bytes()).unwrap().as_ref().to_vec(),
            // The public key as a secret: what a verifier does that lets the token choose.
            "HS256" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.ed.public_key().as_ref());
                hmac::sign(&key, input.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{input}.{}", b64(&signature))
    }
}

pub(super) fn person(id: &UserId, permissions: &[Permission]) -> RequestContext {
    let principal = Principal {
        user_id: id.clone(),
        permissions: permissions.to_vec(),
        user_type: UserType::of(permissions),
        ..Principal::anonymous()
    };
    RequestContext::new(Arc::new(principal), TraceId::generate())
}

pub(super) fn admin() -> RequestContext {
    person(&UserId::generate(), &[Permission::Admin])
}

/// A client that signs, and its keys.
async fn signing(plane: &Plane) -> Keys {
    let keys = Keys::new();
    let asked = json!({
        "client_id": "signer", "client_name": "Signer", "grant_types": ["client_credentials"], "scope": "user",
        "token_endpoint_auth_method": "private_key_jwt", "jwks": keys.set(),
    });
    let made = managed::create(&plane.state, &admin(), &members(&asked)).await.unwrap();
    assert!(made.secret.is_none());
    keys
}

async fn present(plane: &Plane, assertion: &str, more: &str) -> OauthResult<()> {
    let form = format!(
        "grant_type=client_credentials&scope=user&client_assertion_type={ASSERTION_TYPE}&client_assertion={assertion}{more}"
    );
    plane.token(None, &form).await.map(drop)
}

fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "signer", "sub": "signer", "aud": ISSUER, "exp": START / 1000 + 120, "iat": START / 1000,
        "jti": format!("{}", TraceId::generate()),
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_signed_assertion_is_a_proof_once() {
    for plane in planes().await {
        let keys = signing(&plane).await;
        for header in [
            json!({"alg": "EdDSA", "kid": "ed"}),
            json!({"alg": "EdDSA", "typ": "JWT"}),
            json!({"alg": "ES256", "kid": "P-256"}),
            json!({"alg": "ES384", "typ": "client-authentication+jwt"}),
        ] {
            let assertion = keys.sign(&header, &claims(&json!({})));
            assert_eq!(word(&present(&plane, &assertion, "").await), "ok", "{header}");
            assert_eq!(word(&present(&plane, &assertion, "").await), "invalid_client", "replayed {header}");
        }
        let one = keys.sign(&json!({"alg": "EdDSA"}), &claims(&json!({"aud": [ISSUER]})));
        assert_eq!(word(&present(&plane, &one, "&client_id=signer").await), "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_130_assertions_that_are_not_for_us_now_by_a_known_key_are_refused() {
    let plane = planes().await.into_iter().next().unwrap();
    let keys = signing(&plane).await;
    let now = START / 1000;
    let ed = json!({"alg": "EdDSA", "kid": "ed"});
    let token_endpoint = plane.state.settings().endpoint("/token");
    for (what, header, changes) in [
        ("no algorithm", json!({"alg": "none"}), json!({})),
        ("the public key as a secret", json!({"alg": "HS256", "kid": "ed"}), json!({})),
        ("another key's algorithm", json!({"alg": "EdDSA", "kid": "P-256"}), json!({})),
        ("an unknown key", json!({"alg": "EdDSA", "kid": "x"}), json!({})),
        ("a critical member", json!({"alg": "EdDSA", "kid": "ed", "crit": ["x"]}), json!({})),
        ("a key of its own", json!({"alg": "EdDSA", "jwk": {}}), json!({})),
        ("another type", json!({"alg": "EdDSA", "typ": "at+jwt"}), json!({})),
        ("two audiences", ed.clone(), json!({"aud": [ISSUER, "https://other.example"]})),
        ("the same audience twice", ed.clone(), json!({"aud": [ISSUER, ISSUER]})),
        ("no audience", ed.clone(), json!({"aud": []})),
        ("another audience", ed.clone(), json!({"aud": "https://other.example"})),
        ("the token endpoint", ed.clone(), json!({"aud": token_endpoint})),
        ("the issuer with a slash", ed.clone(), json!({"aud": format!("{ISSUER}/")})),
        ("expired", ed.clone(), json!({"exp": now - 31})),
        ("too long", ed.clone(), json!({"exp": now + 331})),
        ("no end", ed.clone(), json!({"exp": null})),
        ("from the future", ed.clone(), json!({"iat": now + 31})),
        ("not yet", ed.clone(), json!({"nbf": now + 31})),
        ("no jti", ed.clone(), json!({"jti": null})),
        ("an empty jti", ed.clone(), json!({"jti": ""})),
        ("another issuer", ed.clone(), json!({"iss": "other"})),
        ("another client", ed.clone(), json!({"iss": "acme-ci", "sub": "acme-ci"})),
        ("an unknown client", ed.clone(), json!({"iss": "nobody", "sub": "nobody"})),
    ] {
        let assertion = keys.sign(&header, &claims(&changes));
        assert_eq!(word(&present(&plane, &assertion, "").await), "invalid_client", "{what}");
    }
    let good = || keys.sign(&ed, &claims(&json!({})));
    let mut changed = good();
    changed.pop();
    changed.push('A');
    assert_eq!(word(&present(&plane, &changed[..changed.len() - 4], "").await), "invalid_client");
    assert_eq!(word(&present(&plane, &good(), "&client_id=acme-ci").await), "invalid_client");
    assert_eq!(word(&present(&plane, &good(), "&client_secret=x").await), "invalid_request", "two methods");
    let stranger = Keys::new().sign(&ed, &claims(&json!({})));
    assert_eq!(word(&present(&plane, &stranger, "").await), "invalid_client");
    assert_eq!(word(&present(&plane, "a.b.c", "").await), "invalid_client");
    let secret =
        plane.token(None, "grant_type=client_credentials&scope=user&client_id=signer&client_secret=x").await;
    assert_eq!(word(&secret), "invalid_client", "a method other than its own");
    assert_eq!(word(&present(&plane, &good(), "").await), "ok", "none of it used anything up");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_is_an_audience_where_the_profile_says_so() {
    let both = |settings: &mut crate::Settings| {
        settings.identity.client_assertion_audience = AssertionAudience::IssuerOrTokenEndpoint;
    };
    let plane = planes_with(both).await.into_iter().next().unwrap();
    let keys = signing(&plane).await;
    let endpoint = plane.state.settings().endpoint("/token");
    let assertion = keys.sign(&json!({"alg": "EdDSA"}), &claims(&json!({"aud": endpoint})));
    assert_eq!(word(&present(&plane, &assertion, "").await), "ok");
}

async fn by_secret(plane: &Plane, id: &str, secret: &str) -> &'static str {
    let form = format!("grant_type=client_credentials&scope=user&client_id={id}&client_secret={secret}");
    word(&plane.token(None, &form).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn id_14_two_secrets_count_at_once_and_the_older_one_ends() {
    for plane in planes().await {
        let by = admin();
        let asked = json!({"client_id": "two", "client_name": "Two", "grant_types": ["client_credentials"], "scope": "user"});
        let made = managed::create(&plane.state, &by, &members(&asked)).await.unwrap();
        let first = made.secret.unwrap().expose().clone();
        assert!(first.starts_with("sps_") && first.len() == 47);
        assert_eq!(by_secret(&plane, "two", &first).await, "ok");
        assert_eq!(by_secret(&plane, "two", &first.replace("sps_", "sps-")).await, "invalid_client");

        let (_, second) = managed::rotate_secret(&plane.state, &by, "two", Some(60)).await.unwrap();
        assert_eq!(by_secret(&plane, "two", &first).await, "ok");
        assert_eq!(by_secret(&plane, "two", second.expose()).await, "ok");
        let third = managed::rotate_secret(&plane.state, &by, "two", Some(60)).await;
        assert!(matches!(third, Err(ClientError::Conflict(_))), "a third one does not count beside two");
        plane.clock.advance(60_001);
        assert_eq!(by_secret(&plane, "two", &first).await, "invalid_client");
        assert_eq!(by_secret(&plane, "two", second.expose()).await, "ok");

        let (_, fourth) = managed::rotate_secret(&plane.state, &by, "two", Some(0)).await.unwrap();
        assert_eq!(by_secret(&plane, "two", second.expose()).await, "invalid_client");
        assert_eq!(by_secret(&plane, "two", fourth.expose()).await, "ok");
        for wrong in [-1, managed::MAX_OVERLAP_SECONDS + 1] {
            assert!(managed::rotate_secret(&plane.state, &by, "two", Some(wrong)).await.is_err());
        }
        assert_eq!(plane.records("oauth.client.secret_rotated").await.len(), 3);
        let rows =
            plane.count("SELECT COUNT(*) FROM oauth_client_secrets WHERE secret_digest LIKE 'sps%'").await;
        assert_eq!(rows, 0, "no secret is stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_16_deletion_ends_all_that_a_client_was_given() {
    for plane in planes().await {
        let (tokens, _) = plane.signed_in("user", "").await;
        let (refresh, access) = (tokens.refresh_token.unwrap(), tokens.access_token);
        let (code, _) = plane.code("user", "").await;
        assert!(plane.is_live(&access).await);
        let deleted = managed::delete(&plane.state, &admin(), "public", Some(7)).await;
        assert!(matches!(deleted, Err(ClientError::Changed)), "another version");
        managed::delete(&plane.state, &admin(), "public", Some(1)).await.unwrap();
        assert!(!plane.is_live(&access).await && !plane.is_live(&refresh).await);
        assert_eq!(word(&plane.refresh(refresh.expose(), "").await), "invalid_client");
        assert_eq!(word(&plane.token(None, &Plane::code_form(&code)).await), "invalid_client");
        assert_eq!(
            plane
                .count("SELECT COUNT(*) FROM oauth_grants WHERE client_id = 'public' AND revoked_at IS NULL")
                .await,
            0
        );
        let records = plane.records("oauth.client.deleted").await;
        assert_eq!(records.len(), 1);
        assert!(plane.state.client("public").await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_16_cut_scopes_or_addresses_end_consents_and_disabling_ends_grants() {
    for plane in planes().await {
        let by = admin();
        let asked = json!({
            "client_id": "app", "client_name": "App", "token_endpoint_auth_method": "none", "scope": "openid user mcp",
            "redirect_uris": ["https://app.example/a", "https://app.example/b"],
        });
        managed::create(&plane.state, &by, &members(&asked)).await.unwrap();
        let consent = "INSERT INTO oauth_consents (user_id, client_id, redirect_uri, scopes, resources, metadata_digest, granted_at,
             last_used_at) VALUES ('u', 'app', 'r', 'user', '', '', 1, 1)
             ON CONFLICT (user_id, client_id, redirect_uri) DO UPDATE SET revoked_at = NULL";
        let live = "SELECT COUNT(*) FROM oauth_consents WHERE client_id = 'app' AND revoked_at IS NULL";
        let mut version = 1;
        for (name, value, left) in [
            ("client_name", json!("App 2"), 1),
            ("scope", json!("openid user mcp a2a"), 1),
            ("scope", json!("openid user"), 0),
            ("redirect_uris", json!(["https://app.example/a"]), 0),
            ("jwks_uri", json!("https://app.example/keys"), 0),
        ] {
            plane.change(consent).await;
            let client = managed::get(&plane.state, &by, "app").await.unwrap();
            let mut body = shown(&client);
            body.insert(name.into(), value);
            let after = managed::replace(&plane.state, &by, "app", version, &body).await.unwrap();
            version = after.version;
            assert_eq!(plane.count(live).await, left, "{name}");
            let kept = managed::get(&plane.state, &by, "app").await.unwrap();
            assert_eq!(after, kept, "what is answered is what is stored");
        }
        let updated = plane.records("oauth.client.updated").await;
        assert_eq!(updated[0]["detail"]["changed"], json!(["client_name"]));
        let stale = managed::replace(&plane.state, &by, "app", 1, &members(&asked)).await;
        assert!(matches!(stale, Err(ClientError::Changed)));

        let (tokens, _) = plane.signed_in("user", "").await;
        let public = managed::get(&plane.state, &by, "public").await.unwrap();
        let mut body = shown(&public);
        body.insert("status".into(), "disabled".into());
        body.insert("redirect_uris".into(), json!([super::plane::REDIRECT]));
        body.insert("scope".into(), "openid user".into());
        managed::replace(&plane.state, &by, "public", 1, &body).await.unwrap();
        assert!(
            !plane.is_live(&tokens.access_token).await
                && !plane.is_live(&tokens.refresh_token.unwrap()).await
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_16_a_user_manages_own_clients_and_gives_them_nothing_reserved() {
    let plane = planes().await.into_iter().next().unwrap();
    let bob = person(&plane.bob, &[Permission::User]);
    let other = person(&UserId::generate(), &[Permission::User]);
    let asked = json!({"client_name": "Mine", "grant_types": ["client_credentials"], "scope": "user mcp"});
    let made = managed::create(&plane.state, &bob, &members(&asked)).await.unwrap().client;
    assert_eq!(made.owner_user_id.as_ref(), Some(&plane.bob));
    assert!(made.client_id.as_str().starts_with("app_"));
    let id = made.client_id.as_str();
    assert!(matches!(managed::get(&plane.state, &other, id).await, Err(ClientError::NotFound)));
    assert!(matches!(managed::get(&plane.state, &bob, "acme-ci").await, Err(ClientError::NotFound)));
    assert_eq!(
        managed::page(&plane.state, &bob, Page::first(10)).await.unwrap(),
        std::slice::from_ref(&made)
    );
    assert!(managed::page(&plane.state, &other, Page::first(10)).await.unwrap().is_empty());
    for (name, value) in [
        ("first_party", json!(true)),
        ("owner_user_id", json!("ada")),
        ("allowed_audiences", json!(["internal"])),
        ("plugin_id", json!("p")),
        ("status", json!("disabled")),
        ("client_id", json!("mine")),
        ("scope", json!("user admin")),
        ("scope", json!("hook:govern")),
        ("unknown", json!(1)),
    ] {
        let mut body = members(&asked);
        body.insert(name.into(), value);
        let refused = managed::create(&plane.state, &bob, &body).await;
        assert!(matches!(refused, Err(ClientError::Metadata(_))), "{name}");
    }
    let of_client = person(&made.user_id, &[Permission::User]);
    let refused = managed::create(&plane.state, &of_client, &members(&asked)).await;
    assert!(matches!(refused, Err(ClientError::Conflict(_))), "a client has no clients");
}

#[tokio::test(flavor = "multi_thread")]
async fn id_11_the_clients_of_the_installation_are_made_once() {
    for plane in planes().await {
        seed::first_party(&plane.state, &context()).await.unwrap();
        seed::first_party(&plane.state, &context()).await.unwrap();
        assert_eq!(plane.count("SELECT COUNT(*) FROM oauth_clients WHERE kind = 'first_party'").await, 4);
        assert_eq!(
            plane
                .count("SELECT COUNT(*) FROM users WHERE kind = 'client' AND username LIKE 'client:sp%'")
                .await,
            4
        );
        assert_eq!(plane.records("oauth.client.created").await.len(), 4);
        let cli = plane.state.client(SP_CLI).await.unwrap().unwrap();
        assert!(cli.is_public() && cli.first_party && cli.is_active());
        let refused = managed::delete(&plane.state, &admin(), SP_CLI, None).await;
        assert!(matches!(refused, Err(ClientError::Conflict(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_21_registered_clients_that_nobody_used_are_deleted() {
    const DAY: i64 = 86_400_000;
    for plane in planes().await {
        for id in ["client_used", "client_unused"] {
            plane.client(id, "client_secret_basic", "client_credentials", "user", "").await;
        }
        plane.change("UPDATE oauth_clients SET kind = 'registered', created_at = 1790000000000 WHERE client_id LIKE 'client%'").await;
        plane.clock.advance(60 * DAY);
        assert_eq!(by_secret(&plane, "client_used", "sps_client_used").await, "ok");
        assert_eq!(cleanup::unused_clients(&plane.state, 100).await.unwrap(), 0);
        plane.clock.advance(31 * DAY);
        assert_eq!(cleanup::unused_clients(&plane.state, 100).await.unwrap(), 1);
        assert!(plane.state.client("client_unused").await.unwrap().is_none());
        assert!(plane.state.client("client_used").await.unwrap().is_some());
        assert_eq!(plane.records("oauth.client.deleted").await[0]["reason"], "unused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_fetches_are_one_a_second_a_host_and_ten_in_all() {
    for plane in planes().await {
        let clients = &plane.state.clients;
        let take = async |host: &str| clients.take_fetch(host, plane.clock.now()).await.unwrap();
        for _ in 0..5 {
            assert!(take("a.example").await);
        }
        assert!(!take("a.example").await, "five at once");
        for _ in 0..5 {
            assert!(take("b.example").await);
        }
        assert!(!take("c.example").await, "ten in all");
        plane.clock.advance(1000);
        assert!(take("a.example").await && !take("a.example").await, "one more after a second");
        plane.clock.advance(10_000);
        plane.state.oauth.delete_ended(Ended::FetchBudgets, plane.clock.now(), 100).await.unwrap();
        assert_eq!(plane.count("SELECT COUNT(*) FROM oauth_fetch_budget").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_a_clients_lists_is_never_a_list_of_its_own() {
    for plane in planes().await {
        let contact = "INSERT INTO oauth_client_contacts (client_id, value) VALUES ('public', 'a@b.example
scope admin')";
        plane.change(contact).await;
        let client = plane.state.client("public").await.unwrap().unwrap();
        assert_eq!(client.relations.contacts, ["a@b.example scope admin"]);
        assert!(!client.has_scope("admin"), "{:?}", client.relations.scopes);
    }
}
