//! Server-sent events over the ledger, resumable with Last-Event-ID: `GET /api/v1/stream/decisions` for everybody's own decisions,
//! `GET /api/v1/admin/audit/tail` for whoever reads the ledger.

pub(crate) mod source;

use super::admin::audit::access::{READERS, is_reader, may_read};
use super::admin::audit::filter::{RESTRICTIONS, filter};
use super::admin::audit::item;
use crate::extract::{Context, Query};
use crate::services::server::route::Route;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use source::{Begin, LedgerSource};
use std::convert::Infallible;
use systemprompt_audit::LedgerRow;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_events::Topic;
use systemprompt_events::sse::subscribe;
use systemprompt_models::{Code, Permission, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_runtime::streams::StreamSlot;
use systemprompt_security::jwt::Surface;

/// Kinds that the stream of decisions shows.
const DECISIONS: [&str; 3] = ["authz.decision", "governance.decision", "mcp.pin"];
/// Readers of the tail of a node.
const MAX_TAILS: u32 = 32;
const LAST_EVENT_ID: &str = "last_event_id";

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/stream/decisions", decisions)
            .signed(Surface::Api, &[Permission::Admin, Permission::User], RateGroup::Stream)
            .query(&[LAST_EVENT_ID])
            .doc(
                "stream",
                "Decisions as server-sent events; the caller's own unless an administrator or auditor asks",
            ),
        Route::get("/api/v1/admin/audit/tail", tail)
            .signed(Surface::Api, READERS, RateGroup::Stream)
            .query(&RESTRICTIONS)
            .query(&[LAST_EVENT_ID])
            .doc("audit", "Ledger entries as server-sent events, from Last-Event-ID on"),
    ]
}

fn begin(headers: &HeaderMap, query: &Query) -> Result<Begin, Refusal> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    Begin::read(last.or_else(|| query.get(LAST_EVENT_ID)))
}

async fn decisions(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    query: Query,
) -> crate::Result<Response> {
    query.only(&[LAST_EVENT_ID])?;
    let config = context.config();
    let (max, max_per_user) =
        (config.profile.server.max_concurrent_streams, config.profile.server.max_streams_per_user);
    let slot =
        context.streams.take(caller.principal.user_id.as_str(), max, max_per_user).ok_or_else(|| {
            Refusal::new(Code::RateLimited, "as many event streams as allowed are open").with_retry_after(5)
        })?;
    let own = (!is_reader(&caller.principal)).then(|| caller.principal.user_id.to_string());
    let show = move |row: &LedgerRow| {
        let is_shown = DECISIONS.contains(&row.kind.as_str())
            && own.as_ref().is_none_or(|own| row.actor_id.as_ref() == Some(own));
        row.record.clone().filter(|_| is_shown)
    };
    let begin = begin(&headers, &query)?;
    let source = LedgerSource::open(context.ledger.reader(), &begin, "decision", show).await;
    Ok(respond(&context, source.map_err(crate::Error::internal)?, slot))
}

async fn tail(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    query: Query,
) -> crate::Result<Response> {
    may_read(&caller)?;
    let known: Vec<&str> = RESTRICTIONS.into_iter().chain([LAST_EVENT_ID]).collect();
    query.only(&known)?;
    let filter = filter(&query)?;
    let begin = begin(&headers, &query)?;
    let slot =
        context.tails.take(caller.principal.user_id.as_str(), MAX_TAILS, MAX_TAILS).ok_or_else(|| {
            Refusal::new(Code::RateLimited, "as many readers as allowed follow the ledger")
                .with_retry_after(5)
        })?;
    context.record_audit_read(&caller, &filter).await?;
    let show = move |row: &LedgerRow| filter.matches(row).then(|| item(row).to_string());
    let source = LedgerSource::open(context.ledger.reader(), &begin, "entry", show).await;
    Ok(respond(&context, source.map_err(crate::Error::internal)?, slot))
}

fn respond(context: &AppContext, source: LedgerSource, slot: StreamSlot) -> Response {
    let frames = subscribe(source, context.hub.listen(Topic::Ledger), String::new());
    let shutdown = context.tasks.shutdown_token();
    let frames = frames.take_until(async move { shutdown.cancelled().await }).map(move |frame| {
        let _held = &slot;
        Ok::<_, Infallible>(frame)
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
