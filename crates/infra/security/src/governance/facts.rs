//! What the pipeline knows about a call: verified facts from the request's context, and the raw content.

use super::names::Names;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use systemprompt_models::ids::{CallId, ContextId, TaskId, TraceId};
use systemprompt_models::{Permission, Principal};

/// The door through which a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The hook endpoint of a coding agent.
    Hook,
    /// A tool call at the MCP proxy.
    Mcp,
    /// A model request at the gateway.
    Gateway,
    /// A message to an agent.
    A2a,
    /// The webhook of a model provider.
    InferenceHook,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Mcp => "mcp",
            Self::Gateway => "gateway",
            Self::A2a => "a2a",
            Self::InferenceHook => "inference_hook",
        }
    }
}

impl Origin {
    /// What the content of such a call is, as records name the place of a leak.
    pub fn content(self) -> &'static str {
        match self {
            Self::Hook | Self::InferenceHook => "hook",
            Self::Mcp => "tool_arguments",
            Self::Gateway => "model_request",
            Self::A2a => "message",
        }
    }

    /// Why a call of this door that is to be redacted is refused instead, where nobody knows better.
    pub fn unredactable(self) -> &'static str {
        match self {
            Self::Hook => "a hook can change nothing but the input of a tool, so it is refused",
            Self::InferenceHook => "this webhook can allow or refuse and change nothing, so it is refused",
            Self::Mcp | Self::Gateway | Self::A2a => {
                "it cannot be replaced by a mark where it stands, so the call is refused"
            }
        }
    }
}

/// One JSON value of a body, as the bytes that stand there (a string with its quotes, an object, an array).
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// JSON pointer (RFC 6901) of the value within the body.
    pub pointer: Cow<'a, str>,
    pub json: &'a [u8],
}

/// The facts of one call. Names that stand in a body (`agent`, `agent_scope`) are what the caller says: a policy may
/// narrow by them, never widen.
#[derive(Clone, Debug)]
pub struct CallFacts<'a> {
    /// One call keeps its id through every door.
    pub call_id: &'a CallId,
    pub origin: Origin,
    /// Whether it is a call of its own: a report on one is judged, and costs nothing of the limit.
    pub counted: bool,
    pub principal: &'a Principal,
    /// The permissions of the credential that the call was made with.
    pub permissions: &'a [Permission],
    pub tool: Option<&'a str>,
    pub server: Option<&'a str>,
    pub plugin: Option<&'a str>,
    pub agent: Option<&'a str>,
    /// Space-separated permissions that the caller confines itself to.
    pub agent_scope: Option<&'a str>,
    pub context_id: Option<&'a ContextId>,
    pub task_id: Option<&'a TaskId>,
    pub trace_id: &'a TraceId,
    /// Subjects of the delegation chain, outermost first.
    pub act_chain: &'a [String],
    pub segments: &'a [Segment<'a>],
    /// Segments that were refused earlier in this context, by their place among `segments`.
    pub refused_before: &'a [usize],
    /// What was found in the ids and names above.
    pub names: &'a Names,
}
