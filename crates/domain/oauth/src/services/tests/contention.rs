//! What ends users, clients and grants beside units that use them, as PostgreSQL lets them meet.

#![expect(clippy::disallowed_methods, reason = "tests run transactions beside each other")]

use super::clients::admin;
use super::plane::{Plane, context, planes_with, word};
use crate::models::clients::api::shown;
use crate::services::clients::managed;
use crate::services::grants::session_of;
use crate::services::password;
use crate::services::session::lookup;
use crate::users::{UserChange, UserStatus};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_database::{WriteTx, on_tx};
use systemprompt_models::ids::{EntryId, GrantId, SessionId};
use systemprompt_models::{Principal, RequestContext, Secret};
use systemprompt_security::session::{Cutoff, CutoffKind, Sessions};

async fn plane() -> Arc<Plane> {
    let [_, plane] = planes_with(|settings| settings.identity.password.enabled = true).await;
    Arc::new(plane)
}

async fn run(tx: &mut WriteTx, statement: &'static str, id: &str) -> sqlx::Result<()> {
    on_tx!(*tx, conn => sqlx::query(statement).bind(id).execute(&mut *conn).await.map(drop))
}

const SESSION: &str = "UPDATE user_sessions SET last_seen_at = last_seen_at WHERE id = $1";
const GRANT: &str = "UPDATE oauth_grants SET last_used_at = last_used_at WHERE grant_id = $1";
const REFRESH: &str = "UPDATE oauth_refresh_tokens SET issued_at = issued_at WHERE grant_id = $1";

async fn until_one_waits(plane: &Plane) {
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while plane.count(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn set_status(plane: &Plane, status: UserStatus) {
    let change = UserChange { status: Some(status), ..UserChange::default() };
    plane.state.users.change(&admin(), "bob", None, change).await.unwrap();
}

/// Ends bob's grants, or those of his client.
async fn end(plane: &Plane, how: &str) {
    let now = plane.state.now();
    match how {
        "password" => {
            let mut principal = Principal::anonymous();
            principal.user_id = plane.bob.clone();
            principal.session_id = plane.session.clone();
            let me = RequestContext { principal: Arc::new(principal), ..context() };
            password::change(&plane.state, &me, None, &Secret::from("purple-otter-sings")).await.unwrap();
        }
        "shut out" => {
            let (id, expires_at) = (plane.bob.to_string(), Sessions::longest_end(now));
            let cutoff =
                Cutoff { kind: CutoffKind::User, id, not_before: now, reason: "test".into(), expires_at };
            plane.state.users.shut_out(&cutoff, &EntryId::generate()).await.unwrap();
        }
        "client" => {
            let by = admin();
            let mut body = shown(&managed::get(&plane.state, &by, "public").await.unwrap());
            body.insert("status".into(), "disabled".into());
            body.insert("redirect_uris".into(), json!([super::plane::REDIRECT]));
            body.insert("scope".into(), "openid user".into());
            let version = plane.state.client("public").await.unwrap().unwrap().version;
            managed::replace(&plane.state, &by, "public", version, &body).await.unwrap();
            plane.change("UPDATE oauth_clients SET status = 'active' WHERE client_id = 'public'").await;
        }
        _ => set_status(plane, UserStatus::Suspended).await,
    }
}

const ENDS: [&str; 4] = ["password", "shut out", "client", "suspended"];

async fn ended(plane: &Plane, grant: &GrantId) -> (bool, bool, i64) {
    let now = plane.state.now();
    let row = plane.state.oauth.find_grant(grant.as_str()).await.unwrap().unwrap();
    let session = plane.state.sessions.find(&session_of(grant.as_str())).await.unwrap();
    let session_ended = session.is_none_or(|session| !session.is_live(now));
    (
        row.revoked_at.is_some(),
        session_ended,
        plane.state.oauth.live_refresh_tokens(grant.as_str(), now).await.unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_takes_its_rows_in_the_order_of_a_refresh() {
    let plane = plane().await;
    for how in ENDS {
        plane.clock.advance(4_000);
        let (_, grant) = plane.signed_in("user offline_access", "").await;
        let mut unit = plane.db.write_tx().await.unwrap();
        run(&mut unit, "SELECT set_config('lock_timeout', $1, true)", "500").await.unwrap();
        run(&mut unit, GRANT, grant.as_str()).await.unwrap();
        let ending = tokio::spawn({
            let plane = Arc::clone(&plane);
            async move { end(&plane, how).await }
        });
        until_one_waits(&plane).await;
        run(&mut unit, SESSION, session_of(grant.as_str()).as_str()).await.unwrap();
        run(&mut unit, REFRESH, grant.as_str()).await.unwrap_or_else(|error| panic!("{how}: {error}"));
        unit.commit().await.unwrap();
        ending.await.unwrap();
        assert_eq!(ended(&plane, &grant).await, (true, true, 0), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_what_ends_begins_again_when_it_was_to_give_way() {
    let plane = plane().await;
    for how in ENDS {
        plane.clock.advance(4_000);
        let (tokens, grant) = plane.signed_in("user offline_access", "").await;
        let mut other = plane.db.write_tx().await.unwrap();
        run(&mut other, SESSION, session_of(grant.as_str()).as_str()).await.unwrap();
        let ending = tokio::spawn({
            let plane = Arc::clone(&plane);
            async move { end(&plane, how).await }
        });
        // It has the grant and waits for the session; whoever has waited longest finds the deadlock and gives way.
        until_one_waits(&plane).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        run(&mut other, GRANT, grant.as_str()).await.unwrap();
        other.commit().await.unwrap();
        ending.await.unwrap();
        assert_eq!(ended(&plane, &grant).await, (true, true, 0), "{how}");
        assert!(!plane.is_live(&tokens.access_token).await, "{how}");
    }
    assert!(plane.state.ledger.condition().is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_a_grant_that_is_given_while_its_session_ends_ends_with_what_it_opened() {
    let plane = plane().await;
    for how in ["shut out", "suspended"] {
        let browser = SessionId::generate();
        plane.change("UPDATE user_sessions SET revoked_at = NULL, revoked_epoch = NULL").await;
        let mut unit = plane.db.write_tx().await.unwrap();
        run(&mut unit, SESSION, plane.session.as_str()).await.unwrap();
        let grant = GrantId::generate();
        run(
            &mut unit,
            "INSERT INTO oauth_grants (grant_id, user_id, client_id, session_id, kind, scopes, resources, offline, created_at,
                 family_expires_at)
             SELECT $1, id, 'public', NULL, 'code', 'user', '', 1, 1, 9000000000000 FROM users WHERE username = 'bob'",
            grant.as_str(),
        )
        .await
        .unwrap();
        run(
            &mut unit,
            "INSERT INTO user_sessions (id, user_id, source, created_at, last_seen_at, expires_at)
             SELECT $1, id, 'oauth', 1, 1, 9000000000000 FROM users WHERE username = 'bob'",
            browser.as_str(),
        )
        .await
        .unwrap();
        let ending = tokio::spawn({
            let plane = Arc::clone(&plane);
            async move { end(&plane, how).await }
        });
        until_one_waits(&plane).await;
        unit.commit().await.unwrap();
        ending.await.unwrap();
        assert!(ended(&plane, &grant).await.0, "{how}: the grant goes on");
        let opened = plane.state.sessions.find(&browser).await.unwrap().unwrap();
        assert!(!opened.is_live(plane.state.now()), "{how}: its session goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a27_a_suspension_holds_whatever_refreshes_and_the_ledger_stays_ready() {
    let plane = plane().await;
    for round in 0..4 {
        plane.clock.advance(4_000);
        plane.change("UPDATE users SET status = 'active' WHERE username = 'bob'").await;
        let mut loops = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (first, _) = plane.signed_in("user offline_access", "").await;
            let plane = Arc::clone(&plane);
            loops.spawn(async move {
                let mut token = first.refresh_token.unwrap();
                loop {
                    match plane.refresh(token.expose(), "").await {
                        Ok(next) => token = next.refresh_token.unwrap(),
                        refused => return word(&refused),
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        set_status(&plane, UserStatus::Suspended).await;
        let last: BTreeSet<&str> = loops.join_all().await.into_iter().collect();
        assert_eq!(last, BTreeSet::from(["invalid_grant"]), "round {round}");
        assert!(plane.state.ledger.condition().is_ready());
        let live = "SELECT COUNT(*) FROM oauth_grants WHERE revoked_at IS NULL";
        assert_eq!(plane.count(live).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_139_a_grant_that_is_given_while_its_session_ends_ends_with_it() {
    let plane = plane().await;
    let mut tx = plane.db.write_tx().await.unwrap();
    run(&mut tx, SESSION, plane.session.as_str()).await.unwrap();
    let given = "INSERT INTO oauth_grants (grant_id, user_id, client_id, session_id, kind, scopes, resources, offline, created_at,
             family_expires_at)
         SELECT 'grt_late', user_id, 'public', id, 'code', 'openid user', '', 0, 1, expires_at FROM user_sessions WHERE id = $1";
    run(&mut tx, given, plane.session.as_str()).await.unwrap();
    let ending = {
        let plane = Arc::clone(&plane);
        tokio::spawn(async move {
            let mut principal = Principal::anonymous();
            (principal.user_id, principal.session_id) = (plane.bob.clone(), plane.session.clone());
            let me = RequestContext { principal: Arc::new(principal), ..context() };
            lookup::end_own(&plane.state, &me, plane.session.as_str()).await.unwrap()
        })
    };
    until_one_waits(&plane).await;
    tx.commit().await.unwrap();
    assert!(ending.await.unwrap());
    let left = "SELECT COUNT(*) FROM oauth_grants WHERE revoked_at IS NULL";
    assert_eq!(plane.count(left).await, 0, "it would be shown as live");
}
