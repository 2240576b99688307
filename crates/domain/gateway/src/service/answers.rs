//! Answers of the gateway's own, after the call was recorded: the upstream failed, or what it said may not be passed on.

use crate::closing::{Ending, OpenCall};
use crate::protocol::{GatewayReply, REQUEST_ID_HEADER, ReplyBody, SHOULD_RETRY_HEADER};
use crate::providers::ProviderError;
use crate::relay::{LEAK_ERROR, leak_message};
use crate::settle::Outcome;
use crate::stream_tap::Observed;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use systemprompt_audit::Role;
use systemprompt_audit::payload::Tally;
use systemprompt_leak::Hit;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::ids::AiRequestId;
use systemprompt_models::{Code, Refusal, RequestContext};

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap_or_default()
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}

pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// The answer to a call whose upstream failed, and the end of that call.
pub(super) fn failed(
    open: OpenCall,
    error: &ProviderError,
    bytes: u64,
    provider: &str,
    context: &RequestContext,
    id: AiRequestId,
) -> GatewayReply {
    tracing::warn!(provider, request_id = %id, error = error as &dyn std::error::Error, "the provider failed");
    let (code, outcome) = match error {
        ProviderError::Silent => (Code::UpstreamTimeout, Outcome::UpstreamError),
        ProviderError::Broken(_) => (Code::Upstream, Outcome::UpstreamBroken),
        _ => (Code::Upstream, Outcome::UpstreamError),
    };
    let rejected = matches!(error, ProviderError::CredentialRejected(_));
    open.end(Ending {
        charged: error.may_be_charged(),
        response_bytes: bytes,
        ..Ending::new(outcome).with_error(error.kind())
    });
    let refusal = Refusal::new(code, error.to_string());
    own_answer(refusal, rejected, context, id)
}

/// The answer in place of one that held a value in use, and the end of that call.
pub(super) fn withheld(
    open: OpenCall,
    body: &[u8],
    (observed, leaks): (Observed, Vec<Hit>),
    context: &RequestContext,
    id: AiRequestId,
) -> GatewayReply {
    let message = leak_message(&leaks);
    tracing::warn!(request_id = %id, message, "an answer was withheld");
    open.end(Ending {
        response_sha256: Some(sha256(body)),
        response_bytes: body.len() as u64,
        charged: true,
        observed,
        leaks,
        response: Tally::of(Role::Response, body),
        ..Ending::new(Outcome::UpstreamError).with_error(LEAK_ERROR)
    });
    own_answer(Refusal::new(Code::Upstream, message), true, context, id)
}

/// An answer of the gateway's own after the call was recorded. `is_final` tells clients not to try again.
pub(super) fn own_answer(
    refusal: Refusal,
    is_final: bool,
    context: &RequestContext,
    id: AiRequestId,
) -> GatewayReply {
    let refusal = refusal.with_trace(context.trace_id.clone());
    let rendered = Envelope::Anthropic.render(&refusal);
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    headers.insert(REQUEST_ID_HEADER, header_value(id.as_str()));
    headers.insert(HeaderName::from_static("request-id"), header_value(&format!("req_{}", context.trace_id)));
    if is_final {
        headers.insert(SHOULD_RETRY_HEADER, HeaderValue::from_static("false"));
    }
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    GatewayReply {
        status: StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::BAD_GATEWAY),
        headers,
        body: ReplyBody::Full(Bytes::from(rendered.body.to_string())),
        request_id: id,
    }
}
