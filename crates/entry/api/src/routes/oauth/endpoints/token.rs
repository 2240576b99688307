//! `POST /api/v1/core/oauth/token`: the one answer that shows new tokens.

use crate::routes::oauth::answer::json_answer;
use crate::routes::oauth::form::{FORM_BODY, Form};
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::services::generation::TokenResponse;
use systemprompt_oauth::services::token::{ClientRequest, token};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/core/oauth/token", answer)
            .public(RateGroup::OauthToken)
            .envelope(Envelope::OAuth)
            .body_limit(FORM_BODY)
            .doc(
                "identity",
                "Tokens for a code, a refresh token, a device, another token, or the client itself",
            ),
    ]
}

async fn answer(State(context): State<AppContext>, form: Form) -> Response {
    match token(&context.oauth, request(&form)).await {
        Ok(tokens) => shown(&tokens),
        Err(error) => form.fault(error),
    }
}

/// What the domain is told of a form.
pub(in crate::routes::oauth) fn request(form: &Form) -> ClientRequest<'_> {
    ClientRequest {
        context: &form.context,
        authorization: form.authorization(),
        parameters: &form.parameters,
        limit: form.limit.as_ref(),
    }
}

fn shown(tokens: &TokenResponse) -> Response {
    let mut body = json!({
        "access_token": tokens.access_token.expose(),
        "token_type": tokens.token_type,
        "expires_in": tokens.expires_in,
        "scope": tokens.scope,
    });
    if let Some(members) = body.as_object_mut() {
        let more = [
            ("refresh_token", tokens.refresh_token.as_ref().map(|token| token.expose().as_str())),
            ("id_token", tokens.id_token.as_ref().map(|token| token.expose().as_str())),
            ("issued_token_type", tokens.issued_token_type),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                members.insert(name.to_owned(), value.into());
            }
        }
    }
    json_answer(StatusCode::OK, &body)
}
