//! The refresh token grant (ID-48 to ID-50, ID-117, ID-118).

use super::plane::{at_once, planes, planes_with, word};
use std::collections::BTreeSet;
use std::sync::Arc;
use systemprompt_security::session::UserEnd;

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_repeat_within_the_grace_gets_the_same_child_and_a_later_one_ends_the_family() {
    for plane in planes().await {
        let (first, _) = plane.signed_in("openid offline_access user", "").await;
        let parent = first.refresh_token.unwrap();
        let one = plane.refresh(parent.expose(), "").await.unwrap();
        plane.clock.advance(9_000);
        let two = plane.refresh(parent.expose(), "").await.unwrap();
        let child = one.refresh_token.unwrap();
        assert_eq!(child.expose(), two.refresh_token.unwrap().expose());
        assert_ne!(child.expose(), parent.expose());
        assert_eq!(plane.records("oauth.refresh_repeated").await.len(), 1);
        for token in [&one.access_token, &two.access_token] {
            assert!(plane.is_live(token).await);
        }
        let id = plane.state.verifier.verify_id_token(two.id_token.unwrap().expose()).unwrap();
        assert!(!id.contains_key("nonce") && id["auth_time"] == super::plane::START / 1000 - 60);

        // The child is used; then the old token comes again, in time.
        let three = plane.refresh(child.expose(), "").await.unwrap();
        assert_eq!(word(&plane.refresh(parent.expose(), "").await), "invalid_grant");
        let last = three.refresh_token.unwrap();
        assert_eq!(word(&plane.refresh(last.expose(), "").await), "invalid_grant");
        for token in [&first.access_token, &two.access_token, &three.access_token, &last] {
            assert!(!plane.is_live(token).await);
        }
        let told = plane.records("oauth.refresh_reuse").await;
        assert_eq!((told.len(), &told[0]["reason"]), (1, &"refresh_reuse".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_behind_the_grace_or_without_one_ends_the_family() {
    for (grace, wait) in [(10, 10_001), (0, 0)] {
        for plane in planes_with(|settings| settings.identity.refresh.grace = grace).await {
            let (first, _) = plane.signed_in("user", "").await;
            let parent = first.refresh_token.unwrap();
            let child = plane.refresh(parent.expose(), "").await.unwrap().refresh_token.unwrap();
            plane.clock.advance(wait);
            assert_eq!(word(&plane.refresh(parent.expose(), "").await), "invalid_grant");
            assert_eq!(word(&plane.refresh(child.expose(), "").await), "invalid_grant");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_50_of_32_uses_of_one_refresh_token_one_child_comes() {
    for plane in planes().await {
        let plane = Arc::new(plane);
        let (first, _) = plane.signed_in("user", "").await;
        let parent = first.refresh_token.unwrap().expose().clone();
        let answers = at_once(32, || {
            let (plane, parent) = (Arc::clone(&plane), parent.clone());
            async move { plane.refresh(&parent, "").await }
        })
        .await;
        let children: BTreeSet<String> = answers
            .into_iter()
            .map(|answer| answer.unwrap().refresh_token.unwrap().expose().clone())
            .collect();
        assert_eq!(children.len(), 1);
        assert_eq!(plane.count("SELECT COUNT(*) FROM oauth_refresh_tokens").await, 2);
        assert_eq!(plane.count("SELECT COUNT(*) FROM oauth_refresh_tokens WHERE used_at IS NULL").await, 1);
        assert!(plane.refresh(children.first().unwrap(), "").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_117_a_refresh_token_is_bound_to_client_scope_and_resources_and_keeps_them_whole() {
    for plane in planes().await {
        let (first, _) = plane.signed_in("user mcp", "https://rs.example http://localhost:8080/v1").await;
        let mut token = first.refresh_token.unwrap();
        for (more, error) in [
            ("&scope=user+a2a", "invalid_scope"),
            ("&scope=nonsense", "invalid_scope"),
            ("&resource=https://c.example", "invalid_target"),
        ] {
            assert_eq!(word(&plane.refresh(token.expose(), more).await), error, "{more}");
        }
        let form = format!("grant_type=refresh_token&client_id=other&refresh_token={}", token.expose());
        assert_eq!(word(&plane.token(None, &form).await), "invalid_grant");
        for (more, scope, resources) in
            [("&scope=mcp&resource=https://rs.example", "mcp", 1), ("", "user mcp", 2)]
        {
            let next = plane.refresh(token.expose(), more).await.unwrap();
            assert_eq!((next.scope.as_str(), plane.claims(&next.access_token).aud.len()), (scope, resources));
            token = next.refresh_token.unwrap();
        }
        // A role that is gone is gone with the next token.
        plane.change("UPDATE user_roles SET role = 'guest'").await;
        assert_eq!(word(&plane.refresh(token.expose(), "").await), "invalid_scope");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_118_a_refresh_token_ends_by_itself_with_its_family_and_with_its_session() {
    for plane in planes().await {
        let (idle, _) = plane.signed_in("user", "").await;
        plane.clock.advance(1_000_000);
        assert_eq!(word(&plane.refresh(idle.refresh_token.unwrap().expose(), "").await), "invalid_grant");
        // Used again and again, it still ends with the family.
        let (first, _) = plane.signed_in("user", "").await;
        let mut token = first.refresh_token.unwrap();
        for _ in 0..5 {
            plane.clock.advance(900_000);
            token = plane.refresh(token.expose(), "").await.unwrap().refresh_token.unwrap();
        }
        plane.clock.advance(600_000);
        assert_eq!(word(&plane.refresh(token.expose(), "").await), "invalid_grant");
        // Whatever ends all of a user's sessions ends it too, offline or not.
        let (offline, _) = plane.signed_in("openid offline_access user", "").await;
        let mut tx = plane.state.db.write_tx().await.unwrap();
        let ended =
            plane.state.sessions.end_in(&mut tx, &plane.bob, UserEnd::All, "password_changed").await.unwrap();
        tx.commit().await.unwrap();
        plane.state.sessions.apply_end(ended);
        assert_eq!(word(&plane.refresh(offline.refresh_token.unwrap().expose(), "").await), "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_47_only_an_offline_grant_outlives_the_browser_session() {
    for plane in planes().await {
        let (bound, _) = plane.signed_in("openid user", "").await;
        let (offline, _) = plane.signed_in("openid offline_access user", "").await;
        let (plain, _) = plane.signed_in("user", "").await;
        plane.state.sessions.revoke(&plane.session, "sign_out").await.unwrap();
        for (tokens, want) in [(bound, "invalid_grant"), (offline, "ok"), (plain, "ok")] {
            assert_eq!(word(&plane.refresh(tokens.refresh_token.unwrap().expose(), "").await), want);
        }
    }
}
