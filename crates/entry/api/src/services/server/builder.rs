//! The edge stack, in order, with the reason for each position. Everything from outside passes `Edge` before a handler sees
//! it, and every answer, refusals included, leaves through it.

use super::metrics::Metrics;
use super::refusal::{self, envelope_of};
use super::route::{Access, Route, RouteSpec};
use super::settings::Settings;
use crate::error::Refused;
use crate::extract;
use crate::services::middleware::rate_limit::Quotas;
use crate::services::middleware::throttle::{self, Level, Throttle};
use crate::services::middleware::trailing_slash::{self, Slash};
use crate::services::middleware::{auth, client_ip, cors, request_shape, scanner, trace};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_config::profile::values::Cidr;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::hook::EventName;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Code, Millis, Principal, RateLimitTier, Refusal, RequestContext};
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::AuthMode;
use systemprompt_security::bans::{BanSource, Standing};
use systemprompt_security::jwt::Surface;

/// Requests that are worked on at once, until the heads of their answers.
const MAX_IN_FLIGHT: usize = 4096;
/// What is answered even when nothing else is.
const LIVENESS: &str = "/health/live";
const READINESS: &str = "/health/ready";

/// What the edge works with.
pub struct Edge {
    context: AppContext,
    routes: Vec<RouteSpec>,
    table: matchit::Router<Vec<(Method, usize)>>,
    settings: ArcSwap<Settings>,
    throttle: Throttle,
    watch: scanner::Watch,
    in_flight: AtomicUsize,
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
    let profile = Arc::clone(&context.config().profile);
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
        settings: ArcSwap::from_pointee(Settings::new(&profile)),
        throttle: Throttle::default(),
        watch: scanner::Watch::default(),
        in_flight: AtomicUsize::new(0),
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

/// What the edge learns of a request on its way in.
struct Seen {
    peer: IpAddr,
    client: IpAddr,
    /// What limits, bans and scores count the client as.
    address: IpAddr,
    now: Millis,
    throttled: Level,
    is_overloaded: bool,
    signed_in: bool,
    quotas: Option<Quotas>,
}

/// Counts a request as being worked on.
struct InFlight<'e>(&'e AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a request does not reach a handler.
enum Stop {
    Refuse(Refusal),
    /// 405, with the methods that the path has.
    Method(String),
    Redirect(String),
    /// The answer to a page of another origin that asks what it may send.
    Preflight(Box<(StatusCode, HeaderMap)>),
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
        let settings = self.settings();
        let server = &settings.profile.server;
        let in_flight = InFlight(&self.in_flight);
        let is_overloaded = self.in_flight.fetch_add(1, Ordering::Relaxed) >= MAX_IN_FLIGHT;
        // 3. The client's address, before anything counts or records by it.
        let mut seen = self.see(&request, &server.trusted_proxies, is_overloaded);
        let sharing = cors::sharing(request.uri().path());
        let origin = request.headers().get(header::ORIGIN).cloned();
        let accept = request.headers().get(header::ACCEPT).cloned();
        // 2. The panic guard stands around all else: a panic is an answer like any other, in the route's own protocol.
        let passing = self.pass(request, next, &settings, found, (&trace_id, &mut seen));
        let guarded = AssertUnwindSafe(passing).catch_unwind().await;
        drop(in_flight);
        let mut response = guarded.unwrap_or_else(|_| {
            tracing::error!(trace_id = %trace_id, "a handler panicked");
            crate::Error(Refusal::internal()).into_response()
        });
        if let Some(Refused(refusal)) = response.extensions_mut().remove::<Refused>() {
            self.count(&refusal, found, &seen, &settings);
            if refusal.code != Code::RateLimited && !seen.signed_in {
                seen.quotas = None;
            }
            let cookies = response.headers_mut().remove(header::SET_COOKIE);
            let event = event.as_deref().and_then(OnceLock::get).map(String::as_str);
            let refusal = refusal.with_trace(trace_id.clone());
            response = refusal::render(envelope, event, refusal, accept.as_ref());
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
        if let Some(quotas) = &seen.quotas {
            quotas.apply(headers);
        }
        if seen.throttled.level > 0 && !seen.signed_in {
            headers.insert("x-throttle-level", HeaderValue::from(u16::from(seen.throttled.level)));
            headers.insert("x-throttle-reason", HeaderValue::from_static(throttle::REASON));
        }
        // 4. Security headers and CORS leave with every answer (their place on the way in is behind the client's address).
        settings.headers.apply(headers, seen.signed_in);
        cors::apply(headers, origin.as_ref(), sharing, &server.cors_allowed_origins);
        if !matches!(found.map(|r| r.access), Some(Access::Probe)) {
            let route = found.map_or("(none)", |route| route.path);
            self.metrics.answered(route, &method, response.status().as_u16(), started.elapsed());
        }
        response
    }

    /// What is made of the configuration in force; made anew when that changes.
    fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.load_full();
        let config = self.context.config();
        if Arc::ptr_eq(&settings.profile, &config.profile) {
            return settings;
        }
        let settings = Arc::new(settings.follow(&config.profile));
        self.settings.store(Arc::clone(&settings));
        settings
    }

    fn see(&self, request: &Request, proxies: &[Cidr], is_overloaded: bool) -> Seen {
        let peer = request.extensions().get::<SocketAddr>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip);
        let client = client_ip::resolve(peer, request.headers(), proxies);
        let (address, now) = (client_ip::key(client), self.context.clock.now());
        let throttled = self.throttle.level(address, now);
        Seen { peer, client, address, now, throttled, is_overloaded, signed_in: false, quotas: None }
    }

    /// Counts a refusal. What somebody who is nobody yet was refused for also counts against the address.
    fn count(&self, refusal: &Refusal, found: Option<&RouteSpec>, seen: &Seen, settings: &Settings) {
        let reason = refusal::reason_of(refusal);
        let group = found.and_then(|route| route.group).map_or("(none)", RateGroup::as_str);
        self.metrics.refused(reason, group);
        if seen.signed_in {
            return;
        }
        self.context.refusals.count(reason);
        if matches!(refusal.status(), 401 | 403 | 429) && !settings.rate_limit.is_disabled() {
            self.throttle.note(seen.address, seen.now);
        }
        let profile = &settings.profile;
        let auto_ban = &profile.security.scanner.auto_ban;
        if reason == scanner::PATH && self.watch.is_enough(auto_ban, seen.address, seen.now) {
            self.ban(seen.client, u64::from(auto_ban.ban_s), profile.server.trusted_proxies.clone());
        }
    }

    /// Bans a client beside the request: the record and the row take a moment.
    fn ban(&self, client: IpAddr, seconds: u64, proxies: Vec<Cidr>) {
        let bans = self.context.bans.clone();
        self.context.tasks.spawn("auto-ban", async move {
            let made =
                bans.add_automatic(client, BanSource::Scanner, "repeated probes", seconds, &proxies).await;
            match made {
                Ok(Some(ban)) => {
                    tracing::info!(ban_id = %ban.id, network = %ban.network, "banned after repeated probes");
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a scanner could not be banned"),
            }
        });
    }

    /// The route of a method and path. HEAD is answered by GET where it has no route of its own.
    fn find(&self, method: &Method, path: &str) -> Option<&RouteSpec> {
        let methods = self.methods(path)?;
        let of = |wanted: &Method| methods.iter().find(|(m, _)| m == wanted);
        let fallback = || (*method == Method::HEAD).then(|| of(&Method::GET)).flatten();
        of(method).or_else(fallback).and_then(|(_, index)| self.routes.get(*index))
    }

    /// The methods of a path that is registered, with or without a slash at its end.
    fn methods(&self, path: &str) -> Option<&Vec<(Method, usize)>> {
        let bare = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        self.table.at(if bare.is_empty() { "/" } else { bare }).ok().map(|found| found.value)
    }

    async fn pass(
        &self,
        mut request: Request,
        next: Next,
        settings: &Settings,
        found: Option<&RouteSpec>,
        (trace_id, seen): (&TraceId, &mut Seen),
    ) -> Response {
        let stop = match self.admit(&mut request, settings, found, seen).await {
            Ok(principal) => {
                let mut context = RequestContext::new(principal, trace_id.clone());
                context.client_ip = Some(seen.client);
                request.extensions_mut().insert(context);
                return next.run(request).await;
            }
            Err(stop) => stop,
        };
        // A client that is still sending sees a broken pipe instead of its answer, and a hook client goes on then.
        discard(std::mem::take(request.body_mut())).await;
        match stop {
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
            Stop::Preflight(answer) => (*answer).into_response(),
        }
    }

    async fn admit(
        &self,
        request: &mut Request,
        settings: &Settings,
        found: Option<&RouteSpec>,
        seen: &mut Seen,
    ) -> Result<Arc<Principal>, Stop> {
        let profile = &settings.profile;
        if seen.is_overloaded && request.uri().path() != LIVENESS {
            let refusal = Refusal::new(Code::Overloaded, "too many requests are being worked on");
            return Err(refusal.with_retry_after(1).into());
        }
        // Names that only our own hops may set go before anybody reads them.
        let is_trusted_peer = client_ip::is_trusted(seen.peer, &profile.server.trusted_proxies);
        let proxied = request_shape::strip_internal(request.headers_mut(), is_trusted_peer);
        request.extensions_mut().insert(proxied);
        // 5. The form of the request: cheap, and nothing behind has to wonder how to read it.
        request_shape::check(request)?;
        self.check_host(request, seen.peer)?;
        // 6. Bans: from memory, and before anything that costs more.
        self.check_ban(request.uri().path(), seen.client)?;
        self.preflight(request, settings)?;
        // 7. The scanner: only a path without a route can be a probe.
        let is_registered = self.methods(request.uri().path()).is_some();
        if !is_registered {
            let scanner = &profile.security.scanner;
            scanner::check_path(scanner, request.uri().path(), seen.client)?;
            // A request without a peer was made in process.
            let is_browser = scanner::is_browser_class(request.method(), request.uri().path());
            if is_browser && !seen.peer.is_unspecified() {
                self.check_browser((request.method(), request.headers()), settings, seen).await?;
            }
        }
        // 8. Trailing slash: behind the scanner, so that a probe is never redirected.
        settle_slash(request, found)?;
        let Some(route) = found else { return Err(self.no_route(request)) };
        bound_body(request, route.body_limit.unwrap_or_else(|| profile.server.body_limit.as_usize()))?;
        self.check_origin(request, route)?;
        let principal = match route.access {
            Access::Probe => return Ok(Arc::new(Principal::anonymous())),
            // 9a. Rate limit per address, where nobody signs in; credentials that must be checked anew are counted below.
            Access::Public => {
                check_throttle(seen, settings)?;
                if let Some(group) = route.group {
                    let (address, cost) = (seen.address, seen.throttled.cost);
                    charge(settings, seen, (group, RateLimitTier::Anon), address, cost)?;
                }
                return Ok(Arc::new(Principal::anonymous()));
            }
            // 10. Authentication, behind the limit that protects it.
            Access::Signed { surface, mode, .. } => {
                let head = (request.method(), request.headers());
                self.authenticate(head, settings, seen, surface, mode).await?
            }
        };
        seen.signed_in = !principal.is_anonymous();
        // 9b. Rate limit per principal, with the tier of the verified token; its address does not count.
        if let Some(group) = route.group {
            charge(settings, seen, (group, principal.tier), principal.user_id.as_str(), 1)?;
        }
        // 11. Route authorisation is last: it needs the verified permissions.
        auth::authorize(&principal, route.access)?;
        tracing::trace!(route = route.path, "admitted");
        Ok(principal)
    }

    /// Credentials that are not known from a moment ago are limited per address, so that nobody can make this node check
    /// signatures without end.
    async fn authenticate(
        &self,
        head: (&Method, &HeaderMap),
        settings: &Settings,
        seen: &mut Seen,
        surface: Surface,
        mode: AuthMode,
    ) -> Result<Arc<Principal>, Refusal> {
        let shown = self.context.auth.look(head.1, surface);
        if !self.context.auth.is_known(&shown) {
            check_throttle(seen, settings)?;
            let (address, cost) = (seen.address, seen.throttled.cost);
            charge(settings, seen, (RateGroup::Unverified, RateLimitTier::User), address, cost)?;
        }
        auth::authenticate(&self.context, shown, head, surface, mode, seen.address).await
    }

    /// Agent and speed of what browsers ask for. Whoever shows a valid credential is not judged; an invalid one is as good as
    /// none.
    async fn check_browser(
        &self,
        head: (&Method, &HeaderMap),
        settings: &Settings,
        seen: &mut Seen,
    ) -> Result<(), Refusal> {
        let (_, headers) = head;
        let has_credential = [header::AUTHORIZATION, header::COOKIE, HeaderName::from_static("x-api-key")]
            .iter()
            .any(|name| headers.contains_key(name));
        if has_credential {
            let found = self.authenticate(head, settings, seen, Surface::Api, AuthMode::Optional).await;
            match found {
                Ok(principal) if !principal.is_anonymous() => {
                    seen.signed_in = true;
                    return Ok(());
                }
                Err(refusal) if refusal.code == Code::RateLimited => return Err(refusal),
                _ => {}
            }
        }
        check_throttle(seen, settings)?;
        let scanner = &settings.profile.security.scanner;
        scanner::check_agent(scanner, headers, seen.client)?;
        self.watch.check_velocity(scanner, headers, seen.address, seen.now)
    }

    /// Refuses whom a ban holds; and everyone but probes when it cannot be told who that is (SEC-18).
    fn check_ban(&self, path: &str, client: IpAddr) -> Result<(), Refusal> {
        let bans = &self.context.bans;
        if bans.standing() == Standing::Unavailable && path != LIVENESS && path != READINESS {
            let reason = "who is banned cannot be told at the moment";
            return Err(Refusal::new(Code::BanListUnavailable, reason).with_retry_after(5));
        }
        let Some(banned) = bans.find(client) else { return Ok(()) };
        let refusal = Refusal::new(Code::IpBanned, "this address is banned");
        Err(match bans.seconds_left(&banned) {
            Some(seconds) => refusal.with_retry_after(seconds),
            None => refusal,
        })
    }

    /// Answers pages that ask what they may send, before anything asks for a credential: browsers send none with the question.
    fn preflight(&self, request: &Request, settings: &Settings) -> Result<(), Stop> {
        let (path, headers) = (request.uri().path(), request.headers());
        if !cors::is_preflight(request.method(), headers) || self.methods(path).is_none() {
            return Ok(());
        }
        if cors::is_allowed(headers, cors::sharing(path), &settings.profile.server.cors_allowed_origins) {
            return Err(Stop::Preflight(Box::new(cors::preflight(headers))));
        }
        Err(Refusal::new(Code::OriginNotAllowed, "the Origin is none of `server.cors_allowed_origins`")
            .into())
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

    /// A page of another origin may not talk to an MCP server (MCP-18), and on a loopback bind it may change nothing (SEC-14).
    /// Clients that are no browsers send no Origin.
    fn check_origin(&self, request: &Request, route: &RouteSpec) -> Result<(), Refusal> {
        let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
        let config = self.context.config();
        let server = &config.profile.server;
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            && !request.headers().contains_key(header::UPGRADE);
        let on_loopback = server.host.is_loopback();
        if route.envelope != Envelope::Mcp && (is_safe || !on_loopback) {
            return Ok(());
        }
        let origin = origin.to_str().unwrap_or_default();
        let is_listed = server.cors_allowed_origins.iter().any(|listed| listed == origin)
            || origin == config.profile.api_external_url();
        let uri = origin.parse::<Uri>().ok();
        let own_port = uri.as_ref().filter(|uri| {
            uri.host().is_some_and(|host| is_loopback_name(host.trim_matches(['[', ']'])))
                && uri.port_u16() == Some(server.port)
        });
        // On a loopback bind the Host was found to be ours, so a page from there is our own.
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let is_own_host = on_loopback
            && uri
                .as_ref()
                .and_then(Uri::authority)
                .is_some_and(|authority| Some(authority.as_str()) == host);
        if is_listed || own_port.is_some() || is_own_host {
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

/// Nothing is served for a while to an address that was refused too often.
fn check_throttle(seen: &Seen, settings: &Settings) -> Result<(), Refusal> {
    match seen.throttled.blocked_s.filter(|_| !settings.rate_limit.is_disabled()) {
        Some(seconds) => {
            let reason = "this address was refused too often; wait a minute";
            Err(Refusal::new(Code::RateLimited, reason).with_retry_after(seconds))
        }
        None => Ok(()),
    }
}

/// Charges a limit, and keeps what it leaves for the answer.
fn charge(
    settings: &Settings,
    seen: &mut Seen,
    group: (RateGroup, RateLimitTier),
    key: impl Hash,
    cost: u32,
) -> Result<(), Refusal> {
    let (quotas, outcome) = settings.rate_limit.check(group, key, cost);
    seen.quotas = quotas;
    outcome
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
