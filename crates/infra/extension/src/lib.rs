//! Extensions: what a room brings along (migrations, companion tables of the ledger), and the explicit registry that `main`
//! builds. Nothing registers itself at link time: what runs is what the registry names.

mod registry;

pub use registry::{Registry, RegistryError};

use systemprompt_audit::Table;
use systemprompt_database::Migration;

/// A room, as the boot sees it. Everything but the id and the version has a default.
pub trait Extension: Send + Sync {
    /// `[a-z][a-z0-9-]{1,31}`, unique in a registry.
    fn id(&self) -> &'static str;

    /// Version of the room, for `version` and health.
    fn version(&self) -> &'static str;

    /// Ids of the extensions that this one cannot do without.
    fn depends_on(&self) -> &'static [&'static str] {
        &[]
    }

    /// Steps of the schema, for both engines.
    fn migrations(&self) -> Vec<Migration> {
        Vec::new()
    }

    /// Tables whose rows are opened and closed in the ledger's units.
    fn tables(&self) -> Vec<&'static Table> {
        Vec::new()
    }
}
