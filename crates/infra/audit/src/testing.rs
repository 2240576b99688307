//! A started ledger for the tests of rooms that record.

use crate::ledger::{GroupOptions, Ledger, LedgerOptions};
use crate::payload::PayloadPolicy;
use crate::unit::Table;
use std::path::PathBuf;
use std::sync::Arc;
use systemprompt_database::{Db, Migration};
use systemprompt_events::Hub;
use systemprompt_leak::Scanner;
use systemprompt_models::{SystemClock, Tasks};

/// Starts a ledger on `db`, whose migrations (the ledger's among them) are applied. The tables are leaked: tests are short.
#[expect(clippy::expect_used, reason = "a test without a ledger must fail")]
pub async fn ledger(db: &Db, tables: &[&'static Table]) -> Ledger {
    let tables: &'static [&'static Table] = Vec::leak(tables.to_vec());
    Ledger::start(db, tables, options(db), Arc::new(SystemClock), &Tasks::default())
        .await
        .expect("a ledger starts")
}

/// Options that fit a test database.
pub fn options(db: &Db) -> LedgerOptions {
    let data_dir = match db {
        Db::Sqlite(db) => db.path().parent().map(PathBuf::from).unwrap_or_default(),
        Db::Postgres(_) => std::env::temp_dir(),
    };
    LedgerOptions {
        node_id: "test".into(),
        origin_host: "localhost".into(),
        data_dir,
        min_free_bytes: 0,
        group: GroupOptions::for_engine(db.engine()),
        hub: Hub::default(),
        leak: Scanner::default(),
        payloads: PayloadPolicy::default(),
        checkpoints: None,
    }
}

/// The ledger's own migrations.
pub fn migrations() -> Vec<Migration> {
    crate::MIGRATIONS.to_vec()
}
