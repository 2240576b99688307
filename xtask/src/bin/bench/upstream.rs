//! What the product is measured beside: a model upstream that answers from memory, and a bare pass-through proxy of the same
//! HTTP stack (axum in front, reqwest behind; the body read whole, the answer streamed back).

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use axum::{Router, routing};
use futures_util::stream;
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use tokio::net::TcpListener;

/// Text deltas of a streamed answer.
const DELTAS: usize = 32;

/// One of the two, as a process of its own. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Beside {
    child: Child,
    pub address: SocketAddr,
}

impl Beside {
    pub fn upstream() -> Result<Self> {
        Self::start(&["serve-upstream"])
    }

    pub fn proxy(upstream: SocketAddr) -> Result<Self> {
        Self::start(&["serve-proxy", &format!("http://{upstream}")])
    }

    /// A handler without an edge.
    pub fn bare() -> Result<Self> {
        Self::start(&["serve-bare"])
    }

    fn start(args: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?).args(args).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its standard output")?).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("{args:?} said {line:?}"))?;
        Ok(Self { child, address })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the upstream until it is killed.
pub fn serve() -> Result<()> {
    let router = Router::new().route("/v1/messages", routing::post(answer)).layer(no_limit());
    listen(router.with_state(()))
}

/// Serves the proxy to the upstream that the first argument names, until it is killed.
pub fn proxy(args: &[String]) -> Result<()> {
    let upstream = args.first().context("serve-proxy URL")?.clone();
    #[expect(clippy::disallowed_methods, reason = "the bare client is what the product's is compared with")]
    let client = reqwest::Client::builder().no_proxy().build()?;
    let state = Proxy { client, upstream };
    listen(Router::new().route("/v1/messages", routing::post(pass)).layer(no_limit()).with_state(state))
}

/// Serves a key set from memory until it is killed.
pub fn bare() -> Result<()> {
    let keys = || async { ([(header::CONTENT_TYPE, "application/json")], KEYS) };
    listen(Router::new().route(crate::edge::PATH, routing::get(keys)).with_state(()))
}

/// As long as what the product publishes: one RSA key of 2,048 bits and one Ed25519 key.
const KEYS: &str = r#"{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"},{"kty":"OKP","use":"sig","alg":"EdDSA","crv":"Ed25519","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn no_limit() -> axum::extract::DefaultBodyLimit {
    axum::extract::DefaultBodyLimit::disable()
}

fn listen(router: Router) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        // Without it an answer of several frames waits 40 ms for the client's acknowledgement.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, router).await.context("serving")
    })
}

async fn answer(body: Bytes) -> Response {
    let head = body.get(..body.len().min(256)).unwrap_or_default();
    let is_streamed = String::from_utf8_lossy(head).contains("\"stream\":true");
    if is_streamed {
        let frames = stream::iter(events().into_iter().map(Ok::<_, Infallible>));
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(frames)).into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], MESSAGE).into_response()
    }
}

const MESSAGE: &str = r#"{"id":"msg_01","type":"message","role":"assistant","model":"bench","content":[{"type":"text","text":"The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":24}}"#;

/// The events of a streamed answer, in the order of the Messages API.
fn events() -> Vec<Bytes> {
    let event = |name: &str, data: &str| Bytes::from(format!("event: {name}\ndata: {data}\n\n"));
    let mut events = vec![
        event(
            "message_start",
            r#"{"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","model":"bench","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"output_tokens":1}}}"#,
        ),
        event(
            "content_block_start",
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ),
        event("ping", r#"{"type":"ping"}"#),
    ];
    let delta = event(
        "content_block_delta",
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"The quick brown fox "}}"#,
    );
    events.extend(std::iter::repeat_n(delta, DELTAS));
    events.push(event("content_block_stop", r#"{"type":"content_block_stop","index":0}"#));
    events.push(event("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":160}}"#));
    events.push(event("message_stop", r#"{"type":"message_stop"}"#));
    events
}

#[derive(Clone)]
struct Proxy {
    client: reqwest::Client,
    upstream: String,
}

async fn pass(State(proxy): State<Proxy>, headers: HeaderMap, body: Bytes) -> Response {
    let mut request = proxy.client.post(format!("{}/v1/messages", proxy.upstream)).body(body);
    for (name, value) in headers.iter().filter(|(name, _)| !is_hop(name)) {
        request = request.header(name, value);
    }
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Body::from_stream(answer.bytes_stream()).into_response();
    *response.status_mut() = status;
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn is_hop(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING].contains(name)
}
