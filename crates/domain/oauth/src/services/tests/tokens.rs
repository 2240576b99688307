//! Introspection, revocation, and what the clean-up leaves (ID-76, ID-77, ID-104).

use super::plane::{planes, word};
use crate::services::introspection::Introspection;
use systemprompt_database::on_tx;
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
async fn id_77_revoking_what_is_dead_is_answered_and_writes_nothing() {
    for plane in planes().await {
        let (tokens, _) = plane.signed_in("openid user offline_access", "").await;
        let (access, refresh) = (tokens.access_token.expose(), tokens.refresh_token.unwrap());
        assert!(plane.revoke("public", refresh.expose()).await.unwrap().is_some());
        let own = plane.token(Some("acme-ci"), OWN).await.unwrap().access_token;
        plane.state.sessions.revoke(&plane.claims(&own).session_id, "test").await.unwrap();
        let now = async || {
            let shared = plane.count("SELECT epoch FROM revocation_epoch").await;
            let entries =
                plane.count("SELECT COUNT(*) FROM ledger_entries WHERE kind = 'oauth.revoked'").await;
            (shared, entries, plane.state.sessions.epoch())
        };
        let before = now().await;
        for (client, token) in [("public", refresh.expose()), ("public", access), ("acme-ci", own.expose())] {
            let answer = match client {
                "public" => plane.revoke(client, token).await,
                _ => plane.revoke_with_secret(client, token).await,
            };
            assert_eq!(answer.unwrap(), None, "{client}");
        }
        assert_eq!(plane.state.sessions.revoke(&plane.claims(&own).session_id, "test").await.unwrap(), 0);
        assert_eq!(now().await, before, "no node is told to ask again");
        assert_eq!(word(&plane.revoke("other", refresh.expose()).await), "unauthorized_client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_104_the_clean_up_takes_revocations_old_keys_and_old_bridges_in_batches() {
    const DAY: i64 = 86_400_000;
    for plane in planes().await {
        let now = plane.state.now();
        let mut tx = plane.db.write_tx().await.unwrap();
        for n in 0..250 {
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO oauth_jti_revocations (jti, expires_at, revoked_at, epoch) VALUES ($1, $2, 1, 1)"
            )
                .bind(format!("jti_{n}")).bind(if n == 0 { now + 1 } else { now - 1 }).execute(&mut *conn).await
                .map(drop))
            .unwrap();
        }
        for (id, end) in [("over", now - 1), ("open", now + 1)] {
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO token_cutoffs (kind, id, not_before, reason, expires_at, epoch, ledger_opened)
                 VALUES ('client', $1, 1, 'r', $2, 1, 'led_x')"
            ).bind(id).bind(end).execute(&mut *conn).await.map(drop))
            .unwrap();
        }
        // (made, revoked, expires), in days from now.
        for (n, (made, revoked, end)) in [
            (-800, Some(-366), None),
            (-800, None, Some(-366)),
            (-800, None, None),
            (-800, Some(-364), None),
            (-370, None, Some(-5)),
        ]
        .into_iter()
        .enumerate()
        {
            let at = |days: i64| now + days * DAY;
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO user_api_keys (id, user_id, name, prefix, suffix, digest, scopes, created_at, revoked_at, expires_at)
                 VALUES ($1, $2, 'k', 'p', 's', $1, 'user', $3, $4, $5)"
            )
                .bind(format!("key_{:012x}{n:020}", at(made))).bind(plane.bob.as_str()).bind(at(made))
                .bind(revoked.map(at)).bind(end.map(at)).execute(&mut *conn).await.map(drop))
            .unwrap();
        }
        for (n, (began, seen)) in [(-40, -31), (-40, -29), (-31, -31)].into_iter().enumerate() {
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO bridge_sessions (session_id, user_id, bridge_version, os, hostname, forwarded_total, tokens_in_total,
                     tokens_out_total, last_seen_at)
                 VALUES ($1, $2, '1', 'linux', 'h', 0, 0, 0, $3)"
            )
                .bind(format!("sess_{:012x}{n:020}", now + began * DAY)).bind(plane.bob.as_str())
                .bind(now + seen * DAY).execute(&mut *conn).await.map(drop))
            .unwrap();
        }
        tx.commit().await.unwrap();
        let done = plane.state.clean_up_if_due("a").await.unwrap().unwrap().deleted;
        let tables = ["oauth_jti_revocations", "token_cutoffs", "user_api_keys", "bridge_sessions"];
        assert_eq!(tables.map(|table| done[table]), [249, 1, 2, 2]);
        let left = [
            "SELECT COUNT(*) FROM oauth_jti_revocations",
            "SELECT COUNT(*) FROM token_cutoffs",
            "SELECT COUNT(*) FROM user_api_keys",
            "SELECT COUNT(*) FROM bridge_sessions",
        ];
        for (query, want) in left.into_iter().zip([1, 1, 3, 1]) {
            assert_eq!(plane.count(query).await, want, "{query}");
        }
        // A node that reads all revocations again deletes none by itself.
        plane.change("UPDATE oauth_jti_revocations SET expires_at = 5").await;
        plane.clock.advance(300_000);
        plane.state.sessions.refresh().await.unwrap();
        assert_eq!(plane.count(left[0]).await, 1);
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
