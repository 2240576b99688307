//! Wrong client secrets are counted (ID-95), and clients by the surface (ID-94).

use super::plane::{basic, context, planes, request};
use crate::error::OauthError;
use crate::services::attempts::{self, Subject};
use crate::services::http::Parameters;
use crate::services::token::{ClientRequest, token};
use crate::services::validation::client_credentials::ClientLimit;
use crate::state::OAuthState;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::atomic::{AtomicU32, Ordering};

const ASK: &str = "grant_type=client_credentials&scope=user";

/// Status of a token request by Basic from an address.
async fn status(state: &OAuthState, ip: &str, id: &str, secret: &str) -> u16 {
    let mut context = context();
    context.client_ip = ip.parse().ok();
    let header = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let parameters = Parameters::parse(ASK.as_bytes()).unwrap();
    match token(state, request(&context, Some(&header), &parameters)).await {
        Ok(_) => 200,
        Err(error) => error.status(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_95_twenty_wrong_secrets_of_a_client_from_a_network_close_it_for_the_window() {
    for plane in planes().await {
        let state = &plane.state;
        for id in ["acme-ci", "nobody"] {
            for n in 0..20 {
                assert_eq!(status(state, "192.0.2.9", id, "sps_wrong").await, 401, "{id} {n}");
            }
            assert_eq!(status(state, "192.0.2.9", id, "sps_wrong").await, 429, "there or not: {id}");
        }
        assert_eq!(status(state, "192.0.2.9", "acme-ci", "sps_acme-ci").await, 429, "the right one, too");
        assert_eq!(status(state, "192.0.2.10", "acme-ci", "sps_acme-ci").await, 200, "another network");
        plane.clock.advance(600_000);
        assert_eq!(status(state, "192.0.2.9", "acme-ci", "sps_acme-ci").await, 200, "the window is over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_13_the_right_secret_of_a_client_that_may_not_show_one_is_a_wrong_secret() {
    for plane in planes().await {
        let state = &plane.state;
        let told = async |id: &str, secret: &str| {
            let header = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
            let parameters = Parameters::parse(ASK.as_bytes()).unwrap();
            let answer = token(state, request(&context(), Some(&header), &parameters)).await;
            answer.map(drop).map_err(|error| (error.code(), error.description().into_owned()))
        };
        assert_eq!(told("acme-ci", "sps_acme-ci").await, Ok(()));
        let unknown = told("nobody", "sps_acme-ci").await;
        assert!(unknown.is_err());
        // It is read in place of one that is not there.
        plane.client("sp_web", "client_secret_basic", "client_credentials", "user", "").await;
        assert_eq!(told("sp_web", "sps_sp_web").await, Ok(()));
        assert_eq!(told("nobody", "sps_sp_web").await, unknown);
        assert!(state.client("nobody").await.unwrap().is_none());
        let usual = "UPDATE oauth_clients SET status = 'active', auth_method = 'client_secret_basic'";
        for change in [
            "UPDATE oauth_clients SET status = 'disabled'",
            "UPDATE oauth_clients SET status = 'expired'",
            "UPDATE oauth_clients SET auth_method = 'private_key_jwt'",
            "UPDATE oauth_clients SET auth_method = 'none'",
        ] {
            plane.change(change).await;
            assert_eq!(told("acme-ci", "sps_acme-ci").await, unknown, "{change}");
            plane.change(usual).await;
        }
        assert_eq!(told("acme-ci", "sps_acme-ci").await, Ok(()), "nothing of it is lasting");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_95_a_network_that_guesses_at_many_clients_leaves_a_bounded_number_of_rows() {
    for plane in planes().await {
        let state = &plane.state;
        for n in 0..300 {
            assert_eq!(status(state, "192.0.2.9", &format!("guess-{n}"), "sps_wrong").await, 401, "{n}");
        }
        let rows = plane.count("SELECT COUNT(*) FROM auth_attempts").await;
        for n in 300..320 {
            assert_eq!(status(state, "192.0.2.9", &format!("guess-{n}"), "sps_wrong").await, 429, "{n}");
        }
        assert_eq!(plane.count("SELECT COUNT(*) FROM auth_attempts").await, rows);
        assert_eq!(
            status(state, "192.0.2.9", "acme-ci", "sps_acme-ci").await,
            200,
            "who has the secret passes"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_95_the_third_window_of_a_day_proposes_a_ban_once() {
    for plane in planes().await {
        for window in 1..=4 {
            for _ in 0..20 {
                status(&plane.state, "2001:db8::7", "acme-ci", "sps_wrong").await;
            }
            let told = plane.records("admin.ban.proposed").await;
            assert_eq!(told.len(), usize::from(window >= 3), "window {window}");
            plane.clock.advance(600_000);
        }
        let told = plane.records("admin.ban.proposed").await;
        assert_eq!(told[0]["detail"]["failures_of"], "client_secret");
        assert!(!told[0].to_string().contains("2001:db8"), "the address is a payload: {}", told[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_94_a_client_is_counted_once_it_has_shown_who_it_is() {
    for plane in planes().await {
        let asked = std::sync::Arc::new(AtomicU32::new(0));
        let counted = std::sync::Arc::clone(&asked);
        let limit = ClientLimit::new(move |known| {
            assert_eq!(known.client.client_id.as_str(), "acme-ci");
            if counted.fetch_add(1, Ordering::Relaxed) < 2 { Ok(()) } else { Err(7) }
        });
        let (context, right) = (context(), basic("acme-ci"));
        let wrong = format!("Basic {}", STANDARD.encode("acme-ci:sps_wrong"));
        let parameters = Parameters::parse(ASK.as_bytes()).unwrap();
        let ask = async |authorization: &str| {
            let request = ClientRequest {
                context: &context,
                authorization: Some(authorization),
                parameters: &parameters,
                limit: Some(&limit),
            };
            token(&plane.state, request).await
        };
        ask(&wrong).await.unwrap_err();
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        for _ in 0..2 {
            ask(&right).await.unwrap();
        }
        let refused = ask(&right).await.unwrap_err();
        assert!(matches!(refused, OauthError::Throttled { retry_after: 7 }), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_95_an_account_that_fails_from_everywhere_is_slowed_and_never_shut_out() {
    for plane in planes().await {
        let everywhere = [Subject::Everywhere("bob")];
        let mut longest = 0;
        for n in 0..25 {
            attempts::failed(&plane.state, &everywhere).await.unwrap();
            match attempts::admit(&plane.state, &everywhere).await {
                Ok(()) => assert!(n < 19, "failure {n} is waited for"),
                Err(OauthError::Throttled { retry_after }) => {
                    longest = longest.max(retry_after);
                    plane.clock.advance(i64::from(retry_after) * 1000);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(longest, 30, "half a minute at most, whoever else tries");
        assert!(plane.records("admin.ban.proposed").await.is_empty(), "there is no network to ban");
    }
}
