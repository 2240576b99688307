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
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use source::{Begin, LedgerSource};
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_audit::LedgerRow;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_events::Topic;
use systemprompt_events::sse::subscribe;
use systemprompt_models::{Code, Permission, Principal, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_runtime::streams::StreamSlot;
use systemprompt_security::auth::AuthMode;
use systemprompt_security::error::AuthError;
use systemprompt_security::jwt::Surface;

/// Kinds that the stream of decisions shows.
const DECISIONS: [&str; 3] = ["authz.decision", "governance.decision", "mcp.pin"];
/// Readers of the tail of a node.
const MAX_TAILS: u32 = 32;
const LAST_EVENT_ID: &str = "last_event_id";
/// How often it is asked whether the reader still may, also while nothing is sent.
const RECHECK: Duration = Duration::from_secs(1);
/// Who asks for decisions at all.
const CALLERS: &[Permission] = &[Permission::Admin, Permission::User];

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/stream/decisions", decisions)
            .signed(Surface::Api, CALLERS, RateGroup::Stream)
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
    let reads_all = is_reader(&caller.principal);
    let own = (!reads_all).then(|| caller.principal.user_id.to_string());
    let show = move |row: &LedgerRow| {
        let is_shown = DECISIONS.contains(&row.kind.as_str())
            && own.as_ref().is_none_or(|own| row.actor_id.as_ref() == Some(own));
        row.record.clone().filter(|_| is_shown)
    };
    let begin = begin(&headers, &query)?;
    let source = LedgerSource::open(context.ledger.reader(), &begin, "decision", show).await;
    let source = source.map_err(crate::Error::internal)?;
    let may = move |principal: &Principal| {
        if reads_all { is_reader(principal) } else { CALLERS.iter().any(|one| principal.has(*one)) }
    };
    Ok(respond(&context, source, slot, Credential { headers, address: caller.client_ip, may: Box::new(may) }))
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
    let source = source.map_err(crate::Error::internal)?;
    let may = |principal: &Principal| is_reader(principal) && READERS.iter().any(|one| principal.has(*one));
    Ok(respond(&context, source, slot, Credential { headers, address: caller.client_ip, may: Box::new(may) }))
}

/// What a stream was opened with, and what its principal must still be allowed for it to go on.
struct Credential {
    headers: HeaderMap,
    address: Option<IpAddr>,
    may: Box<dyn Fn(&Principal) -> bool + Send + Sync>,
}

impl Credential {
    /// Whether it counts now as it did when the stream began: neither expired nor revoked, and with the same right.
    async fn check(&self, context: &AppContext) -> Result<(), Code> {
        let found =
            context.auth.identify_from(&self.headers, Surface::Api, AuthMode::Required, self.address).await;
        match found.map(|found| found.principal) {
            Ok(principal) if (self.may)(&principal) => Ok(()),
            Ok(_) => Err(Code::Denied),
            Err(AuthError::RevocationUnavailable(_)) => Err(Code::RevocationUnavailable),
            Err(_) => Err(Code::InvalidToken),
        }
    }
}

/// The frames for as long as `check` agrees. It is asked before each frame, and at least every [`RECHECK`]; then an `error` event
/// says why nothing more comes.
fn while_allowed<F: Future<Output = Result<(), Code>> + Send>(
    frames: impl Stream<Item = Bytes> + Send,
    check: impl Fn() -> F + Send,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Some((Box::pin(frames), check)), |state| async {
        let (mut frames, check) = state?;
        loop {
            let frame = tokio::select! {
                frame = frames.next() => Some(frame?),
                () = tokio::time::sleep(RECHECK) => None,
            };
            if let Err(code) = check().await {
                let end = format!("event: error\ndata: {{\"code\":\"{}\"}}\n\n", code.as_str());
                return Some((Bytes::from(end), None));
            }
            if let Some(frame) = frame {
                return Some((frame, Some((frames, check))));
            }
        }
    })
}

fn respond(context: &AppContext, source: LedgerSource, slot: StreamSlot, credential: Credential) -> Response {
    let frames = subscribe(source, context.hub.listen(Topic::Ledger), String::new());
    let (node, credential) = (context.clone(), Arc::new(credential));
    let frames = while_allowed(frames, move || {
        let (node, credential) = (node.clone(), Arc::clone(&credential));
        async move { credential.check(&node).await }
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn a_stream_ends_when_its_reader_loses_the_right() {
        let allowed = Arc::new(AtomicBool::new(true));
        let check = {
            let allowed = Arc::clone(&allowed);
            move || {
                let answer = if allowed.load(Ordering::Relaxed) { Ok(()) } else { Err(Code::InvalidToken) };
                std::future::ready(answer)
            }
        };
        let end = Bytes::from_static(b"event: error\ndata: {\"code\":\"invalid_token\"}\n\n");

        let entry = Bytes::from_static(b"data: 1\n\n");
        let mut full = Box::pin(while_allowed(stream::repeat(entry.clone()), check.clone()));
        assert_eq!(full.next().await, Some(entry));
        let mut silent = Box::pin(while_allowed(stream::pending(), check));
        let waits = tokio::time::timeout(RECHECK + RECHECK / 4, silent.next()).await;
        assert!(waits.is_err(), "whoever still may goes on listening");
        allowed.store(false, Ordering::Relaxed);
        assert_eq!(full.next().await.as_ref(), Some(&end), "an entry that waits is no longer sent");
        assert_eq!(full.next().await, None);
        let ended = tokio::time::timeout(Duration::from_secs(2), silent.next()).await;
        assert_eq!(ended, Ok(Some(end)), "also while nothing is sent");
        assert_eq!(silent.next().await, None);
    }
}
