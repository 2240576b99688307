//! What the decision plane is asked of a tool call: the entities, and all that would reach the server.

use super::ToolCall;
use crate::middleware::rbac::{server_entity, tool_entity};
use crate::wire::raw::RawObject;
use serde_json::value::RawValue;
use systemprompt_models::RequestContext;
use systemprompt_models::ids::CallId;
use systemprompt_security::plane::{Call, Origin, Segment};

/// The parts of the content of a call, in their order: the arguments, and whatever else stands in `params`, names included.
pub(super) const ARGUMENTS: usize = 0;
pub(super) const OTHERS: usize = 1;

/// Longest id that a client may give its call.
const MAX_CALL_ID: usize = 128;
/// Member of `_meta` in which a coding agent repeats the id that its hook was asked about.
const TOOL_USE_META: &str = "claudecode/toolUseId";

/// A call that is to be decided, maybe more than once: every decision on it bears the same id if the client gave one.
pub(super) struct Question<'q> {
    pub(super) context: &'q RequestContext,
    pub(super) call: &'q ToolCall<'q>,
    tool_use: Option<CallId>,
    content: [Segment<'q>; 2],
}

impl<'q> Question<'q> {
    pub(super) fn new(
        context: &'q RequestContext,
        call: &'q ToolCall<'q>,
        (arguments, others): (&'q RawValue, &'q RawValue),
    ) -> Self {
        let segment = |pointer: &'static str, text: &'q RawValue| Segment {
            pointer: pointer.into(),
            json: text.get().as_bytes(),
        };
        let content = [segment("/params/arguments", arguments), segment("/params", others)];
        Self { context, call, tool_use: tool_use(context, call), content }
    }

    /// The question, which is about the tool as well where a rule names it.
    pub(super) fn ask(&self, tool_rule: bool) -> Call<'_> {
        let (server, tool) = (&*self.call.server.name, self.call.tool);
        let mut entities = vec![server_entity(server)];
        entities.extend(tool_rule.then(|| tool_entity(server, tool)));
        Call {
            call_id: self.tool_use.clone().unwrap_or_else(CallId::generate),
            origin: Origin::Mcp,
            counted: true,
            context: self.context,
            entities,
            tool: Some(tool),
            server: Some(server),
            plugin: self.context.principal.plugin_id.as_deref(),
            agent: self.context.agent_name.as_deref(),
            agent_scope: None,
            content: &self.content,
        }
    }
}

/// The id that the client gave the call: it is the same at every door that the call passes, and paid for once.
fn tool_use(context: &RequestContext, call: &ToolCall<'_>) -> Option<CallId> {
    let meta = || {
        let meta = call.params.get("_meta").and_then(RawObject::read)?;
        serde_json::from_str::<String>(meta.get(TOOL_USE_META)?.get()).ok()
    };
    let id = context.ai_tool_call_id.clone().or_else(meta)?;
    (!id.is_empty() && id.len() <= MAX_CALL_ID).then(|| CallId::from(id))
}
