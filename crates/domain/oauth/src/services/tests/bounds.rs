//! What one client or one network may have waiting: a share that is counted where it is taken.

use super::plane::{context, planes};
use crate::error::OauthError;
use crate::services::refusals::ip_prefix;
use systemprompt_models::Clock as _;

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
    }
}
