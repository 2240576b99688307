//! The extension that brings the identity tables.

use crate::repository::oauth::authorize::{CODES, GRANTS};
use systemprompt_audit::Table;
use systemprompt_database::Migration;
use systemprompt_extension::Extension;

/// Users, roles and API keys.
#[derive(Clone, Copy, Debug)]
pub struct OauthExtension;

impl Extension for OauthExtension {
    fn id(&self) -> &'static str {
        "oauth"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn depends_on(&self) -> &'static [&'static str] {
        &["authz"]
    }

    fn tables(&self) -> Vec<&'static Table> {
        vec![&GRANTS, &CODES]
    }

    fn migrations(&self) -> Vec<Migration> {
        vec![
            Migration {
                version: 3001,
                name: "users",
                sqlite: include_str!("../migrations/sqlite/3001_users.sql"),
                postgres: include_str!("../migrations/postgres/3001_users.sql"),
            },
            Migration {
                version: 3002,
                name: "oauth",
                sqlite: include_str!("../migrations/sqlite/3002_oauth.sql"),
                postgres: include_str!("../migrations/postgres/3002_oauth.sql"),
            },
            Migration {
                version: 3010,
                name: "fetch_budget",
                sqlite: include_str!("../migrations/sqlite/3010_fetch_budget.sql"),
                postgres: include_str!("../migrations/postgres/3010_fetch_budget.sql"),
            },
            Migration {
                version: 3020,
                name: "identity_jobs",
                sqlite: include_str!("../migrations/sqlite/3020_identity_jobs.sql"),
                postgres: include_str!("../migrations/postgres/3020_identity_jobs.sql"),
            },
            Migration {
                version: 3030,
                name: "people",
                sqlite: include_str!("../migrations/sqlite/3030_people.sql"),
                postgres: include_str!("../migrations/postgres/3030_people.sql"),
            },
            Migration {
                version: 3040,
                name: "user_requests",
                sqlite: include_str!("../migrations/sqlite/3040_user_requests.sql"),
                postgres: include_str!("../migrations/postgres/3040_user_requests.sql"),
            },
            Migration {
                version: 3050,
                name: "grant_claims",
                sqlite: include_str!("../migrations/sqlite/3050_grant_claims.sql"),
                postgres: include_str!("../migrations/postgres/3050_grant_claims.sql"),
            },
            Migration {
                version: 3070,
                name: "par_bound",
                sqlite: include_str!("../migrations/sqlite/3070_par_bound.sql"),
                postgres: include_str!("../migrations/postgres/3070_par_bound.sql"),
            },
            Migration {
                version: 3080,
                name: "mails",
                sqlite: include_str!("../migrations/sqlite/3080_mails.sql"),
                postgres: include_str!("../migrations/postgres/3080_mails.sql"),
            },
            Migration {
                version: 3090,
                name: "client_indexes",
                sqlite: include_str!("../migrations/sqlite/3090_client_indexes.sql"),
                postgres: include_str!("../migrations/postgres/3090_client_indexes.sql"),
            },
        ]
    }
}
