//! The extension that brings the tables of rules and decisions.

use super::audit::repository::GOVERNANCE_DECISIONS;
use systemprompt_audit::Table;
use systemprompt_database::Migration;
use systemprompt_extension::Extension;

/// Rules, entities, the epoch, and `governance_decisions`.
#[derive(Clone, Copy, Debug)]
pub struct AuthzExtension;

impl Extension for AuthzExtension {
    fn id(&self) -> &'static str {
        "authz"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn migrations(&self) -> Vec<Migration> {
        vec![
            Migration {
                version: 2010,
                name: "authz",
                sqlite: include_str!("../../migrations/sqlite/2010_authz.sql"),
                postgres: include_str!("../../migrations/postgres/2010_authz.sql"),
            },
            Migration {
                version: 2011,
                name: "departments",
                sqlite: include_str!("../../migrations/sqlite/2011_departments.sql"),
                postgres: include_str!("../../migrations/postgres/2011_departments.sql"),
            },
            Migration {
                version: 2012,
                name: "decision_indexes",
                sqlite: include_str!("../../migrations/sqlite/2012_decision_indexes.sql"),
                postgres: include_str!("../../migrations/postgres/2012_decision_indexes.sql"),
            },
        ]
    }

    fn tables(&self) -> Vec<&'static Table> {
        vec![&GOVERNANCE_DECISIONS]
    }
}
