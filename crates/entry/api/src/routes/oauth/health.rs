//! `GET /api/v1/core/oauth/health` (ID-32): whether tokens can be issued, without versions and counts.

use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::state::Health;
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
    answer(context.oauth.health().await)
}

fn answer(health: Health) -> Response {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn id_32_health_names_the_part_that_fails_and_when_to_ask_again() {
        for (keys, database, ledger) in [(false, true, true), (true, false, true), (true, true, false)] {
            let told = answer(Health { keys, database, ledger });
            assert_eq!(told.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(told.headers().get(header::RETRY_AFTER).unwrap(), "1");
            let body = axum::body::to_bytes(told.into_body(), 1024).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let word = |well: bool| if well { "ok" } else { "failed" };
            let want = json!({
                "status": "failed", "keys": word(keys), "database": word(database), "ledger": word(ledger),
            });
            assert_eq!(body, want);
        }
        let well = answer(Health { keys: true, database: true, ledger: true });
        assert!(well.status() == StatusCode::OK && !well.headers().contains_key(header::RETRY_AFTER));
    }
}
