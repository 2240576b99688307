//! Case A26, row by row: of all these exchanges those with one to five actors succeed, and what was exchanged dies with what it came
//! from. The issuers that only look like a trusted one stand beside the exchange itself.

use super::super::plane::{ISSUER, Plane, START, at_once, planes, planes_with, word};
use super::{IDP, Keys, TYPES, chain_of_clients, claims, exchange, serve, signed};
use crate::services::generation::TokenResponse;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;
use systemprompt_security::keys::{PrivateKey, SigningAlgorithm};

/// An issuer with a key, and servers that take its subjects in.
async fn with_an_issuer() -> (PrivateKey, Keys, [Plane; 2]) {
    let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
    let keys = serve(json!({"keys": [key.public().to_jwk()]})).await;
    let trusted = json!([{"issuer": IDP, "jwks_uri": keys.address, "audience": "here", "subject_mapping": "provision"}]);
    let trusting = |settings: &mut crate::Settings| {
        settings.trusted_issuers = serde_json::from_value(trusted.clone()).unwrap();
    };
    let planes = planes_with(trusting).await;
    for plane in &planes {
        chain_of_clients(plane).await;
    }
    (key, keys, planes)
}

async fn hop(plane: &Plane, n: usize, token: &TokenResponse) -> TokenResponse {
    exchange(plane, &format!("hop-{n}"), token.access_token.expose(), "access_token", "").await.unwrap()
}

/// A token with these parts, signed as HS256 with `key`.
fn keyed(header: &Value, claims: &Value, key: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(header), part(claims));
    let tag = sign(&Key::new(HMAC_SHA256, key), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

fn parts(token: &str) -> (Value, Value) {
    let mut parts = token
        .split('.')
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap_or(Value::Null));
    (parts.next().unwrap(), parts.next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_a_revoked_parent_gives_nothing_and_its_children_die_with_it() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let (parent, other) = (plane.signed_in("user", "").await.0, plane.signed_in("user", "").await.0);
        let child = hop(&plane, 1, &parent).await;
        let grandchild = hop(&plane, 2, &child).await;
        let (kept, cut) = (hop(&plane, 1, &other).await, hop(&plane, 3, &child).await);
        // One in the middle of a chain takes those behind it along, and nobody else.
        let foreign = plane.revoke("public", grandchild.access_token.expose()).await;
        assert_eq!(word(&foreign), "unauthorized_client");
        let leaf = hop(&plane, 3, &grandchild).await;
        plane.state.sessions.revoke_claims(&plane.claims(&grandchild.access_token)).await.unwrap();
        for (token, is_live) in [(&leaf, false), (&grandchild, false), (&child, true), (&cut, true)] {
            assert_eq!(plane.is_live(&token.access_token).await, is_live);
        }

        plane.revoke("public", parent.access_token.expose()).await.unwrap();
        for token in [&parent, &child, &cut] {
            assert!(!plane.is_live(&token.access_token).await);
        }
        for token in [&other, &kept] {
            assert!(plane.is_live(&token.access_token).await, "another sign-in is untouched");
        }
        for token in [&parent, &child] {
            let again = exchange(&plane, "hop-1", token.access_token.expose(), "access_token", "").await;
            assert_eq!(word(&again), "invalid_grant");
        }
        let refreshed = plane.refresh(parent.refresh_token.unwrap().expose(), "").await;
        assert_eq!(word(&refreshed), "ok", "the grant goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_a_client_that_gives_up_its_own_token_gives_up_what_others_got_for_it() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let form = "grant_type=client_credentials&scope=user";
        let parent = plane.token(Some("acme-ci"), form).await.unwrap();
        let child = hop(&plane, 1, &parent).await;
        plane.state.sessions.revoke_claims(&plane.claims(&parent.access_token)).await.unwrap();
        assert!(!plane.is_live(&child.access_token).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_no_child_of_a_token_outlives_a_revocation_that_it_raced() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let plane = Arc::new(plane);
        for _ in 0..4 {
            let parent = Arc::new(plane.signed_in("user", "").await.0);
            let exchanges = at_once(12, || {
                let (plane, parent) = (Arc::clone(&plane), Arc::clone(&parent));
                async move {
                    let token = parent.access_token.expose();
                    exchange(&plane, "hop-1", token, "access_token", "").await.map(drop)
                }
            });
            let revocation = plane.revoke("public", parent.access_token.expose());
            let (answers, revoked) = tokio::join!(exchanges, revocation);
            revoked.unwrap();
            assert!(answers.iter().all(|answer| matches!(word(answer), "ok" | "invalid_grant")));
            let living =
                "SELECT COUNT(*) FROM user_sessions WHERE source = 'exchange' AND revoked_at IS NULL";
            assert_eq!(plane.count(living).await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_hs256_and_none_are_no_signatures_of_an_issuer() {
    let (key, _keys, planes) = with_an_issuer().await;
    let jwk = key.public().to_jwk();
    for plane in planes {
        let told = claims(&json!({}));
        let good = signed(&key, key.kid(), &told);
        assert_eq!(word(&exchange(&plane, "hop-1", &good, "jwt", "").await), "ok");
        let own = plane.signed_in("user", "").await.0.access_token;
        let (own_header, own_claims) = parts(own.expose());
        let public = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
        for alg in ["HS256", "none", "None"] {
            for secret in
                [public.clone(), jwk.to_string().into_bytes(), own_header["kid"].as_str().unwrap().into()]
            {
                let foreign = keyed(&json!({"typ": "JWT", "alg": alg, "kid": key.kid()}), &told, &secret);
                assert_eq!(word(&exchange(&plane, "hop-1", &foreign, "jwt", "").await), "invalid_grant");
                let mut header = own_header.clone();
                header["alg"] = alg.into();
                let mine = keyed(&header, &own_claims, &secret);
                for kind in ["access_token", "jwt", "id_token"] {
                    assert_eq!(word(&exchange(&plane, "hop-1", &mine, kind, "").await), "invalid_grant");
                }
            }
        }
        let (input, _) = good.rsplit_once('.').unwrap();
        for unsigned in [format!("{input}."), input.to_owned(), format!("{input}.AA")] {
            assert_eq!(word(&exchange(&plane, "hop-1", &unsigned, "jwt", "").await), "invalid_grant");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_nothing_lives_longer_than_what_it_was_exchanged_for() {
    let (key, _keys, planes) = with_an_issuer().await;
    for plane in planes {
        let now = START / 1000;
        for (left, want) in [(40, 40), (600, 90), (3600, 90)] {
            let token = signed(&key, key.kid(), &claims(&json!({"exp": now + left})));
            let more = "&expires_in=86400&requested_expires_in=86400";
            let got = exchange(&plane, "hop-1", &token, "jwt", more).await.unwrap();
            let told = plane.claims(&got.access_token);
            assert_eq!((got.expires_in, told.exp - told.iat), (want, want), "{left}");
        }
        let parent = plane.signed_in("user", "").await.0;
        let end = plane.claims(&parent.access_token).exp;
        plane.clock.advance(50_000);
        let child = hop(&plane, 1, &parent).await;
        plane.clock.advance(20_000);
        let grandchild = hop(&plane, 2, &child).await;
        assert_eq!((child.expires_in, grandchild.expires_in), (40, 20));
        assert_eq!(plane.claims(&grandchild.access_token).exp, end);
        plane.clock.advance(20_000);
        let late = exchange(&plane, "hop-3", grandchild.access_token.expose(), "access_token", "").await;
        assert_eq!(word(&late), "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_may_act_lets_whom_it_names_and_nobody_else() {
    let (key, _keys, planes) = with_an_issuer().await;
    for plane in planes {
        let actor = plane.token(Some("acme-ci"), "grant_type=client_credentials&scope=user").await.unwrap();
        let actor =
            format!("&actor_token={}&actor_token_type={TYPES}:access_token", actor.access_token.expose());
        for (may_act, more, want) in [
            (json!({"sub": "user-of-hop-1"}), "", "ok"),
            (json!({"sub": "user-of-hop-1", "client_id": "hop-1"}), "", "ok"),
            (json!({"sub": "user-of-hop-1"}), &*actor, "invalid_grant"),
            (json!({"sub": "user-of-acme-ci"}), &*actor, "ok"),
            (json!({"sub": "user-of-acme-ci"}), "", "invalid_grant"),
            (json!({"sub": "user-of-hop-1", "client_id": "hop-2"}), "", "invalid_grant"),
            (json!({"sub": "user-of-hop-1", "iss": IDP}), "", "invalid_grant"),
            (json!({"client_id": "hop-1"}), "", "invalid_grant"),
            (json!({}), "", "invalid_grant"),
            (json!(null), "", "invalid_grant"),
            (json!("user-of-hop-1"), "", "invalid_grant"),
            (json!(["user-of-hop-1"]), "", "invalid_grant"),
        ] {
            let token = signed(&key, key.kid(), &claims(&json!({"may_act": may_act})));
            assert_eq!(word(&exchange(&plane, "hop-1", &token, "jwt", more).await), want, "{may_act}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_a_refresh_token_is_no_subject_and_no_result() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let tokens = plane.signed_in("user", "").await.0;
        let refresh = tokens.refresh_token.as_ref().unwrap();
        for (kind, want) in [("refresh_token", "invalid_request"), ("access_token", "invalid_grant")] {
            assert_eq!(word(&exchange(&plane, "hop-1", refresh.expose(), kind, "").await), want);
        }
        let more = format!("&requested_token_type={TYPES}:refresh_token");
        let answer = exchange(&plane, "hop-1", tokens.access_token.expose(), "access_token", &more).await;
        assert_eq!(word(&answer), "invalid_request");
        let again = plane.refresh(refresh.expose(), "").await;
        assert_eq!(word(&again), "ok", "it was not used up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_63_an_exchange_is_on_record_with_whom_it_is_for_and_what_was_cut() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let parent = plane.signed_in("user mcp a2a", "").await.0;
        let more = "&scope=user+mcp+a2a&audience=mcp";
        let child =
            exchange(&plane, "hop-1", parent.access_token.expose(), "access_token", more).await.unwrap();
        let claims = plane.claims(&child.access_token);
        let record = plane.records("oauth.exchange").await.remove(0);
        let detail = &record["detail"];
        assert_eq!(
            (&record["client_id"], &record["act_chain"]),
            (&json!("hop-1"), &json!(["user-of-hop-1"]))
        );
        assert_eq!((&detail["issuer"], &detail["sub"]), (&json!(ISSUER), &json!(plane.bob)));
        assert_eq!(
            (&detail["scopes_before"], &detail["scopes"]),
            (&json!("user mcp a2a"), &json!("user mcp"))
        );
        assert_eq!((&detail["aud"], &detail["jti"]), (&json!(["mcp"]), &json!(claims.jti)));
        let row = plane.state.sessions.find(&claims.session_id).await.unwrap().unwrap();
        let parent = plane.claims(&parent.access_token).session_id;
        assert_eq!((row.parent_session_id, row.expires_at), (Some(parent), claims.exp * 1000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_61_an_owned_client_exchanges_no_more_than_its_owner_may_now() {
    for plane in planes().await {
        let grants = "urn:ietf:params:oauth:grant-type:token-exchange";
        plane.client("relay", "client_secret_basic", grants, "service user", "").await;
        let form = "grant_type=client_credentials&scope=service+user";
        let subject = plane.token(Some("acme-ci"), form).await.unwrap().access_token;
        let relay = async || exchange(&plane, "relay", subject.expose(), "access_token", "").await;
        assert_eq!(relay().await.unwrap().scope, "service user");
        plane
            .change(
                "UPDATE oauth_clients SET owner_user_id = (SELECT id FROM users WHERE username = 'bob')
                 WHERE client_id = 'relay'",
            )
            .await;
        let owned = relay().await.unwrap();
        assert_eq!(owned.scope, "user", "bob has no `service`");
        let session = plane.claims(&owned.access_token).session_id;
        let session = plane.state.sessions.find(&session).await.unwrap().unwrap();
        assert_eq!(session.owner_id.as_ref(), Some(&plane.bob));
        plane.change("UPDATE users SET status = 'suspended' WHERE username = 'bob'").await;
        assert_eq!(word(&relay().await), "invalid_client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_50_a_replayed_refresh_token_ends_what_was_exchanged_under_its_grant() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let first = plane.signed_in("user", "").await.0;
        let other = plane.signed_in("user", "").await.0;
        let child = hop(&plane, 1, &first).await;
        let (grandchild, kept) = (hop(&plane, 2, &child).await, hop(&plane, 1, &other).await);
        let parent = first.refresh_token.as_ref().unwrap();
        plane.refresh(parent.expose(), "").await.unwrap();
        plane.clock.advance(11_000);
        assert_eq!(word(&plane.refresh(parent.expose(), "").await), "invalid_grant");
        for token in [&first, &child, &grandchild] {
            assert!(!plane.is_live(&token.access_token).await);
        }
        assert!(plane.is_live(&kept.access_token).await, "another grant's");
        let record = plane.records("oauth.refresh_reuse").await.remove(0);
        let detail = &record["detail"];
        assert_eq!((&detail["issued_ago_ms"], &detail["used_ago_ms"]), (&json!(11_000), &json!(11_000)));
        assert!(record["payloads"].to_string().contains("addresses"), "{record}");
    }
}
