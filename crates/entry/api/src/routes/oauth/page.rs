//! Pages: their headers, and the files that they load.

use super::answer::unstored;
use crate::services::server::route::Route;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Refusal, RequestContext};
use systemprompt_oauth::services::templating::{self, ErrorPage, Frame, Page};
use systemprompt_oauth::{ErrorCode, OauthError};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/core/oauth/assets/{name}", file)
            .public(RateGroup::Content)
            .doc("identity", "A file of the sign-in pages"),
    ]
}

async fn file(Path(name): Path<String>) -> crate::Result<Response> {
    let asset =
        templating::asset(&name).ok_or_else(|| Refusal::new(Code::NotFound, "there is no such file"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    Ok((headers, asset.bytes).into_response())
}

/// The answer with a page.
pub fn page(status: StatusCode, page: &Page) -> Response {
    let mut response = (status, axum::response::Html(page.html.clone())).into_response();
    let headers = response.headers_mut();
    unstored(headers);
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    if let Ok(policy) = HeaderValue::from_str(&page.policy()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// What the pages of a request have in common.
pub fn frame(context: &AppContext, headers: &HeaderMap, ui_locales: Option<&str>) -> Frame {
    let language = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    Frame::new(&context.oauth.settings(), ui_locales, language)
}

/// A redirect after which the browser asks with GET (RFC 9700 section 4.12).
pub fn see_other(location: &str) -> Response {
    let location = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("/"));
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    unstored(response.headers_mut());
    response
}

/// A page for an error that goes nowhere else.
pub fn error_page(frame: Frame, request: &RequestContext, error: &OauthError) -> Response {
    if error.is_ours() {
        let source = std::error::Error::source(error);
        tracing::error!(%error, source = ?source, trace_id = %request.trace_id, "an identity page failed");
    }
    let t = frame.t;
    let message = match error.code() {
        ErrorCode::InvalidClient | ErrorCode::UnauthorizedClient => t.error_client,
        ErrorCode::InvalidRedirectUri => t.error_redirect,
        ErrorCode::InvalidGrant | ErrorCode::ExpiredToken => t.error_expired,
        ErrorCode::AccessDenied => t.error_forged,
        ErrorCode::TemporarilyUnavailable | ErrorCode::ServerError => t.error_busy,
        _ => t.error_request,
    };
    let status = match error.code() {
        ErrorCode::InvalidClient => 400,
        _ => error.status(),
    };
    let template = ErrorPage {
        title: t.error_title.to_owned(),
        message: message.to_owned(),
        code: error.code().as_str().to_owned(),
        trace_id: request.trace_id.to_string(),
        frame,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = match Page::render(&template) {
        Ok(rendered) => page(status, &rendered),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    may_return(error, response.headers_mut());
    response
}

/// Says when a call that was too much, or could not be served now, may come again (ID-2).
pub fn may_return(error: &OauthError, headers: &mut HeaderMap) {
    if let Some(seconds) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use systemprompt_config::profile::Profile;
    use systemprompt_models::Principal;
    use systemprompt_models::ids::TraceId;
    use systemprompt_oauth::Settings;

    #[test]
    fn id_2_a_page_says_when_to_come_again_as_the_endpoints_do() {
        let request = RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate());
        let frame = Frame::new(&Settings::of(&Profile::default()), None, None);
        let full = OauthError::new(ErrorCode::TemporarilyUnavailable, "too many sign-ins are open");
        for (error, want) in [
            (OauthError::Throttled { retry_after: 7 }, (429, Some("7"))),
            (full, (503, Some("60"))),
            (OauthError::Ledger(systemprompt_audit::LedgerError::Unavailable("x".into())), (503, Some("1"))),
            (OauthError::invalid_request("x"), (400, None)),
        ] {
            let page = error_page(frame.clone(), &request, &error);
            let after = page.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!((page.status().as_u16(), after), want, "{error}");
        }
    }
}
