//! `/api/v1/core/oauth/webauthn/*`: passkey ceremonies (ID-83 to ID-89).

use super::answer::json_answer;
use super::form::JSON_BODY;
use super::json::Asked;
use super::page::see_other;
use super::session::keep_signed_in;
use crate::extract::Query;
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::Secret;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::OauthResult;
use systemprompt_oauth::constants::AUTHORIZE_REQUEST_PREFIX;
use systemprompt_oauth::services::webauthn::WebAuthnService;
use systemprompt_oauth::services::webauthn::service::authentication::StartAuthentication;
use systemprompt_oauth::services::webauthn::service::link::LinkStarted;
use systemprompt_oauth::services::webauthn::service::registration::StartRegistration;
use systemprompt_oauth::services::webauthn::service::{Done, Finish};
use systemprompt_oauth::services::webauthn::token::Started;
use systemprompt_runtime::AppContext;
use systemprompt_security::opaque;

pub fn routes() -> Vec<Route> {
    let post =
        |route: Route| route.public(RateGroup::OauthPublic).envelope(Envelope::OAuth).body_limit(JSON_BODY);
    vec![
        post(Route::post("/api/v1/core/oauth/webauthn/register/start", register_start))
            .doc("identity", "Begins to register a user with a passkey"),
        post(Route::post("/api/v1/core/oauth/webauthn/register/finish", register_finish))
            .doc("identity", "Makes the user, the passkey and a session"),
        post(Route::post("/api/v1/core/oauth/webauthn/auth/start", auth_start))
            .doc("identity", "Begins a sign-in with a passkey"),
        post(Route::post("/api/v1/core/oauth/webauthn/auth/finish", auth_finish))
            .doc("identity", "Signs in with a passkey"),
        post(Route::post("/api/v1/core/oauth/webauthn/link/start", link_start))
            .doc("identity", "Begins to add a passkey, by a set-up token or a recent sign-in"),
        post(Route::post("/api/v1/core/oauth/webauthn/link/finish", link_finish))
            .doc("identity", "Adds a passkey"),
        Route::get("/api/v1/core/oauth/webauthn/complete", complete)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .query(&["request"])
            .doc("identity", "Goes on with the authorization request that waited for the sign-in"),
    ]
}

/// The end of a ceremony that a set-up token began.
#[derive(Deserialize)]
struct FinishWithToken {
    #[serde(flatten)]
    answer: Finish,
    #[serde(default)]
    token: Option<Secret<String>>,
}

/// How a further passkey begins.
#[derive(Deserialize)]
struct StartLink {
    #[serde(default)]
    token: Option<Secret<String>>,
}

async fn register_start(State(context): State<AppContext>, asked: Asked<StartRegistration>) -> Response {
    let (body, asked) = asked.split();
    let service = WebAuthnService { state: &context.oauth, browser: asked.browser() };
    started(&context, &asked, service.register_start(body).await)
}

async fn auth_start(State(context): State<AppContext>, asked: Asked<StartAuthentication>) -> Response {
    let (body, asked) = asked.split();
    let service = WebAuthnService { state: &context.oauth, browser: asked.browser() };
    started(&context, &asked, service.auth_start(body).await)
}

async fn link_start(State(context): State<AppContext>, asked: Asked<StartLink>) -> Response {
    let (body, asked) = asked.split();
    let service = WebAuthnService { state: &context.oauth, browser: asked.browser() };
    match service.link_start(body.token.as_ref()).await {
        Ok(LinkStarted::Passkey(begun)) => started(&context, &asked, Ok(begun)),
        Ok(register) => {
            let mut response = json_answer(StatusCode::OK, &register);
            asked.flow.keep(&context, response.headers_mut());
            response
        }
        Err(error) => asked.fault(error),
    }
}

async fn register_finish(State(context): State<AppContext>, asked: Asked<FinishWithToken>) -> Response {
    let (body, asked) = asked.split();
    let service = WebAuthnService { state: &context.oauth, browser: asked.browser() };
    done(&context, &asked, service.register_finish(body.answer, body.token.as_ref()).await)
}

async fn auth_finish(State(context): State<AppContext>, asked: Asked<Finish>) -> Response {
    let (body, asked) = asked.split();
    let service = WebAuthnService { state: &context.oauth, browser: asked.browser() };
    done(&context, &asked, service.auth_finish(body).await)
}

async fn link_finish(State(context): State<AppContext>, asked: Asked<FinishWithToken>) -> Response {
    let (body, asked) = asked.split();
    let service = WebAuthnService { state: &context.oauth, browser: asked.browser() };
    done(&context, &asked, service.link_finish(body.answer, body.token.as_ref()).await)
}

/// Leads on with the stored request; nothing else of the query counts (ID-88).
async fn complete(query: Query) -> Response {
    match query.get("request").filter(|id| opaque::has_form(AUTHORIZE_REQUEST_PREFIX, id)) {
        Some(id) => see_other(&format!("/api/v1/core/oauth/authorize?request={id}")),
        None => see_other("/login?done"),
    }
}

fn started(context: &AppContext, asked: &Asked<()>, begun: OauthResult<Started>) -> Response {
    match begun {
        Ok(begun) => {
            let mut response = json_answer(StatusCode::OK, &begun);
            asked.flow.keep(context, response.headers_mut());
            if let Ok(id) = HeaderValue::from_str(&begun.challenge_id) {
                response.headers_mut().insert("x-challenge-id", id);
            }
            response
        }
        Err(error) => asked.fault(error),
    }
}

fn done(context: &AppContext, asked: &Asked<()>, done: OauthResult<Done>) -> Response {
    match done {
        Ok(done) => {
            let body = json!({"user_id": done.user_id, "redirect": done.redirect});
            let mut response = json_answer(StatusCode::OK, &body);
            if let Some(token) = &done.token {
                keep_signed_in(context, token, response.headers_mut());
            }
            response
        }
        Err(error) => asked.fault(error),
    }
}
