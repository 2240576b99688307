//! `POST /api/v1/core/oauth/device_authorization` (RFC 8628 section 3.1).

use super::token::request;
use crate::routes::oauth::answer::json_answer;
use crate::routes::oauth::form::{FORM_BODY, Form};
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::services::device::authorize;
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/core/oauth/device_authorization", answer)
            .public(RateGroup::OauthToken)
            .envelope(Envelope::OAuth)
            .body_limit(FORM_BODY)
            .doc("identity", "Codes for a device without a browser"),
    ]
}

async fn answer(State(context): State<AppContext>, form: Form) -> Response {
    match authorize(&context.oauth, request(&form)).await {
        Ok(device) => {
            let (uri, code) = (&device.verification_uri, device.user_code.expose());
            let body = json!({
                "device_code": device.device_code.expose(),
                "user_code": code,
                "verification_uri": uri,
                "verification_uri_complete": format!("{uri}?user_code={code}"),
                "expires_in": device.expires_in,
                "interval": device.interval,
            });
            json_answer(StatusCode::OK, &body)
        }
        Err(error) => form.fault(error),
    }
}
