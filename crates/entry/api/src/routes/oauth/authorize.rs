//! `GET|POST /api/v1/core/oauth/authorize` (RFC 6749 section 3.1).

use super::flow::Flow;
use super::form::{AUTHORIZE_BODY, Asked};
use super::login::canonical;
use super::page::{error_page, frame, page, see_other};
use super::session::renewed;
use super::visitor::Visitor;
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, StatusCode, Uri};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::ids::uuid_v4;
use systemprompt_models::{Principal, RequestContext};
use systemprompt_oauth::models::oauth::ResponseMode;
use systemprompt_oauth::services::authorize::answer::Answer;
use systemprompt_oauth::services::authorize::{Browser, Next, Refused, begin, resume};
use systemprompt_oauth::services::http::Parameters;
use systemprompt_oauth::services::templating::{FormPostPage, Page};
use systemprompt_runtime::AppContext;

/// Where this endpoint stands.
pub const AUTHORIZE: &str = "/api/v1/core/oauth/authorize";

pub fn routes() -> Vec<Route> {
    vec![
        Route::get(AUTHORIZE, authorize)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .doc("identity", "Asks a person for an authorization"),
        Route::post(AUTHORIZE, authorize)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .body_limit(AUTHORIZE_BODY)
            .doc("identity", "The same, with the parameters in the body"),
    ]
}

async fn authorize(
    State(context): State<AppContext>,
    Visitor(visitor): Visitor,
    (method, uri): (Method, Uri),
    Asked(asked): Asked,
) -> Response {
    if let Some(elsewhere) = canonical(&context, &asked.headers, &uri) {
        if method == Method::POST {
            // A browser sends no form a second time by itself (ID-120): the parameters go on in the address, as with GET.
            let external = &context.oauth.settings().external_url;
            return see_other(&format!("{external}{AUTHORIZE}?{}", asked.parameters.encoded()));
        }
        return elsewhere;
    }
    let next = answer(&context, &asked.context, visitor.as_deref(), &asked.headers, &asked.parameters).await;
    renewed(&context, &asked.context, &asked.headers, next).await
}

async fn answer(
    context: &AppContext,
    request: &RequestContext,
    visitor: Option<&Principal>,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Response {
    let flow = match Flow::of(headers) {
        Ok(flow) => flow,
        Err(error) => return error_page(frame(context, headers, None), request, &error),
    };
    let browser = Browser { context: request, visitor, flow: &flow.value };
    let next = match parameters.get("request").filter(|_| parameters.get("client_id").is_none()) {
        Some(id) => resume(&context.oauth, browser, id).await,
        None => begin(&context.oauth, browser, parameters).await,
    };
    let mut response = go(context, request, headers, next);
    flow.keep(context, response.headers_mut());
    response
}

/// The answer that leads the browser on.
pub fn go(
    context: &AppContext,
    request: &RequestContext,
    headers: &HeaderMap,
    next: Result<Next, Refused>,
) -> Response {
    match next {
        Ok(Next::Client(answer)) => to_client(context, headers, &answer),
        Ok(Next::SignIn(id)) => see_other(&format!("/login?request={}", id.expose())),
        Ok(Next::Consent(id)) => see_other(&format!("/api/v1/core/oauth/consent?request={}", id.expose())),
        Err(refused) => {
            error_page(frame(context, headers, refused.ui_locales.as_deref()), request, &refused.error)
        }
    }
}

fn to_client(context: &AppContext, headers: &HeaderMap, answer: &Answer) -> Response {
    if answer.mode == ResponseMode::Query {
        return see_other(&answer.location());
    }
    let nonce = URL_SAFE_NO_PAD.encode(uuid_v4().as_bytes());
    let template = FormPostPage {
        frame: frame(context, headers, answer.ui_locales.as_deref()),
        target: answer.redirect_uri.clone(),
        fields: answer.fields(),
        nonce: nonce.clone(),
    };
    match Page::render(&template) {
        Ok(rendered) => {
            let mut rendered = rendered.leading_to(&answer.redirect_uri);
            rendered.nonce = Some(nonce);
            page(StatusCode::OK, &rendered)
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
