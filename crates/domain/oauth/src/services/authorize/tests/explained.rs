//! What a token of a person rests on, from the request to the refreshed token (ID-137).

use super::claims::{exchanged, tokens};
use super::*;
use crate::services::explain::explain;
use serde_json::Value;
use systemprompt_models::Clock as _;
use systemprompt_models::clock::SystemClock;

#[tokio::test]
async fn id_137_a_token_is_explained_by_its_grant_its_consent_its_session_and_what_was_cut() {
    for f in fixtures().await {
        // Ids tell the time of the host.
        f.clock.advance(SystemClock.now() - f.clock.now());
        f.client("app", CALLBACK, &["openid", "user", "mcp", "admin"]).await;
        let ada = f.user("ada", &["user"]).await;
        let visitor = f.signed_in(&ada).await;
        let asking = ask(&f, Some(&visitor), &asked(&[("scope", "openid user mcp a2a admin")])).await;
        let code =
            decide(&f, &visitor, asking.request(), &[("decision", "allow"), ("scope_user", "1")]).await;
        let first = exchanged(&f, code.code()).await;
        let refresh = format!(
            "grant_type=refresh_token&client_id=app&refresh_token={}",
            first.refresh_token.as_ref().unwrap().expose()
        );
        let next = tokens(&f, &refresh).await;
        for token in [&first, &next] {
            let claims = f.state.verifier.verify_own(token.access_token.expose()).unwrap().claims;
            let told = explain(&f.state, claims.jti.as_str()).await.unwrap().unwrap();
            assert_eq!(told.issued.actor_id.as_deref(), Some(ada.id.as_str()));
            let told: Value = told.document;
            assert_eq!((&told["scopes"], &told["state"]), (&"user openid".into(), &"live".into()));
            assert_eq!(told["session_id"], claims.session_id.as_str());
            let grant = &told["grant"];
            assert_eq!(grant["scopes_asked"], "user mcp a2a admin openid");
            let cut = serde_json::json!({"client": "a2a", "user": "admin", "person": "mcp"});
            assert_eq!(grant["cut"], cut, "{told}");
            for entry in [&told["entry"], &grant["entry"], &told["consent"]["entry"]] {
                assert!(entry.as_str().unwrap().starts_with("led_"), "{told}");
            }
            assert_eq!(told["consent"]["scopes"], "user openid");
            assert_eq!(told["parent_session"]["session_id"], visitor.session_id.as_str());
            assert_eq!(told["parent_session"]["acr"], "phr");
        }
        assert!(explain(&f.state, "jti_01980000000070008000000000000000").await.unwrap().is_none());
    }
}
