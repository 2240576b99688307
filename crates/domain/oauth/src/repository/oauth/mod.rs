//! Rows of grants, codes, tokens and what leads to them.

pub mod assertions;
pub mod authorize;
pub mod consents;

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
