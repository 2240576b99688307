//! The extension that brings the table of bans.

use systemprompt_database::Migration;
use systemprompt_extension::Extension;

/// `banned_ips` and its epoch.
#[derive(Clone, Copy, Debug)]
pub struct BansExtension;

impl Extension for BansExtension {
    fn id(&self) -> &'static str {
        "bans"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn migrations(&self) -> Vec<Migration> {
        vec![Migration {
            version: 2030,
            name: "banned_ips",
            sqlite: include_str!("../../migrations/sqlite/2030_banned_ips.sql"),
            postgres: include_str!("../../migrations/postgres/2030_banned_ips.sql"),
        }]
    }
}
