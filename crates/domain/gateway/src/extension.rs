//! The extension that brings the gateway's table.

use crate::repository::AI_REQUESTS;
use systemprompt_audit::Table;
use systemprompt_database::Migration;
use systemprompt_extension::Extension;

/// `ai_requests`.
#[derive(Clone, Copy, Debug)]
pub struct GatewayExtension;

impl Extension for GatewayExtension {
    fn id(&self) -> &'static str {
        "gateway"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn migrations(&self) -> Vec<Migration> {
        vec![Migration {
            version: 4001,
            name: "ai_requests",
            sqlite: include_str!("../migrations/sqlite/4001_ai_requests.sql"),
            postgres: include_str!("../migrations/postgres/4001_ai_requests.sql"),
        }]
    }

    fn tables(&self) -> Vec<&'static Table> {
        vec![&AI_REQUESTS]
    }
}
