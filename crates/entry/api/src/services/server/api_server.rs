//! The server as a library: a context in, a served deployment out.

use super::builder;
use super::metrics::Metrics;
use super::openapi;
use super::runner::Server;
use super::table::RouteError;
use crate::routes;
use axum::Router;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_runtime::AppContext;
use tokio::net::TcpListener;

/// Which step of the start failed, why, and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("listen: {address} cannot be bound; choose another with --port or server.port")]
    Listen { address: String, source: io::Error },
    #[error("routes: {0}")]
    Routes(#[from] RouteError),
}

/// A server of one context. Several live in one process without sharing state.
#[derive(Debug)]
pub struct ApiServer {
    context: AppContext,
    router: Router,
    listener: Option<TcpListener>,
}

/// Builds an [`ApiServer`].
#[derive(Debug)]
pub struct ApiServerBuilder {
    context: AppContext,
    listener: Option<TcpListener>,
}

impl ApiServer {
    pub fn builder(context: AppContext) -> ApiServerBuilder {
        ApiServerBuilder { context, listener: None }
    }

    /// The router behind the whole edge stack; for tests, which call it without a connection.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The address of the listener that was handed over, if one was.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let config = self.context.config();
        let server_config = &config.profile.server;
        let address = || format!("{}:{}", server_config.host, server_config.port);
        let data_dir = config.paths.data_dir();
        let bound = match self.listener {
            Some(listener) => match Server::listen(listener, server_config) {
                Ok(server) => server.with_internal(server_config, data_dir).await,
                Err(error) => Err(error),
            },
            None => Server::bind(server_config, server_config.port, data_dir).await,
        };
        let server = bound.map_err(|source| ServerError::Listen { address: address(), source })?;
        server.state().open(self.router);
        self.context.set_ready();
        shutdown.await;
        stop(&self.context, server).await;
        Ok(())
    }
}

impl ApiServerBuilder {
    /// Serves on a listener that is bound already.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// # Errors
    /// Routes that exclude each other.
    pub fn build(self) -> Result<ApiServer, ServerError> {
        let router = router(&self.context)?;
        Ok(ApiServer { context: self.context, router, listener: self.listener })
    }
}

/// The router of a context: every route behind the edge.
///
/// # Errors
/// Routes that exclude each other.
pub fn router(context: &AppContext) -> Result<Router, ServerError> {
    let metrics = Arc::new(Metrics::default());
    let mut all = routes::all(&metrics);
    let mut specs: Vec<_> = all.iter().map(|route| route.spec.clone()).collect();
    let openapi_spec = routes::openapi::spec();
    specs.push(openapi_spec);
    let document = openapi::document(&specs, &context.config().profile.api_external_url());
    all.push(routes::openapi::route(document.to_string()));
    Ok(builder::build(context, all, metrics)?)
}

/// Drains: not ready at once, then no new connections, then what is in flight, then the rooms (PL-12).
pub async fn stop(context: &AppContext, server: Server) {
    let config = context.config();
    context.set_draining();
    tokio::time::sleep(Duration::from_millis(u64::from(config.profile.server.drain_delay_ms))).await;
    let limit = Duration::from_secs(u64::from(config.profile.server.drain_seconds));
    if !server.drain(limit).await {
        tracing::warn!(limit_s = limit.as_secs(), "requests in flight were cut");
    }
    context.close().await;
}

/// Serves a booted context until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// When the server cannot start.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use systemprompt_api::run_server;
/// use systemprompt_runtime::AppContext;
/// let ctx = AppContext::new().await?;
/// run_server(ctx).await?;
/// # Ok(())
/// # }
/// ```
pub async fn run_server(context: AppContext) -> Result<(), ServerError> {
    ApiServer::builder(context).build()?.serve(systemprompt_runtime::shutdown_signal()).await
}
