//! `GET|POST /login`: signing in, registering and coming back in; the page of set-up links.

use super::flow::Flow;
use super::form::{FORM_BODY, Form, PageForm};
use super::json::{is_foreign, session_of};
use super::page::{error_page, frame, may_return, page, see_other};
use super::session::{keep_signed_in, renewed};
use crate::extract::{Context, Query};
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{Principal, RequestContext};
use systemprompt_oauth::services::authorize;
use systemprompt_oauth::services::authorize::request::AuthorizationRequest;
use systemprompt_oauth::services::authorize::standing::SignedIn;
use systemprompt_oauth::services::pages::{
    DonePage, LinkPage, LoginPage, NOTICES, RECOVERY_CODES, RecoveryCodesPage, RecoveryPage, RegisterPage,
    SecondPage, check_csrf, check_csrf_of_session, csrf,
};
use systemprompt_oauth::services::templating::{Frame, Page};
use systemprompt_oauth::services::webauthn::service::{destination, waiting};
use systemprompt_oauth::services::webauthn::token::Browser;
use systemprompt_oauth::services::{notices, password, recovery};
use systemprompt_oauth::{ErrorCode, OauthError, OauthResult};
use systemprompt_runtime::AppContext;
use url::Url;

/// Parameters that ask for a form, whoever is signed in.
const FORMS: [&str; 5] = ["recovery", "register", "switch", "again", "step"];
/// Purposes of the forms.
const PASSWORD: &str = "login";
const RECOVERY: &str = "recovery";

pub fn routes() -> Vec<Route> {
    let public = |route: Route| route.public(RateGroup::OauthPublic).envelope(Envelope::OAuth);
    vec![
        public(Route::get("/login", login))
            .query(&["request", "done", "recovery", "register", "switch", "again", "step", "ui_locales"])
            .doc("identity", "The sign-in page"),
        public(Route::post("/login", submit))
            .body_limit(FORM_BODY)
            .query(&["request"])
            .doc("identity", "Signs in with a password, or takes a recovery code"),
        public(Route::post("/login/recovery-codes", recovery_codes))
            .body_limit(FORM_BODY)
            .doc("identity", "Makes recovery codes for who has just signed in, and shows them"),
        public(Route::post("/login/notices", dismiss))
            .body_limit(FORM_BODY)
            .doc("identity", "Puts a notice of the sign-in page away"),
        public(Route::get("/webauthn/link", link))
            .query(&["ui_locales"])
            .doc("identity", "The page that set-up links lead to"),
    ]
}

async fn login(
    State(context): State<AppContext>,
    Context(caller): Context,
    query: Query,
    (uri, headers): (Uri, HeaderMap),
) -> Response {
    if let Some(elsewhere) = canonical(&context, &headers, &uri) {
        return elsewhere;
    }
    let flow = match Flow::of(&headers) {
        Ok(flow) => flow,
        Err(error) => return error_page(frame(&context, &headers, None), &caller, &error),
    };
    let request = authorize_request(query.get("request"));
    let step = query.get("step").filter(|_| context.oauth.settings().identity.password.enabled);
    let behind = match behind(&context, &caller, &flow, step, &request).await {
        Ok(behind) => behind,
        Err(error) => return error_page(frame(&context, &headers, None), &caller, &error),
    };
    let frame = behind.frame(&context, &headers, query.get("ui_locales"));
    let shown = frame.clone();
    let is_for_somebody_else = FORMS.iter().any(|name| query.get(name).is_some()) || !request.is_empty();
    let here =
        if is_for_somebody_else { Ok(None) } else { signed_in_page(&context, &headers, frame.clone()).await };
    let rendered = if let Some(here) = here.transpose() {
        here
    } else if let Some(step) = step {
        second_page(&context, frame, &flow, step, None)
    } else if query.get("recovery").is_some() {
        recovery_page(&context, frame, &flow, None)
    } else if query.get("register").is_some() && context.oauth.settings().allow_registration {
        Page::render(&RegisterPage { frame, request })
    } else {
        let fault = query.get("again").map(|_| (frame.t.login_again, ""));
        login_page(&context, frame, &flow, request, fault)
    };
    let mut response = match rendered {
        Ok(rendered) => page(StatusCode::OK, &behind.lead(rendered)),
        Err(error) => return error_page(shown, &caller, &error),
    };
    flow.keep(&context, response.headers_mut());
    renewed(&context, &caller, &headers, response).await
}

/// Who is signed in already, and what they can do; `None` where nobody is.
async fn signed_in_page(
    context: &AppContext,
    headers: &HeaderMap,
    frame: Frame,
) -> Result<Option<Page>, OauthError> {
    let visitor = session_of(context, headers).await;
    let (Some(person), Some(visitor)) = (SignedIn::find(&context.oauth, visitor.as_deref()).await?, visitor)
    else {
        return Ok(None);
    };
    let template = DonePage::of(&context.oauth, &visitor, &person, frame).await?;
    Page::render(&template).map(Some)
}

/// Makes recovery codes and shows them. The page is the answer itself: nothing keeps a code to show it after a redirect.
async fn recovery_codes(State(context): State<AppContext>, form: Form) -> Response {
    let frame = frame(&context, &form.headers, None);
    match made_codes(&context, &form, frame.clone()).await {
        Ok(rendered) => page(StatusCode::OK, &rendered),
        Err(error) if error.code() == ErrorCode::LoginRequired => see_other("/login?again"),
        Err(error) => error_page(frame, &form.context, &error),
    }
}

async fn made_codes(context: &AppContext, form: &Form, frame: Frame) -> Result<Page, OauthError> {
    let caller = own_form(context, form, RECOVERY_CODES).await?;
    let codes = recovery::make(&context.oauth, &caller).await?;
    let codes = codes.iter().map(|code| code.expose().clone()).collect();
    Page::render(&RecoveryCodesPage { frame, codes })
}

/// Puts a notice away, and shows the rest.
async fn dismiss(State(context): State<AppContext>, form: Form) -> Response {
    let dismissed = async {
        let caller = own_form(&context, &form, NOTICES).await?;
        // One that another window put away is away.
        notices::dismiss(&context.oauth, &caller.principal, form.parameters.need("notice")?).await
    };
    match dismissed.await {
        Ok(_) => see_other("/login?done"),
        Err(error) if error.code() == ErrorCode::LoginRequired => see_other("/login?again"),
        Err(error) => error_page(frame(&context, &form.headers, None), &form.context, &error),
    }
}

/// The caller of a form of the page that follows a sign-in, if it came from there.
pub(super) async fn own_form(
    context: &AppContext,
    form: &Form,
    purpose: &str,
) -> Result<RequestContext, OauthError> {
    if is_foreign(context, &Method::POST, &form.headers) {
        return Err(OauthError::new(ErrorCode::AccessDenied, "the form came from another origin"));
    }
    let visitor = session_of(context, &form.headers).await;
    let visitor = visitor.ok_or_else(|| OauthError::new(ErrorCode::LoginRequired, "sign in first"))?;
    check_csrf_of_session(&context.oauth, purpose, &visitor, form.parameters.get("csrf"))?;
    Ok(RequestContext { principal: visitor, ..form.context.clone() })
}

/// The authorization request that waits behind a sign-in. Its forms are answered with redirects that end at the client, which the
/// policy of the page must name, and it says in which language.
pub(super) struct Behind(Option<AuthorizationRequest>);

pub(super) async fn behind(
    context: &AppContext,
    caller: &RequestContext,
    flow: &Flow,
    step: Option<&str>,
    request: &str,
) -> OauthResult<Behind> {
    let of_step = match step {
        Some(step) => {
            let browser = Browser { context: caller, visitor: None, flow: &flow.value };
            password::begun_for(&context.oauth, browser, step).await?
        }
        None => None,
    };
    let id = of_step.as_deref().unwrap_or(request);
    authorize::waiting(&context.oauth, &flow.value, id).await.map(Behind)
}

impl Behind {
    pub(super) fn frame(&self, context: &AppContext, headers: &HeaderMap, ui_locales: Option<&str>) -> Frame {
        let asked = self.0.as_ref().and_then(|asked| asked.ui_locales.as_deref());
        frame(context, headers, asked.or(ui_locales))
    }

    pub(super) fn lead(&self, page: Page) -> Page {
        match &self.0 {
            Some(asked) => page.leading_to(&asked.redirect_uri),
            None => page,
        }
    }
}

/// What waits for the sign-in, or nothing.
fn authorize_request(id: Option<&str>) -> String {
    waiting(id).to_owned()
}

fn login_page(
    context: &AppContext,
    frame: Frame,
    flow: &Flow,
    request: String,
    tried: Option<(&'static str, &str)>,
) -> Result<Page, OauthError> {
    let settings = context.oauth.settings();
    Page::render(&LoginPage {
        frame,
        request,
        registration: settings.allow_registration,
        password: settings.identity.password.enabled,
        username: tried.map(|(_, username)| username.to_owned()).unwrap_or_default(),
        csrf: csrf(&context.oauth, PASSWORD, &flow.value),
        fault: tried.map(|(fault, _)| fault),
    })
}

fn second_page(
    context: &AppContext,
    frame: Frame,
    flow: &Flow,
    step: &str,
    fault: Option<&'static str>,
) -> Result<Page, OauthError> {
    let csrf = csrf(&context.oauth, PASSWORD, &flow.value);
    Page::render(&SecondPage { frame, step: step.to_owned(), csrf, fault })
}

fn recovery_page(
    context: &AppContext,
    frame: Frame,
    flow: &Flow,
    fault: Option<&'static str>,
) -> Result<Page, OauthError> {
    let csrf = csrf(&context.oauth, RECOVERY, &flow.value);
    Page::render(&RecoveryPage { frame, csrf, fault })
}

async fn submit(State(context): State<AppContext>, PageForm(form): PageForm) -> Response {
    let visitor = session_of(&context, &form.headers).await;
    let is_recovery = form.parameters.get("recovery").is_some();
    if !is_recovery && !context.oauth.settings().identity.password.enabled {
        return StatusCode::NOT_FOUND.into_response();
    }
    let purpose = if is_recovery { RECOVERY } else { PASSWORD };
    let flow = match Flow::of(&form.headers) {
        Ok(flow) => flow,
        Err(error) => return error_page(frame(&context, &form.headers, None), &form.context, &error),
    };
    let (step, request) = (form.parameters.get("step"), authorize_request(form.parameters.get("request")));
    let behind = match behind(&context, &form.context, &flow, step, &request).await {
        Ok(behind) => behind,
        Err(error) => return error_page(frame(&context, &form.headers, None), &form.context, &error),
    };
    let frame = behind.frame(&context, &form.headers, None);
    let genuine = check_csrf(&context.oauth, purpose, &flow.value, form.parameters.get("csrf"));
    let foreign = is_foreign(&context, &Method::POST, &form.headers);
    if genuine.is_err() || foreign {
        let error = OauthError::new(ErrorCode::AccessDenied, "the form did not come from this page");
        return error_page(frame, &form.context, &error);
    }
    let answer = if is_recovery {
        recover(&context, &form).await
    } else {
        by_password(&context, visitor.as_deref(), &flow, &form).await
    };
    let error = match answer {
        Ok(response) => return response,
        Err(error) => error,
    };
    let fault = match error.code() {
        ErrorCode::InvalidCredential | ErrorCode::InvalidRequest | ErrorCode::AccessDenied => {
            frame.t.login_failed
        }
        _ if matches!(error, OauthError::Throttled { .. }) => frame.t.throttled,
        _ => return error_page(frame, &form.context, &error),
    };
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let rendered = if is_recovery {
        recovery_page(&context, frame, &flow, Some(fault))
    } else if let Some(step) = step {
        second_page(&context, frame, &flow, step, Some(fault))
    } else {
        let username = form.parameters.get("username").unwrap_or_default();
        login_page(&context, frame, &flow, request, Some((fault, username)))
    };
    match rendered {
        Ok(rendered) => {
            let mut response = page(status, &behind.lead(rendered));
            may_return(&error, response.headers_mut());
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn by_password(
    context: &AppContext,
    visitor: Option<&Principal>,
    flow: &Flow,
    form: &Form,
) -> Result<Response, OauthError> {
    let given = form.parameters.need("password")?.into();
    let (signed_in, request) = if let Some(step) = form.parameters.get("step") {
        let browser = Browser { context: &form.context, visitor, flow: &flow.value };
        let (signed_in, request) = password::second(&context.oauth, browser, step, &given).await?;
        (signed_in, request.unwrap_or_default())
    } else {
        let name = form.parameters.need("username")?;
        let signed_in = password::sign_in(&context.oauth, &form.context, visitor, name, &given).await?;
        (signed_in, authorize_request(form.parameters.get("request")))
    };
    let mut response = see_other(&destination(Some(&request)));
    keep_signed_in(context, &signed_in.token, response.headers_mut());
    Ok(response)
}

async fn recover(context: &AppContext, form: &Form) -> Result<Response, OauthError> {
    let code = form.parameters.need("code")?;
    let link = recovery::redeem(&context.oauth, &form.context, &code.into()).await?;
    Ok(see_other(link.expose()))
}

async fn link(
    State(context): State<AppContext>,
    Context(request): Context,
    query: Query,
    (uri, headers): (Uri, HeaderMap),
) -> Response {
    if let Some(elsewhere) = canonical(&context, &headers, &uri) {
        return elsewhere;
    }
    let frame = frame(&context, &headers, query.get("ui_locales"));
    let flow = match Flow::of(&headers) {
        Ok(flow) => flow,
        Err(error) => return error_page(frame, &request, &error),
    };
    match Page::render(&LinkPage { frame }) {
        Ok(rendered) => {
            let mut response = page(StatusCode::OK, &rendered);
            flow.keep(&context, response.headers_mut());
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The same page on the external URL, when it was asked for under another loopback name: a passkey belongs to one host, and so do the
/// cookies of what is begun here (ID-9).
pub fn canonical(context: &AppContext, headers: &HeaderMap, uri: &Uri) -> Option<Response> {
    let settings = context.oauth.settings();
    let shown = headers.get(header::HOST)?.to_str().ok()?;
    let shown = Url::parse(&format!("http://{shown}")).ok()?;
    let own = Url::parse(&settings.external_url).ok()?;
    let is_loopback = matches!(shown.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if !is_loopback || shown.host_str() == own.host_str() {
        return None;
    }
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut response = see_other(&format!("{}{target}", settings.external_url));
    *response.status_mut() = StatusCode::FOUND;
    Some(response)
}
