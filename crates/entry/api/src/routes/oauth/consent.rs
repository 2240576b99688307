//! `GET|POST /api/v1/core/oauth/consent`, and the grants of the caller.

use super::answer::{Fault, json_answer};
use super::authorize::go;
use super::flow::Flow;
use super::form::{FORM_BODY, PageForm};
use super::login::canonical;
use super::page::{error_page, frame, page, see_other};
use super::session::renewed;
use super::visitor::Visitor;
use crate::extract::{Context, Query};
use crate::routes::admin::page as list_page;
use crate::services::server::route::Route;
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{Code, Principal, Refusal, RequestContext};
use systemprompt_oauth::models::oauth::api;
use systemprompt_oauth::services::authorize::Browser;
use systemprompt_oauth::services::consent;
use systemprompt_oauth::services::templating::Page;
use systemprompt_oauth::{ErrorCode, OauthError};
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::csrf;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/core/oauth/consent", show)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .query(&["request"])
            .doc("identity", "The page on which a person allows a client something"),
        Route::post("/api/v1/core/oauth/consent", decide)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .body_limit(FORM_BODY)
            .query(&["request"])
            .doc("identity", "What the person decided"),
        Route::get("/api/v1/core/users/me/grants", grants)
            .in_person()
            .query(&["limit", "cursor"])
            .doc("identity", "What the caller has allowed clients, the newest first"),
        Route::delete("/api/v1/core/users/me/grants/{id}", revoke)
            .in_person()
            .doc("identity", "Takes a grant back, with every token of it"),
    ]
}

async fn show(
    State(context): State<AppContext>,
    Context(request): Context,
    Visitor(visitor): Visitor,
    query: Query,
    (uri, headers): (Uri, HeaderMap),
) -> Response {
    if let Some(elsewhere) = canonical(&context, &headers, &uri) {
        return elsewhere;
    }
    let shown = shown(&context, &request, visitor.as_deref(), &query, &headers).await;
    renewed(&context, &request, &headers, shown).await
}

async fn shown(
    context: &AppContext,
    request: &RequestContext,
    visitor: Option<&Principal>,
    query: &Query,
    headers: &HeaderMap,
) -> Response {
    let fault = |error: &OauthError| error_page(frame(context, headers, None), request, error);
    let Some(id) = query.get("request") else {
        return fault(&OauthError::invalid_request("request is missing"));
    };
    let flow = match Flow::of(headers) {
        Ok(flow) => flow,
        Err(error) => return fault(&error),
    };
    let browser = Browser { context: request, visitor, flow: &flow.value };
    let waiting = match consent::waiting(&context.oauth, browser, id).await {
        Ok(waiting) => waiting,
        Err(error) => return fault(&error),
    };
    let Some(person) = waiting.person(&context.oauth) else {
        return see_other(&format!("/login?request={id}"));
    };
    let shown = frame(context, headers, waiting.asked.ui_locales.as_deref());
    match waiting.page(&context.oauth, shown, person, id).and_then(|template| Page::render(&template)) {
        Ok(rendered) => page(StatusCode::OK, &rendered.leading_to(&waiting.asked.redirect_uri)),
        Err(error) => fault(&error),
    }
}

async fn decide(State(context): State<AppContext>, Visitor(visitor): Visitor, request: Request) -> Response {
    let form = match PageForm::from_request(request, &context).await {
        Ok(PageForm(form)) => form,
        Err(response) => return response,
    };
    let fault = |error: &OauthError| error_page(frame(&context, &form.headers, None), &form.context, error);
    let origin = context.oauth.settings().external_url.clone();
    if !csrf::is_allowed(&Method::POST, &form.headers, &origin) {
        return fault(&OauthError::new(ErrorCode::AccessDenied, "the form came from another origin"));
    }
    let flow = match Flow::of(&form.headers) {
        Ok(flow) => flow,
        Err(error) => return fault(&error),
    };
    let browser = Browser { context: &form.context, visitor: visitor.as_deref(), flow: &flow.value };
    let next = consent::decide(&context.oauth, browser, &form.parameters).await;
    go(&context, &form.context, &form.headers, next)
}

async fn grants(State(context): State<AppContext>, Context(caller): Context, query: Query) -> Response {
    let listed = async {
        query.only(&["limit", "cursor"])?;
        let (limit, cursor) = (query.limit(50, 200)?, query.cursor()?);
        let user = caller.principal.user_id.as_str();
        let rows = consent::grants(&context.oauth, user, api::Page::with_next(&cursor, limit)).await;
        Ok::<_, crate::Error>(rows.map(|rows| list_page(rows, limit, |grant| grant.grant_id.clone())))
    };
    match listed.await {
        Ok(Ok(body)) => json_answer(StatusCode::OK, &body.0),
        Ok(Err(error)) => Fault::new(&caller, error).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn revoke(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Response> {
    let user = caller.principal.user_id.clone();
    let ended = consent::revoke(&context.oauth, &caller, user.as_str(), &id).await;
    match ended {
        Ok(true) => {
            context.auth.forget();
            context.tell_revocation(&id).await;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Ok(false) => Err(Refusal::new(Code::NotFound, "you have no such grant").into()),
        Err(error) => Ok(Fault::new(&caller, error).into_response()),
    }
}
