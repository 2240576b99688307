//! Rows of `oauth_clients` and of the lists that belong to them.

pub mod cleanup;
pub mod documents;
pub mod mutations;
pub mod queries;
pub mod relations;

use systemprompt_database::Db;

/// Reads and writes clients.
#[derive(Clone, Debug)]
pub struct ClientRepository {
    pub(crate) db: Db,
}

impl ClientRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}
