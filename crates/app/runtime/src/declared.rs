//! What the configuration declares becomes known to the rules, at the start and at every reload: routes of the gateway, MCP
//! servers, and the entities and rules of the access-control files. Nobody has to register them by hand.

use crate::context::AppContext;
use crate::reload::bounded;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_config::Loaded;
use systemprompt_security::authz::declared::Counts;
use systemprompt_security::authz::{AuthzError, Declared, DeclaredChanges, EntityKind};

/// Entities that a record names.
const MAX_NAMED: usize = 32;

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

/// Says in a record what changes.
pub(crate) fn note(draft: Draft, changes: &DeclaredChanges) -> Draft {
    let registered: Vec<String> = changes.registered().take(MAX_NAMED).map(|name| bounded(&name)).collect();
    let draft = counted(draft, "entities", changes.entities);
    let draft = counted(draft, "rules", changes.rules);
    if registered.is_empty() { draft } else { draft.with("registered", registered) }
}

fn counted(draft: Draft, what: &str, counts: Counts) -> Draft {
    let numbers = [
        ("inserted", counts.inserted),
        ("updated", counts.updated),
        ("deleted", counts.deleted),
        ("skipped", counts.skipped),
    ];
    numbers
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .fold(draft, |draft, (name, number)| draft.with(&format!("{what}_{name}"), number))
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
            unit.record(note(draft, &changes));
            self.ledger.append(unit).await?;
            let (entities, rules) = (changes.entities, changes.rules);
            tracing::info!(?entities, ?rules, "registered what the configuration declares");
        }
        self.rules.follow(changes).await
    }
}
