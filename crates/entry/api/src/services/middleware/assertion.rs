//! Proxy assertions on MCP routes of the internal listener (SEC-46, MCP-52): who is asserted is who calls, and where an assertion
//! is shown no other credential is looked at.

use super::auth;
use crate::extract;
use crate::services::server::internal::Internal;
use axum::body::Body;
use axum::extract::Request;
use std::net::IpAddr;
use std::sync::Arc;
use systemprompt_models::{Principal, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::error::AuthError;
use systemprompt_security::extraction::token::{MCP_PROXY_HEADER, mcp_proxy};
use systemprompt_security::jwt::Surface;

/// The server that a request with an assertion is for; `None` where none is read.
pub fn server_of(request: &Request, surface: Surface) -> Option<String> {
    let is_read = surface == Surface::Mcp
        && request.extensions().get::<Internal>().is_some()
        && request.headers().contains_key(MCP_PROXY_HEADER);
    let name = request.uri().path().strip_prefix("/api/v1/mcp/")?.split('/').next()?;
    is_read.then(|| name.to_owned())
}

/// The principal that the assertion of a request speaks for. The body is read for it and put back as it came.
///
/// # Errors
/// A malformed assertion, or one that does not count for this server and body.
pub async fn authenticate(
    context: &AppContext,
    request: &mut Request,
    server: &str,
    address: IpAddr,
) -> Result<Arc<Principal>, Refusal> {
    let body = extract::read(std::mem::take(request.body_mut())).await?;
    let shown = mcp_proxy(request.headers(), MCP_PROXY_HEADER).map_err(AuthError::Missing);
    let found = shown.and_then(|token| context.auth.by_assertion(token, server, &body));
    *request.body_mut() = Body::from(body);
    // It is spent: nothing behind has a use for it.
    request.headers_mut().remove(MCP_PROXY_HEADER);
    found.map(|found| found.principal).map_err(|error| auth::refusal(&error, address))
}
