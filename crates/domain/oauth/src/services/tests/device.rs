//! The device grant (ID-64, ID-65).

use super::plane::{Plane, at_once, context, planes, request, word};
use crate::error::{OauthError, OauthResult};
use crate::repository::testing::open_session;
use crate::services::authorize::standing::SignedIn;
use crate::services::device::{
    DeviceAuthorization, DeviceDecision, approve, authorize, deny, find_by_user_code,
};
use crate::services::device_page::{confirm, decide};
use crate::services::generation::TokenResponse;
use crate::services::http::Parameters;
use crate::services::templating::Frame;
use std::sync::Arc;
use systemprompt_models::ids::SessionId;
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{Clock as _, Secret};

async fn begin(plane: &Plane, form: &str) -> OauthResult<DeviceAuthorization> {
    let parameters = Parameters::parse(form.as_bytes())?;
    authorize(&plane.state, request(&context(), None, &parameters)).await
}

async fn ask(plane: &Plane, device: &str) -> OauthResult<TokenResponse> {
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    plane.token(None, &format!("grant_type={grant}&client_id=public&device_code={device}")).await
}

fn decision<'a>(plane: &'a Plane, code: &'a str) -> DeviceDecision<'a> {
    DeviceDecision { user_code: code, user_id: &plane.bob, session_id: &plane.session, scopes: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_device_waits_slows_down_and_gets_tokens_once() {
    for plane in planes().await {
        let plane = Arc::new(plane);
        let device = begin(&plane, "client_id=public&scope=openid+user+admin+service").await.unwrap();
        assert_eq!((device.expires_in, device.interval), (900, 5));
        assert_eq!(device.verification_uri, "http://localhost:8080/device");
        let code = device.device_code.expose().clone();
        assert_eq!(word(&ask(&plane, &code).await), "authorization_pending", "the first may come at once");
        assert_eq!(word(&ask(&plane, &code).await), "slow_down", "five seconds have not passed");
        plane.clock.advance(5_000);
        assert_eq!(word(&ask(&plane, &code).await), "slow_down", "now it is ten");
        plane.clock.advance(15_000);
        assert_eq!(word(&ask(&plane, &code).await), "authorization_pending");

        let typed = device.user_code.expose().to_lowercase().replace('-', " ");
        let seen = find_by_user_code(&plane.state, &typed).await.unwrap().unwrap();
        assert_eq!((seen.client_id.as_str(), seen.scopes.text().as_str()), ("public", "user openid"));
        assert_eq!(seen.ip_prefix.as_deref(), Some("192.0.2.7/32"));
        assert!(find_by_user_code(&plane.state, "BCDF-GHJK").await.unwrap().is_none());
        let approved = at_once(8, || {
            let (plane, typed) = (Arc::clone(&plane), typed.clone());
            async move { approve(&plane.state, &context(), decision(&plane, &typed)).await.unwrap() }
        })
        .await;
        assert_eq!(approved.into_iter().filter(|won| *won).count(), 1);
        assert!(!deny(&plane.state, &context(), decision(&plane, &typed)).await.unwrap(), "it is decided");

        plane.clock.advance(15_000);
        let answers = at_once(32, || {
            let (plane, code) = (Arc::clone(&plane), code.clone());
            async move { ask(&plane, &code).await }
        })
        .await;
        let refused = answers.iter().filter(|answer| word(answer) == "invalid_grant").count();
        let mut won: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
        assert_eq!((won.len(), refused), (1, 31));
        let tokens = won.remove(0);
        assert_eq!(tokens.scope, "user openid");
        assert!(plane.is_live(&tokens.access_token).await && tokens.id_token.is_some());
        let session = plane.claims(&tokens.access_token).session_id;
        let session = plane.state.sessions.find(&session).await.unwrap().unwrap();
        assert_eq!(session.source.map(SessionSource::as_str), Some("device"));
        assert!(plane.refresh(tokens.refresh_token.unwrap().expose(), "").await.is_ok());
        for (kind, count) in [("started", 1), ("approved", 1), ("denied", 0), ("issued", 1)] {
            assert_eq!(plane.records(&format!("oauth.device.{kind}")).await.len(), count, "{kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_what_its_person_ticked() {
    for plane in planes().await {
        let user = plane.state.users.get("bob").await.unwrap();
        let session = plane.state.sessions.find(&plane.session).await.unwrap().unwrap();
        let (person, flow) = (SignedIn { user, session }, Secret::from("flow"));
        for (ticked, want) in [("&scope_user=1", "user openid"), ("&scope_admin=1", "openid"), ("", "openid")]
        {
            let device = begin(&plane, "client_id=public&scope=openid+user+mcp").await.unwrap();
            let code = device.user_code.expose();
            let frame = Frame::new(&plane.state.settings(), None, None);
            let page =
                confirm(&plane.state, &context(), (&person, &flow), frame, code).await.unwrap().unwrap();
            assert_eq!(page.scopes.len(), 3);
            let form = format!("user_code={code}&csrf={}{ticked}", page.csrf);
            let form = Parameters::parse(form.as_bytes()).unwrap();
            assert!(decide(&plane.state, &context(), (&person, &flow), &form, true).await.unwrap());
            plane.clock.advance(10_000);
            assert_eq!(ask(&plane, device.device_code.expose()).await.unwrap().scope, want, "{ticked}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_65_five_wrong_codes_a_session_and_twenty_a_network_an_hour() {
    for plane in planes().await {
        let user = plane.state.users.get("bob").await.unwrap();
        let device = begin(&plane, "client_id=public&scope=user").await.unwrap();
        let flow = Secret::from("flow");
        // A session of bob's is one of a browser each.
        let person = async || {
            let id = SessionId::generate();
            let end = plane.clock.now() + 86_400_000;
            let mut new =
                CreateSessionInput::new(id.clone(), Some(plane.bob.clone()), SessionSource::Web, end);
            new.facts.auth_time = Some(plane.clock.now() / 1000);
            open_session(&plane.state, new).await;
            let session = plane.state.sessions.find(&id).await.unwrap().unwrap();
            SignedIn { user: user.clone(), session }
        };
        let type_in = async |person: &SignedIn, code: &str| {
            let frame = Frame::new(&plane.state.settings(), None, None);
            match confirm(&plane.state, &context(), (person, &flow), frame, code).await {
                Ok(Some(_)) => "found",
                Ok(None) => "unknown",
                Err(error) => error.code().as_str(),
            }
        };
        let first = person().await;
        for n in 0..5 {
            // The right one uses up nothing.
            assert_eq!(type_in(&first, device.user_code.expose()).await, "found");
            assert_eq!(
                type_in(&first, &format!("BCDF-GHJ{}", ["K", "L", "M", "N", "P"][n])).await,
                "unknown"
            );
        }
        assert_eq!(type_in(&first, "BCDF-GHJQ").await, "temporarily_unavailable");
        assert_eq!(type_in(&first, device.user_code.expose()).await, "temporarily_unavailable");
        for _ in 0..3 {
            let next = person().await;
            for _ in 0..5 {
                assert_eq!(type_in(&next, "not even a code").await, "unknown");
            }
        }
        let other = person().await;
        assert_eq!(type_in(&other, device.user_code.expose()).await, "temporarily_unavailable");
        plane.clock.advance(3_600_000);
        let device = begin(&plane, "client_id=public&scope=user").await.unwrap();
        assert_eq!(type_in(&person().await, device.user_code.expose()).await, "found", "an hour later");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_an_expired_and_another_clients_device_code_give_nothing() {
    for plane in planes().await {
        let device = begin(&plane, "client_id=public&scope=user").await.unwrap();
        assert!(deny(&plane.state, &context(), decision(&plane, device.user_code.expose())).await.unwrap());
        plane.clock.advance(5_000);
        assert_eq!(word(&ask(&plane, device.device_code.expose()).await), "access_denied");
        let foreign = begin(&plane, "client_id=other&scope=user").await.unwrap();
        assert_eq!(word(&ask(&plane, foreign.device_code.expose()).await), "invalid_grant");
        let late = begin(&plane, "client_id=public&scope=user").await.unwrap();
        plane.clock.advance(900_000);
        assert_eq!(word(&ask(&plane, late.device_code.expose()).await), "expired_token");
        assert!(!approve(&plane.state, &context(), decision(&plane, late.user_code.expose())).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_asks_for_what_there_is_and_not_too_often() {
    for plane in planes().await {
        for (form, error) in [
            ("client_id=public&scope=admin", "invalid_scope"),
            ("client_id=public&scope=service", "invalid_scope"),
            ("client_id=public&scope=user&resource=https://elsewhere.example", "invalid_target"),
            ("client_id=acme-ci", "invalid_client"),
            ("scope=user", "invalid_request"),
        ] {
            assert_eq!(word(&begin(&plane, form).await), error, "{form}");
        }
        let resources = "&resource=https://rs.example/&resource=http://localhost:8080/api/v1/mcp/demo/mcp";
        for _ in 0..10 {
            begin(&plane, &format!("client_id=public&scope=user{resources}")).await.unwrap();
        }
        let eleventh = begin(&plane, "client_id=public&scope=user").await;
        assert!(matches!(eleventh, Err(OauthError::Throttled { .. })));
        assert!(begin(&plane, "client_id=other&scope=user").await.is_ok(), "another client");
        plane.clock.advance(900_000);
        assert!(begin(&plane, "client_id=public&scope=user").await.is_ok(), "the ten have expired");
    }
}
