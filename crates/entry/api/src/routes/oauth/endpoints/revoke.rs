//! `POST /api/v1/core/oauth/revoke` (RFC 7009): in force on this node when the answer leaves.

use super::token::request;
use crate::routes::oauth::answer::unstored;
use crate::routes::oauth::form::{FORM_BODY, Form};
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::services::revocation::revoke;
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/core/oauth/revoke", answer)
            .public(RateGroup::OauthToken)
            .envelope(Envelope::OAuth)
            .body_limit(FORM_BODY)
            .doc("identity", "Ends a token, or a grant by its refresh token"),
    ]
}

async fn answer(State(context): State<AppContext>, form: Form) -> Response {
    match revoke(&context.oauth, request(&form)).await {
        Ok(ended) => {
            if let Some(id) = ended {
                context.tell_revocation(&id).await;
            }
            let mut response = StatusCode::OK.into_response();
            unstored(response.headers_mut());
            response
        }
        Err(error) => form.fault(error),
    }
}
