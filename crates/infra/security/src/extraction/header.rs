//! The headers that correlate a call with others, read from requests and written onto outgoing ones (SEC-45). They are
//! claims about correlation, never about identity.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use systemprompt_models::ids::{ContextId, SessionId, TaskId, TraceId};
use systemprompt_models::{CredentialKind, Principal, RequestContext};

const TRACE_ID: &str = "x-trace-id";
const CONTEXT_ID: &str = "x-context-id";
const TASK_ID: &str = "x-task-id";
const AGENT_NAME: &str = "x-agent-name";
const TOOL_CALL_ID: &str = "x-ai-tool-call-id";
const SESSION_ID: &str = "x-session-id";

/// Headers that an outgoing request never inherits: the correlation names, written anew, and every credential.
const REMOVED: [&str; 11] = [
    TRACE_ID,
    CONTEXT_ID,
    TASK_ID,
    AGENT_NAME,
    TOOL_CALL_ID,
    SESSION_ID,
    "authorization",
    "proxy-authorization",
    "cookie",
    super::token::API_KEY_HEADER,
    super::token::MCP_PROXY_HEADER,
];

/// Longest value that is read or written, in bytes.
const MAX_VALUE_BYTES: usize = 256;

/// What the correlation headers of a request say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextHeaders {
    pub trace_id: Option<TraceId>,
    pub context_id: Option<ContextId>,
    pub task_id: Option<TaskId>,
    pub agent_name: Option<String>,
    pub ai_tool_call_id: Option<String>,
    pub session_id: Option<SessionId>,
    /// How many of these headers were there but unusable.
    pub ignored: u32,
}

/// `x-session-id` named another session than the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("x-session-id differs from the session of the token")]
pub struct SessionMismatch;

impl ContextHeaders {
    /// The context of a call by `principal`. The headers' trace id is taken if there is one, else `trace_id`.
    ///
    /// # Errors
    /// When `x-session-id` is there and is not the session of the principal's token.
    pub fn context(
        self,
        principal: Arc<Principal>,
        trace_id: TraceId,
    ) -> Result<RequestContext, SessionMismatch> {
        let bound = matches!(principal.credential, CredentialKind::Token { .. });
        if bound && self.session_id.as_ref().is_some_and(|id| *id != principal.session_id) {
            return Err(SessionMismatch);
        }
        Ok(RequestContext {
            principal,
            trace_id: self.trace_id.unwrap_or(trace_id),
            context_id: self.context_id,
            task_id: self.task_id,
            agent_name: self.agent_name,
            ai_tool_call_id: self.ai_tool_call_id,
            client_ip: None,
            user_agent: None,
        })
    }
}

/// Reads the correlation headers.
///
/// ```
/// use systemprompt_security::extraction::HeaderExtractor;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-context-id", "ctx_1".parse().unwrap());
/// headers.insert("x-agent-name", http::HeaderValue::from_bytes(b"caf\xc3\xa9").unwrap());
/// let read = HeaderExtractor::extract(&headers);
/// assert_eq!(read.context_id.unwrap().as_str(), "ctx_1");
/// assert_eq!((read.agent_name, read.ignored), (None, 1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeaderExtractor;

impl HeaderExtractor {
    /// Visible ASCII of up to 256 bytes counts; anything else is ignored and counted.
    pub fn extract(headers: &HeaderMap) -> ContextHeaders {
        let mut ignored = 0;
        let mut read = |name: &str| {
            let value = headers.get(name)?;
            let text = value.to_str().ok().filter(|text| is_visible(text));
            ignored += u32::from(text.is_none());
            text
        };
        let trace_id = read(TRACE_ID).filter(|text| is_trace_id(text)).map(TraceId::from);
        let context_id = read(CONTEXT_ID).map(ContextId::from);
        let task_id = read(TASK_ID).map(TaskId::from);
        let agent_name = read(AGENT_NAME).map(str::to_owned);
        let ai_tool_call_id = read(TOOL_CALL_ID).map(str::to_owned);
        let session_id = read(SESSION_ID).map(SessionId::from);
        ContextHeaders { trace_id, context_id, task_id, agent_name, ai_tool_call_id, session_id, ignored }
    }
}

/// Whether `text` may be taken as a trace id from outside (SEC-11).
pub fn is_trace_id(text: &str) -> bool {
    (16..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_visible(text: &str) -> bool {
    (1..=MAX_VALUE_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A value of the context cannot stand in a header; the call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {header} cannot be sent: it must be visible ASCII of at most 256 bytes")]
pub struct HeaderInjectionError {
    pub header: &'static str,
}

/// Writes the context of a call onto an outgoing request.
///
/// ```
/// use std::sync::Arc;
/// use systemprompt_models::{Principal, RequestContext, ids::TraceId};
/// use systemprompt_security::extraction::HeaderInjector;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("authorization", "Bearer of-the-caller".parse().unwrap());
/// headers.insert("x-task-id", "forged".parse().unwrap());
/// let context = RequestContext::new(Arc::new(Principal::anonymous()), TraceId::new("trc_0123456789ab"));
///
/// HeaderInjector::inject(&context, &mut headers).unwrap();
/// assert_eq!(headers["x-trace-id"], "trc_0123456789ab");
/// assert_eq!(headers.len(), 1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeaderInjector;

impl HeaderInjector {
    /// Removes every inbound copy of the correlation names and every credential, then writes the context's values.
    ///
    /// # Errors
    /// When a value is not visible ASCII (CR, LF and NUL among what is not). The headers are then without both.
    pub fn inject(context: &RequestContext, headers: &mut HeaderMap) -> Result<(), HeaderInjectionError> {
        remove_inbound(headers);
        let session = (!context.principal.is_anonymous()).then(|| context.principal.session_id.as_str());
        let values = [
            (TRACE_ID, Some(context.trace_id.as_str())),
            (CONTEXT_ID, context.context_id.as_ref().map(AsRef::as_ref)),
            (TASK_ID, context.task_id.as_ref().map(AsRef::as_ref)),
            (AGENT_NAME, context.agent_name.as_deref()),
            (TOOL_CALL_ID, context.ai_tool_call_id.as_deref()),
            (SESSION_ID, session),
        ];
        for (header, value) in values {
            let Some(value) = value else { continue };
            let value = is_visible(value).then(|| HeaderValue::from_str(value).ok()).flatten();
            headers.insert(HeaderName::from_static(header), value.ok_or(HeaderInjectionError { header })?);
        }
        Ok(())
    }
}

/// A name with `_` for `-` counts as the same name, since many servers fold the two.
fn remove_inbound(headers: &mut HeaderMap) {
    let is_removed = |name: &HeaderName| {
        let folded = |b: u8| if b == b'_' { b'-' } else { b };
        REMOVED.iter().any(|removed| {
            removed.len() == name.as_str().len() && name.as_str().bytes().map(folded).eq(removed.bytes())
        })
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_removed(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_models::ids::UserId;

    fn context() -> RequestContext {
        let principal = Principal {
            user_id: UserId::new("usr_1"),
            session_id: SessionId::new("ses_1"),
            credential: CredentialKind::Token { jti: "jti_1".into() },
            ..Principal::anonymous()
        };
        RequestContext::new(Arc::new(principal), TraceId::new("trc_0123456789ab"))
    }

    #[test]
    fn the_session_header_must_name_the_session_of_the_token() {
        let principal = context().principal;
        for (header, ok) in [(None, true), (Some("ses_1"), true), (Some("ses_2"), false)] {
            let headers = ContextHeaders { session_id: header.map(SessionId::from), ..Default::default() };
            assert_eq!(
                headers.context(Arc::clone(&principal), TraceId::generate()).is_ok(),
                ok,
                "{header:?}"
            );
        }
    }

    #[test]
    fn values_that_could_split_a_header_refuse_the_call() {
        for bad in ["a\r\nx: y", "a\nb", "nul\0", "caf\u{e9}", "", "with space", &"x".repeat(257)] {
            let context = RequestContext { agent_name: Some(bad.to_owned()), ..context() };
            let mut headers = HeaderMap::new();
            let refused = HeaderInjector::inject(&context, &mut headers);
            assert_eq!(refused, Err(HeaderInjectionError { header: AGENT_NAME }), "{bad:?}");
            assert!(!headers.contains_key(AGENT_NAME));
        }
    }

    #[test]
    fn inbound_copies_and_credentials_go_in_either_spelling() {
        let mut headers = HeaderMap::new();
        for name in REMOVED {
            headers.append(name, HeaderValue::from_static("in"));
            headers.append(
                HeaderName::from_bytes(name.replace('-', "_").as_bytes()).unwrap(),
                HeaderValue::from_static("in"),
            );
        }
        headers.append("accept", HeaderValue::from_static("*/*"));
        HeaderInjector::inject(&context(), &mut headers).unwrap();
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-session-id", "x-trace-id"]);
        assert!(headers.values().all(|v| v != "in"));
    }

    #[test]
    fn a_trace_id_from_outside_has_the_documented_form() {
        for (text, ok) in [
            ("0123456789abcdef", true),
            ("0123456789abcde", false),
            ("0123456789abcde/", false),
            (&*"a".repeat(65), false),
        ] {
            assert_eq!(is_trace_id(text), ok, "{text}");
        }
    }
}
