//! The edge stack, in order, with the reason for each position. Everything from outside passes `Edge` before a handler sees
//! it, and every answer, refusals included, leaves through it.

use super::client_quota::ClientQuota;
use super::internal::Internal;
use super::metrics::Metrics;
use super::refusal::{self, envelope_of};
use super::route::{Access, Route, RouteSpec};
use super::settings::Settings;
use super::table::{RouteError, RouteTable};
use crate::error::Refused;
use crate::routes::wellknown;
use crate::services::middleware::rate_limit::Quotas;
use crate::services::middleware::throttle::{self, Level, Throttle};
use crate::services::middleware::trailing_slash::{self, Slash};
use crate::services::middleware::{
    assertion, auth, body, cors, host, ip_ban, policy_version, request_shape, scanner, trace,
};
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_config::profile::values::Cidr;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Code, Millis, Principal, RateLimitTier, Refusal, RequestContext};
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::AuthMode;
use systemprompt_security::bans::BanSource;
use systemprompt_security::error::AuthError;
use systemprompt_security::extraction::HeaderExtractor;
use systemprompt_security::jwt::{Surface, Target};
use systemprompt_security::services::client_ip;

/// Requests that are worked on at once, until the heads of their answers.
const MAX_IN_FLIGHT: usize = 4096;
/// What is answered even when nothing else is.
const LIVENESS: &str = "/health/live";
const READINESS: &str = "/health/ready";

/// What the edge works with.
pub struct Edge {
    context: AppContext,
    routes: RouteTable,
    settings: ArcSwap<Settings>,
    throttle: Throttle,
    watch: scanner::Watch,
    in_flight: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// Builds the router of `routes` behind the edge.
///
/// # Errors
/// Two routes with one method and path, or paths that exclude each other.
pub fn build(context: &AppContext, routes: Vec<Route>, metrics: Arc<Metrics>) -> Result<Router, RouteError> {
    let profile = Arc::clone(&context.config().profile);
    let (specs, handlers): (Vec<_>, Vec<_>) = routes.into_iter().map(|r| (r.spec, r.handler)).unzip();
    let routes = RouteTable::new(specs)?;
    // A path that is there twice is refused by the table; axum would panic.
    let router = routes
        .paths()
        .zip(handlers)
        .fold(Router::new(), |router, (path, handler)| router.route(path, handler));
    let edge = Arc::new(Edge {
        settings: ArcSwap::from_pointee(Settings::new(&profile, context.nodes.live())),
        throttle: Throttle::default(),
        watch: scanner::Watch::default(),
        in_flight: AtomicUsize::new(0),
        context: context.clone(),
        routes,
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
        wellknown::appended(&self.context, &mut request);
        let ends = request.version() < Version::HTTP_2 && request_shape::is_framed_oddly(&request);
        let found = self.routes.find(&method, request.uri().path());
        let envelope = found.map_or_else(|| envelope_of(request.uri().path()), |route| route.envelope);
        let event = (envelope == Envelope::Hook).then(|| body::overhear(&mut request));
        let settings = self.settings();
        let server = &settings.profile.server;
        let in_flight = InFlight(&self.in_flight);
        let is_overloaded = self.in_flight.fetch_add(1, Ordering::Relaxed) >= MAX_IN_FLIGHT;
        // 3. The client's address, before anything counts or records by it.
        let mut seen = self.see(&request, &server.trusted_proxies, is_overloaded);
        let sharing = cors::sharing(request.uri().path());
        let origin = request.headers().get(header::ORIGIN).cloned();
        let accept = request.headers().get(header::ACCEPT).cloned();
        let asked = request.uri().clone();
        // Counted by the handler, which alone knows when a client has shown who it is.
        let counted = ClientQuota::new(&settings, seen.address);
        if found.and_then(|route| route.group) == Some(RateGroup::OauthToken) {
            request.extensions_mut().insert(counted.limit());
        }
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
            let refusal = refusal::unrepeated(refusal, &asked).with_trace(trace_id.clone());
            let code = refusal.code;
            response = refusal::render(envelope, event, refusal, accept.as_ref());
            let challenge = match code {
                Code::Unauthenticated | Code::InvalidToken => found.and_then(|route| {
                    let external = settings.profile.api_external_url();
                    auth::challenge(route.access, asked.path(), &external, code == Code::InvalidToken)
                }),
                _ => None,
            };
            if let Some(challenge) =
                challenge.filter(|_| response.headers().contains_key(header::WWW_AUTHENTICATE))
            {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
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
        if let Some(quotas) = counted.left().or(seen.quotas) {
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
        let nodes = self.context.nodes.live();
        if Arc::ptr_eq(&settings.profile, &config.profile) && settings.nodes == nodes {
            return settings;
        }
        let settings = Arc::new(settings.follow(&config.profile, nodes));
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
        self.context.refusals.count(reason, seen.client);
        if matches!(refusal.status(), 401 | 403 | 429) && !settings.rate_limit.is_disabled() {
            self.throttle.note(seen.address, seen.now);
        }
        let profile = &settings.profile;
        let auto_ban = &profile.security.scanner.auto_ban;
        if reason == scanner::PATH && self.watch.is_enough(auto_ban, seen.address, seen.now) {
            self.ban(seen.client, u64::from(auto_ban.ban_s), profile.server.trusted_proxies.clone());
        }
    }

    /// A path without a route is 404; one with other methods is 405 and names them.
    fn no_route(&self, path: &str) -> Stop {
        match self.routes.methods(path) {
            Some(methods) => {
                let names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
                Stop::Method(names.join(", "))
            }
            None => Stop::Refuse(not_found()),
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

    async fn pass(
        &self,
        mut request: Request,
        next: Next,
        settings: &Settings,
        found: Option<&RouteSpec>,
        (trace_id, seen): (&TraceId, &mut Seen),
    ) -> Response {
        let admitted = self.admit(&mut request, settings, found, seen).await;
        let stop = match admitted.and_then(|principal| self.correlate(request.headers(), principal)) {
            Ok(mut context) => {
                context.trace_id = trace_id.clone();
                context.client_ip = Some(seen.client);
                if let Some(agent) = request.headers().get(header::USER_AGENT) {
                    context = context.called(agent.as_bytes());
                }
                request.extensions_mut().insert(context);
                let version = policy_version::of(&self.context.rules, found);
                let mut response = next.run(request).await;
                policy_version::apply(response.headers_mut(), version);
                return response;
            }
            Err(stop) => stop,
        };
        // A client that is still sending sees a broken pipe instead of its answer, and a hook client goes on then.
        body::discard(std::mem::take(request.body_mut())).await;
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
        let is_internal = request.extensions().get::<Internal>().is_some();
        let proxied = request_shape::strip_internal(request.headers_mut(), is_trusted_peer, is_internal);
        request.extensions_mut().insert(proxied);
        // 5. The form of the request: cheap, and nothing behind has to wonder how to read it.
        request_shape::check(request)?;
        host::check_host(request, profile, seen.peer)?;
        // 6. Bans: from memory, and before anything that costs more.
        ip_ban::check(&self.context.bans, matches!(request.uri().path(), LIVENESS | READINESS), seen.client)?;
        self.preflight(request, settings)?;
        // 7. The scanner: only a path without a route can be a probe. What browsers ask for is judged wherever no route answers, and
        // at the root, where every scanner begins; `HEAD /` is of programs.
        let scanner = &profile.security.scanner;
        if self.routes.methods(request.uri().path()).is_none() {
            scanner::check_path(scanner, request.uri().path(), seen.client)?;
        }
        // A request without a peer was made in process.
        let is_page = found.is_none_or(|route| route.path == "/")
            && scanner::is_browser_class(request.method(), request.uri().path());
        if is_page && !seen.peer.is_unspecified() {
            self.check_browser((request.method(), request.headers()), settings, seen).await?;
        }
        // 8. Trailing slash: behind the scanner, so that a probe is never redirected.
        match trailing_slash::settle(request, found.is_some()) {
            Slash::Keep | Slash::Rewrite(_) => {}
            Slash::NotFound => return Err(not_found().into()),
            Slash::Redirect(location) => return Err(Stop::Redirect(location)),
        }
        let Some(route) = found else { return Err(self.no_route(request.uri().path())) };
        body::limit(request, route.body_limit.unwrap_or_else(|| profile.server.body_limit.as_usize()))?;
        host::check_origin(request, profile, route.envelope)?;
        let principal = match route.access {
            Access::Probe => return Ok(Arc::new(Principal::anonymous())),
            // 9a. Rate limit per address, where nobody signs in; credentials that must be checked anew are counted below.
            Access::Public => {
                check_throttle(seen, settings)?;
                if let Some(group) = route.group {
                    let (address, cost) = (seen.address, seen.throttled.cost.saturating_mul(route.cost));
                    // The group's own limit is of clients, one by one (ID-94).
                    let group = match group {
                        RateGroup::OauthToken => (RateGroup::Unverified, RateLimitTier::User),
                        group => (group, RateLimitTier::Anon),
                    };
                    charge(settings, seen, group, address, cost)?;
                }
                return Ok(Arc::new(Principal::anonymous()));
            }
            // 10. Authentication, behind the limit that protects it.
            Access::Signed { surface, mode, .. } => {
                if let Some(server) = assertion::server_of(request, surface) {
                    // Only this host reaches that listener, and an assertion counts once: nothing to limit by address.
                    assertion::authenticate(&self.context, request, &server, seen.address).await?
                } else {
                    let external = profile.api_external_url();
                    let resource = auth::resource_of(surface, request.uri().path(), &external);
                    let whole = auth::is_of_the_whole(surface).then_some(external.as_str());
                    let target = Target { surface, resource: resource.as_deref(), whole };
                    let head = (request.method(), request.headers());
                    self.authenticate(head, settings, seen, target, mode).await?
                }
            }
        };
        seen.signed_in = !principal.is_anonymous();
        // 9b. Rate limit per principal, with the tier of the verified token; its address does not count.
        if let Some(group) = route.group {
            charge(settings, seen, (group, principal.tier), principal.user_id.as_str(), 1)?;
        }
        // 11. Route authorisation: it needs the verified permissions.
        auth::authorize(&principal, route.access)?;
        // 12. Who has seen a version of the rules is served by that one or a newer one.
        policy_version::settle(&self.context.rules, request.headers(), route).await?;
        tracing::trace!(route = route.path, "admitted");
        Ok(principal)
    }

    /// The context of a request, with what its headers say about where it belongs. A context or a task is taken from there only
    /// where its owner can be looked up, which no route does yet.
    fn correlate(&self, headers: &HeaderMap, principal: Arc<Principal>) -> Result<RequestContext, Stop> {
        let read = HeaderExtractor::extract(headers);
        self.metrics.ignored_headers(read.ignored);
        let context = read.context(principal, TraceId::generate());
        let context = context.map_err(|error| Refusal::from(AuthError::from(error)))?;
        Ok(RequestContext { context_id: None, task_id: None, ..context })
    }

    /// Credentials that are not known from a moment ago are limited per address, so that nobody can make this node check
    /// signatures without end.
    async fn authenticate(
        &self,
        head: (&Method, &HeaderMap),
        settings: &Settings,
        seen: &mut Seen,
        target: Target<'_>,
        mode: AuthMode,
    ) -> Result<Arc<Principal>, Refusal> {
        let shown = self.context.auth.look(head.1, target.surface).from(Some(seen.client));
        if !self.context.auth.is_known(&shown) {
            check_throttle(seen, settings)?;
            let (address, cost) = (seen.address, seen.throttled.cost);
            charge(settings, seen, (RateGroup::Unverified, RateLimitTier::User), address, cost)?;
        }
        auth::authenticate(&self.context, shown, head, target, mode, seen.address).await
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
            let found =
                self.authenticate(head, settings, seen, Surface::Api.into(), AuthMode::Optional).await;
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

    /// Answers pages that ask what they may send, before anything asks for a credential: browsers send none with the question.
    fn preflight(&self, request: &Request, settings: &Settings) -> Result<(), Stop> {
        let (path, headers) = (request.uri().path(), request.headers());
        if !cors::is_preflight(request.method(), headers) || self.routes.methods(path).is_none() {
            return Ok(());
        }
        if cors::is_allowed(headers, cors::sharing(path), &settings.profile.server.cors_allowed_origins) {
            return Err(Stop::Preflight(Box::new(cors::preflight(headers))));
        }
        Err(Refusal::new(Code::OriginNotAllowed, "the Origin is none of `server.cors_allowed_origins`")
            .into())
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

fn not_found() -> Refusal {
    Refusal::new(Code::NotFound, "there is nothing at this path")
}
