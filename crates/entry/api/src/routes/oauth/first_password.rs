//! `GET|POST /login/password`: the first password of somebody whose passkey is half of a sign-in. They are led here from the ceremony
//! that made it, since without the other half they could not sign in again.

use super::flow::Flow;
use super::form::{FORM_BODY, PageForm};
use super::json::session_of;
use super::login::{behind, canonical, own_form};
use super::page::{error_page, frame, page, see_other};
use crate::extract::{Context, Query};
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{Principal, RequestContext};
use systemprompt_oauth::services::authorize::standing::SignedIn;
use systemprompt_oauth::services::pages::{FIRST_PASSWORD, PasswordPage, Person, csrf_of_session};
use systemprompt_oauth::services::password;
use systemprompt_oauth::services::templating::{Frame, Page};
use systemprompt_oauth::services::webauthn::service::{destination, waiting};
use systemprompt_oauth::{ErrorCode, OauthResult};
use systemprompt_runtime::AppContext;

const PATH: &str = "/login/password";

pub fn routes() -> Vec<Route> {
    let public = |route: Route| route.public(RateGroup::OauthPublic).envelope(Envelope::OAuth);
    vec![
        public(Route::get(PATH, show))
            .query(&["request"])
            .doc("identity", "The page on which somebody sets the other half of their sign-in"),
        public(Route::post(PATH, submit)).body_limit(FORM_BODY).doc("identity", "Sets a first password"),
    ]
}

async fn show(
    State(context): State<AppContext>,
    Context(request): Context,
    query: Query,
    (uri, headers): (Uri, HeaderMap),
) -> Response {
    if let Some(elsewhere) = canonical(&context, &headers, &uri) {
        return elsewhere;
    }
    let waiting = waiting(query.get("request"));
    let shown = async {
        let visitor = session_of(&context, &headers).await;
        let person = SignedIn::find(&context.oauth, visitor.as_deref()).await?;
        let (Some(visitor), Some(person)) = (visitor, person) else { return Ok(see_other("/login?again")) };
        if password::is_set(&context.oauth, &visitor.user_id).await? {
            return Ok(see_other(&destination(Some(waiting))));
        }
        form(&context, &request, &headers, (&visitor, &person), (waiting, false)).await
    };
    with_passwords(&context, shown)
        .await
        .unwrap_or_else(|error| error_page(frame(&context, &headers, None), &request, &error))
}

async fn submit(State(context): State<AppContext>, PageForm(sent): PageForm) -> Response {
    let waiting = waiting(sent.parameters.get("request"));
    let set = async {
        let caller = own_form(&context, &sent, FIRST_PASSWORD).await?;
        if password::is_set(&context.oauth, &caller.principal.user_id).await? {
            return Ok(see_other(&destination(Some(waiting))));
        }
        let new = sent.parameters.need("new")?.into();
        match password::change(&context.oauth, &caller, None, &new).await {
            Ok(()) => {
                context.auth.forget();
                context.tell_revocation(caller.principal.user_id.as_str()).await;
                Ok(see_other(&destination(Some(waiting))))
            }
            Err(error) if error.code() == ErrorCode::InvalidRequest => {
                let visitor = &caller.principal;
                let person = SignedIn::find(&context.oauth, Some(visitor)).await?;
                let Some(person) = person else { return Ok(see_other("/login?again")) };
                form(&context, &caller, &sent.headers, (visitor, &person), (waiting, true)).await
            }
            Err(error) => Err(error),
        }
    };
    match with_passwords(&context, set).await {
        Ok(response) => response,
        Err(error) if error.code() == ErrorCode::LoginRequired => see_other("/login?again"),
        Err(error) => error_page(frame(&context, &sent.headers, None), &sent.context, &error),
    }
}

/// What `answer` comes to where passwords are on; elsewhere there is no such page.
async fn with_passwords(
    context: &AppContext,
    answer: impl Future<Output = OauthResult<Response>>,
) -> OauthResult<Response> {
    if context.oauth.settings().identity.password.enabled {
        answer.await
    } else {
        Ok(StatusCode::NOT_FOUND.into_response())
    }
}

async fn form(
    context: &AppContext,
    request: &RequestContext,
    headers: &HeaderMap,
    (visitor, person): (&Principal, &SignedIn),
    (waiting, is_weak): (&str, bool),
) -> OauthResult<Response> {
    let flow = Flow::of(headers)?;
    let behind = behind(context, request, &flow, None, waiting).await?;
    let frame: Frame = behind.frame(context, headers, None);
    let t = frame.t;
    let rendered = Page::render(&PasswordPage {
        frame,
        person: Person::from(&person.user),
        request: waiting.to_owned(),
        least: context.oauth.settings().identity.password.min_length,
        csrf: csrf_of_session(&context.oauth, FIRST_PASSWORD, visitor),
        fault: is_weak.then_some(t.first_password_weak),
    })?;
    let status = if is_weak { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(page(status, &behind.lead(rendered)))
}
