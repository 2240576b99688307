//! Errors of this plane in the protocol's form (the error table of the MCP document). None tells a command line, a path, a
//! value or what a server said.

use crate::middleware::rbac::AccessError;
use crate::services::loader::LoadError;
use crate::services::supervisor::StartError;
use crate::services::tool::CallError;
use crate::wire::reply::{
    CANCELLED, INVALID_PARAMS, INVALID_REQUEST, RpcError, UPSTREAM_BROKEN, UPSTREAM_TIMEOUT,
    UPSTREAM_UNREACHABLE,
};
use http::{StatusCode, header};
use systemprompt_audit::LedgerError;
use systemprompt_models::Refusal;
use systemprompt_models::auth::scope_of;
use systemprompt_security::jwt::Surface;

pub(super) fn ledger(error: LedgerError) -> RpcError {
    RpcError::not_recorded(&Refusal::from(error))
}

pub(super) fn unreachable() -> RpcError {
    let message = "the server cannot be reached at present";
    RpcError::new(StatusCode::OK, UPSTREAM_UNREACHABLE, message).named("upstream_unreachable")
}

pub(super) fn start(server: &str, error: StartError) -> RpcError {
    if let StartError::Ledger(error) = error {
        return ledger(error);
    }
    tracing::warn!(server, %error, "an MCP server is not available");
    unreachable()
}

pub(super) fn load(server: &str, error: LoadError) -> RpcError {
    match error {
        LoadError::Start(error) => start(server, error),
        LoadError::Ledger(error) => ledger(error),
    }
}

/// Errors of a call; a refused call is a result and comes not here.
pub(super) fn call(server: &str, error: CallError) -> RpcError {
    let own = |code, name: &str, message: &str| RpcError::new(StatusCode::OK, code, message).named(name);
    match error {
        CallError::UnknownTool => own(INVALID_PARAMS, "unknown_tool", "Unknown tool"),
        CallError::Start(error) => start(server, error),
        CallError::Ledger(error) => ledger(error),
        CallError::Crashed => own(UPSTREAM_BROKEN, "upstream_crashed", "the server ended during the call"),
        CallError::Timeout => own(UPSTREAM_TIMEOUT, "upstream_timeout", "the server did not answer in time"),
        CallError::Cancelled => own(CANCELLED, "cancelled", "the call was cancelled"),
        CallError::Refused { refusal, .. } => RpcError::denied(&refusal),
    }
}

/// Access to a server, with the challenge that tells a client what would help (RFC 6750, RFC 9728).
pub(super) fn access(external_url: &str, server: &str, error: AccessError) -> RpcError {
    let metadata = format!("{external_url}/.well-known/oauth-protected-resource/api/v1/mcp/{server}/mcp");
    match error {
        AccessError::Unauthenticated => {
            // The same for every name, so that nobody learns which servers exist; a token that lacks what a server asks for is
            // told that server's own scopes.
            let scope = scope_of(Surface::Mcp.scopes());
            let challenge = format!("Bearer resource_metadata=\"{metadata}\", scope=\"{scope}\"");
            RpcError::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, "a credential is needed")
                .named("unauthenticated")
                .with_header(header::WWW_AUTHENTICATE, &challenge)
        }
        AccessError::Unknown => {
            RpcError::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "there is no MCP server of this name")
                .named("not_found")
        }
        AccessError::InsufficientScope { scopes } => {
            let scopes = scopes.join(" ");
            let challenge = format!(
                "Bearer error=\"insufficient_scope\", scope=\"{scopes}\", resource_metadata=\"{metadata}\""
            );
            let message = format!("the token needs the scope {scopes}");
            RpcError::new(StatusCode::FORBIDDEN, INVALID_REQUEST, message)
                .named("insufficient_scope")
                .with_header(header::WWW_AUTHENTICATE, &challenge)
        }
        AccessError::Denied(refusal) => RpcError::denied(&refusal),
        AccessError::Ledger(error) => ledger(error),
    }
}
