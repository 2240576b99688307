//! Fetching of metadata documents: whom it connects to, what is kept, and what is counted.

use crate::models::cimd::StoredDocument;
use crate::repository::client::documents::MAX_DOCUMENTS;
use crate::services::clients::metadata_digest;
use crate::services::tests::plane::{Plane, START, at_once, context, planes, planes_with, word};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use systemprompt_database::on_tx;
use systemprompt_models::Millis;
use systemprompt_net::HostRules;
use systemprompt_net::testing::{Stub, untrusted};
use systemprompt_security::keys::SigningAlgorithm;
use tokio::net::TcpListener;

/// A listener that counts who connects, and answers nobody: its port and the count.
async fn counting() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a23_a_name_that_rebinds_to_this_computer_or_maps_it_into_ipv6_is_never_connected_to() {
    let (port, connected) = counting().await;
    for mut plane in planes().await {
        let rows: &[(&'static str, &[&[&str]])] = &[
            ("rebinds.test", &[&["192.0.2.1"], &["127.0.0.1"]]),
            ("both.test", &[&["8.8.8.8", "127.0.0.1"]]),
            ("mapped.test", &[&["::ffff:127.0.0.1"]]),
            ("compatible.test", &[&["::127.0.0.1"]]),
            ("nat64.test", &[&["64:ff9b::7f00:1"]]),
            ("private.test", &[&["10.0.0.1"]]),
        ];
        plane.fetches_by(untrusted(Stub::of(rows), HostRules::default()).unwrap());
        for (host, _) in rows {
            let client = format!("https://{host}:{port}/client.json");
            for _ in 0..2 {
                assert!(plane.state.client(&client).await.unwrap().is_none(), "{host}");
                plane.clock.advance(1000);
            }
        }
        let refused = plane.records("oauth.cimd.refused").await;
        assert_eq!(refused.len(), 2 * rows.len());
        assert!(refused.iter().all(|record| record["reason"] == "address_not_allowed"), "{refused:?}");
        let fetches = plane.state.meter.read().cimd_fetches;
        assert_eq!(fetches.into_iter().collect::<Vec<_>>(), [("address_not_allowed", 12)]);
    }
    assert_eq!(connected.load(Ordering::SeqCst), 0);
}

/// The name leads to an address that is allowed, and the next time to one that is not: the address that was checked is the one that is
/// connected to, since a second look-up before the connection would find the other one. What is allowed is this computer, which a
/// local deployment may ask.
#[tokio::test(flavor = "multi_thread")]
async fn a23_a_name_is_looked_up_once_and_connected_to_where_it_was_checked() {
    for mut plane in planes().await {
        let (port, connected) = counting().await;
        let names = Stub::of(&[("turns.test", &[&["127.0.0.1"], &["10.0.0.1"]])]);
        plane.fetches_by(untrusted(names, HostRules::default().with_loopback()).unwrap());
        let client = format!("https://turns.test:{port}/client.json");
        for (reason, connections) in [("connection", 1), ("address_not_allowed", 1)] {
            assert!(plane.state.client(&client).await.unwrap().is_none());
            assert_eq!(connected.load(Ordering::SeqCst), connections, "{reason}");
            let told = plane.records("oauth.cimd.refused").await.pop().unwrap();
            assert_eq!(told["reason"], reason);
            plane.clock.advance(1000);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_of_too_many_documents_those_go_that_were_not_used_for_the_longest_time() {
    for plane in planes().await {
        let mut tx = plane.db.write_tx().await.unwrap();
        // Numbers from 1 up to the bound, each used one millisecond after the one before.
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_cimd_documents (url, document, metadata_digest, fetched_at, fresh_until, last_used_at)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
             SELECT 'https://old.example/' || i, '{}', '', 0, 0, i FROM n"
        ).bind(MAX_DOCUMENTS).execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        plane.state.clients.touch_document("https://old.example/1", START, START).await.unwrap();
        let new = StoredDocument {
            url: "https://new.example/c".to_owned(),
            document: "{}".to_owned(),
            metadata_digest: String::new(),
            fetched_at: START,
            fresh_until: START,
            has_logo: false,
        };
        plane.state.clients.store_document(&new, None, false).await.unwrap();
        assert_eq!(plane.count("SELECT COUNT(*) FROM oauth_cimd_documents").await, MAX_DOCUMENTS);
        for (url, is_kept) in [
            ("https://new.example/c", true),
            ("https://old.example/1", true),
            ("https://old.example/2", false),
            ("https://old.example/3", true),
        ] {
            assert_eq!(plane.state.clients.document(url).await.unwrap().is_some(), is_kept, "{url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_111_sessions_and_registered_clients_are_measured() {
    for plane in planes().await {
        plane.state.measure().await.unwrap();
        let counts = plane.state.meter.read();
        assert_eq!((counts.sessions_active, counts.clients_registered), (1, 0), "bob's browser");
        plane.change("UPDATE oauth_clients SET kind = 'registered' WHERE client_id = 'other'").await;
        plane.change("UPDATE user_sessions SET revoked_at = 1").await;
        plane.state.measure().await.unwrap();
        let counts = plane.state.meter.read();
        assert_eq!((counts.sessions_active, counts.clients_registered), (0, 1));
        assert_eq!(counts.clients_registered_max, 10_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_27_a_host_that_is_not_allowed_is_on_record_and_not_asked() {
    let closed = |settings: &mut crate::Settings| {
        settings.identity.cimd.allow_hosts = vec!["*.good.example".into()];
        settings.identity.cimd.deny_hosts = vec!["bad.good.example".into()];
    };
    for mut plane in planes_with(closed).await {
        plane.fetches_by(untrusted(Stub::of(&[]), HostRules::default()).unwrap());
        let ask = async |host: &str| {
            let found = plane.state.client_named(&context(), &format!("https://{host}/c.json")).await;
            assert!(found.unwrap().is_none(), "{host}");
            plane.clock.advance(10_000);
            plane.records("oauth.cimd.refused").await.pop().unwrap()
        };
        for (host, reason) in [
            ("elsewhere.example", "host_not_allowed"),
            ("bad.good.example", "host_not_allowed"),
            ("app.good.example", "unresolved"),
        ] {
            let told = ask(host).await;
            assert_eq!((&told["detail"]["host"], &told["reason"]), (&json!(host), &json!(reason)));
        }
        // Nobody fills the ledger with names: of one network ten a minute are told one by one.
        plane.clock.advance(60_000);
        drop(plane.state.refusals.take(plane.state.now()));
        let before = plane.records("oauth.cimd.refused").await.len();
        for n in 0..15 {
            let id = format!("https://n{n}.example/c.json");
            assert!(plane.state.client_named(&context(), &id).await.unwrap().is_none());
        }
        assert_eq!(plane.records("oauth.cimd.refused").await.len() - before, 10);
        let rest = plane.state.refusals.take(plane.state.now() + 60_000);
        assert_eq!(rest.len(), 1, "and five in one");
    }
}

/// A document that was kept for `url` until `fresh_until`.
async fn kept(plane: &Plane, url: &str, fresh_until: Millis) {
    let document =
        json!({"client_id": url, "client_name": "App", "redirect_uris": ["https://app.example/cb"]});
    let stored = StoredDocument {
        url: url.to_owned(),
        document: document.to_string(),
        metadata_digest: "before".to_owned(),
        fetched_at: START - 60_000,
        fresh_until,
        has_logo: false,
    };
    plane.state.clients.store_document(&stored, None, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_documents_are_counted_among_those_that_need_a_key() {
    for plane in planes().await {
        let count = async |algorithm| plane.state.clients_signed_with(algorithm).await.unwrap();
        let before = count(SigningAlgorithm::Rs256).await;
        kept(&plane, "https://one.example/c.json", START + 1000).await;
        assert_eq!(
            (count(SigningAlgorithm::Rs256).await, count(SigningAlgorithm::Es256).await),
            (before + 1, 0)
        );
        let url = "https://two.example/c.json";
        let document = json!({
            "client_id": url, "client_name": "App", "redirect_uris": ["https://app.example/cb"],
            "id_token_signed_response_alg": "ES256",
        });
        let es256 = StoredDocument {
            url: url.to_owned(),
            document: document.to_string(),
            metadata_digest: String::new(),
            fetched_at: START,
            fresh_until: START,
            has_logo: false,
        };
        plane.state.clients.store_document(&es256, None, false).await.unwrap();
        assert_eq!(
            (count(SigningAlgorithm::Rs256).await, count(SigningAlgorithm::Es256).await),
            (before + 1, 1)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_a_stale_document_is_not_used_when_its_refresh_fails() {
    for mut plane in planes().await {
        plane.fetches_by(untrusted(Stub::of(&[]), HostRules::default()).unwrap());
        let url = "https://gone.example/client.json";
        kept(&plane, url, START + 1000).await;
        assert!(plane.state.client(url).await.unwrap().is_some(), "it is fresh");
        assert!(plane.records("oauth.cimd.refused").await.is_empty());
        plane.clock.advance(1000);
        assert!(plane.state.client(url).await.unwrap().is_none());
        let told = plane.records("oauth.cimd.refused").await.pop().unwrap();
        assert_eq!(told["detail"]["cache_age_s"], 61);
        assert_eq!(told["detail"]["host"], "gone.example");
        assert!(plane.state.clients.document(url).await.unwrap().is_some(), "and is refreshed the next time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_one_fetch_of_an_address_is_under_way_at_a_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&open), Arc::clone(&most));
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            #[expect(clippy::disallowed_methods, reason = "the test's own server")]
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                counted.fetch_sub(1, Ordering::SeqCst);
                drop(socket);
            });
        }
    });
    let mut plane = planes().await.into_iter().next().unwrap();
    let names = Stub::of(&[("slow.test", &[&["127.0.0.1"]])]);
    plane.fetches_by(untrusted(names, HostRules::default().with_loopback()).unwrap());
    let plane = Arc::new(plane);
    let answers =
        at_once(8, || {
            let plane = Arc::clone(&plane);
            async move {
                plane.state.client(&format!("https://slow.test:{port}/c.json")).await.map(|c| c.is_some())
            }
        })
        .await;
    assert!(answers.iter().all(|answer| !matches!(answer, Ok(true))));
    let refused = answers.iter().filter(|answer| word(answer) == "temporarily_unavailable").count();
    assert_eq!(
        (refused, most.load(Ordering::SeqCst)),
        (3, 1),
        "five a host at once, and one after the other"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_what_a_person_was_shown_of_a_client_is_in_its_digest() {
    let url = "https://app.example/client.json";
    let digest = |changes: Value| {
        let mut document = json!({
            "client_id": url, "client_name": "App", "redirect_uris": ["https://app.example/cb"], "scope": "user",
            "logo_uri": "https://app.example/a.png", "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": "https://app.example/keys", "contacts": ["a@app.example"],
        });
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let read = super::validator::read(url, document.to_string().as_bytes());
        metadata_digest(&read.unwrap_or_else(|fault| panic!("{changes}: {}", fault.reason())))
    };
    let before = digest(json!({}));
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    for changed in [
        json!({"redirect_uris": ["https://app.example/cb", "https://app.example/2"]}),
        json!({"token_endpoint_auth_method": "none"}),
        json!({"jwks_uri": "https://app.example/other"}),
        json!({"jwks_uri": null, "jwks": set}),
        json!({"scope": "user mcp"}),
        json!({"client_name": "Apq"}),
        json!({"logo_uri": "https://app.example/b.png"}),
    ] {
        assert_ne!(digest(changed.clone()), before, "{changed}");
    }
    for same in
        [json!({"contacts": ["b@app.example"]}), json!({"future_member": 1}), json!({"scope": "user user"})]
    {
        assert_eq!(digest(same.clone()), before, "{same}");
    }
}
