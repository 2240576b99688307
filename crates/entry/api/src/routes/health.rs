//! Probes and metrics.

use crate::error::Error;
use crate::extract::Peer;
use crate::services::middleware::request_shape::Proxied;
use crate::services::server::metrics::{Gauges, Metrics};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use systemprompt_config::profile::governance::AuthzHookMode;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Permission, Refusal};
use systemprompt_runtime::{AppContext, Phase};
use systemprompt_security::auth::AuthMode;
use systemprompt_security::bans::Standing;
use systemprompt_security::jwt::Surface;

pub fn routes(metrics: &Arc<Metrics>) -> Vec<Route> {
    let metrics = Arc::clone(metrics);
    vec![
        Route::get("/health/live", live).probe().doc("health", "Whether the process answers"),
        Route::get("/health/ready", ready).probe().doc("health", "Whether requests may be sent here"),
        Route::get("/health", health).probe().doc("health", "State, version and name of this node"),
        Route::get("/api/v1/health/detail", detail)
            .signed(
                Surface::Api,
                &[Permission::Admin, Permission::User, Permission::Service],
                RateGroup::Admin,
            )
            .doc("health", "State of each check; more for administrators"),
        Route::get(
            "/metrics",
            move |State(context): State<AppContext>,
                  Peer(peer): Peer,
                  Extension(proxied): Extension<Proxied>,
                  headers: HeaderMap| {
                let metrics = Arc::clone(&metrics);
                async move { render_metrics(&metrics, &context, peer, proxied, &headers).await }
            },
        )
        .probe()
        .doc("health", "OpenMetrics, for loopback and administrators"),
    ]
}

/// Never touches the database.
async fn live() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// One check of a probe.
struct Check {
    name: &'static str,
    code: &'static str,
}

impl Check {
    fn is_ok(&self) -> bool {
        self.code == "ok"
    }
}

async fn checks(context: &AppContext) -> Vec<Check> {
    let database = if context.database_answers().await { "ok" } else { "database_unavailable" };
    let revocations = context.sessions.is_confirmed(context.clock.now());
    let bans = context.bans.standing() == Standing::Confirmed;
    let gateway = context.gateway.load();
    vec![
        Check { name: "database", code: database },
        Check { name: "ledger", code: context.ledger.condition().code() },
        Check { name: "rules", code: if context.rules.is_stale() { "authz_stale" } else { "ok" } },
        Check { name: "revocations", code: if revocations { "ok" } else { "revocation_unavailable" } },
        Check { name: "bans", code: if bans { "ok" } else { "ban_list_unavailable" } },
        Check { name: "closing", code: if gateway.overdue == 0 { "ok" } else { "closing_overdue" } },
    ]
}

/// The state of a node, as every route of this file tells it.
struct Health {
    status: &'static str,
    checks: Vec<Check>,
    /// What is not as it should be and yet keeps no request from being answered.
    degraded: Vec<&'static str>,
}

impl Health {
    async fn of(context: &AppContext) -> Self {
        let (checks, degraded) = (checks(context).await, degraded(context));
        let status = match context.phase() {
            Phase::Starting => "starting",
            Phase::Draining => "draining",
            Phase::Ready if !checks.iter().all(Check::is_ok) => "failed",
            Phase::Ready if degraded.is_empty() => "ok",
            Phase::Ready => "degraded",
        };
        Self { status, checks, degraded }
    }

    /// Whether requests may be sent here.
    fn is_ready(&self) -> bool {
        matches!(self.status, "ok" | "degraded")
    }
}

async fn ready(State(context): State<AppContext>) -> Response {
    let health = Health::of(&context).await;
    let checks = health.checks.iter();
    let body = json!({
        // Probes know two states; why a node is degraded stands in the detail.
        "status": if health.is_ready() { "ok" } else { health.status },
        "checks": checks.map(|c| json!({"name": c.name, "status": if c.is_ok() { "ok" } else { "failed" }, "code": c.code})).collect::<Vec<_>>(),
    });
    answer(health.is_ready(), body)
}

async fn health(State(context): State<AppContext>) -> Response {
    let health = Health::of(&context).await;
    let body = json!({
        "status": health.status,
        "version": env!("CARGO_PKG_VERSION"),
        "instance_id": context.instance_id(),
    });
    answer(health.is_ready(), body)
}

fn degraded(context: &AppContext) -> Vec<&'static str> {
    let config = context.config();
    let governance = config.services.governance.enabled && config.profile.governance.pipeline.enabled;
    let mode = config.profile.governance.authz.hook.as_ref().map(|hook| hook.mode);
    let found = [
        (context.reload_error().is_some(), "config_refused"),
        (config.profile.rate_limits.disabled, "rate_limits_disabled"),
        (!governance, "governance_disabled"),
        (mode == Some(AuthzHookMode::Unrestricted), "authz_unrestricted"),
        (mode == Some(AuthzHookMode::Disabled), "authz_disabled"),
        (mode.is_none(), "authz_default_deny"),
        (!config.profile.security.scanner.enabled, "scanner_disabled"),
    ];
    found.into_iter().filter(|(is, _)| *is).map(|(_, code)| code).collect()
}

fn answer(good: bool, body: Value) -> Response {
    if good {
        return Json(body).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(body)).into_response()
}

/// Names and states for everyone who is signed in, figures for administrators and services.
async fn detail(
    State(context): State<AppContext>,
    crate::extract::Context(caller): crate::extract::Context,
) -> Json<Value> {
    let health = Health::of(&context).await;
    let mut body = json!({
        "status": health.status,
        "degraded": health.degraded,
        "version": env!("CARGO_PKG_VERSION"),
        "instance_id": context.instance_id(),
        "checks": health.checks.iter().map(|c| json!({"name": c.name, "code": c.code})).collect::<Vec<_>>(),
    });
    if (caller.principal.has(Permission::Admin) || caller.principal.has(Permission::Service))
        && let Some(map) = body.as_object_mut()
    {
        let (config, ledger, gateway) = (context.config(), context.ledger.metrics(), context.gateway.load());
        map.insert("config".into(), json!({"hash": config.hash, "last_error": context.reload_error()}));
        map.insert(
            "ledger".into(),
            json!({
                "stream": &**context.ledger.stream(),
                "records": ledger.records,
                "refused": ledger.refused,
                "batches": ledger.batches,
                "queue_depth": ledger.queue_depth,
                "scrubbed": ledger.scrubbed,
            }),
        );
        let rules = context.rules.rules();
        map.insert(
            "rules".into(),
            json!({"epoch": rules.epoch(), "count": rules.len(), "age_ms": context.rules.age()}),
        );
        map.insert("nodes".into(), json!({"live": context.nodes.live()}));
        map.insert("bans".into(), json!({"count": context.bans.len(), "age_ms": context.bans.age()}));
        map.insert("gateway".into(), json!({"open": gateway.open, "closing": gateway.closing}));
        map.insert("database".into(), json!({"engine": context.db.engine().as_str()}));
    }
    Json(body)
}

/// For a peer on loopback that no proxy stands before, or for an administrator.
async fn render_metrics(
    metrics: &Metrics,
    context: &AppContext,
    peer: Option<SocketAddr>,
    Proxied(proxied): Proxied,
    headers: &HeaderMap,
) -> crate::Result<Response> {
    let local = peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    if !local || proxied {
        // Behind a proxy the peer is not the caller.
        let address = peer.filter(|_| !proxied).map(|peer| peer.ip());
        let found = context.auth.identify_from(headers, Surface::Api, AuthMode::Required, address).await;
        if !found.is_ok_and(|f| f.principal.has(Permission::Admin)) {
            return Err(Refusal::new(Code::Denied, "metrics are for loopback and for administrators").into());
        }
    }
    let gauges = Gauges {
        ledger: context.ledger.metrics(),
        reloads: context.reload_counts(),
        bans: context.bans.len(),
        ban_list_age_ms: context.bans.age(),
        revocation_age_ms: context.sessions.age(),
        authz_epoch: context.rules.rules().epoch(),
        rules_age_ms: context.rules.age(),
        hook_faults: context.plane.hook_faults(),
        sinks: context.sinks.lags(context.clock.now()),
        oauth: context.oauth.meter.read(),
    };
    let text = metrics.encode(&gauges).map_err(Error::internal)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
