//! JSON-RPC 2.0 as MCP uses it: the strict reading of what a client sends (MCP-20) and raw JSON that keeps the bytes of what
//! is only passed on (MCP-21).

pub mod raw;
pub mod reply;

use raw::RawObject;
use serde_json::value::RawValue;
use systemprompt_models::json::{JsonFault, check_object};

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 64;
/// Longest string id of a request, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// A message from a client.
#[derive(Debug)]
pub enum Incoming<'a> {
    Request {
        id: &'a RawValue,
        method: String,
        params: Option<&'a RawValue>,
    },
    Notification {
        method: String,
        params: Option<&'a RawValue>,
    },
    /// The answer to a request of ours; this surface makes none.
    Response,
}

/// Why a body is not a message. Nothing of it was acted upon.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("the body is not JSON (line {line}, column {column})")]
    Syntax { line: usize, column: usize },
    #[error("the message must be one JSON object; batches are not part of this protocol")]
    NotAnObject,
    #[error("the member `{0}` occurs twice in one object")]
    Duplicate(String),
    #[error("the message is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("`jsonrpc` must be \"2.0\"")]
    Version,
    #[error("`id` must be an integer or a string of at most {MAX_ID_BYTES} bytes")]
    Id,
    #[error("`method` must be a string")]
    Method,
    #[error("`params` must be an object")]
    Params,
}

impl From<JsonFault> for WireError {
    fn from(fault: JsonFault) -> Self {
        match fault {
            JsonFault::Syntax { line, column } => Self::Syntax { line, column },
            JsonFault::NotAnObject => Self::NotAnObject,
            JsonFault::Duplicate(name) => Self::Duplicate(name),
            JsonFault::TooDeep(_) => Self::TooDeep,
        }
    }
}

impl WireError {
    /// The JSON-RPC code.
    pub fn code(&self) -> i64 {
        match self {
            Self::Syntax { .. } => reply::PARSE_ERROR,
            _ => reply::INVALID_REQUEST,
        }
    }
}

/// Reads one message.
///
/// # Errors
/// Anything but exactly one well-formed message, duplicate member names at any depth among it: two parsers may pick
/// different ones, one that is authorised and one that is executed.
pub fn parse(body: &[u8]) -> Result<Incoming<'_>, WireError> {
    check_object(body, MAX_DEPTH)?;
    let object: RawObject<'_> = serde_json::from_slice(body).map_err(|_| WireError::NotAnObject)?;
    if object.string("jsonrpc").as_deref() != Some("2.0") {
        return Err(WireError::Version);
    }
    let id = object.get("id");
    if let Some(id) = id
        && !is_id(id)
    {
        return Err(WireError::Id);
    }
    let params = object.get("params");
    if params.is_some_and(|p| !p.get().starts_with('{')) {
        return Err(WireError::Params);
    }
    if object.get("method").is_none() && (object.get("result").is_some() || object.get("error").is_some()) {
        return Ok(Incoming::Response);
    }
    let method = object.string("method").ok_or(WireError::Method)?;
    Ok(match id {
        Some(id) => Incoming::Request { id, method, params },
        None => Incoming::Notification { method, params },
    })
}

fn is_id(raw: &RawValue) -> bool {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text).is_ok_and(|id| id.len() <= MAX_ID_BYTES),
        _ => text.len() <= 20 && text.parse::<i64>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_messages_are_refused_with_their_code() {
        let deep = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{{\"a\":{}{}}}}}",
            "[".repeat(70),
            "]".repeat(70)
        );
        let long = format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{}\",\"method\":\"m\"}}", "x".repeat(257));
        let cases: [(&[u8], i64); 16] = [
            (b"", -32700),
            (b"{", -32700),
            (b"\xef\xbb\xbf{}", -32700),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", -32700),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\"} {}", -32700),
            (b"[]", -32600),
            (b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\"}]", -32600),
            (b"7", -32600),
            (b"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"m\"}", -32600),
            (b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"m\"}", -32600),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"m\"}", -32600),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1}", -32600),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":[1]}", -32600),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{\"name\":\"a\",\"n\\u0061me\":\"b\"}}", -32600),
            (deep.as_bytes(), -32600),
            (long.as_bytes(), -32600),
        ];
        for (body, code) in cases {
            let error = parse(body).expect_err(&String::from_utf8_lossy(body));
            assert_eq!(error.code(), code, "{error}: {}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn requests_notifications_and_responses_are_told_apart() {
        let request =
            br#" {"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name" : "x","n":1e2}} "#;
        let Ok(Incoming::Request { id, method, params }) = parse(request) else { panic!("a request") };
        assert_eq!((id.get(), method.as_str()), ("\"a\"", "tools/call"));
        assert_eq!(params.unwrap().get(), r#"{"name" : "x","n":1e2}"#);
        let notification = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert!(matches!(parse(notification), Ok(Incoming::Notification { params: None, .. })));
        assert!(matches!(parse(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Ok(Incoming::Response)));
        assert!(matches!(
            parse(br#"{"jsonrpc":"2.0","id":-3,"method":"ping"}"#),
            Ok(Incoming::Request { .. })
        ));
    }
}
