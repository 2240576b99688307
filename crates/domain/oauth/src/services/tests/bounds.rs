//! What one client or one network may have waiting: a share that is counted where it is taken.

use super::clients::person;
use super::plane::{Plane, at_once, context, planes};
use crate::error::OauthError;
use crate::repository::bridge_host_prefs::BridgeHostPrefsRepository;
use crate::repository::oauth::authorize::{MAX_OF_FLOW, MAX_OF_PART, Stored};
use crate::repository::oauth::device::{DeviceCode, device_opened};
use crate::repository::webauthn::{self, NewChallenge};
use crate::services::clients::managed;
use crate::services::refusals::ip_prefix;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use systemprompt_database::on_tx;
use systemprompt_models::{Clock as _, Millis, Permission};

/// Calls `call` with a number of its own `count` times at once; how many returned true.
async fn let_in<F: Future<Output = bool> + Send + 'static>(
    plane: &Arc<Plane>,
    count: usize,
    call: impl Fn(Arc<Plane>, usize) -> F + Send + Sync + 'static,
) -> usize {
    let next = Arc::new(AtomicUsize::new(0));
    let (plane, call) = (Arc::clone(plane), Arc::new(call));
    let done = at_once(count, || {
        let n = next.fetch_add(1, Ordering::Relaxed);
        call(Arc::clone(&plane), n)
    });
    done.await.into_iter().filter(|done| *done).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_16_a_user_has_fifty_clients_however_many_are_made_at_once() {
    for plane in planes().await.map(Arc::new) {
        let made = let_in(&plane, 65, |plane, n| async move {
            let members =
                json!({"client_name": format!("c{n}"), "redirect_uris": ["https://app.example/cb"]});
            let me = person(&plane.bob, &[Permission::User]);
            managed::create(&plane.state, &me, members.as_object().unwrap()).await.is_ok()
        });
        assert_eq!(made.await, 50);
        let owned = "SELECT COUNT(*) FROM oauth_clients WHERE owner_user_id IS NOT NULL";
        assert_eq!(plane.count(owned).await, 50);
    }
}

async fn store(plane: &Plane, digest: &str, flow: &str, now: Millis) -> Stored {
    let times = (now, now + 1_800_000);
    plane.state.oauth.store_request(digest, "public", "{}", (flow, "p"), times).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_42_a_browser_has_twenty_requests_open_however_many_it_begins_at_once() {
    for plane in planes().await.map(Arc::new) {
        let now = plane.clock.now();
        let stored = let_in(&plane, 40, move |plane, n| async move {
            store(&plane, &format!("{n:064x}"), &"ab".repeat(32), now).await == Stored::Done
        });
        assert_eq!(stored.await, MAX_OF_FLOW as usize);
        let mine = "ab".repeat(32);
        assert_eq!(store(&plane, "d", &mine, now).await, Stored::FlowFull);
        assert_eq!(store(&plane, "e", &"cd".repeat(32), now).await, Stored::Done, "another's are its own");
        assert_eq!(
            store(&plane, "f", &mine, now + 1_800_000).await,
            Stored::Done,
            "what is over is not open"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_42_the_open_requests_of_all_are_bounded_and_what_is_over_does_not_count() {
    for plane in planes().await {
        let now = plane.clock.now();
        let mut tx = plane.db.write_tx().await.unwrap();
        for n in 0..2 * MAX_OF_PART {
            // Half of them are over.
            let end = if n % 2 == 0 { now + 1 } else { now };
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO oauth_authorize_requests (request_digest, client_id, parameters, flow_digest, state, pepper_id,
                     created_at, expires_at)
                 VALUES ($1, 'public', '{}', $2, '', 'p', 1, $3)"
            )
                .bind(format!("{n:064x}")).bind(format!("ab{n:062x}")).bind(end).execute(&mut *conn).await.map(drop))
            .unwrap();
        }
        tx.commit().await.unwrap();
        let (full, free) = (format!("ab{:062x}", 1 << 20), format!("ac{:062x}", 1));
        assert_eq!(store(&plane, "x", &full, now).await, Stored::Full);
        assert_eq!(store(&plane, "y", &free, now).await, Stored::Done);
        assert_eq!(store(&plane, "z", &full, now + 1).await, Stored::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_83_the_open_ceremonies_of_all_are_bounded_and_what_is_over_does_not_count() {
    for plane in planes().await {
        let now = plane.clock.now();
        let begin = async |id: &str, now: Millis| {
            let (kind, state, flow_digest) = ("auth", "{}", "f");
            let expires_at = now + 300_000;
            let new = NewChallenge { id, kind, state, user_id: None, flow_digest, now, expires_at };
            webauthn::insert_challenge(&plane.db, &new).await.unwrap()
        };
        for n in 0..webauthn::MAX_OF_PART {
            assert!(begin(&format!("ab{n:030x}"), now - n % 2).await, "{n}");
        }
        let (full, free) = (format!("ab{:030x}", 1 << 20), format!("ac{:030x}", 1));
        assert!(!begin(&full, now).await && begin(&free, now).await);
        assert!(begin(&full, now + 299_999).await, "half of them are over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_64_a_client_has_ten_device_codes_of_a_network_open_on_however_many_nodes() {
    for plane in planes().await.map(Arc::new) {
        let now = plane.clock.now();
        let opened = let_in(&plane, 25, move |plane, n| async move {
            let row = DeviceCode {
                device_digest: format!("d{n}"),
                user_code_digest: format!("u{n}"),
                client_id: "public".into(),
                scopes: "user".into(),
                resources: String::new(),
                status: "pending".into(),
                poll_interval: 5000,
                next_poll_at: now,
                ip_prefix: Some("192.0.2.0/24".into()),
                user_id: None,
                session_id: None,
                grant_id: None,
                auth_time: None,
                acr: None,
                amr: None,
                pepper_id: "p".into(),
                created_at: now,
                expires_at: now + 900_000,
            };
            // Each node writes its units in transactions of its own.
            let mut tx = plane.db.write_tx().await.unwrap();
            for guard in device_opened(&row, 10) {
                if !guard.holds_in(&mut tx).await.unwrap() {
                    tx.rollback().await.unwrap();
                    return false;
                }
            }
            tx.commit().await.unwrap();
            true
        });
        assert_eq!(opened.await, 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_102_a_bridge_has_a_hundred_hosts_however_many_are_set_at_once() {
    for plane in planes().await.map(Arc::new) {
        let set = let_in(&plane, 120, |plane, n| async move {
            let hosts = BridgeHostPrefsRepository::new(plane.state.db.clone());
            hosts.set(plane.bob.as_str(), &format!("host-{n}"), true).await.unwrap()
        });
        assert_eq!(set.await, 100);
        let hosts = BridgeHostPrefsRepository::new(plane.state.db.clone());
        let known = "SELECT COUNT(*) FROM bridge_host_prefs WHERE enabled = 0";
        for n in 0..120 {
            hosts.set(plane.bob.as_str(), &format!("host-{n}"), false).await.unwrap();
        }
        assert_eq!(plane.count(known).await, 100, "a host that is known changes all the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_a_network_that_names_unknown_documents_uses_up_its_own_share_alone() {
    for plane in planes().await {
        let (clients, now) = (&plane.state.clients, plane.clock.now());
        let (here, mut there) = (context(), context());
        there.client_ip = "198.51.100.9".parse().ok();
        let network = ip_prefix(&here).unwrap();
        for _ in 0..5 {
            assert!(clients.take_newcomer(&network, now).await.unwrap());
        }
        assert!(!clients.take_newcomer(&network, now).await.unwrap(), "five at once");
        // Nobody listens there, which is another matter than not being asked.
        let unknown = "https://localhost:1/document";
        let fetched = "SELECT COUNT(*) FROM oauth_fetch_budget WHERE name = 'localhost'";
        let refused = plane.state.client_named(&here, unknown).await;
        assert!(matches!(refused, Err(OauthError::Throttled { retry_after: 1 })));
        assert_eq!(plane.count(fetched).await, 0, "and nobody was asked for it");
        assert!(plane.state.client_named(&here, "public").await.unwrap().is_some(), "no document, no share");
        assert!(plane.state.client_named(&there, unknown).await.unwrap().is_none());
        assert_eq!(plane.count(fetched).await, 1, "another network has a share of its own");
        plane.clock.advance(1000);
        assert!(clients.take_newcomer(&network, plane.clock.now()).await.unwrap());
        assert!(!clients.take_newcomer(&network, plane.clock.now()).await.unwrap(), "one more a second");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_68_the_pushed_requests_of_a_client_that_wait_are_bounded_where_they_are_stored() {
    for plane in planes().await {
        let store = async |n: usize, client: &str, now: i64| {
            let digest = format!("{n:064}");
            let row = (client, "scope=user", "p");
            plane.state.oauth.store_pushed(&digest, row, (now, now + 90_000), 3).await.unwrap()
        };
        let now = plane.clock.now();
        for n in 0..3 {
            assert!(store(n, "public", now).await);
        }
        assert!(!store(3, "public", now).await, "three wait");
        assert!(store(4, "other", now).await, "another client's are its own");
        let digest = format!("{:064}", 1);
        let taken = plane.state.oauth.take_pushed((&digest, &digest), "public", now).await.unwrap();
        assert_eq!(taken.as_deref(), Some("scope=user"));
        assert!(store(5, "public", now).await && !store(6, "public", now).await, "one was used");
        assert!(store(7, "public", now + 90_000).await, "what has expired waits no more");

        let plane = Arc::new(plane);
        let stored = let_in(&plane, 20, move |plane, n| async move {
            let (digest, times) = (format!("{:064}", 100 + n), (now, now + 90_000));
            plane.state.oauth.store_pushed(&digest, ("acme-ci", "scope=user", "p"), times, 5).await.unwrap()
        });
        assert_eq!(stored.await, 5, "at once");
    }
}
