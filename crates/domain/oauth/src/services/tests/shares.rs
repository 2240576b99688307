//! What strangers make us fetch: each network has its share, whichever endpoint they name a document at (ID-26).

use super::plane::{Plane, context, planes, word};
use crate::models::cimd::StoredDocument;
use crate::services::http::Parameters;
use crate::services::logout::logout;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use systemprompt_net::HostRules;
use systemprompt_net::testing::{Stub, untrusted};

/// Calls of one network, ten a second: what all networks together may cause.
const CALLS: usize = 150;
/// What one network has at once, and within the fifteen seconds of the calls.
const SHARE: usize = 5 + 15;

async fn fetches(plane: &Plane) -> usize {
    plane.records("oauth.cimd.refused").await.len()
}

fn document(n: usize) -> String {
    format!("https://h{n}.test/client.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_an_assertion_of_nobody_takes_its_fetch_from_the_share_of_its_network() {
    for mut plane in planes().await {
        plane.fetches_by(untrusted(Stub::of(&[]), HostRules::default()).unwrap());
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for n in 0..CALLS {
            let id = document(n);
            let unsigned =
                format!("{}.{}.AA", part(json!({"alg": "ES256"})), part(json!({"iss": id, "sub": id})));
            let form = format!(
                "grant_type=client_credentials&scope=user&client_assertion={unsigned}\
                 &client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            );
            let answer = word(&plane.token(None, &form).await);
            assert!(["invalid_client", "temporarily_unavailable"].contains(&answer), "{answer}");
            plane.clock.advance(100);
        }
        assert!((5..=SHARE).contains(&fetches(&plane).await), "{}", fetches(&plane).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_26_a_sign_out_fetches_no_document_that_nobody_came_with() {
    for mut plane in planes().await {
        plane.fetches_by(untrusted(Stub::of(&[]), HostRules::default()).unwrap());
        let sign_out = async |n: usize| {
            let form = format!("client_id={}&post_logout_redirect_uri=https://a.example/", document(n));
            let parameters = Parameters::parse(form.as_bytes()).unwrap();
            word(&logout(&plane.state, &context(), None, &parameters, false).await)
        };
        for n in 0..20 {
            assert_eq!(sign_out(n).await, "invalid_request", "not registered, and not too much");
        }
        assert_eq!(fetches(&plane).await, 0);
        assert_eq!(plane.count("SELECT COUNT(*) FROM oauth_fetch_budget").await, 0);
        // Those that were kept once and are stale must be fetched anew: within the share.
        for n in 0..CALLS {
            let stale = StoredDocument {
                url: document(n),
                document: "{}".to_owned(),
                metadata_digest: String::new(),
                fetched_at: 0,
                fresh_until: 0,
                has_logo: false,
            };
            plane.state.clients.store_document(&stale, None, false).await.unwrap();
            sign_out(n).await;
            plane.clock.advance(100);
        }
        assert!((5..=SHARE).contains(&fetches(&plane).await), "{}", fetches(&plane).await);
    }
}
