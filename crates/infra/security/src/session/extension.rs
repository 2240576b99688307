//! The extension that brings the tables of sessions, revocations and signing keys.

use crate::repository::sessions::SESSIONS;
use systemprompt_audit::Table;
use systemprompt_database::Migration;
use systemprompt_extension::Extension;

/// `user_sessions`, `oauth_jti_revocations`, `token_cutoffs`, `signing_keys`.
#[derive(Clone, Copy, Debug)]
pub struct TokensExtension;

impl Extension for TokensExtension {
    fn id(&self) -> &'static str {
        "tokens"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn tables(&self) -> Vec<&'static Table> {
        vec![&SESSIONS]
    }

    fn migrations(&self) -> Vec<Migration> {
        vec![
            Migration {
                version: 2001,
                name: "tokens",
                sqlite: include_str!("../../migrations/sqlite/2001_tokens.sql"),
                postgres: include_str!("../../migrations/postgres/2001_tokens.sql"),
            },
            Migration {
                version: 2002,
                name: "token_ends",
                sqlite: include_str!("../../migrations/sqlite/2002_token_ends.sql"),
                postgres: include_str!("../../migrations/postgres/2002_token_ends.sql"),
            },
            Migration {
                version: 2060,
                name: "session_facts",
                sqlite: include_str!("../../migrations/sqlite/2060_session_facts.sql"),
                postgres: include_str!("../../migrations/postgres/2060_session_facts.sql"),
            },
            Migration {
                version: 2070,
                name: "session_clients",
                sqlite: include_str!("../../migrations/sqlite/2070_session_clients.sql"),
                postgres: include_str!("../../migrations/postgres/2070_session_clients.sql"),
            },
        ]
    }
}
