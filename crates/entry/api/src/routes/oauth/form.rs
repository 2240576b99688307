//! The form body of an OAuth endpoint (ID-1).

use super::answer::Fault;
use super::page::{error_page, frame};
use crate::extract::Context;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};
use systemprompt_models::RequestContext;
use systemprompt_oauth::services::http::Parameters;
use systemprompt_oauth::services::validation::client_credentials::ClientLimit;
use systemprompt_oauth::{ErrorCode, OauthError};
use systemprompt_runtime::AppContext;

/// Largest body of an endpoint, and of those that take an authorization request.
pub const FORM_BODY: usize = 8 * 1024;
pub const AUTHORIZE_BODY: usize = 16 * 1024;
/// Largest JSON body of registration and of passkey ceremonies.
pub const JSON_BODY: usize = 64 * 1024;

/// The parameters of a form, with who asks. Parameters of such an endpoint in the query are refused: queries are logged on
/// their way.
#[derive(Clone, Debug)]
pub struct Form {
    pub parameters: Parameters,
    pub context: RequestContext,
    pub headers: HeaderMap,
    /// Of routes where clients are counted.
    pub limit: Option<ClientLimit>,
}

impl<S: Sync> FromRequest<S> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        Self::read(request, state, &[]).await
    }
}

/// The form of a page, whose address may name the request that it is about.
#[derive(Clone, Debug)]
pub struct PageForm(pub Form);

impl<S: Sync> FromRequest<S> for PageForm {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        Form::read(request, state, &["request"]).await.map(Self)
    }
}

impl Form {
    /// Reads a form beside which the address has none but these parameters.
    async fn read<S: Sync>(request: Request, state: &S, in_address: &[&str]) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Context(context) =
            Context::from_request_parts(&mut parts, state).await.map_err(IntoResponse::into_response)?;
        let fault = |error| Fault::new(&context, error).into_response();
        let address = Parameters::parse(parts.uri.query().unwrap_or_default().as_bytes()).map_err(fault)?;
        let is_bare = parts.uri.query().is_none_or(str::is_empty);
        if !is_bare && (address.is_empty() || !address.names().all(|name| in_address.contains(&name))) {
            return Err(fault(OauthError::invalid_request("parameters belong into the body")));
        }
        if !is_form(&parts.headers) {
            let error = OauthError::invalid_request("send application/x-www-form-urlencoded");
            let mut response = fault(error);
            *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(response);
        }
        let body = crate::extract::read(body).await.map_err(|refusal| {
            let mut response = fault(OauthError::new(ErrorCode::InvalidRequest, "the body cannot be read"));
            let status = http::StatusCode::from_u16(refusal.status());
            *response.status_mut() = status.unwrap_or(http::StatusCode::BAD_REQUEST);
            response
        })?;
        let parameters = Parameters::parse(&body).and_then(|form| form.with(address)).map_err(fault)?;
        let limit = parts.extensions.remove::<ClientLimit>();
        Ok(Self { parameters, context, headers: parts.headers, limit })
    }
}

/// The parameters of a page that takes them in the address and in a form alike.
#[derive(Clone, Debug)]
pub struct Asked(pub Form);

impl FromRequest<AppContext> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, state: &AppContext) -> Result<Self, Response> {
        if request.method() == Method::POST {
            return Form::from_request(request, state).await.map(Self);
        }
        let (mut parts, _) = request.into_parts();
        let Context(context) =
            Context::from_request_parts(&mut parts, state).await.map_err(IntoResponse::into_response)?;
        let query = parts.uri.query().unwrap_or_default();
        let parameters = Parameters::parse(query.as_bytes())
            .map_err(|error| error_page(frame(state, &parts.headers, None), &context, &error))?;
        Ok(Self(Form { parameters, context, headers: parts.headers, limit: None }))
    }
}

impl Form {
    /// The `Authorization` header, if it is text.
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
    }

    /// The answer to an error.
    pub fn fault(&self, error: OauthError) -> Response {
        Fault::of_client(&self.context, &self.headers, error).into_response()
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = value.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}
