//! The extension that brings the tables of the allow list, of refused blocks, of the call limit, of signed messages, of hook events
//! and of nodes.

use systemprompt_database::Migration;
use systemprompt_extension::Extension;

/// `governance_allowlist`, `governance_seen`, `governance_rate`, `governance_charges`, `webhook_replays`, `hook_events`, `nodes`.
#[derive(Clone, Copy, Debug)]
pub struct GovernanceExtension;

/// A migration of both engines, from its files.
macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $version, "_", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $version, "_", $name, ".sql")),
        }
    };
}

impl Extension for GovernanceExtension {
    fn id(&self) -> &'static str {
        "governance"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn migrations(&self) -> Vec<Migration> {
        vec![
            migration!(2040, "governance_allowlist"),
            migration!(2041, "governance_seen"),
            migration!(2050, "call_limit"),
            migration!(2051, "webhook_replays"),
            migration!(2052, "hook_events"),
            migration!(2053, "nodes"),
            migration!(2054, "call_limit_room"),
        ]
    }
}
