//! What is given while the rights to it end does not outlive them: whoever asks was read before, and is looked at once more when the
//! token is written.

use super::plane::{Plane, at_once, context, planes, word};
use crate::error::ErrorCode;
use crate::models::analytics::Method;
use crate::repository::testing::open_session;
use crate::services::bridge;
use crate::services::session::{SessionCreationService, SignInFacts, lookup};
use crate::users::{UserChange, UserStatus};
use crate::{ApiKeys, NewApiKey};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use systemprompt_audit::Unit;
use systemprompt_models::ids::SessionId;
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{Permission, Principal, RequestContext, Secret};
use systemprompt_security::auth::ApiKeyProvider as _;

fn suspended() -> UserChange {
    UserChange { status: Some(UserStatus::Suspended), ..UserChange::default() }
}

fn roles(roles: &[&str]) -> UserChange {
    UserChange { roles: Some(roles.iter().map(ToString::to_string).collect()), ..UserChange::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_58_no_token_of_a_client_outlives_the_suspension_or_the_role_of_its_owner() {
    for change in [suspended(), roles(&[])] {
        for plane in planes().await {
            plane.client("owned", "client_secret_basic", "client_credentials", "user", "").await;
            plane.change("UPDATE oauth_clients SET owner_user_id = (SELECT id FROM users WHERE username = 'bob') WHERE client_id = 'owned'").await;
            let (plane, over) = (Arc::new(plane), Arc::new(AtomicBool::new(false)));
            let asking = at_once(16, || asked(Arc::clone(&plane), Arc::clone(&over)));
            let changing = async {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                let changed = plane.state.users.change(&context(), "bob", None, change.clone()).await;
                over.store(true, Ordering::Relaxed);
                changed.unwrap();
            };
            let (given, ()) = tokio::join!(asking, changing);
            let given: Vec<Secret<String>> = given.into_iter().flatten().collect();
            assert!(given.len() > 16, "there was no race: {}", given.len());
            for token in &given {
                assert!(!plane.is_live(token).await, "it was given behind the end of its owner's rights");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_58_a_name_that_changes_meanwhile_refuses_no_token() {
    for plane in planes().await {
        plane.client("owned", "client_secret_basic", "client_credentials", "user", "").await;
        plane.change("UPDATE oauth_clients SET owner_user_id = (SELECT id FROM users WHERE username = 'bob') WHERE client_id = 'owned'").await;
        let (plane, over) = (Arc::new(plane), Arc::new(AtomicBool::new(false)));
        let asking = at_once(12, || words(Arc::clone(&plane), Arc::clone(&over)));
        let changing = async {
            for n in 0..20 {
                tokio::time::sleep(std::time::Duration::from_millis(60)).await;
                let change = UserChange { display_name: Some(format!("Bob {n}")), ..UserChange::default() };
                plane.state.users.change(&context(), "bob", None, change).await.unwrap();
            }
            over.store(true, Ordering::Relaxed);
        };
        let (answers, ()) = tokio::join!(asking, changing);
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        assert!(answers.len() > 60, "there was no race: {}", answers.len());
        let refused: Vec<_> = answers.iter().filter(|answer| **answer != "ok").collect();
        assert!(refused.is_empty(), "{} of {}: {refused:?}", refused.len(), answers.len());
    }
}

/// What the client is told until the changes are over.
async fn words(plane: Arc<Plane>, over: Arc<AtomicBool>) -> Vec<&'static str> {
    let mut told = Vec::new();
    while !over.load(Ordering::Relaxed) {
        told.push(word(&plane.token(Some("owned"), "grant_type=client_credentials&scope=user").await));
    }
    told
}

/// Tokens of the client until the change is over, and one more.
async fn asked(plane: Arc<Plane>, over: Arc<AtomicBool>) -> Vec<Secret<String>> {
    let mut given = Vec::new();
    loop {
        let was_over = over.load(Ordering::Relaxed);
        if let Ok(token) = plane.token(Some("owned"), "grant_type=client_credentials&scope=user").await {
            given.push(token.access_token);
        }
        if was_over {
            return given;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_a_sign_in_under_way_does_not_outlive_a_suspension_or_a_role() {
    for plane in planes().await {
        for (change, want) in [(roles(&["user", "dev"]), None), (suspended(), Some(ErrorCode::AccessDenied))]
        {
            let read = plane.state.users.get("bob").await.unwrap();
            plane.state.users.change(&context(), "bob", None, change).await.unwrap();
            // In the second of a cut nothing is signed.
            plane.clock.advance(2_000);
            let context = context();
            let facts = SignInFacts {
                user: &read,
                method: Method::Password,
                credential: None,
                context: &context,
                is_new: false,
                before: None,
            };
            let signed_in = SessionCreationService(&plane.state).sign_in(facts, Unit::new()).await;
            // Who is another by their roles signs in as what they are now.
            assert_eq!(signed_in.err().map(|error| error.code()), want);
        }
        let left = "SELECT COUNT(*) FROM user_sessions WHERE source = 'web' AND created_at > 0 AND revoked_at IS NULL
            AND user_id = (SELECT id FROM users WHERE username = 'bob')";
        assert_eq!(plane.count(left).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_98_a_key_that_was_revoked_meanwhile_makes_no_token_of_a_bridge() {
    for plane in planes().await {
        let bob = plane.state.users.get("bob").await.unwrap();
        let state = &plane.state;
        let keys = ApiKeys::new(
            state.db.clone(),
            state.users.clone(),
            state.ledger.clone(),
            Arc::clone(&state.clock),
            state.at_rest.clone(),
        );
        let mut principal = Principal::anonymous();
        principal.user_id = bob.id.clone();
        principal.permissions = vec![Permission::User];
        let by = RequestContext { principal: Arc::new(principal), ..context() };
        let asked: NewApiKey =
            serde_json::from_value(serde_json::json!({"user": bob.id, "name": "ci"})).unwrap();
        let (key, value) = keys.create(&by, asked).await.unwrap();
        let found = keys.verify(value.expose()).await.unwrap().unwrap();
        let shown = RequestContext { principal: found.principal, ..context() };
        bridge::by_key(state, &shown).await.unwrap();
        keys.revoke(&by, key.id.as_str()).await.unwrap();
        assert_eq!(word(&bridge::by_key(state, &shown).await), "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_81_signing_out_everywhere_reaches_sessions_behind_many_newer_ones() {
    for plane in planes().await {
        let end = plane.state.now() + 3_600_000;
        let open = async |source| {
            let id = SessionId::generate();
            open_session(
                &plane.state,
                CreateSessionInput::new(id.clone(), Some(plane.bob.clone()), source, end),
            )
            .await;
            id
        };
        let stolen = open(SessionSource::Web).await;
        plane.clock.advance(1000);
        for _ in 0..205 {
            open(SessionSource::Exchange).await;
        }
        let mine = open(SessionSource::Web).await;
        let mut principal = Principal::anonymous();
        (principal.user_id, principal.session_id) = (plane.bob.clone(), mine.clone());
        let me = RequestContext { principal: Arc::new(principal), ..context() };
        let browsers = plane.state.sessions.browsers_of(&plane.bob).await.unwrap();
        assert!(browsers.iter().any(|session| session.id == stolen), "a sign-out by its ID token finds it");

        // With the browser that the plane begins with.
        assert_eq!(lookup::end_all_own(&plane.state, &me, true).await.unwrap(), 207);
        let left = plane.state.sessions.list(&plane.bob).await.unwrap();
        assert_eq!(left.iter().map(|session| &session.id).collect::<Vec<_>>(), [&mine]);
        let records = plane.records("oauth.session.revoked").await;
        assert_eq!((records.len(), records[0]["detail"]["sessions"].as_u64()), (1, Some(207)));
    }
}
