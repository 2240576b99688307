//! What a client gets: status, headers and a body that is nothing, one JSON message, or a stream of server-sent events.

use super::raw::{quoted, to_raw};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use systemprompt_models::{Refusal, RequestContext};
use tokio::sync::mpsc;

pub const PARSE_ERROR: i64 = -32700;
pub const INVALID_REQUEST: i64 = -32600;
pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;
pub const DENIED: i64 = 4030;
pub const CANCELLED: i64 = 4990;
pub const UPSTREAM_BROKEN: i64 = 5020;
pub const NOT_RECORDED: i64 = 5030;
pub const UPSTREAM_UNREACHABLE: i64 = 5031;
pub const UPSTREAM_TIMEOUT: i64 = 5040;

/// An answer, ready for the HTTP handler.
#[derive(Debug)]
pub struct McpReply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: McpBody,
}

#[derive(Debug)]
pub enum McpBody {
    Empty,
    Json(Bytes),
    /// Events in server-sent form; the stream ends with the answer.
    Sse(mpsc::Receiver<Bytes>),
}

/// An error of our own in JSON-RPC form.
#[derive(Clone, Debug)]
pub struct RpcError {
    pub status: StatusCode,
    pub code: i64,
    pub message: String,
    pub data: Value,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl RpcError {
    pub fn new(status: StatusCode, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: json!({}), headers: Vec::new() }
    }

    /// The machine-readable name in `data.code`.
    pub fn named(mut self, name: &str) -> Self {
        self.data = json!({"code": name});
        self
    }

    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// A denial of access to the server: 403 without challenge (MCP error table).
    pub fn denied(refusal: &Refusal) -> Self {
        let mut error =
            Self::new(StatusCode::FORBIDDEN, DENIED, refusal.sentence()).named("denied_by_policy");
        if let (Some(id), Some(data)) = (&refusal.decision_id, error.data.as_object_mut()) {
            data.insert("decision_id".into(), id.as_str().into());
        }
        error
    }

    /// The ledger or the execution row could not be written (AUD-16).
    pub fn not_recorded(refusal: &Refusal) -> Self {
        let message =
            "the audit record could not be written; the call was not carried out or its answer is withheld";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, NOT_RECORDED, message)
            .named(refusal.code.as_str())
            .with_header(header::RETRY_AFTER, "1")
    }

    /// The error as a message for `id`; without one where the request's id is not known.
    pub fn message(&self, id: Option<&RawValue>, context: &RequestContext) -> Bytes {
        let mut data = self.data.clone();
        if let Some(map) = data.as_object_mut() {
            map.insert("trace_id".into(), context.trace_id.as_str().into());
        }
        let id = id.map_or_else(String::new, |id| format!("\"id\":{},", id.get()));
        let (code, message) = (self.code, quoted(&self.message));
        format!(
            "{{\"jsonrpc\":\"2.0\",{id}\"error\":{{\"code\":{code},\"message\":{message},\"data\":{data}}}}}"
        )
        .into()
    }

    pub fn reply(&self, id: Option<&RawValue>, context: &RequestContext) -> McpReply {
        let mut reply = McpReply::json(self.status, self.message(id, context));
        for (name, value) in &self.headers {
            reply.headers.insert(name.clone(), value.clone());
        }
        reply
    }
}

impl McpReply {
    pub fn json(status: StatusCode, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self { status, headers, body: McpBody::Json(body) }
    }

    /// A notification was taken.
    pub fn accepted() -> Self {
        Self { status: StatusCode::ACCEPTED, headers: HeaderMap::new(), body: McpBody::Empty }
    }

    /// GET and DELETE: there is no stream of the server's own and no session to end.
    pub fn method_not_allowed() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        Self { status: StatusCode::METHOD_NOT_ALLOWED, headers, body: McpBody::Empty }
    }

    pub fn sse(events: mpsc::Receiver<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Self { status: StatusCode::OK, headers, body: McpBody::Sse(events) }
    }
}

/// A successful answer.
pub fn result(id: &RawValue, result: &RawValue) -> Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{}}}", id.get(), result.get()).into()
}

/// An error that comes from upstream, as it came.
pub fn upstream_error(id: &RawValue, error: &RawValue) -> Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{}}}", id.get(), error.get()).into()
}

/// A notification.
pub fn notification(method: &str, params: &Value) -> Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":{},\"params\":{params}}}", quoted(method)).into()
}

/// A refused tool call: a result, so that an agent reads why and can go on (MCP-65).
pub fn refused_call(refusal: &Refusal, code: &str) -> Box<RawValue> {
    let mut decision = json!({"code": code});
    if let Some(map) = decision.as_object_mut() {
        let mut put = |name: &str, value: Option<Value>| value.map(|v| map.insert(name.to_owned(), v));
        put("id", refusal.decision_id.as_ref().map(|id| id.as_str().into()));
        put("policy", refusal.policy.as_deref().map(Value::from));
        put("retry_after_ms", refusal.retry_after.map(|s| (u64::from(s) * 1000).into()));
    }
    to_raw(&json!({
        "content": [{"type": "text", "text": refusal.sentence()}],
        "isError": true,
        "_meta": {"io.systemprompt/decision": decision},
    }))
}

/// One message as a server-sent event. JSON text holds no line end of its own unless the sender put white space there.
pub fn event(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 24);
    out.extend_from_slice(b"event: message\n");
    for line in message.split(|b| matches!(b, b'\n' | b'\r')).filter(|l| !l.is_empty()) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.into()
}
