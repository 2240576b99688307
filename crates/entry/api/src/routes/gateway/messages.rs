//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: the body goes through as the bytes that came.

use crate::extract::{Context, RawBody};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri};
use systemprompt_gateway::{GatewayCall, GatewayReply, Operation, ReplyBody};
use systemprompt_models::RequestContext;
use systemprompt_runtime::AppContext;

pub async fn create(
    State(context): State<AppContext>,
    Context(caller): Context,
    uri: Uri,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> crate::Result<Response> {
    answer(&context, caller, Operation::Messages, &uri, headers, body).await
}

pub async fn count_tokens(
    State(context): State<AppContext>,
    Context(caller): Context,
    uri: Uri,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> crate::Result<Response> {
    answer(&context, caller, Operation::CountTokens, &uri, headers, body).await
}

async fn answer(
    context: &AppContext,
    caller: RequestContext,
    operation: Operation,
    uri: &Uri,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> crate::Result<Response> {
    let query = uri.query().map(str::to_owned);
    let reply =
        context.gateway.handle(GatewayCall { context: caller, operation, query, headers, body }).await?;
    Ok(render(reply))
}

fn render(reply: GatewayReply) -> Response {
    let body = match reply.body {
        ReplyBody::Full(bytes) => Body::from(bytes),
        ReplyBody::Stream(stream) => Body::from_stream(*stream),
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}
