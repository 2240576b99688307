//! The edge stack, in order, with the reason for each position. Everything from outside passes `Edge` before a handler sees
//! it, and every answer, refusals included, leaves through it.

use super::metrics::Metrics;
use super::route::{Access, Route, RouteSpec};
use crate::error::Refused;
use crate::extract;
use crate::services::middleware::rate_limit::RateLimit;
use crate::services::middleware::scanner::{self, BLOCKED_REASON};
use crate::services::middleware::security_headers::SecurityHeaders;
use crate::services::middleware::trailing_slash::{self, Slash};
use crate::services::middleware::{auth, client_ip, request_shape, trace};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use systemprompt_models::envelope::Envelope;
use systemprompt_models::hook::EventName;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Code, Principal, RateLimitTier, Refusal, RequestContext};
use systemprompt_runtime::AppContext;

/// Header that names the outcome of a decision endpoint.
pub const DECISION_HEADER: &str = "x-systemprompt-decision";
/// Header that says why a request was blocked.
const BLOCKED_HEADER: &str = "x-blocked-reason";

/// What the edge works with.
pub struct Edge {
    context: AppContext,
    routes: Vec<RouteSpec>,
    table: matchit::Router<Vec<(Method, usize)>>,
    headers: SecurityHeaders,
    rate_limit: RateLimit,
    metrics: Arc<Metrics>,
}

/// Why a list of routes is none.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("two routes answer {0} {1}")]
    Duplicate(Method, &'static str),
    #[error("the route {path} does not fit the others")]
    Conflict { path: &'static str, source: matchit::InsertError },
}

/// Builds the router of `routes` behind the edge.
///
/// # Errors
/// Two routes with one method and path, or paths that exclude each other.
pub fn build(context: &AppContext, routes: Vec<Route>, metrics: Arc<Metrics>) -> Result<Router, RouteError> {
    let profile = &context.config().profile;
    let mut router = Router::new();
    let mut by_path: Vec<(&'static str, Vec<(Method, usize)>)> = Vec::new();
    let mut specs = Vec::with_capacity(routes.len());
    for (index, route) in routes.into_iter().enumerate() {
        let (path, method) = (route.spec.path, route.spec.method.clone());
        match by_path.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) if methods.iter().any(|(m, _)| *m == method) => {
                return Err(RouteError::Duplicate(method, path));
            }
            Some((_, methods)) => methods.push((method, index)),
            None => by_path.push((path, vec![(method, index)])),
        }
        router = router.route(path, route.handler);
        specs.push(route.spec);
    }
    let mut table = matchit::Router::new();
    for (path, methods) in by_path {
        table.insert(path, methods).map_err(|source| RouteError::Conflict { path, source })?;
    }
    let edge = Arc::new(Edge {
        headers: SecurityHeaders::new(&profile.api_external_url(), &profile.server.security_headers),
        rate_limit: RateLimit::new(&profile.rate_limits),
        context: context.clone(),
        routes: specs,
        table,
        metrics,
    });
    // Bodies are bounded by the edge, for each route by its own limit.
    let router = router.layer(DefaultBodyLimit::disable()).with_state(context.clone());
    Ok(Router::new().fallback_service(router).layer(from_fn_with_state(edge, edge_layer)))
}

async fn edge_layer(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    edge.serve(request, next).await
}

/// What is known of a request once it may pass.
struct Admitted {
    signed_in: bool,
}

/// Why a request does not reach a handler.
enum Stop {
    Refuse(Refusal),
    /// 405, with the methods that the path has.
    Method(String),
    Redirect(String),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl Edge {
    async fn serve(&self, mut request: Request, next: Next) -> Response {
        let started = Instant::now();
        // 1. The trace id comes first, so that every answer carries it, whatever happens behind.
        let trace_id = trace::assign(request.headers());
        let method = request.method().clone();
        let ends = request.version() < Version::HTTP_2 && request_shape::is_framed_oddly(&request);
        let found = self.find(&method, request.uri().path());
        let envelope = found.map_or_else(|| envelope_of(request.uri().path()), |route| route.envelope);
        let event = (envelope == Envelope::Hook).then(|| overhear(&mut request));
        // 2. The panic guard stands around all else: a panic is an answer like any other, in the route's own protocol.
        let guarded = AssertUnwindSafe(self.pass(request, next, found, &trace_id)).catch_unwind().await;
        let (mut response, signed_in) = guarded.unwrap_or_else(|_| {
            tracing::error!(trace_id = %trace_id, "a handler panicked");
            (crate::Error(Refusal::internal()).into_response(), false)
        });
        if let Some(Refused(refusal)) = response.extensions_mut().remove::<Refused>() {
            self.metrics.refused(refusal.code);
            let cookies = response.headers_mut().remove(header::SET_COOKIE);
            let event = event.as_deref().and_then(OnceLock::get).map(String::as_str);
            response = render(envelope, event, refusal.with_trace(trace_id.clone()));
            if let Some(cookies) = cookies {
                response.headers_mut().insert(header::SET_COOKIE, cookies);
            }
        }
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(trace_id.as_str()) {
            headers.insert(trace::TRACE_HEADER, value);
        }
        if ends {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // 4. Security headers leave with every answer (their place on the way in is behind the client's address).
        self.headers.apply(headers, signed_in);
        if !matches!(found.map(|r| r.access), Some(Access::Probe)) {
            let route = found.map_or("(none)", |route| route.path);
            self.metrics.answered(route, &method, response.status().as_u16(), started.elapsed());
        }
        response
    }

    /// The route of a method and path. HEAD is answered by GET where it has no route of its own.
    fn find(&self, method: &Method, path: &str) -> Option<&RouteSpec> {
        let bare = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let methods = self.table.at(if bare.is_empty() { "/" } else { bare }).ok()?.value;
        let of = |wanted: &Method| methods.iter().find(|(m, _)| m == wanted);
        let fallback = || (*method == Method::HEAD).then(|| of(&Method::GET)).flatten();
        of(method).or_else(fallback).and_then(|(_, index)| self.routes.get(*index))
    }

    async fn pass(
        &self,
        mut request: Request,
        next: Next,
        found: Option<&RouteSpec>,
        trace_id: &TraceId,
    ) -> (Response, bool) {
        let stop = match self.admit(&mut request, found, trace_id).await {
            Ok(admitted) => return (next.run(request).await, admitted.signed_in),
            Err(stop) => stop,
        };
        // A client that is still sending sees a broken pipe instead of its answer, and a hook client goes on then.
        discard(std::mem::take(request.body_mut())).await;
        let response = match stop {
            Stop::Refuse(refusal) => {
                let mut response = crate::Error(refusal).into_response();
                auth::clear_bad_cookie(&mut response);
                response
            }
            Stop::Method(allow) => {
                let refusal = Refusal::new(Code::MethodNotAllowed, format!("this path takes {allow}"));
                crate::Error(refusal).into_response()
            }
            Stop::Redirect(location) => {
                let location = HeaderValue::from_str(&location).unwrap_or(HeaderValue::from_static("/"));
                ([(header::LOCATION, location)], StatusCode::PERMANENT_REDIRECT).into_response()
            }
        };
        (response, false)
    }

    async fn admit(
        &self,
        request: &mut Request,
        found: Option<&RouteSpec>,
        trace_id: &TraceId,
    ) -> Result<Admitted, Stop> {
        let config = self.context.config();
        let profile = &config.profile;
        // 3. The client's address, before anything counts or records by it; then names that only our own hops may set go.
        let peer = request
            .extensions()
            .get::<SocketAddr>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip);
        let client_ip = client_ip::resolve(peer, request.headers(), &profile.server.trusted_proxies);
        request_shape::strip_internal(request.headers_mut());
        // 5. The form of the request and the size of its body: cheap, and nothing behind has to wonder how to read it.
        request_shape::check(request)?;
        self.check_host(request, peer)?;
        // 6. The scanner's path rule: only a path without a route can be a probe.
        if found.is_none() {
            scanner::check(&profile.security.scanner, request.uri().path())?;
        }
        // 7. Trailing slash: behind the scanner, so that a probe is never redirected.
        settle_slash(request, found)?;
        let Some(route) = found else { return Err(self.no_route(request)) };
        bound_body(request, route.body_limit.unwrap_or_else(|| profile.server.body_limit.as_usize()))?;
        if route.envelope == Envelope::Mcp {
            self.check_origin(request)?;
        }
        // 8a. Rate limit per address, where nobody signs in; credentials that must be checked anew are counted below.
        let address = client_ip::key(client_ip);
        if let (Access::Public, Some(group)) = (route.access, route.group) {
            self.rate_limit.check(group, RateLimitTier::Anon, address)?;
        }
        // 9. Authentication, behind the limit that protects it.
        let principal = match route.access {
            Access::Public | Access::Probe => Arc::new(Principal::anonymous()),
            Access::Signed { surface, mode, .. } => {
                let head = (request.method(), request.headers());
                auth::authenticate(&self.context, &self.rate_limit, head, surface, mode, address).await?
            }
        };
        // 8b. Rate limit per principal, with the tier of the verified token.
        let signed_in = !principal.is_anonymous();
        if let (Access::Signed { .. }, Some(group)) = (route.access, route.group) {
            self.rate_limit.check(group, principal.tier, principal.user_id.as_str())?;
        }
        // 10. Route authorisation is last: it needs the verified permissions.
        auth::authorize(&principal, route.access)?;
        let mut context = RequestContext::new(principal, trace_id.clone());
        context.client_ip = Some(client_ip);
        request.extensions_mut().insert(context);
        tracing::trace!(route = route.path, "admitted");
        Ok(Admitted { signed_in })
    }

    /// On a loopback bind the Host must be a name of this deployment (DNS rebinding, SEC-14).
    fn check_host(&self, request: &Request, peer: IpAddr) -> Result<(), Refusal> {
        let config = self.context.config();
        if !config.profile.server.host.is_loopback() || peer.is_unspecified() {
            return Ok(());
        }
        let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
        let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
        let Some(host) = host else { return Ok(()) };
        let name = host_name(host);
        let own = [Some(config.profile.api_external_url()), config.profile.server.api_internal_url.clone()];
        let is_own = own.iter().flatten().any(|url| {
            url.parse::<Uri>()
                .ok()
                .and_then(|u| u.host().map(|h| h.eq_ignore_ascii_case(name)))
                .unwrap_or(false)
        });
        if is_own || is_loopback_name(name) {
            return Ok(());
        }
        Err(Refusal::new(Code::HostNotAllowed, "the Host header names another server"))
    }

    /// A browser page of another origin may not talk to an MCP server (MCP-18). Clients that are no browsers send no Origin.
    fn check_origin(&self, request: &Request) -> Result<(), Refusal> {
        let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
        let config = self.context.config();
        let origin = origin.to_str().unwrap_or_default();
        let server = &config.profile.server;
        let is_listed = server.cors_allowed_origins.iter().any(|listed| listed == origin)
            || origin == config.profile.api_external_url();
        let own_port = origin.parse::<Uri>().ok().filter(|uri| {
            uri.host().is_some_and(|host| is_loopback_name(host.trim_matches(['[', ']'])))
                && uri.port_u16() == Some(server.port)
        });
        if is_listed || own_port.is_some() {
            return Ok(());
        }
        Err(Refusal::new(Code::OriginNotAllowed, "the Origin is none of this deployment's"))
    }

    /// A path without a route is 404; one with other methods is 405 and names them.
    fn no_route(&self, request: &Request) -> Stop {
        match self.table.at(request.uri().path()) {
            Ok(found) => {
                let names: Vec<&str> = found.value.iter().map(|(method, _)| method.as_str()).collect();
                Stop::Method(names.join(", "))
            }
            Err(_) => Stop::Refuse(not_found()),
        }
    }
}

fn settle_slash(request: &mut Request, found: Option<&RouteSpec>) -> Result<(), Stop> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let (path, query) = (request.uri().path(), request.uri().query());
    match trailing_slash::decide(safe, path, query) {
        Slash::Keep => Ok(()),
        Slash::NotFound => Err(not_found().into()),
        // Where there is nothing, a redirect would only lead to a 404.
        Slash::Redirect(_) if found.is_none() => Ok(()),
        Slash::Redirect(location) => Err(Stop::Redirect(location)),
        Slash::Rewrite(bare) => {
            let target = query.map_or_else(|| bare.clone(), |query| format!("{bare}?{query}"));
            if let Ok(uri) = target.parse() {
                *request.uri_mut() = uri;
            }
            Ok(())
        }
    }
}

fn not_found() -> Refusal {
    Refusal::new(Code::NotFound, "there is nothing at this path")
}

/// Most bytes of a refused body that are read, and for how long, before the answer is given.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_FOR: Duration = Duration::from_secs(5);

/// Reads a body to its end, or to a bound, and keeps nothing of it.
async fn discard(body: Body) {
    let mut body = Limited::new(body, DISCARD_BYTES);
    let to_end = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD_FOR, to_end).await;
}

/// Checks what the head says of the body, and counts it while it is read.
fn bound_body(request: &mut Request, limit: usize) -> Result<(), Refusal> {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(extract::too_large());
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::new(Code::UnsupportedMediaType, "bodies are taken without Content-Encoding"));
    }
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = Body::new(Limited::new(body, limit));
    Ok(())
}

/// Where the name of a body's hook event stands once the body has come by: a refusal has the form of its event, whoever refuses
/// and whether the body is taken or discarded.
fn overhear(request: &mut Request) -> Arc<OnceLock<String>> {
    let event = Arc::new(OnceLock::new());
    let (heard, mut name) = (Arc::clone(&event), EventName::default());
    let body = std::mem::take(request.body_mut()).map_frame(move |frame| {
        if let (None, Some(data)) = (heard.get(), frame.data_ref()) {
            name.read(data);
            if let Some(found) = name.found() {
                let _ = heard.set(found.to_owned());
            }
        }
        frame
    });
    *request.body_mut() = Body::new(body);
    event
}

/// The protocol of a path that has no route.
fn envelope_of(path: &str) -> Envelope {
    if path == "/v1/messages" || path.starts_with("/v1/messages/") || path.starts_with("/v1/models") {
        Envelope::Anthropic
    } else if path.starts_with("/api/v1/mcp/") && path.ends_with("/mcp") {
        Envelope::Mcp
    } else {
        Envelope::Problem
    }
}

/// The answer of a refusal in its protocol.
fn render(envelope: Envelope, event: Option<&str>, refusal: Refusal) -> Response {
    let rendered = envelope.render_for(&refusal, event);
    let mut response = Response::new(Body::from(rendered.body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    match refusal.code {
        Code::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Code::InvalidToken => {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Code::ScannerBlocked => {
            headers.insert(BLOCKED_HEADER, HeaderValue::from_static(BLOCKED_REASON));
        }
        Code::MethodNotAllowed => {
            let allow = refusal.reason.trim_start_matches("this path takes ").to_owned();
            if let Ok(value) = HeaderValue::from_str(&allow) {
                headers.insert(header::ALLOW, value);
            }
        }
        _ => {}
    }
    match envelope {
        Envelope::Hook => {
            headers.insert(DECISION_HEADER, HeaderValue::from_static("deny"));
        }
        Envelope::Anthropic if refusal.code == Code::Denied => {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        Envelope::Anthropic if rendered.status == 503 => {
            headers.insert("x-should-retry", HeaderValue::from_static("true"));
        }
        _ => {}
    }
    if let Some(id) = &refusal.decision_id
        && let Ok(value) = HeaderValue::from_str(id.as_str())
    {
        headers.insert("x-systemprompt-decision-id", value);
    }
    response
}

/// The name in a `Host`, without port and brackets.
fn host_name(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split(']').next().unwrap_or(inner);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_lose_port_and_brackets() {
        for (host, name, loopback) in [
            ("localhost:8080", "localhost", true),
            ("127.0.0.1:1", "127.0.0.1", true),
            ("[::1]:8080", "::1", true),
            ("evil.example", "evil.example", false),
            ("127.0.0.1.evil.example", "127.0.0.1.evil.example", false),
            ("10.0.0.1:80", "10.0.0.1", false),
        ] {
            assert_eq!(host_name(host), name);
            assert_eq!(is_loopback_name(host_name(host)), loopback, "{host}");
        }
    }
}
