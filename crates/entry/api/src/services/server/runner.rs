//! Connections: bind first, answer probes while booting, serve, drain (PL-6, PL-12).

use super::framing::Framed;
use super::internal::{Internal, InternalListener};
use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_config::profile::server::ServerConfig;
use systemprompt_models::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 16_384;
/// Bytes and fields that a request's head may have.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 100;
const HTTP2_STREAMS: u32 = 256;

/// The router once the boot is done; before, probes and 503.
#[derive(Clone, Default)]
pub struct BootState(Arc<ArcSwapOption<Router>>);

impl std::fmt::Debug for BootState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BootState").field(&self.0.load().is_some()).finish()
    }
}

impl BootState {
    /// Opens the server: from now on requests reach the router.
    pub fn open(&self, router: Router) {
        self.0.store(Some(Arc::new(router)));
    }

    async fn answer(self, mut request: Request<Incoming>, from: Source) -> Response {
        let Some(router) = self.0.load_full() else { return starting(request.uri().path()) };
        request.extensions_mut().insert(from.peer);
        if from.is_internal {
            request.extensions_mut().insert(Internal);
        }
        let answered = Router::clone(&router).oneshot(request.map(Body::new)).await;
        answered.unwrap_or_else(|never| match never {})
    }
}

/// While the node boots it is alive, and nothing else.
fn starting(path: &str) -> Response {
    let (status, body) = if path == "/health/live" {
        (StatusCode::OK, r#"{"status":"ok"}"#)
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"starting","detail":"the node is starting"}"#,
        )
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status != StatusCode::OK {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
struct Source {
    peer: SocketAddr,
    is_internal: bool,
}

/// A bound listener that answers from the first moment, and an internal one beside it if there is to be one.
#[derive(Debug)]
pub struct Server {
    state: BootState,
    address: SocketAddr,
    stop_accepting: CancellationToken,
    connections: Vec<tokio::task::JoinHandle<GracefulShutdown>>,
    /// The socket's file, which goes with the server.
    socket: Option<PathBuf>,
}

impl Server {
    /// Binds what the configuration names, and accepts from now on. Relative paths count from `data_dir`.
    ///
    /// # Errors
    /// When an address or the socket cannot be bound.
    pub async fn bind(config: &ServerConfig, port: u16, data_dir: &Path) -> io::Result<Self> {
        Self::listen(TcpListener::bind((config.host, port)).await?, config)?
            .with_internal(config, data_dir)
            .await
    }

    /// Accepts on a listener that somebody else bound.
    ///
    /// # Errors
    /// When the listener has no local address.
    pub fn listen(listener: TcpListener, config: &ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let mut server = Self {
            state: BootState::default(),
            address,
            stop_accepting: CancellationToken::new(),
            connections: Vec::new(),
            socket: None,
        };
        server.accept_on(Listener::Public(listener), config);
        Ok(server)
    }

    /// Accepts on the internal listener of the configuration too, if it names one.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn with_internal(mut self, config: &ServerConfig, data_dir: &Path) -> io::Result<Self> {
        let Some(address) = &config.internal_listener else { return Ok(self) };
        self.socket = address.socket(data_dir);
        let listener = InternalListener::bind(address, data_dir).await?;
        tracing::info!(address = %address, "listening internally");
        self.accept_on(Listener::Internal(listener), config);
        Ok(self)
    }

    fn accept_on(&mut self, listener: Listener, config: &ServerConfig) {
        let loop_ = accept(listener, builder(config), self.state.clone(), self.stop_accepting.clone());
        #[expect(clippy::disallowed_methods, reason = "`Server::drain` waits for the accept loop itself")]
        self.connections.push(tokio::spawn(loop_));
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub fn state(&self) -> &BootState {
        &self.state
    }

    /// Stops accepting and waits for what is in flight, at most `limit`. Returns whether everything ended by itself.
    pub async fn drain(self, limit: Duration) -> bool {
        self.stop_accepting.cancel();
        let mut ended = true;
        let mut open = Vec::with_capacity(self.connections.len());
        for connections in self.connections {
            match connections.await {
                Ok(connections) => open.push(connections.shutdown()),
                Err(_) => ended = false,
            }
        }
        if let Some(socket) = self.socket {
            let _ = std::fs::remove_file(socket);
        }
        tokio::time::timeout(limit, futures_util::future::join_all(open)).await.is_ok() && ended
    }
}

type Builder = auto::Builder<TokioExecutor>;

fn builder(config: &ServerConfig) -> Builder {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = Duration::from_millis(u64::from(config.header_timeout_ms));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(MAX_HEAD)
        // Without `pipeline_flush`: with it an answer that ends its connection is lost when more was sent than is read.
        .max_headers(MAX_FIELDS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(Duration::from_millis(u64::from(config.keepalive_ms)));
    builder
}

/// Which door a listener is.
enum Listener {
    Public(TcpListener),
    Internal(InternalListener),
}

/// A connection that was taken.
enum Accepted {
    Tcp(TcpStream, Source),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        let tcp = |(stream, peer): (TcpStream, SocketAddr), is_internal| {
            let _ = stream.set_nodelay(true);
            Accepted::Tcp(stream, Source { peer, is_internal })
        };
        match self {
            Self::Public(listener) => listener.accept().await.map(|taken| tcp(taken, false)),
            Self::Internal(InternalListener::Loopback(listener)) => {
                listener.accept().await.map(|taken| tcp(taken, true))
            }
            Self::Internal(InternalListener::Unix(listener)) => {
                listener.accept().await.map(|(stream, _)| Accepted::Unix(stream))
            }
        }
    }
}

async fn accept(
    listener: Listener,
    builder: Builder,
    state: BootState,
    stop: CancellationToken,
) -> GracefulShutdown {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = Tasks::default();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return graceful };
        let accepted = tokio::select! {
            () = stop.cancelled() => return graceful,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(Accepted::Tcp(stream, from)) => {
                let connection = serve(&builder, &graceful, stream, from, state.clone());
                tasks.spawn("connection", keeping(slot, connection));
            }
            Ok(Accepted::Unix(stream)) => {
                // Whoever opens the socket is on this host.
                let from = Source { peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), is_internal: true };
                let connection = serve(&builder, &graceful, stream, from, state.clone());
                tasks.spawn("connection", keeping(slot, connection));
            }
            Err(error) => {
                // Out of descriptors, or a peer that was gone at once: neither may end the loop.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A connection that gives its slot back at its end.
async fn keeping(slot: OwnedSemaphorePermit, connection: impl Future<Output = ()>) {
    connection.await;
    drop(slot);
}

fn serve<S>(
    builder: &Builder,
    graceful: &GracefulShutdown,
    stream: S,
    from: Source,
    state: BootState,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Framed::new(stream);
    let framing = stream.framing();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let state = state.clone();
        request.extensions_mut().insert(framing.clone());
        async move { Ok::<_, std::convert::Infallible>(state.answer(request, from).await) }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "a connection ended early");
        }
    }
}
