//! `/api/v1/mcp/{server}/mcp`: one URL per server, streamable HTTP.

use crate::extract::{Context, RawBody};
use crate::services::server::route::{MCP_BODY, Route};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use std::convert::Infallible;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_mcp::{McpBody, McpReply};
use systemprompt_models::envelope::Envelope;
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::AuthMode;
use systemprompt_security::extraction::HeaderExtractor;
use systemprompt_security::jwt::Surface;

use crate::services::server::route::Access;

pub fn routes() -> Vec<Route> {
    let mut post = Route::post("/api/v1/mcp/{server}/mcp", message)
        .signed(Surface::Mcp, &[], RateGroup::Mcp)
        .envelope(Envelope::Mcp)
        .body_limit(MCP_BODY)
        .doc("mcp", "One JSON-RPC message to an MCP server (protocol 2025-11-25)");
    // Whether a server wants a token stands in its own file: the plane asks for one where it does.
    post.spec.access =
        Access::Signed { surface: Surface::Mcp, mode: AuthMode::Optional, any_of: &[], in_person: false };
    vec![post]
}

async fn message(
    State(context): State<AppContext>,
    Context(mut caller): Context,
    Path(server): Path<String>,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Response {
    caller.ai_tool_call_id = HeaderExtractor::extract(&headers).ai_tool_call_id;
    render(context.mcp.handle(&caller, &server, &headers, body).await)
}

fn render(reply: McpReply) -> Response {
    let (body, content_type) = match reply.body {
        McpBody::Empty => (Body::empty(), None),
        McpBody::Json(bytes) => (Body::from(bytes), Some("application/json")),
        McpBody::Sse(events) => {
            let frames = stream::unfold(events, |mut events| async move {
                events.recv().await.map(|frame| (Ok::<_, Infallible>(frame), events))
            });
            (Body::from_stream(frames), Some("text/event-stream"))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if let Some(content_type) = content_type {
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    }
    response
}
