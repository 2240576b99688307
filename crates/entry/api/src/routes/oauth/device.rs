//! `GET|POST /device`: the person's side of the device grant (RFC 8628 section 3.3).

use super::flow::Flow;
use super::form::{FORM_BODY, Form};
use super::json::is_foreign;
use super::login::canonical;
use super::page::{error_page, frame, may_return, page, see_other};
use super::session::renewed;
use super::visitor::Visitor;
use crate::extract::{Context, Query};
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{Principal, RequestContext};
use systemprompt_oauth::services::authorize::standing::SignedIn;
use systemprompt_oauth::services::device_page::{confirm, decide, normal};
use systemprompt_oauth::services::pages::DevicePage;
use systemprompt_oauth::services::templating::{MessagePage, Page};
use systemprompt_oauth::{ErrorCode, OauthError, OauthResult};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    let public = |route: Route| route.public(RateGroup::OauthPublic).envelope(Envelope::OAuth);
    vec![
        public(Route::get("/device", show))
            .query(&["user_code", "done", "ui_locales"])
            .doc("identity", "The page on which a person enters the code of a device"),
        public(Route::post("/device", submit))
            .body_limit(FORM_BODY)
            .doc("identity", "What the person decided about a device"),
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
    let shown = shown(&context, (&request, &headers), visitor.as_deref(), &query).await;
    let shown = shown.unwrap_or_else(|error| error_page(frame(&context, &headers, None), &request, &error));
    renewed(&context, &request, &headers, shown).await
}

async fn shown(
    context: &AppContext,
    (request, headers): (&RequestContext, &HeaderMap),
    visitor: Option<&Principal>,
    query: &Query,
) -> OauthResult<Response> {
    let frame = frame(context, headers, query.get("ui_locales"));
    if let Some(done) = query.get("done") {
        let t = frame.t;
        let (title, message) = match done {
            "allowed" => (t.device_allowed_title, t.device_allowed_lead),
            _ => (t.device_denied_title, t.device_denied_lead),
        };
        let (title, message) = (title.to_owned(), message.to_owned());
        return Ok(page(StatusCode::OK, &Page::render(&MessagePage { frame, title, message })?));
    }
    let typed = query.get("user_code").filter(|typed| !typed.is_empty());
    let Some(person) = SignedIn::find(&context.oauth, visitor).await? else {
        let back = typed.and_then(normal).unwrap_or_else(|| "device".to_owned());
        return Ok(see_other(&with_language(&format!("/login?request={back}"), frame.ui_locales)));
    };
    let flow = Flow::of(headers)?;
    let Some(typed) = typed else {
        return Ok(page(StatusCode::OK, &Page::render(&DevicePage { frame, fault: None })?));
    };
    let t = frame.t;
    let (status, rendered) =
        match confirm(&context.oauth, request, (&person, &flow.value), frame.clone(), typed).await {
            Ok(Some(confirm)) => (StatusCode::OK, Page::render(&confirm)?),
            Ok(None) => {
                let template = DevicePage { frame, fault: Some(t.device_unknown) };
                (StatusCode::NOT_FOUND, Page::render(&template)?)
            }
            Err(error @ OauthError::Throttled { .. }) => {
                let template = DevicePage { frame, fault: Some(t.throttled) };
                let mut response = page(StatusCode::TOO_MANY_REQUESTS, &Page::render(&template)?);
                may_return(&error, response.headers_mut());
                return Ok(response);
            }
            Err(error) => return Err(error),
        };
    let mut response = page(status, &rendered);
    flow.keep(context, response.headers_mut());
    Ok(response)
}

async fn submit(State(context): State<AppContext>, Visitor(visitor): Visitor, form: Form) -> Response {
    let done = decided(&context, visitor.as_deref(), &form).await;
    let ui_locales = form.parameters.get("ui_locales");
    done.unwrap_or_else(|error| error_page(frame(&context, &form.headers, ui_locales), &form.context, &error))
        .into_response()
}

/// An address with a query, in the language that was asked for.
fn with_language(address: &str, language: Option<&str>) -> String {
    language.map_or_else(|| address.to_owned(), |language| format!("{address}&ui_locales={language}"))
}

async fn decided(context: &AppContext, visitor: Option<&Principal>, form: &Form) -> OauthResult<Response> {
    let language = frame(context, &form.headers, form.parameters.get("ui_locales")).ui_locales;
    if is_foreign(context, &Method::POST, &form.headers) {
        return Err(OauthError::new(ErrorCode::AccessDenied, "the form came from another origin"));
    }
    let Some(person) = SignedIn::find(&context.oauth, visitor).await? else {
        return Ok(see_other(&with_language("/login?request=device", language)));
    };
    let flow = Flow::of(&form.headers)?;
    let allow = match form.parameters.need("decision")? {
        "allow" => true,
        "deny" => false,
        _ => return Err(OauthError::invalid_request("decision is allow or deny")),
    };
    let who = (&person, &flow.value);
    let taken = decide(&context.oauth, &form.context, who, &form.parameters, allow).await?;
    Ok(match (taken, allow) {
        (true, true) => see_other(&with_language("/device?done=allowed", language)),
        (true, false) => see_other(&with_language("/device?done=denied", language)),
        (false, _) => {
            return Err(OauthError::new(ErrorCode::ExpiredToken, "the request is not open any more"));
        }
    })
}
