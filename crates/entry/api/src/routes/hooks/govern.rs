//! `POST /api/v1/hooks/govern`: the decision endpoint of coding agents' hooks (SEC-93). Its answer is always 200 with an explicit
//! decision, since hook clients go on at any other status; the edge renders its own refusals so too.

use super::rewrite::{self, Rewrite};
use super::{check_token, conversation, plugin};
use crate::extract::{self, Context, HookQuery, Query, RawBody};
use crate::services::server::refusal::DECISION_HEADER;
use crate::services::server::route::{HOOK_BODY, Route};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::time::Duration;
use systemprompt_audit::Unit;
use systemprompt_config::profile::governance::{HookOnAllow, HookOnRedact};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::hook::{self, PRE_TOOL_USE};
use systemprompt_models::ids::{CallId, DecisionId};
use systemprompt_models::{Code, Permission, Refusal, RequestContext};
use systemprompt_runtime::AppContext;
use systemprompt_security::authz::{EntityKind, EntityRef};
use systemprompt_security::jwt::Surface;
use systemprompt_security::plane::{Call, Denial, Judgement, Origin, Segment};

/// Own deadline, inside the one of the client.
const DEADLINE: Duration = Duration::from_secs(2);
/// Longest id that a client may give its call.
const MAX_CALL_ID: usize = 128;
/// Longest name of a tool, in characters.
const MAX_TOOL_NAME: usize = 256;
/// Policy and reason of a call whose names are none.
const INVALID_NAME: &str = "invalid_name";
/// The event that asks before a prompt goes to the model.
const USER_PROMPT_SUBMIT: &str = "UserPromptSubmit";

/// Whoever may use the API may ask; hook tokens come with their own scope.
const CALLERS: &[Permission] =
    &[Permission::User, Permission::Admin, Permission::Service, Permission::HookGovern];

pub(super) fn routes() -> Vec<Route> {
    ["/api/v1/hooks/govern", "/api/public/hooks/govern"]
        .into_iter()
        .map(|path| {
            Route::post(path, govern)
                .signed(Surface::Hooks, CALLERS, RateGroup::Hooks)
                .envelope(Envelope::Hook)
                .body_limit(HOOK_BODY)
                .query(&["plugin_id"])
                .takes::<HookEventDoc>()
                .doc("hooks", "Whether a coding agent's tool call or prompt may go on")
        })
        .collect()
}

/// What the document says of an event.
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct HookEventDoc {
    /// `PreToolUse`, `UserPromptSubmit`, `PostToolUse`, `Stop`, …
    hook_event_name: String,
    session_id: Option<String>,
    tool_name: Option<String>,
    tool_input: Option<Value>,
    tool_use_id: Option<String>,
    agent_id: Option<String>,
    prompt: Option<String>,
}

/// A hook event. Unknown members and unknown events are taken.
#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are the protocol's")]
struct HookEvent<'a> {
    #[serde(borrow)]
    hook_event_name: Cow<'a, str>,
    #[serde(borrow, default)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    agent_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    agent_scope: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_use_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    prompt: Option<&'a RawValue>,
}

/// Every member of an event, those that occur twice too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Members that are judged on their own: as content, or as names of the call.
const JUDGED: [&str; 7] =
    ["tool_input", "tool_response", "prompt", "tool_name", "tool_use_id", "agent_id", "agent_scope"];

/// The other members of a body, known or not, names and raw values as one text: what the client put there may be a secret as well.
fn others(body: &[u8]) -> String {
    let members =
        serde_json::from_slice::<Members<'_>>(body).map_or_else(|_| Vec::new(), |members| members.0);
    let mut text = String::new();
    for (name, value) in members.iter().filter(|(name, _)| !JUDGED.contains(&name.as_str())) {
        for part in [name, value.get()] {
            text.push_str(part);
            text.push('\n');
        }
    }
    text
}

async fn govern(
    State(context): State<AppContext>,
    Context(caller): Context,
    HookQuery(query): HookQuery,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> crate::Result<Response> {
    let decided = async {
        check_token(&context, &headers, Permission::HookGovern, &query).await?;
        decide(&context, caller, &query, &body).await
    };
    let decided = tokio::time::timeout(DEADLINE, decided).await;
    decided.unwrap_or_else(|_| Err(Refusal::new(Code::Timeout, "the decision took too long").into()))
}

async fn decide(
    context: &AppContext,
    caller: RequestContext,
    query: &Query,
    body: &Bytes,
) -> crate::Result<Response> {
    let event = read(body)?;
    let hooks = context.config().profile.governance.hooks.clone();
    let judged = judge(context, caller, query, (&event, body), hooks.on_redact).await?;
    let refusal = judged.judgement.refusal().map(|refusal| refusal.with_decision(judged.decision.clone()));
    Ok(match (&judged.input, &refusal) {
        (Some(input), None) => {
            let reason = format!("allowed with marks in place of secrets (decision {})", judged.decision);
            decided("allow", Json(Rewrite::new(input, &reason, hooks.on_allow)))
        }
        _ => render(&event, refusal.as_ref(), &judged.decision, hooks.on_allow),
    })
}

/// The event of a body. Only an object is one: a list would be read by position.
fn read(body: &[u8]) -> Result<HookEvent<'_>, Refusal> {
    let unfit = |field: &str, fault: String| {
        Err(Refusal::new(Code::Unprocessable, "the body does not fit").with_validation(field, fault))
    };
    if body.trim_ascii_start().first() == Some(&b'[') {
        return unfit("body", "must be an object".to_owned());
    }
    let event: HookEvent<'_> = extract::parse(body)?;
    match event.tool_name.as_deref() {
        Some(tool) if tool.chars().nth(MAX_TOOL_NAME).is_some() => {
            unfit("tool_name", format!("is longer than {MAX_TOOL_NAME} characters"))
        }
        None | Some("") if event.hook_event_name == PRE_TOOL_USE => {
            unfit("tool_name", "is missing".to_owned())
        }
        _ => Ok(event),
    }
}

/// What was decided on an event, and is on record.
struct Judged {
    judgement: Judgement,
    decision: DecisionId,
    /// The input that the tool is to be used with in place of its own.
    input: Option<Box<RawValue>>,
}

/// Decides, and returns once the decision is on record.
async fn judge(
    context: &AppContext,
    mut caller: RequestContext,
    query: &Query,
    (event, body): (&HookEvent<'_>, &[u8]),
    on_redact: HookOnRedact,
) -> crate::Result<Judged> {
    let plugin = plugin(query);
    let before_tool = event.hook_event_name == PRE_TOOL_USE;
    let tool = event.tool_name.as_deref().filter(|_| before_tool);
    // The client's session names a conversation of this principal, nothing more.
    caller.context_id = event.session_id.as_deref().map(|session| conversation(&caller, session));
    let mut entities: Vec<EntityRef> =
        plugin.map(|id| EntityRef::new(EntityKind::Plugin, bounded(id))).into_iter().collect();
    let server = tool.and_then(|tool| mcp_server(context, tool, &mut entities));
    let others = others(body);
    let mut content: Vec<Segment<'_>> = [
        ("/tool_input", event.tool_input),
        ("/tool_response", event.tool_response),
        ("/prompt", event.prompt),
    ]
    .into_iter()
    .filter_map(|(pointer, value)| {
        value.map(|value| Segment { pointer: pointer.into(), json: value.get().as_bytes() })
    })
    .collect();
    // The pointer does not repeat names of the client's making.
    content.push(Segment { pointer: "/*".into(), json: others.as_bytes() });
    let call_id = event.tool_use_id.as_deref().filter(|id| !id.is_empty() && id.len() <= MAX_CALL_ID);
    let mut judgement = {
        let call = Call {
            call_id: call_id.map_or_else(CallId::generate, CallId::from),
            origin: Origin::Hook,
            // What tells of a call that was made, or of the end of a turn, asks for nothing more.
            counted: before_tool || event.hook_event_name == USER_PROMPT_SUBMIT,
            context: &caller,
            entities,
            tool,
            server: server.as_deref(),
            plugin,
            agent: event.agent_id.as_deref(),
            agent_scope: event.agent_scope.as_deref(),
            content: &content,
        };
        // No name that anything goes by holds a NUL, and not every store takes one: the call is refused, on record.
        match fault_of(event, plugin) {
            Some(fault) => context.plane.refuse(call, fault).await,
            None => context.plane.judge(call).await,
        }
    };
    let has_input = event.tool_input.is_some();
    let input = rewrite::input(&mut judgement, &event.hook_event_name, has_input, on_redact);
    let mut unit = Unit::new();
    let decision = judgement.record(&mut unit);
    context.ledger.append(unit).await?;
    Ok(Judged { judgement, decision, input })
}

/// What makes the names of a call unusable, whatever the rules say.
fn fault_of(event: &HookEvent<'_>, plugin: Option<&str>) -> Option<Denial> {
    let names = [&event.tool_name, &event.tool_use_id, &event.agent_id, &event.agent_scope];
    let mut names = names.into_iter().filter_map(Option::as_deref).chain(plugin);
    names.any(|name| name.contains('\0')).then(|| Denial {
        policy: INVALID_NAME.into(),
        reason: INVALID_NAME.into(),
        message: "a name in the call holds a NUL character".into(),
    })
}

fn bounded(id: &str) -> String {
    id.chars().take(128).collect()
}

/// A tool named `mcp__<server>__<tool>` whose server is registered here is decided on that server and that tool as well.
fn mcp_server(context: &AppContext, tool: &str, entities: &mut Vec<EntityRef>) -> Option<String> {
    let (server, name) = tool.strip_prefix("mcp__")?.split_once("__")?;
    let rules = context.rules.rules();
    let server_entity = EntityRef::new(EntityKind::McpServer, server);
    if !rules.knows(&server_entity) {
        return None;
    }
    entities.push(server_entity);
    let tool_entity = EntityRef::new(EntityKind::McpTool, format!("{server}/{name}"));
    if context.plane.considers(&tool_entity) {
        entities.push(tool_entity);
    }
    Some(server.to_owned())
}

fn render(
    event: &HookEvent<'_>,
    refusal: Option<&Refusal>,
    decision: &DecisionId,
    on_allow: HookOnAllow,
) -> Response {
    let (outcome, reason) = match refusal {
        Some(refusal) => ("deny", refusal.sentence()),
        None => ("allow", format!("allowed (decision {decision})")),
    };
    let body = match (&*event.hook_event_name, refusal) {
        (name, Some(_)) => hook::denial(Some(name), &reason),
        (PRE_TOOL_USE, None) if on_allow == HookOnAllow::Allow => json!({"hookSpecificOutput": {
            "hookEventName": PRE_TOOL_USE,
            "permissionDecision": outcome,
            "permissionDecisionReason": reason,
        }}),
        (_, None) => json!({}),
    };
    decided(outcome, Json(body))
}

fn decided(outcome: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(DECISION_HEADER, HeaderValue::from_static(outcome));
    response
}
