//! Introspection, revocation, and what the clean-up leaves (ID-76, ID-77, ID-104).

use super::plane::{planes, word};
use crate::services::introspection::Introspection;
use systemprompt_models::ids::SessionId;

const OWN: &str = "grant_type=client_credentials&scope=user";

#[tokio::test(flavor = "multi_thread")]
async fn id_76_a_client_sees_its_own_tokens_and_those_for_its_resource() {
    for plane in planes().await {
        plane.client("rs", "client_secret_basic", "client_credentials", "user", "https://rs.example").await;
        let own = plane.token(Some("acme-ci"), OWN).await.unwrap().access_token;
        let seen = plane.introspect("acme-ci", own.expose()).await.unwrap();
        let body = serde_json::to_value(&seen).unwrap();
        let names: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        let want = [
            "active",
            "aud",
            "client_id",
            "exp",
            "iat",
            "iss",
            "jti",
            "nbf",
            "scope",
            "session_id",
            "sub",
            "token_type",
            "username",
        ];
        assert_eq!(names, want);
        assert_eq!((&body["active"], &body["username"]), (&true.into(), &"client:acme-ci".into()));
        assert_eq!(plane.introspect("rs", own.expose()).await.unwrap(), Introspection::default());

        let (for_rs, _) = plane.signed_in("user", "https://rs.example").await;
        assert!(plane.introspect("rs", for_rs.access_token.expose()).await.unwrap().active);
        let refresh = for_rs.refresh_token.unwrap();
        assert!(!plane.introspect("rs", refresh.expose()).await.unwrap().active, "another client's");
        assert!(plane.is_live(&refresh).await);
        for nothing in ["x", "rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "a.b.c"] {
            assert_eq!(plane.introspect("rs", nothing).await.unwrap(), Introspection::default(), "{nothing}");
        }
        let forged = own.expose().replacen("ey", "eY", 1);
        assert!(!plane.introspect("acme-ci", &forged).await.unwrap().active);
        assert_eq!(word(&plane.introspect("nobody", own.expose()).await), "invalid_client");
        plane.clock.advance(90_000);
        assert_eq!(plane.introspect("acme-ci", own.expose()).await.unwrap(), Introspection::default());
        assert_eq!(plane.records("oauth.introspect_refused").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_77_a_client_ends_its_own_tokens_alone() {
    for plane in planes().await {
        let (tokens, _) = plane.signed_in("openid user", "").await;
        let (access, refresh) = (tokens.access_token, tokens.refresh_token.unwrap());
        for token in [&access, &refresh] {
            assert_eq!(word(&plane.revoke("other", token.expose()).await), "unauthorized_client");
            assert!(plane.is_live(token).await, "nothing changed");
        }
        let jti = plane.claims(&access).jti;
        assert_eq!(plane.revoke("public", access.expose()).await.unwrap(), Some(jti.to_string()));
        assert!(!plane.is_live(&access).await && plane.is_live(&refresh).await);
        assert_eq!(
            plane.revoke("public", access.expose()).await.unwrap(),
            None,
            "again, and nothing is wrong"
        );

        let next = plane.refresh(refresh.expose(), "").await.unwrap();
        let child = next.refresh_token.unwrap();
        assert!(plane.revoke("public", child.expose()).await.unwrap().is_some());
        assert!(!plane.is_live(&next.access_token).await && !plane.is_live(&child).await, "the whole grant");
        for nothing in
            ["x", "rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", tokens.id_token.unwrap().expose()]
        {
            assert_eq!(plane.revoke("public", nothing).await.unwrap(), None);
        }
        assert_eq!(plane.records("oauth.revoked").await.len(), 2);
        assert_eq!(word(&plane.revoke("acme-ci", "x").await), "invalid_client", "it has a secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_77_a_session_token_does_not_end_here() {
    use std::time::Duration;
    use systemprompt_audit::Unit;
    use systemprompt_models::{Permission, RateLimitTier, UserType};
    use systemprompt_security::session::SessionParams;
    for plane in planes().await {
        let params = SessionParams {
            user_id: plane.bob.clone(),
            session_id: SessionId::new(plane.session.as_str()),
            email: String::new(),
            user_type: UserType::User,
            permissions: vec![Permission::User],
            roles: vec!["user".into()],
            department: None,
            rate_limit_tier: RateLimitTier::User,
            duration: Duration::from_mins(5),
        };
        let pending = plane.state.session_tokens.generate(&params).unwrap();
        let mut unit = Unit::new();
        pending.record(&mut unit, None);
        let token = pending.release(plane.state.ledger.commit(unit).await.unwrap());
        assert_eq!(word(&plane.revoke("public", token.expose()).await), "unsupported_token_type");
        assert!(!plane.is_live(&token).await, "and introspection knows access tokens alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_104_the_clean_up_deletes_what_is_over_and_runs_on_one_node() {
    const DAY: i64 = 86_400_000;
    for plane in planes().await {
        let (tokens, _) = plane.signed_in("user", "").await;
        plane.token(Some("acme-ci"), OWN).await.unwrap();
        plane.change("INSERT INTO oauth_assertion_jtis (issuer, jti, expires_at) VALUES ('i', 'j', 5)").await;
        plane.change("INSERT INTO auth_attempts (key_digest, window_start, failures, blocked_until) VALUES ('k', 5, 1, 6)").await;
        let left = async |query: &'static str| plane.count(query).await;
        let first = plane.state.clean_up_if_due("a").await.unwrap().unwrap();
        assert_eq!((first.deleted["oauth_assertion_jtis"], first.deleted["auth_attempts"]), (1, 1));
        assert_eq!(first.deleted["oauth_auth_codes"], 0);
        assert!(plane.state.clean_up_if_due("b").await.unwrap().is_none(), "ten minutes have not passed");
        assert!(plane.is_live(&tokens.access_token).await);

        // The code's ten minutes and its day.
        plane.clock.advance(DAY + 700_000);
        assert_eq!(plane.state.clean_up_if_due("b").await.unwrap().unwrap().deleted["oauth_auth_codes"], 1);
        assert_eq!(left("SELECT COUNT(*) FROM oauth_refresh_tokens").await, 1);
        plane.clock.advance(7 * DAY);
        let third = plane.state.clean_up_if_due("a").await.unwrap().unwrap();
        assert_eq!((third.deleted["oauth_refresh_tokens"], third.deleted["oauth_grants"]), (1, 1));
        plane.clock.advance(30 * DAY);
        let fourth = plane.state.clean_up_if_due("a").await.unwrap().unwrap();
        assert_eq!(fourth.deleted["user_sessions"], 3);
        assert_eq!(left("SELECT COUNT(*) FROM user_sessions").await, 0);
    }
}
