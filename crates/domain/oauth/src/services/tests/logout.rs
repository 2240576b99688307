//! Signing out at the request of a client (ID-71).

use super::plane::{Plane, context, planes, word};
use crate::error::OauthResult;
use crate::services::http::Parameters;
use crate::services::logout::{Done, Logout, logout};
use systemprompt_models::ids::SessionId;
use systemprompt_models::{Principal, Secret};

async fn ask(plane: &Plane, visitor: Option<&Principal>, hint: &Secret<String>) -> OauthResult<Logout> {
    let parameters = Parameters::parse(format!("id_token_hint={}", hint.expose()).as_bytes())?;
    logout(&plane.state, &context(), visitor, &parameters, false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn id_71_the_session_that_an_id_token_names_ends_without_its_cookie() {
    for plane in planes().await {
        let (tokens, _) = plane.signed_in("openid user", "").await;
        let hint = tokens.id_token.unwrap();
        // Another browser of the same person is asked, and its session goes on.
        let mut other = Principal::anonymous();
        other.user_id = plane.bob.clone();
        other.session_id = SessionId::generate();
        assert_eq!(ask(&plane, Some(&other), &hint).await.unwrap(), Logout::Ask);
        assert!(plane.is_live(&tokens.access_token).await);

        let wrong = Secret::from(format!("{}x", hint.expose()));
        assert_eq!(word(&ask(&plane, None, &wrong).await), "invalid_request");
        // The cookie is gone after an hour, the session is not.
        plane.clock.advance(3_600_001);
        let ended = Logout::Done(Done { back: None, session: Some(plane.session.clone()) });
        assert_eq!(ask(&plane, None, &hint).await.unwrap(), ended);
        let row = plane.state.sessions.find(&plane.session).await.unwrap().unwrap();
        assert_eq!(row.revoked_reason.as_deref(), Some("logout"));
        assert_eq!(
            plane.count("SELECT COUNT(*) FROM oauth_grants WHERE revoked_at IS NULL").await,
            0,
            "what hung on it"
        );
        assert_eq!(ask(&plane, None, &hint).await.unwrap(), Logout::Done(Done::default()), "once");
        let told = plane.records("oauth.logout").await;
        assert_eq!((told.len(), &told[0]["detail"]["user_id"]), (1, &plane.bob.as_str().into()));
    }
}
