//! What travels with a request: who, from where, and the ids that correlate its records.

use crate::ids::{ContextId, TaskId, TraceId};
use crate::principal::Principal;
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
}

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
        }
    }
}
