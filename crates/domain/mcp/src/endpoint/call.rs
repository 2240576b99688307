//! `tools/call`: the call runs in a task of its own, and its answer is one JSON message or, once there is progress to tell,
//! a stream of events (MCP-19). A client that goes away does not cancel its call; `notifications/cancelled` does.

use super::{McpService, refuse};
use crate::repository::tool_usage::CallSource;
use crate::services::registry::Server;
use crate::services::stdio::Answer;
use crate::services::tool::{CallError, ToolAnswer, ToolCall};
use crate::wire::raw::RawObject;
use crate::wire::reply::{
    INVALID_PARAMS, McpReply, RpcError, event, notification, refused_call, result, upstream_error,
};
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_models::RequestContext;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// With a progress token the answer becomes a stream after this time, whether or not there was progress.
const STREAM_AFTER: Duration = Duration::from_secs(1);
/// A stream without events says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that may wait for a slow client.
const EVENT_QUEUE: usize = 64;

impl McpService {
    pub(super) async fn call_tool(
        &self,
        context: &RequestContext,
        server: Arc<Server>,
        id: &RawValue,
        params: Option<&RawValue>,
    ) -> Result<McpReply, RpcError> {
        let bad = |message: &str| RpcError::new(StatusCode::OK, INVALID_PARAMS, message).named("bad_params");
        let params = params.ok_or_else(|| bad("`params` is missing"))?.to_owned();
        let object = RawObject::read(&params).ok_or_else(|| bad("`params` must be an object"))?;
        let tool = object.string("name").ok_or_else(|| bad("`name` must be a string"))?;
        if object.get("arguments").is_some_and(|a| !a.get().starts_with('{')) {
            return Err(bad("`arguments` must be an object"));
        }
        let token = progress_token(&object).map_err(bad)?;

        let (answer, answered) = oneshot::channel();
        let (progress, told) = mpsc::channel(EVENT_QUEUE);
        let progress = token.is_some().then_some(progress);
        let running = self.0.calls.begin(&context.principal, &server.name, id);
        let (service, context, id) = (self.clone(), context.clone(), id.to_owned());
        self.0.tasks.spawn("mcp call", async move {
            let Some(params) = RawObject::read(&params) else { return };
            let call = ToolCall {
                server: &server,
                tool: &tool,
                params,
                source: CallSource::Mcp,
                progress,
                cancel: running.cancel.clone(),
            };
            let outcome = service.0.executor.execute(&context, call).await;
            let _ = answer.send(render(&context, &server.name, &id, outcome));
        });
        self.answer_or_stream(token, told, answered).await
    }

    async fn answer_or_stream(
        &self,
        token: Option<Value>,
        mut told: mpsc::Receiver<Value>,
        mut answered: oneshot::Receiver<McpReply>,
    ) -> Result<McpReply, RpcError> {
        let Some(token) = token else {
            return answered.await.map_err(|_| refuse::unreachable());
        };
        let first = tokio::select! {
            biased;
            reply = &mut answered => return reply.map_err(|_| refuse::unreachable()),
            first = told.recv() => first,
            () = tokio::time::sleep(STREAM_AFTER) => None,
        };
        let (events, stream) = mpsc::channel(EVENT_QUEUE);
        self.0.tasks.spawn("mcp answer stream", pump(token, first, told, answered, events));
        Ok(McpReply::sse(stream))
    }
}

/// The token by which the client wants to be told of progress.
fn progress_token(params: &RawObject<'_>) -> Result<Option<Value>, &'static str> {
    let meta = params.get("_meta").and_then(RawObject::read);
    let Some(token) = meta.and_then(|meta| meta.get("progressToken")) else { return Ok(None) };
    match serde_json::from_str(token.get()) {
        Ok(token @ (Value::String(_) | Value::Number(_))) => Ok(Some(token)),
        _ => Err("`progressToken` must be a string or a number"),
    }
}

/// Writes events until the answer is written or the client is gone.
async fn pump(
    token: Value,
    first: Option<Value>,
    mut told: mpsc::Receiver<Value>,
    mut answered: oneshot::Receiver<McpReply>,
    events: mpsc::Sender<Bytes>,
) {
    let as_event = |mut params: Value| {
        if let Some(map) = params.as_object_mut() {
            map.insert("progressToken".into(), token.clone());
        }
        event(&notification("notifications/progress", &params))
    };
    if let Some(first) = first
        && events.send(as_event(first)).await.is_err()
    {
        return;
    }
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.reset();
    loop {
        let next = tokio::select! {
            biased;
            Some(params) = told.recv() => as_event(params),
            reply = &mut answered => {
                if let Ok(McpReply { body: crate::wire::reply::McpBody::Json(message), .. }) = reply {
                    let _ = events.send(event(&message)).await;
                }
                return;
            }
            _ = alive.tick() => Bytes::from_static(b": alive\n\n"),
        };
        if events.send(next).await.is_err() {
            return;
        }
    }
}

fn render(
    context: &RequestContext,
    server: &str,
    id: &RawValue,
    outcome: Result<ToolAnswer, CallError>,
) -> McpReply {
    let body = match outcome {
        Ok(ToolAnswer { answer: Answer::Result(answer), .. }) => result(id, &answer),
        Ok(ToolAnswer { answer: Answer::Error(error), .. }) => upstream_error(id, &error),
        Err(CallError::Refused { refusal, code }) => result(id, &refused_call(&refusal, code)),
        Err(error) => return refuse::call(server, error).reply(Some(id), context),
    };
    McpReply::json(StatusCode::OK, body)
}
