//! `GET /api/v1/core/oauth/health` (ID-32): whether tokens can be issued, without versions and counts.

use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_runtime::AppContext;

use super::answer::json_answer;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/core/oauth/health", health)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .doc("identity", "Whether tokens can be issued"),
    ]
}

async fn health(State(context): State<AppContext>) -> Response {
    let health = context.oauth.health().await;
    let status = if health.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = |well: bool| if well { "ok" } else { "failed" };
    let body = json!({
        "status": word(health.is_well()),
        "keys": word(health.keys),
        "database": word(health.database),
        "ledger": word(health.ledger),
    });
    let mut answer = json_answer(status, &body);
    if !health.is_well() {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}
