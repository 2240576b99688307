//! What ends with a password, a client or an account does so in the transaction of the change (ID-51): where the end cannot be
//! written, nothing has changed.

use super::clients::admin;
use super::plane::{Plane, context, planes_with, word};
use crate::models::clients::api::shown;
use crate::repository::testing::open_session;
use crate::services::clients::managed;
use crate::services::generation::{ClientTokenOptions, generate_client_tokens};
use crate::services::password;
use crate::users::{UserChange, UserStatus};
use serde_json::json;
use std::sync::Arc;
use systemprompt_models::ids::{EntryId, SessionId};
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{Principal, RequestContext, Secret};
use systemprompt_security::session::{Cutoff, CutoffKind, Sessions};

const OLD: &str = "purple-otter-sings";
const NEW: &str = "green-otter-sings";
/// Where the end of a grant is written last.
const BREAK: &str = "ALTER TABLE oauth_refresh_tokens RENAME TO elsewhere";
const MEND: &str = "ALTER TABLE elsewhere RENAME TO oauth_refresh_tokens";

async fn planes() -> [Plane; 2] {
    planes_with(|settings| settings.identity.password.enabled = true).await
}

/// bob in his browser.
fn bob(plane: &Plane) -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.user_id = plane.bob.clone();
    principal.session_id = plane.session.clone();
    RequestContext { principal: Arc::new(principal), ..context() }
}

async fn session(plane: &Plane, change: impl FnOnce(&mut CreateSessionInput)) -> SessionId {
    let end = plane.state.now() + 3_600_000;
    let mut new =
        CreateSessionInput::new(SessionId::generate(), Some(plane.bob.clone()), SessionSource::Web, end);
    change(&mut new);
    let id = new.id.clone();
    open_session(&plane.state, new).await;
    id
}

async fn is_live(plane: &Plane, id: &SessionId) -> bool {
    plane.state.sessions.find(id).await.unwrap().unwrap().is_live(plane.state.now())
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_a_password_changes_with_the_end_of_every_grant_and_other_session_or_not_at_all() {
    for plane in planes().await {
        let me = bob(&plane);
        let set = async |old: Option<&str>, new: &str| {
            let old = old.map(Secret::from);
            password::change(&plane.state, &me, old.as_ref(), &Secret::from(new)).await
        };
        set(None, OLD).await.unwrap();
        let (tokens, _) = plane.signed_in("openid user offline_access", "").await;
        let other = session(&plane, |_| {}).await;
        // More than a page of a list has.
        for _ in 0..205 {
            session(&plane, |_| {}).await;
        }
        let of_client = session(&plane, |new| {
            new.user_id = Some("user-of-acme-ci".into());
            new.facts.owner_id = Some(plane.bob.clone());
        })
        .await;
        let mine = session(&plane, |new| new.facts.parent = Some(other.clone())).await;

        plane.change(BREAK).await;
        assert_eq!(word(&set(Some(OLD), NEW).await), "temporarily_unavailable");
        plane.change(MEND).await;
        let sign_in = async |text: &str| {
            password::sign_in(&plane.state, &context(), None, "bob", &Secret::from(text)).await
        };
        assert!(sign_in(NEW).await.is_err(), "the password changed and the grants went on");
        sign_in(OLD).await.unwrap();
        assert!(is_live(&plane, &other).await && plane.is_live(&tokens.access_token).await);

        set(Some(OLD), NEW).await.unwrap();
        assert!(!plane.is_live(&tokens.access_token).await);
        for gone in [&other, &of_client, &mine] {
            assert!(!is_live(&plane, gone).await);
        }
        assert!(is_live(&plane, &plane.session).await, "whoever changed it stays");
        let left = "SELECT COUNT(*) FROM user_sessions WHERE revoked_at IS NULL AND user_id IN (SELECT id FROM users WHERE username = 'bob')";
        assert_eq!(plane.count(left).await, 1);
        let refused = plane.refresh(tokens.refresh_token.unwrap().expose(), "").await;
        assert_eq!(word(&refused), "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_a_person_is_suspended_or_shut_out_with_all_they_had_or_not_at_all() {
    for plane in planes().await {
        let (users, now) = (&plane.state.users, plane.state.now());
        let cutoff = Cutoff {
            kind: CutoffKind::User,
            id: plane.bob.to_string(),
            not_before: now,
            reason: "revoked".into(),
            expires_at: Sessions::longest_end(now),
        };
        let suspended = UserChange { status: Some(UserStatus::Suspended), ..UserChange::default() };
        let shut_out = async || users.shut_out(&cutoff, &EntryId::generate()).await.map(drop);
        let suspend = async || users.change(&context(), "bob", None, suspended.clone()).await.map(drop);
        let (tokens, _) = plane.signed_in("openid user offline_access", "").await;
        plane.change(BREAK).await;
        assert!(shut_out().await.is_err() && suspend().await.is_err());
        plane.change(MEND).await;
        assert_eq!(users.get("bob").await.unwrap().status, UserStatus::Active);
        assert!(plane.is_live(&tokens.access_token).await && is_live(&plane, &plane.session).await);

        shut_out().await.unwrap();
        assert!(!plane.is_live(&tokens.access_token).await && !is_live(&plane, &plane.session).await);
        let refused = plane.refresh(tokens.refresh_token.unwrap().expose(), "").await;
        assert_eq!(word(&refused), "invalid_grant");
        suspend().await.unwrap();
        assert_eq!(users.get("bob").await.unwrap().status, UserStatus::Suspended);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_a_client_is_disabled_or_deleted_with_all_it_was_given_or_not_at_all() {
    for plane in planes().await {
        let by = admin();
        for (round, ends) in ["disabled", "deleted"].into_iter().enumerate() {
            let (tokens, _) = plane.signed_in("openid user offline_access", "").await;
            let exchanged = session(&plane, |new| {
                new.source = SessionSource::Exchange;
                new.facts.client_id = Some("public".into());
            })
            .await;
            let child = session(&plane, |new| new.facts.parent = Some(exchanged.clone())).await;
            let mut body = shown(&managed::get(&plane.state, &by, "public").await.unwrap());
            body.insert("status".into(), "disabled".into());
            body.insert("redirect_uris".into(), json!([super::plane::REDIRECT]));
            body.insert("scope".into(), "openid user".into());
            let version = plane.state.client("public").await.unwrap().unwrap().version;
            let end = async || match ends {
                "disabled" => managed::replace(&plane.state, &by, "public", version, &body).await.map(drop),
                _ => managed::delete(&plane.state, &by, "public", None).await,
            };
            plane.change("ALTER TABLE token_cutoffs RENAME TO elsewhere").await;
            end().await.unwrap_err();
            plane.change("ALTER TABLE elsewhere RENAME TO token_cutoffs").await;
            let client = plane.state.client("public").await.unwrap().expect("it is still there");
            assert!(client.is_active() && plane.is_live(&tokens.access_token).await, "{ends}");

            end().await.unwrap();
            assert!(!plane.is_live(&tokens.access_token).await && !is_live(&plane, &exchanged).await);
            assert!(!is_live(&plane, &child).await, "{ends}");
            if round == 0 {
                plane.clock.advance(4_000);
                plane.change("UPDATE oauth_clients SET status = 'active' WHERE client_id = 'public'").await;
            }
        }
        assert_eq!(
            word(&plane.token(None, "grant_type=refresh_token&client_id=public&refresh_token=rt_x").await),
            "invalid_client"
        );
    }
}

/// Deletes `acme-ci`, as a node that has yet to learn of it sees it: the rows are written, its own copy knows nothing.
pub(super) async fn deleted_elsewhere(plane: &Plane) {
    let deleted = plane.state.clients.delete("acme-ci", None, "client_deleted", plane.state.now()).await;
    let mut tx = deleted.unwrap().unwrap();
    let entry = EntryId::generate();
    let ended =
        plane.state.sessions.end_client_in(&mut tx, &"acme-ci".into(), "client_deleted", &entry).await;
    tx.commit().await.unwrap();
    drop(ended.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_no_token_outlives_its_client_that_was_read_before_the_end() {
    for used_before in [false, true] {
        for plane in planes().await {
            if used_before {
                plane.token(Some("acme-ci"), "grant_type=client_credentials&scope=user").await.unwrap();
            }
            let client = plane.state.client("acme-ci").await.unwrap().unwrap();
            let ask = async || {
                let options = ClientTokenOptions { scope: Some("user"), ..ClientTokenOptions::default() };
                generate_client_tokens(&plane.state, &client, &context(), options).await
            };
            deleted_elsewhere(&plane).await;
            plane.clock.advance(1_000);
            let late = ask().await.unwrap();
            plane.state.sessions.refresh().await.unwrap();
            assert!(!plane.is_live(&late.access_token).await, "used before: {used_before}");
            if used_before {
                // Now the copy knows: whoever waits for the time behind the cut reads the client again.
                let wait = async {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    plane.clock.advance(10_000);
                };
                let (refused, ()) = tokio::join!(ask(), wait);
                assert_eq!(word(&refused), "invalid_client");
            }
        }
    }
}
