//! What travels with a request: who, from where, and the ids that correlate its records.

use crate::auth::Principal;
use crate::ids::{ContextId, TaskId, TraceId};
use std::net::IpAddr;
use std::sync::Arc;

/// The context of one request, made by the edge and passed to every plane.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub principal: Arc<Principal>,
    pub trace_id: TraceId,
    pub context_id: Option<ContextId>,
    pub task_id: Option<TaskId>,
    pub agent_name: Option<String>,
    pub ai_tool_call_id: Option<String>,
    /// Address of the client after trusted proxies were skipped; absent for calls made in process.
    pub client_ip: Option<IpAddr>,
    /// What the client calls itself, at most [`MAX_USER_AGENT`] characters of it; absent where it says nothing.
    pub user_agent: Option<Arc<str>>,
}

/// Characters of a user agent that are kept.
pub const MAX_USER_AGENT: usize = 512;

impl RequestContext {
    pub fn new(principal: Arc<Principal>, trace_id: TraceId) -> Self {
        Self {
            principal,
            trace_id,
            context_id: None,
            task_id: None,
            agent_name: None,
            ai_tool_call_id: None,
            client_ip: None,
            user_agent: None,
        }
    }

    /// With what the client calls itself; what is longer than anybody's name is cut, and what is no text made readable.
    pub fn called(mut self, user_agent: &[u8]) -> Self {
        let text = String::from_utf8_lossy(user_agent);
        let text: String = text.trim().chars().take(MAX_USER_AGENT).collect();
        self.user_agent = (!text.is_empty()).then(|| text.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_is_kept_as_far_as_it_is_one() {
        let called = |bytes: &[u8]| {
            let nobody = RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate());
            nobody.called(bytes).user_agent.map(|agent| agent.to_string())
        };
        assert_eq!(called(b" curl/8.5.0 ").as_deref(), Some("curl/8.5.0"));
        assert_eq!(called(b"  "), None);
        assert_eq!(called(b"a\xffb").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(called(&[b'x'; 4000]).map(|agent| agent.len()), Some(MAX_USER_AGENT));
    }
}
