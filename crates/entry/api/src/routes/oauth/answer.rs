//! How the endpoints answer: JSON that nobody stores, and errors in the form of RFC 6749 section 5.2.

use super::page::may_return;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use systemprompt_models::RequestContext;
use systemprompt_oauth::{ErrorCode, OauthError};

/// Headers of everything that holds a token or is about one person (ID-3).
pub fn unstored(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// A JSON answer that nobody stores.
pub fn json_answer(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    unstored(response.headers_mut());
    response
}

/// An error with what its form needs of the request.
#[derive(Debug)]
pub struct Fault {
    error: OauthError,
    trace_id: String,
    /// Whether the client tried HTTP Basic, which then is told of it (RFC 6749 section 5.2).
    basic: bool,
}

impl Fault {
    pub fn new(context: &RequestContext, error: OauthError) -> Self {
        Self { error, trace_id: context.trace_id.to_string(), basic: false }
    }

    /// Of an endpoint where clients prove themselves.
    pub fn of_client(context: &RequestContext, headers: &HeaderMap, error: OauthError) -> Self {
        let tried = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let basic =
            tried.and_then(|text| text.get(..6)).is_some_and(|head| head.eq_ignore_ascii_case("basic "));
        Self { basic, ..Self::new(context, error) }
    }

    fn challenge(&self) -> Option<HeaderValue> {
        let code = self.error.code();
        match code {
            ErrorCode::InvalidClient if self.basic => Some(HeaderValue::from_static("Basic realm=\"oauth\"")),
            ErrorCode::InvalidToken | ErrorCode::InsufficientScope => {
                HeaderValue::from_str(&format!("Bearer error=\"{}\"", code.as_str())).ok()
            }
            _ => None,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        if self.error.is_ours() {
            let source = std::error::Error::source(&self.error);
            tracing::error!(error = %self.error, source = ?source, trace_id = self.trace_id, "an identity endpoint failed");
        }
        let status = StatusCode::from_u16(self.error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({
            "error": self.error.code().as_str(),
            "error_description": self.error.description(),
            "trace_id": self.trace_id,
        });
        let mut response = json_answer(status, &body);
        if let Some(challenge) = self.challenge() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        may_return(&self.error, response.headers_mut());
        response
    }
}
