//! Which tools of which servers a principal may use. A server that it may not use is never connected to.

use super::definitions::{Definition, Definitions};
use super::registry::{Registry, Server};
use super::supervisor::{StartError, Supervisor};
use crate::middleware::rbac::{server_entity, tool_entity};
use serde_json::value::RawValue;
use std::sync::Arc;
use systemprompt_audit::{Ledger, LedgerError, Unit};
use systemprompt_leak::Scanner;
use systemprompt_models::{Permission, Principal, RequestContext};
use systemprompt_security::authz::{AuthzDecision, EntityRef, Matched};
use systemprompt_security::plane::DecisionPlane;

/// Whether the token itself covers a server: its scopes hold all that the server asks for. `admin` covers every scope of
/// this plane and no hook scope; there is no other implication (MCP-51).
pub fn has_server_permission(principal: &Principal, server: &Server) -> bool {
    if !server.config.oauth.required {
        return true;
    }
    server.config.oauth.scopes.iter().all(|scope| match scope.parse::<Permission>() {
        Ok(wanted) => principal.has(wanted) || (principal.has(Permission::Admin) && !wanted.is_hook_scope()),
        Err(_) => false,
    })
}

/// Whether `principal` may use a tool of a server that it may use: the server's file admits it, and so do the rules that
/// name it, if any does (MCP-56, SEC-63).
pub async fn tool_decision(
    plane: &DecisionPlane,
    context: &RequestContext,
    server: &str,
    tool: &str,
) -> Option<AuthzDecision> {
    let decision = plane.decide(context, &tool_entity(server, tool)).await;
    (decision.matched != Matched::UnknownEntity).then_some(decision)
}

/// The tools of a server that a principal may use, in the server's order.
#[derive(Debug)]
pub struct ToolList {
    pub server: Box<str>,
    pub tools: Vec<Box<RawValue>>,
}

/// Lists tools.
#[derive(Clone)]
pub struct McpToolLoader {
    pub(crate) registry: Registry,
    pub(crate) supervisor: Supervisor,
    pub(crate) plane: DecisionPlane,
    pub(crate) ledger: Ledger,
    pub(crate) scanner: Scanner,
}

/// Why a list cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the list could not be recorded")]
    Ledger(#[from] LedgerError),
}

impl McpToolLoader {
    /// The tools of one server, whose use was decided on. The list is recorded before it is given.
    ///
    /// # Errors
    /// The server does not run and cannot be started, or the list could not be recorded.
    pub async fn list(&self, context: &RequestContext, server: &Arc<Server>) -> Result<ToolList, LoadError> {
        let definitions = self.definitions(context, server).await?;
        let (list, mut decided) = self.filter(context, server, &definitions).await;
        let entity = server_entity(&server.name);
        let decision = self.plane.decide(context, &entity).await;
        decided.insert(0, (entity, decision));
        let draft = self.plane.list_draft(context, ("mcp_server", &server.name), &decided);
        let mut unit = Unit::new();
        unit.record(draft.with("listed", list.tools.len()));
        self.ledger.append(unit).await?;
        Ok(list)
    }

    /// The tools of several servers. Servers that the principal may not use, or that cannot be started, are left out.
    ///
    /// # Errors
    /// The list could not be recorded.
    pub async fn load_tools_for_servers(
        &self,
        context: &RequestContext,
        servers: &[&str],
    ) -> Result<Vec<ToolList>, LedgerError> {
        let principal = &context.principal;
        let (mut lists, mut decided) = (Vec::new(), Vec::new());
        for server in servers.iter().filter_map(|name| self.registry.get(name)) {
            if !has_server_permission(principal, &server) {
                continue;
            }
            let entity = server_entity(&server.name);
            let decision = self.plane.decide(context, &entity).await;
            let allowed = decision.is_allow();
            decided.push((entity, decision));
            if !allowed {
                continue;
            }
            match self.definitions(context, &server).await {
                Ok(definitions) => {
                    let (list, tools) = self.filter(context, &server, &definitions).await;
                    lists.push(list);
                    decided.extend(tools);
                }
                Err(StartError::Ledger(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(server = %server.name, %error, "an MCP server is left out of a list");
                }
            }
        }
        let listed: usize = lists.iter().map(|list: &ToolList| list.tools.len()).sum();
        let mut unit = Unit::new();
        unit.record(self.plane.list_draft(context, ("mcp_server", "*"), &decided).with("listed", listed));
        self.ledger.append(unit).await?;
        Ok(lists)
    }

    /// The definitions of a server; it is started if need be, after the decision to use it is on record.
    async fn definitions(
        &self,
        context: &RequestContext,
        server: &Arc<Server>,
    ) -> Result<Arc<Definitions>, StartError> {
        if self.supervisor.running(server).is_none() {
            self.plane.decide_recorded(context, &server_entity(&server.name)).await?;
        }
        let instance = self.supervisor.ready(server, Some(context)).await?;
        Ok(instance.definitions(true, &self.scanner).await)
    }

    async fn filter(
        &self,
        context: &RequestContext,
        server: &Server,
        definitions: &Definitions,
    ) -> (ToolList, Vec<(EntityRef, AuthzDecision)>) {
        let offered: Vec<&Definition> =
            definitions.tools.iter().filter(|tool| server.config.tools.permits(&tool.name)).collect();
        let entities: Vec<EntityRef> =
            offered.iter().map(|tool| tool_entity(&server.name, &tool.name)).collect();
        let decisions = self.plane.decide_many(context, &entities).await;
        let (mut tools, mut decided) = (Vec::new(), Vec::new());
        for ((tool, entity), decision) in offered.into_iter().zip(entities).zip(decisions) {
            // A tool that no rule names follows its server.
            let is_ruled = decision.matched != Matched::UnknownEntity;
            if !is_ruled || decision.is_allow() {
                tools.push(tool.raw.clone());
            }
            if is_ruled {
                decided.push((entity, decision));
            }
        }
        (ToolList { server: server.name.clone(), tools }, decided)
    }
}
