//! The JSON body of an endpoint of the authorization server, with who asks (ID-1).

use super::answer::Fault;
use super::flow::Flow;
use crate::extract::{Context, parse_stored, read};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use systemprompt_models::{Principal, RequestContext};
use systemprompt_oauth::services::webauthn::Browser;
use systemprompt_oauth::{ErrorCode, OauthError};
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::{AuthMode, csrf};
use systemprompt_security::jwt::Surface;
use url::Url;

/// A JSON body of a browser's ceremony.
pub struct Asked<T> {
    pub body: T,
    pub context: RequestContext,
    pub headers: HeaderMap,
    pub visitor: Option<Arc<Principal>>,
    pub flow: Flow,
}

impl<T: DeserializeOwned> FromRequest<AppContext> for Asked<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &AppContext) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Context(context) =
            Context::from_request_parts(&mut parts, state).await.map_err(IntoResponse::into_response)?;
        let visitor = session_of(state, &parts.headers).await;
        let fault = |error| Fault::new(&context, error).into_response();
        if is_foreign(state, &parts.method, &parts.headers) {
            let error =
                OauthError::new(ErrorCode::AccessDenied, "the request does not come from our own pages");
            return Err(fault(error));
        }
        if !is_json(&parts.headers) {
            let mut response = fault(OauthError::invalid_request("send application/json"));
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(response);
        }
        let bytes = read(body).await.map_err(|refusal| {
            let mut response = fault(OauthError::invalid_request("the body cannot be read"));
            *response.status_mut() =
                StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            response
        })?;
        let body = parse_stored(&bytes)
            .map_err(|_| fault(OauthError::invalid_request("the body is not what this endpoint takes")))?;
        let flow = Flow::of(&parts.headers).map_err(fault)?;
        Ok(Self { body, headers: parts.headers, visitor, flow, context })
    }
}

impl<T> Asked<T> {
    /// The body, and what is known of who sent it.
    pub fn split(self) -> (T, Asked<()>) {
        let Self { body, context, headers, visitor, flow } = self;
        (body, Asked { body: (), context, headers, visitor, flow })
    }
}

impl Asked<()> {
    /// The browser of the ceremony.
    pub fn browser(&self) -> Browser<'_> {
        Browser { context: &self.context, visitor: self.visitor.as_deref(), flow: &self.flow.value }
    }

    /// The answer to an error.
    pub fn fault(&self, error: OauthError) -> Response {
        Fault::new(&self.context, error).into_response()
    }
}

/// Whose session the cookie of a browser is of, somebody unknown's too: that one ends with a sign-in.
pub async fn session_of(context: &AppContext, headers: &HeaderMap) -> Option<Arc<Principal>> {
    context
        .auth
        .authenticate(headers, Surface::Site, AuthMode::Optional)
        .await
        .ok()
        .filter(|p| p.is_in_person())
}

/// Whether a browser says that the request comes from elsewhere. Programs say nothing; browsers always do on what changes things.
pub fn is_foreign(context: &AppContext, method: &Method, headers: &HeaderMap) -> bool {
    let says = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    let settings = context.oauth.settings();
    let origin = Url::parse(&settings.external_url).map(|url| url.origin().ascii_serialization());
    says && !csrf::is_allowed(method, headers, &origin.unwrap_or_default())
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
