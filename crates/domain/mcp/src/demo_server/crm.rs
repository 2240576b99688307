//! The customer register of the demo: an HTTP API on a loopback port that wants the secret as a bearer token.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use systemprompt_net::egress::{self, Class, Egress, EgressError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once.
const MAX_CONNECTIONS: usize = 32;
/// Longest answer that the client reads.
const MAX_ANSWER: usize = 64 * 1024;

/// The register.
pub(super) struct Crm {
    listener: TcpListener,
    address: SocketAddr,
    register: Arc<Register>,
}

struct Register {
    authorization: Vec<u8>,
    customers: Mutex<BTreeMap<String, Value>>,
}

impl Crm {
    pub(super) async fn start(token: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let register = Register {
            authorization: format!("Bearer {token}").into_bytes(),
            customers: Mutex::new(customers()),
        };
        Ok(Self { listener, address, register: Arc::new(register) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests for ever.
    pub(super) async fn serve(self) -> io::Result<()> {
        let mut connections = JoinSet::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            let (socket, _) = self.listener.accept().await?;
            while connections.try_join_next().is_some() {}
            let register = Arc::clone(&self.register);
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answer = register.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                drop(slot);
            });
        }
    }
}

impl Register {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let presented =
            request.headers().get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
        if verify_slices_are_equal(presented, &self.authorization).is_err() {
            return json_response(StatusCode::UNAUTHORIZED, &json!({"error": "a valid token is needed"}));
        }
        let Some(id) = request.uri().path().strip_prefix("/customers/") else {
            return json_response(StatusCode::NOT_FOUND, &json!({"error": "no such path"}));
        };
        let mut customers = self.customers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match *request.method() {
            Method::GET => customers.get(id).cloned(),
            Method::DELETE => customers.remove(id),
            _ => return json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "GET or DELETE"})),
        };
        match found {
            Some(customer) => json_response(StatusCode::OK, &customer),
            None => json_response(StatusCode::NOT_FOUND, &json!({"error": "no such customer"})),
        }
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn customers() -> BTreeMap<String, Value> {
    let customer = |id: &str, name: &str, city: &str, orders: u32| {
        (id.to_owned(), json!({"id": id, "name": name, "city": city, "open_orders": orders}))
    };
    BTreeMap::from([
        customer("c-1001", "Nordlicht Optik", "Kiel", 3),
        customer("c-1002", "Atelier Verne", "Nantes", 0),
        customer("c-1003", "Harbour & Sons", "Bristol", 7),
    ])
}

/// What the tools use of the register. Holds the secret.
pub(super) struct CrmClient {
    egress: Egress,
    base: String,
    token: String,
}

/// Why the register gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CrmError {
    #[error("the CRM cannot be reached: {0}")]
    Egress(#[from] EgressError),
    #[error("the CRM has no customer of this id")]
    NotFound,
    #[error("the CRM answered with status {0}")]
    Status(u16),
    #[error("the CRM's answer cannot be read")]
    Answer,
}

impl CrmClient {
    pub(super) fn new(address: SocketAddr, token: String) -> Result<Self, EgressError> {
        Ok(Self { egress: egress::client(Class::Loopback)?, base: format!("http://{address}"), token })
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) async fn customer(&self, method: Method, id: &str) -> Result<Value, CrmError> {
        let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string();
        let url = format!("{}/customers/{}", self.base, id.replace("%2D", "-"));
        let request = self.egress.request(method, &url)?.bearer_auth(&self.token);
        let mut response = self.egress.send(request).await?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(CrmError::NotFound),
            status => return Err(CrmError::Status(status)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(EgressError::from)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(CrmError::Answer);
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| CrmError::Answer)
    }
}
