//! What the configuration declares becomes known to the rules, at the start and at every reload: routes of the gateway, MCP
//! servers, and the entities and rules of the access-control files. Nobody has to register them by hand.

use crate::context::AppContext;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_config::Loaded;
use systemprompt_security::authz::{AuthzError, Declared, EntityKind};

/// Entities and rules of a configuration.
pub(crate) fn declared(loaded: &Loaded) -> Declared {
    let mut declared = Declared::of(&loaded.services.access_control);
    for route in &loaded.profile.gateway.routes {
        declared.entity(EntityKind::GatewayRoute, &route.name, None);
    }
    for (name, server) in &loaded.services.mcp_servers {
        declared.entity(EntityKind::McpServer, name, server.display_name.as_deref());
    }
    declared
}

impl AppContext {
    /// Registers what the configuration of the start declares. A ledger that takes nothing leaves the rows as they are.
    ///
    /// # Errors
    /// Rules out of bounds, or rows or a record that could not be written.
    pub(crate) async fn declare(&self) -> Result<(), AuthzError> {
        if !self.ledger.condition().is_ready() {
            return Ok(());
        }
        let config = self.config();
        let changes = self.rules.compare(declared(&config)).await?;
        if !changes.is_empty() {
            let draft = Draft::system(EntryKind::ConfigReload, "ok")
                .with_reason("start")
                .with("after", &*config.hash);
            let mut unit = Unit::new();
            unit.record(changes.note(draft));
            self.ledger.append(unit).await?;
            let (departments, entities, rules) = (changes.departments, changes.entities, changes.rules);
            tracing::info!(?departments, ?entities, ?rules, "registered what the configuration declares");
        }
        self.rules.follow(changes).await
    }
}
