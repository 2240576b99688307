//! Rows of `oauth_clients` and of the lists that belong to them.

pub mod cleanup;
pub mod documents;
pub mod inserts;
pub mod mutations;
mod prover;
pub mod queries;
pub mod relations;

use prover::{Lookup, Prover, SLOTS};
use std::sync::Arc;
use systemprompt_database::{Db, Gather};

/// Statements for clients that prove themselves which may be under way at once.
const PROVING: usize = 2;

/// Reads and writes clients.
#[derive(Clone, Debug)]
pub struct ClientRepository {
    pub(crate) db: Db,
    provers: Arc<Gather<Lookup, Prover>>,
}

impl ClientRepository {
    pub fn new(db: Db) -> Self {
        Self { db, provers: Arc::new(Gather::new(PROVING, SLOTS)) }
    }
}
