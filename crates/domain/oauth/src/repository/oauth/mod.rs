//! Rows of grants, codes, tokens and what leads to them.

pub mod assertions;
pub mod auth_code;
pub mod authorize;
pub(crate) mod cleanup;
pub mod device;
pub mod federated;
pub mod grants;
pub mod refresh_token;
pub mod scopes;
pub mod user;

use systemprompt_database::Db;

/// Reads and writes what the endpoints leave behind.
#[derive(Clone, Debug)]
pub struct OAuthRepository {
    pub(crate) db: Db,
}

impl OAuthRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}
