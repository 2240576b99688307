//! Access to a server (MCP-48 to MCP-52): known, with the scopes it asks for, and allowed by the rules. No step has an early
//! success, and nothing of a server is started before this.

use crate::services::loader::has_server_permission;
use crate::services::registry::{Registry, Server};
use std::sync::Arc;
use systemprompt_audit::{Draft, EntryKind, Ledger, LedgerError, Unit};
use systemprompt_models::{Refusal, RequestContext};
use systemprompt_security::authz::{EntityKind, EntityRef};
use systemprompt_security::plane::DecisionPlane;

/// Why a server may not be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No credential, where one is needed; also for servers that do not exist, so that nothing is learnt.
    #[error("a credential is needed")]
    Unauthenticated,
    #[error("there is no MCP server of this name")]
    Unknown,
    #[error("the token lacks a scope that this server asks for")]
    InsufficientScope { scopes: Vec<String> },
    #[error("{0}")]
    Denied(Refusal),
    #[error("the decision could not be recorded")]
    Ledger(#[from] LedgerError),
}

/// The entity of a server.
pub fn server_entity(name: &str) -> EntityRef {
    EntityRef::new(EntityKind::McpServer, name)
}

/// The entity of a tool.
pub fn tool_entity(server: &str, tool: &str) -> EntityRef {
    EntityRef::new(EntityKind::McpTool, format!("{server}/{tool}"))
}

/// Decides whether the principal of `context` may use the server `name`. A denial is recorded before it is told; an allow is
/// recorded with what it permits.
///
/// # Errors
/// [`AccessError`].
pub async fn enforce_rbac_from_registry(
    plane: &DecisionPlane,
    ledger: &Ledger,
    registry: &Registry,
    context: &RequestContext,
    name: &str,
) -> Result<Arc<Server>, AccessError> {
    let principal = &context.principal;
    let server = registry.get(name);
    if principal.is_anonymous() && server.as_ref().is_none_or(|s| s.config.oauth.required) {
        return Err(AccessError::Unauthenticated);
    }
    let server = server.ok_or(AccessError::Unknown)?;
    if !has_server_permission(principal, &server) {
        let scopes = server.config.oauth.scopes.clone();
        let mut unit = Unit::new();
        unit.record(
            Draft::new(EntryKind::AuthzDecision, context, "deny")
                .with_subject("mcp_server", name)
                .with_policy("insufficient_scope")
                .with("origin", "mcp")
                .with("scopes", scopes.clone()),
        );
        ledger.append(unit).await?;
        return Err(AccessError::InsufficientScope { scopes });
    }
    let entity = server_entity(name);
    if plane.decide(context, &entity).await.is_allow() {
        return Ok(server);
    }
    let (decision, id) = plane.decide_recorded(context, &entity).await?;
    if decision.is_allow() {
        return Ok(server);
    }
    let mut refusal = Refusal::denied(decision.policy(), decision.reason()).with_decision(id);
    if let Some(rule) = &decision.rule {
        refusal = refusal.with_rule(rule.id.as_str());
    }
    Err(AccessError::Denied(refusal))
}
