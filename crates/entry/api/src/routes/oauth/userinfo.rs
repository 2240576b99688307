//! `GET|POST /api/v1/core/oauth/userinfo` (OpenID Connect Core section 5.3).

use super::answer::{Fault, json_answer};
use super::form::{FORM_BODY, Form};
use crate::extract::Context;
use crate::services::server::route::Route;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::RequestContext;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::services::userinfo;
use systemprompt_oauth::{ErrorCode, OauthError};
use systemprompt_runtime::AppContext;

const USERINFO: &str = "/api/v1/core/oauth/userinfo";

pub fn routes() -> Vec<Route> {
    vec![
        Route::get(USERINFO, get)
            .public(RateGroup::OauthToken)
            .envelope(Envelope::OAuth)
            .doc("identity", "Claims about the person of an access token"),
        Route::post(USERINFO, post)
            .public(RateGroup::OauthToken)
            .envelope(Envelope::OAuth)
            .body_limit(FORM_BODY)
            .doc("identity", "The same; the token may stand in the form"),
    ]
}

async fn get(
    State(context): State<AppContext>,
    Context(request): Context,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if uri.query().is_some_and(|query| query.contains("access_token")) {
        let error = OauthError::invalid_request("a token in the address is not read; addresses are logged");
        return Fault::new(&request, error).into_response();
    }
    match bearer(&headers) {
        Some(token) => answer(&context, &request, token).await,
        None => missing(&request),
    }
}

async fn post(State(context): State<AppContext>, Context(caller): Context, request: Request) -> Response {
    if let Some(token) = bearer(request.headers()).map(str::to_owned) {
        return answer(&context, &caller, &token).await;
    }
    match Form::from_request(request, &context).await {
        Ok(form) => match form.parameters.get("access_token") {
            Some(token) => answer(&context, &form.context, token).await,
            None => missing(&form.context),
        },
        Err(response) => response,
    }
}

async fn answer(context: &AppContext, request: &RequestContext, token: &str) -> Response {
    match userinfo::userinfo(&context.oauth, token).await {
        Ok(claims) => json_answer(StatusCode::OK, &claims),
        Err(error) => Fault::new(request, error).into_response(),
    }
}

fn missing(request: &RequestContext) -> Response {
    Fault::new(request, OauthError::new(ErrorCode::InvalidToken, "send the access token as Bearer"))
        .into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
