//! A model upstream over loopback that remembers which requests reached it.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Router, routing};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use systemprompt_tests::Options;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What marks a request in its text, so that the upstream and the test know it by the same name.
pub const MARK: &str = "mark:";

/// An upstream that ends with the test.
pub struct Upstream {
    address: SocketAddr,
    seen: Seen,
    _serving: JoinSet<()>,
}

type Seen = Arc<Mutex<BTreeSet<String>>>;

impl Upstream {
    pub async fn start() -> Self {
        let seen = Seen::default();
        let router = Router::new().route("/v1/messages", routing::post(answer)).with_state(Arc::clone(&seen));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, _serving: serving }
    }

    /// The marks of the requests that arrived.
    pub fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Makes this the upstream of the route `demo`, which the seeded users may take.
    pub fn serve(&self, options: Options) -> Options {
        let base_url = format!("http://{}", self.address);
        let provider =
            json!([{ "name": "upstream", "type": "anthropic", "base_url": base_url, "auth": "none" }]);
        let routes = json!([{ "name": "demo", "model": "*", "targets": [{ "provider": "upstream" }] }]);
        options
            .env("SYSTEMPROMPT__GATEWAY__PROVIDERS", &provider.to_string())
            .env("SYSTEMPROMPT__GATEWAY__ROUTES", &routes.to_string())
            .env("SYSTEMPROMPT__GATEWAY__DEFAULT_ROUTE", "demo")
    }
}

async fn answer(State(seen): State<Seen>, body: Bytes) -> impl IntoResponse {
    let text = String::from_utf8_lossy(&body);
    if let Some((_, rest)) = text.split_once(MARK) {
        let mark = rest.split(['"', ' ']).next().unwrap_or_default();
        seen.lock().unwrap().insert(mark.to_owned());
    }
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "fixture", "stop_reason": "end_turn",
        "stop_sequence": null, "content": [{ "type": "text", "text": "done" }],
        "usage": { "input_tokens": 4, "output_tokens": 1 },
    });
    ([(header::CONTENT_TYPE, "application/json")], message.to_string())
}
