//! Tokens over rotations of the signing key (A7, A10, ID-131).

use super::plane::{Plane, planes_with};
use crate::services::validation::client_keys::ClientKeys;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use systemprompt_models::Secret;
use systemprompt_security::keys::{KeyUse, SigningAlgorithm};

async fn planes() -> [Plane; 2] {
    planes_with(|settings| settings.access_life = 3600).await
}

fn header(token: &Secret<String>) -> Value {
    let part = token.expose().split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Whether the published keys, as any resource server has them, verify a token.
fn is_verified_by_published(plane: &Plane, token: &Secret<String>) -> bool {
    let published = plane.ring.jwks();
    for key in published["keys"].as_array().unwrap() {
        assert!(key.get("d").is_none() && key.get("p").is_none(), "only public members: {key}");
    }
    let header = header(token);
    let (kid, alg) = (header["kid"].as_str().unwrap(), header["alg"].as_str().unwrap());
    let (input, signature) = token.expose().rsplit_once('.').unwrap();
    let keys = ClientKeys::parse(&published).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    keys.find(Some(kid), alg).is_some_and(|key| key.verifies(alg, input.as_bytes(), &signature))
}

async fn published(plane: &Plane) {
    let sig = KeyUse::Sig;
    plane.ring.generate(sig, SigningAlgorithm::EdDsa, &plane.state.ledger, None).await.unwrap();
}

async fn rotated(plane: &Plane) {
    plane.clock.advance(600_000);
    let sig = KeyUse::Sig;
    plane.ring.rotate(sig, SigningAlgorithm::EdDsa, &plane.state.ledger, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_tokens_verify_by_the_published_keys_before_during_and_after_a_rotation() {
    for plane in planes().await {
        let (before, _) = plane.signed_in("openid offline_access user", "").await;
        published(&plane).await;
        let during = plane.refresh(before.refresh_token.as_ref().unwrap().expose(), "").await.unwrap();
        assert_eq!(
            header(&before.access_token)["kid"],
            header(&during.access_token)["kid"],
            "the next one waits"
        );
        rotated(&plane).await;
        let after = plane.refresh(during.refresh_token.as_ref().unwrap().expose(), "").await.unwrap();
        assert_ne!(header(&before.access_token)["kid"], header(&after.access_token)["kid"]);
        for tokens in [&before, &during, &after] {
            assert_eq!(header(&tokens.access_token)["typ"], "at+jwt");
            for token in [&tokens.access_token, tokens.id_token.as_ref().unwrap()] {
                assert!(is_verified_by_published(&plane, token), "{}", header(token));
            }
            assert!(plane.is_live(&tokens.access_token).await);
        }
        // A key that is withdrawn takes its tokens with it.
        let old = header(&before.access_token)["kid"].as_str().unwrap().to_owned();
        plane.ring.revoke(&old, &plane.state.ledger, None).await.unwrap();
        assert!(!is_verified_by_published(&plane, &before.access_token));
        assert!(!plane.is_live(&during.access_token).await && plane.is_live(&after.access_token).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_session_is_refreshed_over_three_rotations_and_has_one_live_refresh_token() {
    for plane in planes().await {
        let (mut tokens, _) = plane.signed_in("offline_access user", "").await;
        let mut kids = vec![header(&tokens.access_token)["kid"].clone()];
        for _ in 0..3 {
            published(&plane).await;
            rotated(&plane).await;
            tokens = plane.refresh(tokens.refresh_token.unwrap().expose(), "").await.unwrap();
            let kid = header(&tokens.access_token)["kid"].clone();
            assert!(!kids.contains(&kid), "a new key signs");
            kids.push(kid);
        }
        let live = "SELECT COUNT(*) FROM oauth_refresh_tokens WHERE used_at IS NULL AND revoked_at IS NULL";
        assert_eq!(plane.count(live).await, 1);
        assert!(plane.is_live(&tokens.access_token).await);
    }
}
