//! `POST /api/v1/core/oauth/session` (ID-79) and the cookie of a session (ID-80).

use super::answer::{Fault, json_answer};
use crate::extract::Context;
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{JwtClaims, RequestContext, Secret};
use systemprompt_oauth::OauthResult;
use systemprompt_oauth::constants::SESSION_COOKIE;
use systemprompt_oauth::services::session::lookup;
use systemprompt_runtime::AppContext;
use systemprompt_security::extraction::CookieExtractor;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/core/oauth/session", session)
            .public(RateGroup::OauthPublic)
            .cost(10)
            .envelope(Envelope::OAuth)
            .doc("identity", "The session of a cookie or a session token, or a new one of somebody unknown"),
    ]
}

async fn session(
    State(context): State<AppContext>,
    Context(request): Context,
    headers: HeaderMap,
) -> Response {
    match answer(&context, &request, &headers).await {
        Ok(response) => response,
        Err(error) => Fault::new(&request, error).into_response(),
    }
}

async fn answer(
    context: &AppContext,
    request: &RequestContext,
    headers: &HeaderMap,
) -> OauthResult<Response> {
    let claims = shown(context, headers).await;
    let found = lookup::look_up(&context.oauth, request, claims.as_ref()).await?;
    let mut body = json!({
        "session_id": found.session_id.as_str(),
        "user_id": found.user_id,
        "token_type": "Bearer",
        "expires_in": found.expires_in,
        "anonymous": found.user_id.is_none(),
    });
    // A program reads the token; a page has the cookie, which its scripts cannot read.
    if let Some(token) = found.token.as_ref().filter(|_| is_program(headers))
        && let Some(members) = body.as_object_mut()
    {
        members.insert("access_token".to_owned(), token.expose().as_str().into());
    }
    let mut response = json_answer(StatusCode::OK, &body);
    if let Some(token) = &found.token {
        keep(context, token, found.expires_in, response.headers_mut());
    }
    Ok(response)
}

/// What the session token of a request says, if it counts.
async fn shown(context: &AppContext, headers: &HeaderMap) -> Option<JwtClaims> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .map(Secret::from);
    let token = bearer.or_else(|| CookieExtractor::new(SESSION_COOKIE).extract(headers).ok())?;
    counting(context, &token).await
}

/// The claims of a session token that counts.
async fn counting(context: &AppContext, token: &Secret<String>) -> Option<JwtClaims> {
    context.session_claims.validate(token).await.ok()?
}

fn is_program(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_browser = headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
    accepts.contains("application/json") && !is_browser
}

/// An answer to a browser, with the cookie anew when more than half of its life is gone: a session goes on as long as its person
/// comes by (ID-79). One that cannot be renewed is as good as before.
pub async fn renewed(
    context: &AppContext,
    request: &RequestContext,
    headers: &HeaderMap,
    mut response: Response,
) -> Response {
    let Ok(cookie) = CookieExtractor::new(SESSION_COOKIE).extract(headers) else { return response };
    let Some(claims) = counting(context, &cookie).await else { return response };
    match lookup::look_up(&context.oauth, request, Some(&claims)).await {
        Ok(lookup::Found { token: Some(token), expires_in, .. }) => {
            keep(context, &token, expires_in, response.headers_mut());
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the session of a browser could not be renewed"),
    }
    response
}

/// Gives the browser the cookie of a session.
pub fn keep(context: &AppContext, token: &Secret<String>, seconds: i64, headers: &mut HeaderMap) {
    let secure = if context.oauth.settings().is_insecure() { "" } else { "; Secure" };
    let text = format!(
        "{SESSION_COOKIE}={}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}",
        token.expose()
    );
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.append(header::SET_COOKIE, value);
    }
}

/// Gives the browser the cookie of a sign-in.
pub fn keep_signed_in(context: &AppContext, token: &Secret<String>, headers: &mut HeaderMap) {
    let seconds = i64::from(context.oauth.settings().identity.session.cookie_max_age);
    keep(context, token, seconds, headers);
}
