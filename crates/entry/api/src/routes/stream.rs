//! `GET /api/v1/stream/decisions`: decisions as they are recorded, resumable with Last-Event-ID.

use crate::extract::{Context, Query};
use crate::services::server::route::Route;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use std::convert::Infallible;
use systemprompt_audit::{LedgerReader, LedgerRow, ReadError};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_events::Topic;
use systemprompt_events::sse::{Event, Source, subscribe};
use systemprompt_models::{Code, Permission, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::jwt::Surface;

/// Entries that one read looks at.
const PAGE: i64 = 500;
/// Kinds that this stream shows.
const KINDS: [&str; 2] = ["authz.decision", "governance.decision"];

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/stream/decisions", decisions)
            .signed(Surface::Api, &[Permission::Admin, Permission::User], RateGroup::Stream)
            .doc("stream", "Decisions as server-sent events; the caller's own unless an administrator asks"),
    ]
}

async fn decisions(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    query: Query,
) -> crate::Result<Response> {
    query.only(&["last_event_id"])?;
    let config = context.config();
    let (max, max_per_user) =
        (config.profile.server.max_concurrent_streams, config.profile.server.max_streams_per_user);
    let slot =
        context.streams.take(caller.principal.user_id.as_str(), max, max_per_user).ok_or_else(|| {
            Refusal::new(Code::RateLimited, "as many event streams as allowed are open").with_retry_after(5)
        })?;
    let reader = context.ledger.reader();
    let last =
        headers.get("last-event-id").and_then(|v| v.to_str().ok()).or_else(|| query.get("last_event_id"));
    let cursor = match last {
        Some(id) => parse_id(id)
            .ok_or_else(|| Refusal::new(Code::InvalidCursor, "Last-Event-ID is `<stream>:<seq>`"))?,
        // Without an id the stream begins now.
        None => head(&reader, context.ledger.stream()).await.map_err(crate::Error::internal)?,
    };
    let actor = (!caller.principal.has(Permission::Admin)).then(|| caller.principal.user_id.to_string());
    let source = DecisionSource { reader, actor };
    let frames = subscribe(source, context.hub.listen(Topic::Ledger), cursor);
    let shutdown = context.tasks.shutdown_token();
    let frames = frames.take_until(async move { shutdown.cancelled().await }).map(move |frame| {
        let _held = &slot;
        Ok::<_, Infallible>(frame)
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `<stream>:<seq>`, which is also the cursor.
fn parse_id(id: &str) -> Option<String> {
    let (stream, seq) = id.rsplit_once(':')?;
    (!stream.is_empty() && seq.parse::<i64>().is_ok_and(|n| n >= 0)).then(|| id.to_owned())
}

async fn head(reader: &LedgerReader, stream: &str) -> Result<String, ReadError> {
    let streams = reader.streams().await?;
    let seq = streams.iter().find(|s| s.stream == stream).map_or(0, |s| s.head_seq);
    Ok(format!("{stream}:{seq}"))
}

struct DecisionSource {
    reader: LedgerReader,
    /// Whose decisions are shown; `None` shows all.
    actor: Option<String>,
}

impl Source for DecisionSource {
    type Error = ReadError;

    async fn next(&mut self, after: &str) -> Result<(Vec<Event>, String), Self::Error> {
        let (stream, seq) = after.rsplit_once(':').unwrap_or((after, "0"));
        let rows = self.reader.page(stream, seq.parse().unwrap_or(0), PAGE).await?;
        let cursor = rows.last().map_or_else(|| after.to_owned(), |row| format!("{stream}:{}", row.seq));
        let events = rows.iter().filter(|row| self.shows(row)).filter_map(|row| {
            Some(Event {
                id: format!("{}:{}", row.stream, row.seq),
                event: "decision",
                data: row.record.clone()?,
            })
        });
        Ok((events.collect(), cursor))
    }
}

impl DecisionSource {
    fn shows(&self, row: &LedgerRow) -> bool {
        KINDS.contains(&row.kind.as_str())
            && self.actor.as_ref().is_none_or(|actor| row.actor_id.as_ref() == Some(actor))
    }
}
