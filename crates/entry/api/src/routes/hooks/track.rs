//! `POST /api/v1/hooks/track`: what coding agents' hooks tell (SEC-94). The answer is always 200 and empty, so that no client
//! stops for it; a header says whether the event is on record.

use super::{check_token, plugin};
use crate::extract::{Context, HookQuery, RawBody};
use crate::services::server::refusal::RECORDED_HEADER;
use crate::services::server::route::{HOOK_BODY, Route};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::Permission;
use systemprompt_models::envelope::Envelope;
use systemprompt_runtime::AppContext;
use systemprompt_security::jwt::Surface;

/// Whoever may use the API may tell; hook tokens come with their own scope.
const CALLERS: &[Permission] =
    &[Permission::User, Permission::Admin, Permission::Service, Permission::HookTrack];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/hooks/track", track)
            .signed(Surface::Hooks, CALLERS, RateGroup::Hooks)
            .envelope(Envelope::HookTrack)
            .body_limit(HOOK_BODY)
            .query(&["plugin_id"])
            .takes::<Value>()
            .doc("hooks", "Stores an event of a coding agent, without the secrets in it"),
    ]
}

async fn track(
    State(context): State<AppContext>,
    Context(caller): Context,
    HookQuery(query): HookQuery,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> crate::Result<Response> {
    check_token(&context, &headers, Permission::HookTrack, &query).await?;
    let recorded = context.hook_events.record(&caller, plugin(&query), &body).await;
    let is_recorded = match recorded {
        Ok(()) => "true",
        Err(error) => {
            tracing::warn!(%error, trace_id = %caller.trace_id, "a hook event was not recorded");
            "false"
        }
    };
    let mut response = Json(json!({})).into_response();
    response.headers_mut().insert(RECORDED_HEADER, HeaderValue::from_static(is_recorded));
    Ok(response)
}
