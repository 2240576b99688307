//! Records of an end say how many sessions ended (ID-110, ID-139): also those of clients that serve a person, and what others exchanged.

use super::plane::{Plane, context, planes, planes_with, word};
use crate::repository::testing::open_session;
use crate::services::password;
use crate::services::session::lookup;
use crate::users::{UserChange, UserStatus};
use std::sync::Arc;
use systemprompt_models::ids::{SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{Principal, RequestContext, Secret};

fn bob(plane: &Plane) -> RequestContext {
    let mut principal = Principal::anonymous();
    (principal.user_id, principal.session_id) = (plane.bob.clone(), plane.session.clone());
    RequestContext { principal: Arc::new(principal), ..context() }
}

async fn session(plane: &Plane, user: &UserId, change: impl FnOnce(&mut CreateSessionInput)) -> SessionId {
    let end = plane.state.now() + 3_600_000;
    let mut new =
        CreateSessionInput::new(SessionId::generate(), Some(user.clone()), SessionSource::Exchange, end);
    change(&mut new);
    let id = new.id.clone();
    open_session(&plane.state, new).await;
    id
}

/// Sessions of bob, of a client that serves him, and of somebody else who exchanged a token of that: four with his browser.
async fn four(plane: &Plane) {
    session(plane, &plane.bob, |_| {}).await;
    let served = session(plane, &"user-of-acme-ci".into(), |new| {
        new.facts.owner_id = Some(plane.bob.clone());
    })
    .await;
    session(plane, &"user-of-other".into(), |new| new.facts.parent = Some(served)).await;
}

async fn told(plane: &Plane, kind: &str) -> Option<u64> {
    plane.records(kind).await.pop().unwrap()["detail"]["sessions"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_139_the_end_of_all_sessions_counts_all_that_end_in_its_record() {
    for plane in planes().await {
        four(&plane).await;
        assert_eq!(lookup::end_all_own(&plane.state, &bob(&plane), true).await.unwrap(), 3);
        assert_eq!(told(&plane, "oauth.session.revoked").await, Some(3), "all but the one that asks");
        four(&plane).await;
        assert_eq!(lookup::end_all_own(&plane.state, &bob(&plane), false).await.unwrap(), 4);
        assert_eq!(told(&plane, "oauth.session.revoked").await, Some(4));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_110_a_password_a_role_and_a_suspension_count_what_they_end() {
    for plane in planes_with(|settings| settings.identity.password.enabled = true).await {
        four(&plane).await;
        let me = bob(&plane);
        password::change(&plane.state, &me, None, &Secret::from("purple-otter-sings")).await.unwrap();
        assert_eq!(told(&plane, "admin.user.changed").await, Some(3));

        four(&plane).await;
        plane.signed_in("user", "").await;
        let change = async |change: UserChange| {
            plane.state.users.change(&context(), "bob", None, change).await.unwrap();
            told(&plane, "admin.user.changed").await
        };
        let roles = UserChange { roles: Some(vec!["user".into(), "dev".into()]), ..UserChange::default() };
        assert_eq!(change(roles).await, Some(4), "the session of a grant goes on");
        let name = UserChange { display_name: Some("Bob".into()), ..UserChange::default() };
        assert_eq!(change(name).await, None);
        let suspended = UserChange { status: Some(UserStatus::Suspended), ..UserChange::default() };
        assert_eq!(change(suspended).await, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_110_the_end_of_a_token_counts_what_was_exchanged_for_it_whatever_the_clocks_of_nodes() {
    for plane in planes().await {
        let parent = plane.signed_in("user", "").await.0;
        let claims = plane.claims(&parent.access_token);
        let child = session(&plane, &plane.bob, |new| {
            (new.facts.parent, new.expires_at) = (Some(claims.session_id.clone()), claims.exp * 1000);
        })
        .await;
        session(&plane, &"user-of-other".into(), |new| new.facts.parent = Some(child.clone())).await;
        // The node that exchanged it is some seconds behind the one that signed it.
        plane
            .change("UPDATE user_sessions SET created_at = created_at - 4000 WHERE source = 'exchange'")
            .await;
        plane.revoke("public", parent.access_token.expose()).await.unwrap();
        assert_eq!(told(&plane, "oauth.revoked").await, Some(2));
        let row = plane.state.sessions.find(&child).await.unwrap().unwrap();
        assert_eq!(row.revoked_reason.as_deref(), Some("token_revoked"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_139_the_grants_of_a_session_say_who_ended_it() {
    for plane in planes().await {
        let (tokens, _) = plane.signed_in("openid user", "").await;
        assert!(lookup::end_own(&plane.state, &bob(&plane), plane.session.as_str()).await.unwrap());
        let said = "SELECT COUNT(*) FROM oauth_grants WHERE revoked_reason = 'revoked_by_user'";
        assert_eq!(plane.count(said).await, 1);
        assert_eq!(
            word(
                &plane
                    .refresh(tokens.refresh_token.map_or(String::new(), |t| t.expose().clone()).as_str(), "")
                    .await
            ),
            "invalid_grant"
        );
    }
}
