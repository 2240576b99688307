//! The short strings of a call that are stored with its decision: which ones there are, and each without secrets.

use super::Call;
use crate::governance::{Names, Pipeline};
use systemprompt_models::RequestContext;

/// What callers put into the correlation ids of a call, with the names of the fields.
pub(super) fn context_names(context: &RequestContext) -> [(&'static str, Option<&str>); 5] {
    [
        ("/trace_id", Some(context.trace_id.as_str())),
        ("/context_id", context.context_id.as_ref().map(AsRef::as_ref)),
        ("/task_id", context.task_id.as_ref().map(AsRef::as_ref)),
        ("/agent_name", context.agent_name.as_deref()),
        ("/ai_tool_call_id", context.ai_tool_call_id.as_deref()),
    ]
}

/// Looks through everything that is stored of a call beside its content.
pub(super) fn names(pipeline: &Pipeline, call: &Call<'_>) -> Names {
    let own = [
        ("/call_id", Some(call.call_id.as_str())),
        ("/tool_name", call.tool),
        ("/plugin_id", call.plugin),
        ("/agent_id", call.agent),
        ("/agent_scope", call.agent_scope),
    ];
    pipeline.names(own.into_iter().chain(context_names(call.context)))
}

pub(super) fn conceal_context(pipeline: &Pipeline, context: &mut RequestContext) {
    let conceal = |text: &str| pipeline.conceal(text);
    context.trace_id = conceal(context.trace_id.as_str()).into();
    context.context_id = context.context_id.take().map(|id| conceal(id.as_str()).into());
    context.task_id = context.task_id.take().map(|id| conceal(id.as_str()).into());
    context.agent_name = context.agent_name.take().map(|name| conceal(&name));
    context.ai_tool_call_id = context.ai_tool_call_id.take().map(|id| conceal(&id));
}
