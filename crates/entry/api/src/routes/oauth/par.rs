//! `POST /api/v1/core/oauth/par` (RFC 9126).

use super::answer::json_answer;
use super::endpoints::token::request;
use super::form::{AUTHORIZE_BODY, Form};
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::constants::PAR_TTL_SECONDS;
use systemprompt_oauth::services::par;
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/core/oauth/par", push)
            .public(RateGroup::OauthToken)
            .cost(5)
            .envelope(Envelope::OAuth)
            .body_limit(AUTHORIZE_BODY)
            .doc("identity", "Takes an authorization request beforehand"),
    ]
}

async fn push(State(context): State<AppContext>, form: Form) -> Response {
    match par::push(&context.oauth, request(&form)).await {
        Ok(name) => {
            let body = json!({"request_uri": name.expose(), "expires_in": PAR_TTL_SECONDS});
            json_answer(StatusCode::CREATED, &body)
        }
        Err(error) => form.fault(error),
    }
}
