//! `GET|POST /api/v1/core/oauth/logout` (OpenID Connect RP-Initiated Logout 1.0).

use super::form::{Asked, FORM_BODY};
use super::login::canonical;
use super::page::{error_page, frame, page, see_other};
use super::visitor::Visitor;
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::ids::SessionId;
use systemprompt_models::{Principal, RequestContext};
use systemprompt_oauth::constants::SESSION_COOKIE;
use systemprompt_oauth::services::http::Parameters;
use systemprompt_oauth::services::logout::{self, Logout, LogoutPage};
use systemprompt_oauth::services::templating::{Frame, MessagePage, Page};
use systemprompt_oauth::{ErrorCode, OauthError, OauthResult};
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::csrf;
use systemprompt_security::extraction::CookieExtractor;

const LOGOUT: &str = "/api/v1/core/oauth/logout";

pub fn routes() -> Vec<Route> {
    vec![
        Route::get(LOGOUT, sign_out)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .doc("identity", "Signs the person out, at the request of a client"),
        Route::post(LOGOUT, sign_out)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .body_limit(FORM_BODY)
            .doc("identity", "The same, and the confirmation of its page"),
    ]
}

async fn sign_out(
    State(context): State<AppContext>,
    Visitor(visitor): Visitor,
    (method, uri): (Method, Uri),
    Asked(asked): Asked,
) -> Response {
    let is_form = method == Method::POST;
    if let Some(elsewhere) = canonical(&context, &asked.headers, &uri).filter(|_| !is_form) {
        return elsewhere;
    }
    let origin = context.oauth.settings().external_url.clone();
    let is_own = csrf::is_allowed(&Method::POST, &asked.headers, &origin);
    if is_form && asked.parameters.get("csrf").is_some() && !is_own {
        let error = OauthError::new(ErrorCode::AccessDenied, "the form came from another origin");
        return error_page(frame(&context, &asked.headers, None), &asked.context, &error);
    }
    answer(&context, &asked.context, visitor.as_deref(), (&asked.headers, &asked.parameters), is_form).await
}

async fn answer(
    context: &AppContext,
    request: &RequestContext,
    visitor: Option<&Principal>,
    (headers, parameters): (&HeaderMap, &Parameters),
    is_form: bool,
) -> Response {
    let shown = frame(context, headers, parameters.get("ui_locales"));
    let done = logout::logout(&context.oauth, request, visitor, parameters, is_form).await;
    let rendered = match (done, visitor) {
        (Ok(Logout::Ask), Some(visitor)) => question(context, shown.clone(), visitor, parameters).await,
        (Ok(Logout::Done(done)), _) => {
            let answer = match &done.back {
                Some(back) => Ok(see_other(back)),
                // What was posted is answered with a redirect (ID-108): the page of somebody who is signed out says so.
                None if is_form => Ok(see_other(LOGOUT)),
                None => signed_out(&shown).map(|rendered| page(StatusCode::OK, &rendered)),
            };
            match answer {
                Ok(answer) => return ended(context, headers, done.session.as_ref(), answer).await,
                Err(error) => Err(error),
            }
        }
        (Ok(Logout::Ask), None) => Err(OauthError::invalid_request("nobody is signed in")),
        (Err(error), _) => Err(error),
    };
    match rendered {
        Ok(rendered) => page(StatusCode::OK, &rendered),
        Err(error) => error_page(shown, request, &error),
    }
}

/// The page that asks whether to sign out, and says whom.
async fn question(
    context: &AppContext,
    frame: Frame,
    visitor: &Principal,
    parameters: &Parameters,
) -> OauthResult<Page> {
    let page = Page::render(&LogoutPage {
        frame,
        person: logout::person(&context.oauth, visitor).await?,
        action: context.oauth.settings().endpoint("/logout"),
        csrf: logout::csrf(&context.oauth, visitor),
        fields: logout::fields(parameters),
    })?;
    Ok(match parameters.get("post_logout_redirect_uri") {
        Some(uri) => page.leading_to(uri),
        None => page,
    })
}

fn signed_out(frame: &Frame) -> OauthResult<Page> {
    let (title, message) = (frame.t.logged_out_title.to_owned(), frame.t.logged_out_lead.to_owned());
    Page::render(&MessagePage { frame: frame.clone(), title, message })
}

/// Takes away a cookie that came along, which it does not from another site, and tells other nodes of the session.
async fn ended(
    context: &AppContext,
    headers: &HeaderMap,
    session: Option<&SessionId>,
    mut response: Response,
) -> Response {
    let text = format!("{SESSION_COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    let came_along = CookieExtractor::new(SESSION_COOKIE).extract(headers).is_ok();
    if came_along && let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    if let Some(session) = session {
        context.auth.forget();
        context.tell_revocation(session.as_str()).await;
    }
    response
}
