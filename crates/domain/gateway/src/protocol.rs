//! What goes in and out of the gateway, and which headers cross it (GW-22, GW-23).

mod headers;

pub use headers::{forwarded_request_headers, forwarded_response_headers, noted};

use crate::relay::ReplyStream;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use systemprompt_models::RequestContext;
use systemprompt_models::ids::AiRequestId;

/// Names our id of the call on its answer.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-systemprompt-request-id");
/// Names the decision that let the call pass.
pub const DECISION_ID_HEADER: HeaderName = HeaderName::from_static("x-systemprompt-decision-id");
/// Tells SDK clients whether a repeat makes sense.
pub const SHOULD_RETRY_HEADER: HeaderName = HeaderName::from_static("x-should-retry");

/// The inference calls of the Anthropic wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `POST /v1/messages`.
    Messages,
    /// `POST /v1/messages/count_tokens`.
    CountTokens,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
        }
    }

    /// Path on the Anthropic wire, the same on both sides.
    pub fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
        }
    }
}

/// A model request as the edge hands it over: authenticated, its body read once.
#[derive(Debug)]
pub struct GatewayCall {
    pub context: RequestContext,
    pub operation: Operation,
    /// The query as it came, without the question mark.
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The answer to a model request.
#[derive(Debug)]
pub struct GatewayReply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ReplyBody,
    pub request_id: AiRequestId,
}

/// Bytes of an answer, exactly the upstream's.
#[derive(Debug)]
pub enum ReplyBody {
    Full(Bytes),
    /// Boxed: a stream carries the state of its tap.
    Stream(Box<ReplyStream>),
}
