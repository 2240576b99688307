//! The authorization code grant (ID-46, ID-115, ID-116).

use super::plane::{Plane, VERIFIER, at_once, context, planes, request, word};
use crate::services::http::Parameters;
use crate::services::id_token::is_sid_of;
use std::sync::Arc;
use systemprompt_security::keys::{KeyUse, SigningAlgorithm};

#[tokio::test(flavor = "multi_thread")]
async fn a_code_gives_tokens_in_a_session_of_their_grant() {
    for plane in planes().await {
        let (tokens, grant) = plane.signed_in("openid user mcp", "").await;
        assert_eq!((tokens.scope.as_str(), tokens.expires_in), ("user mcp openid", 90));
        let claims = plane.claims(&tokens.access_token);
        assert_eq!((&claims.sub, claims.session_id.uuid()), (&plane.bob, grant.uuid()));
        assert_eq!(claims.auth_time, Some(super::plane::START / 1000 - 60));
        let session = plane.state.sessions.find(&claims.session_id).await.unwrap().unwrap();
        assert_eq!(
            (session.parent_session_id.as_ref(), session.grant_id),
            (Some(&plane.session), Some(grant))
        );

        let id = plane.state.verifier.verify_id_token(tokens.id_token.unwrap().expose()).unwrap();
        let text = |name: &str| id[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (text("aud"), text("azp"), text("nonce")),
            ("public".into(), "public".into(), "n-0S6".into())
        );
        assert_eq!((text("sub"), text("acr")), (plane.bob.to_string(), "phrh".into()));
        assert_eq!(id["amr"], serde_json::json!(["hwk", "user"]));
        assert_eq!(id["exp"].as_i64().unwrap() - id["iat"].as_i64().unwrap(), 3600);
        assert!(is_sid_of(&plane.state, &text("sid"), &plane.session) && !text("sid").contains("sess_"));
        assert_eq!(text("at_hash").len(), 22, "half of SHA-256: the ID token is RS256");

        // The end of the browser's session is the end of all that.
        assert!(plane.is_live(&tokens.access_token).await);
        plane.state.sessions.revoke(&plane.session, "sign_out").await.unwrap();
        assert!(!plane.is_live(&tokens.access_token).await);
        let refresh = tokens.refresh_token.unwrap();
        assert!(!plane.is_live(&refresh).await);
        assert_eq!(word(&plane.refresh(refresh.expose(), "").await), "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_names_its_person_only_as_far_as_the_person_allowed() {
    for plane in planes().await {
        for (scopes, username, email) in [
            ("openid user", "", ""),
            ("user", "", ""),
            ("openid email user", "", "bob@example.org"),
            ("openid profile user", "bob", ""),
            ("openid profile email user", "bob", "bob@example.org"),
        ] {
            let (tokens, _) = plane.signed_in(scopes, "").await;
            let claims = plane.claims(&tokens.access_token);
            assert_eq!((claims.username.as_str(), claims.email.as_str()), (username, email), "{scopes}");
            assert_eq!(
                (&claims.sub, claims.roles.as_slice()),
                (&plane.bob, &["user".to_owned()][..]),
                "{scopes}"
            );
            if let Some(refresh) = tokens.refresh_token {
                let next = plane.refresh(refresh.expose(), "").await.unwrap();
                assert_eq!(plane.claims(&next.access_token).email, email, "{scopes}");
            }
        }
        // A program of our own, as the command line, is told.
        plane.change("UPDATE oauth_clients SET first_party = 1 WHERE client_id = 'public'").await;
        let (tokens, _) = plane.signed_in("user", "").await;
        assert_eq!(plane.claims(&tokens.access_token).email, "bob@example.org");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_115_of_32_uses_of_one_code_one_wins_and_then_all_is_dead() {
    for plane in planes().await {
        let plane = Arc::new(plane);
        let (code, _) = plane.code("openid offline_access user", "").await;
        let answers = at_once(32, || {
            let (plane, form) = (Arc::clone(&plane), Plane::code_form(&code));
            async move { plane.token(None, &form).await }
        })
        .await;
        let refused = answers.iter().filter(|answer| word(answer) == "invalid_grant").count();
        let mut won: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
        assert_eq!((won.len(), refused), (1, 31));
        let won = won.remove(0);
        assert!(!plane.is_live(&won.access_token).await);
        let refresh = won.refresh_token.unwrap();
        assert_eq!(word(&plane.refresh(refresh.expose(), "").await), "invalid_grant");
        assert_eq!(plane.records("oauth.code_reuse").await.len(), 1);
        assert_eq!(plane.records("oauth.token").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_115_a_second_use_ends_the_grant_at_once_and_after_half_a_minute() {
    for plane in planes().await {
        for wait in [0, 30_000, 20 * 3_600_000] {
            let (code, grant) = plane.code("user", "").await;
            let tokens = plane.token(None, &Plane::code_form(&code)).await.unwrap();
            plane.clock.advance(wait);
            assert_eq!(word(&plane.token(None, &Plane::code_form(&code)).await), "invalid_grant");
            assert!(!plane.is_live(&tokens.access_token).await);
            let ended = plane.state.oauth.find_grant(grant.as_str()).await.unwrap().unwrap();
            assert!(ended.revoked_at.is_some() || wait > 5_000_000, "{wait}");
            // A third use tells nothing new.
            assert_eq!(word(&plane.token(None, &Plane::code_form(&code)).await), "invalid_grant");
        }
        assert_eq!(plane.records("oauth.code_reuse").await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_116_a_code_is_bound_to_client_redirect_uri_challenge_and_resources() {
    for plane in planes().await {
        let swaps: [(&str, &str, &str, bool); 6] = [
            ("client_id=public", "client_id=other", "invalid_grant", false),
            ("app.example", "evil.example", "invalid_grant", true),
            ("&redirect_uri=https://app.example/callback", "", "invalid_grant", true),
            (VERIFIER, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXj", "invalid_grant", true),
            ("code_verifier=", "ignored=", "invalid_grant", true),
            ("grant_type=", "resource=https://b.example&grant_type=", "invalid_target", true),
        ];
        for (from, to, error, spends) in swaps {
            let (code, _) = plane.code("user", "https://rs.example").await;
            let good = Plane::code_form(&code);
            assert_eq!(word(&plane.token(None, &good.replace(from, to)).await), error, "{to}");
            let after = plane.token(None, &good).await;
            assert_eq!(word(&after), if spends { "invalid_grant" } else { "ok" }, "{to}");
        }
        let (code, _) = plane.code("user", "https://rs.example").await;
        let narrowed = format!("{}&resource=HTTPS://rs.example/", Plane::code_form(&code));
        let tokens = plane.token(None, &narrowed).await.unwrap();
        assert_eq!(plane.claims(&tokens.access_token).aud[0].as_str(), "https://rs.example");
        let expired = plane.code("user", "").await.0;
        plane.clock.advance(600_000);
        assert_eq!(word(&plane.token(None, &Plane::code_form(&expired)).await), "invalid_grant");
        assert_eq!(word(&plane.token(None, &Plane::code_form("ac_short")).await), "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_say_what_client_and_user_may_now() {
    for plane in planes().await {
        let (tokens, _) = plane.signed_in("openid user admin service hook:track", "").await;
        assert_eq!(
            tokens.scope, "user openid",
            "no service, no hooks, and the rest is neither bob's nor the client's"
        );
        let (code, _) = plane.code("user", "").await;
        plane.change("UPDATE users SET status = 'suspended'").await;
        assert_eq!(word(&plane.token(None, &Plane::code_form(&code)).await), "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_69_a_code_waits_for_the_key_that_its_id_token_needs() {
    for plane in planes().await {
        let (code, _) = plane.code("openid user", "").await;
        let (tokens, _) = plane.signed_in("openid user", "").await;
        let refresh = tokens.refresh_token.unwrap();
        plane.change("UPDATE oauth_clients SET id_token_signed_response_alg = 'ES256'").await;
        let form = Plane::code_form(&code);
        for answer in [plane.token(None, &form).await, plane.refresh(refresh.expose(), "").await] {
            let error = answer.err().unwrap();
            assert_eq!((error.status(), error.retry_after()), (503, Some(60)));
            assert!(error.description().contains("id_token_signed_response_alg"));
        }
        let device = "client_id=public&scope=openid";
        let parameters = Parameters::parse(device.as_bytes()).unwrap();
        let context = context();
        let begun =
            crate::services::device::authorize(&plane.state, request(&context, None, &parameters)).await;
        assert_eq!(word(&begun), "temporarily_unavailable");

        let (ring, ledger) = (&plane.ring, &plane.state.ledger);
        ring.generate(KeyUse::Sig, SigningAlgorithm::Es256, ledger, None).await.unwrap();
        ring.rotate(KeyUse::Sig, SigningAlgorithm::Es256, ledger, None).await.unwrap();
        assert!(plane.token(None, &form).await.unwrap().id_token.is_some(), "the code was not spent");
        assert!(plane.refresh(refresh.expose(), "").await.unwrap().id_token.is_some());
    }
}
