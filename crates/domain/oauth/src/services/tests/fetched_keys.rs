//! Keys that are fetched while somebody asks for a token: of trusted issuers (ID-60, ID-131) and of clients (ID-26). A caller who goes
//! away changes nothing for the others.

use super::ends::deleted_elsewhere;
use super::exchange::signed;
use super::plane::{Plane, START, context, planes, planes_with, word};
use crate::models::cimd::StoredDocument;
use crate::services::cimd::jwks;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use systemprompt_config::profile::security::TrustedIssuer;
use systemprompt_net::HostRules;
use systemprompt_net::testing::{Stub, untrusted};
use systemprompt_security::keys::{PrivateKey, SigningAlgorithm};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// How long the server takes for an answer.
const SLOW: Duration = Duration::from_millis(400);

/// A server of one document, which takes its time, counts how often it is asked, and may be broken.
struct Slow {
    address: String,
    port: u16,
    asked: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
    _task: tokio::task::JoinSet<()>,
}

impl Slow {
    async fn of(document: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, is_broken) = (Arc::clone(&asked), Arc::clone(&broken));
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let mut buffer = [0; 2048];
                let _ = stream.read(&mut buffer).await;
                tokio::time::sleep(SLOW).await;
                let status = if is_broken.load(Ordering::SeqCst) { 500 } else { 200 };
                let body = document.to_string();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address: format!("http://127.0.0.1:{port}/jwks"), port, asked, broken, _task: task }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An issuer with a key, and a server that trusts it.
async fn issuer() -> (Slow, Plane, TrustedIssuer, String) {
    let (keys, plane, trusted, key) = issuer_with_key().await;
    (keys, plane, trusted, key.kid().to_owned())
}

async fn issuer_with_key() -> (Slow, Plane, TrustedIssuer, PrivateKey) {
    let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
    let keys = Slow::of(json!({"keys": [key.public().to_jwk()]})).await;
    let trusted = json!([{"issuer": "https://idp.example", "jwks_uri": keys.address, "audience": "here",
        "subject_mapping": "provision"}]);
    let [plane, _] =
        planes_with(|settings| settings.trusted_issuers = serde_json::from_value(trusted.clone()).unwrap())
            .await;
    let trusted = plane.state.settings().trusted_issuers[0].clone();
    (keys, plane, trusted, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_a_client_that_ends_while_it_waits_for_an_issuers_keys_gets_nothing() {
    let (keys, plane, trusted, key) = issuer_with_key().await;
    let now = START / 1000;
    let claims = json!({"iss": trusted.issuer, "sub": "s-1", "aud": "here", "iat": now, "exp": now + 600,
        "email": "bob@example.org", "email_verified": true});
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&scope=user&subject_token={}\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt",
        signed(&key, key.kid(), &claims)
    );
    let ends = async {
        while keys.asked() < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        deleted_elsewhere(&plane).await;
        plane.clock.advance(4_000);
    };
    let (refused, ()) = tokio::join!(plane.token(Some("acme-ci"), &form), ends);
    assert_eq!(word(&refused), "invalid_client");
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_a_caller_who_hangs_up_shuts_an_issuer_out_for_nobody() {
    let (keys, plane, trusted, kid) = issuer().await;
    let ask = async || plane.state.issuer_keys.of(&plane.state, &trusted, &kid).await.is_some();
    assert!(tokio::time::timeout(Duration::from_millis(50), ask()).await.is_err(), "hung up");
    assert!(ask().await, "the next one is answered");
    assert_eq!(keys.asked(), 1, "with what the first one has caused");
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_who_finds_their_key_waits_for_no_fetch() {
    let (keys, plane, trusted, kid) = issuer().await;
    let of = async |kid: &str| plane.state.issuer_keys.of(&plane.state, &trusted, kid).await;
    assert!(of(&kid).await.is_some());
    plane.clock.advance(60_000);
    let known = async {
        while keys.asked() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::timeout(SLOW / 2, of(&kid)).await
    };
    let (unknown, known) = tokio::join!(of("another"), known);
    assert!(unknown.is_some(), "the keys that there are");
    assert!(known.is_ok_and(|keys| keys.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_a_fetch_that_failed_for_an_unknown_key_puts_off_none_that_is_due() {
    let (keys, plane, trusted, kid) = issuer().await;
    let of = async |kid: &str| plane.state.issuer_keys.of(&plane.state, &trusted, kid).await;
    assert!(of(&kid).await.is_some());
    plane.clock.advance(570_000);
    keys.broken.store(true, Ordering::SeqCst);
    assert!(of("another").await.is_some() && keys.asked() == 2);
    keys.broken.store(false, Ordering::SeqCst);
    plane.clock.advance(30_000);
    assert!(of(&kid).await.is_some(), "ten minutes old, and read anew");
    assert_eq!(keys.asked(), 3);
    // Once: an issuer that is down is asked once a minute.
    plane.clock.advance(600_000);
    keys.broken.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(of(&kid).await.is_none());
    }
    assert_eq!(keys.asked(), 4);
}

/// A document whose client has its keys at `jwks_uri`, as it was kept.
async fn keep(plane: &Plane, url: &str, jwks_uri: &str) {
    let document = json!({
        "client_id": url, "client_name": "App", "redirect_uris": ["https://app.example/cb"],
        "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": jwks_uri,
    });
    let stored = StoredDocument {
        url: url.to_owned(),
        document: document.to_string(),
        metadata_digest: "before".to_owned(),
        fetched_at: START,
        fresh_until: START + 3_600_000,
        has_logo: false,
    };
    plane.state.clients.store_document(&stored, None, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_an_unsigned_assertion_takes_the_fetch_of_keys_from_the_share_of_its_network() {
    for mut plane in planes().await {
        plane.fetches_by(untrusted(Stub::of(&[]), HostRules::default()).unwrap());
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut refused = 0;
        for n in 0..20 {
            let id = format!("https://h{n}.test/client.json");
            keep(&plane, &id, &format!("https://keys{n}.test/jwks")).await;
            let unsigned =
                format!("{}.{}.AA", part(json!({"alg": "ES256"})), part(json!({"iss": id, "sub": id})));
            let form = format!(
                "grant_type=client_credentials&scope=user&client_assertion={unsigned}\
                 &client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            );
            refused += usize::from(word(&plane.token(None, &form).await) == "temporarily_unavailable");
        }
        let asked = plane.count("SELECT COUNT(*) FROM oauth_fetch_budget WHERE name LIKE 'keys%'").await;
        assert_eq!((asked, refused), (5, 15), "five at once, as for documents");
        let others = plane.state.clients.take_fetch("other.test", plane.state.now()).await.unwrap();
        assert!(others, "others have what is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_a_fetch_of_keys_that_its_caller_left_counts_as_the_one_of_its_minute() {
    let [mut plane, _] = planes().await;
    // It speaks no TLS, so that the fetch fails, after a while.
    let keys = Slow::of(json!({})).await;
    let names = Stub::of(&[("keys.test", &[&["127.0.0.1"]])]);
    plane.fetches_by(untrusted(names, HostRules::default().with_loopback()).unwrap());
    let (uri, caller) = (format!("https://keys.test:{}/jwks", keys.port), context());
    let ask = || jwks::keys(&plane.state, &caller, &uri, |_| false);
    assert!(tokio::time::timeout(Duration::from_millis(50), ask()).await.is_err(), "hung up");
    assert!(ask().await.unwrap().is_none());
    assert_eq!(keys.asked(), 1, "whoever came next found what became of it");
    plane.clock.advance(60_000);
    assert!(ask().await.unwrap().is_none());
    assert_eq!(keys.asked(), 2);
}
