//! Takes the access-control files over into the rows (SEC-68): in one transaction, recorded first, and never touching a row of
//! another source.

use super::declared::{Counts, Declared};
use super::error::AuthzError;
use super::store::RuleStore;
use serde::Serialize;
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_config::AccessControlConfig;

/// What becomes of rows that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestOptions {
    /// Rows of the configuration that differ become what it says now; else they stay and count as skipped.
    pub override_existing: bool,
    /// Rows of the configuration that it names no more are deleted; else they stay.
    pub delete_orphans: bool,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self { override_existing: true, delete_orphans: true }
    }
}

/// How many rows (departments, entities and rules together) became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IngestReport {
    pub inserted: usize,
    pub updated: usize,
    /// Rows of another source that stand where one was declared, and rows that differ and were not to be overridden.
    pub skipped: usize,
    pub deleted: usize,
}

impl FromIterator<Counts> for IngestReport {
    fn from_iter<I: IntoIterator<Item = Counts>>(counts: I) -> Self {
        counts.into_iter().fold(Self::default(), |sum, one| Self {
            inserted: sum.inserted + one.inserted,
            updated: sum.updated + one.updated,
            skipped: sum.skipped + one.skipped,
            deleted: sum.deleted + one.deleted,
        })
    }
}

/// Takes configurations over. The runtime's own reload does the same as a part of its one record.
#[derive(Clone, Debug)]
pub struct AccessControlIngestionService {
    store: RuleStore,
    ledger: Ledger,
}

impl AccessControlIngestionService {
    pub fn new(store: RuleStore, ledger: Ledger) -> Self {
        Self { store, ledger }
    }

    /// Makes the rows what `config` says.
    ///
    /// # Errors
    /// A rule out of bounds, too many rules, or rows or a record that could not be written; nothing is changed, then.
    pub async fn ingest(
        &self,
        config: &AccessControlConfig,
        options: IngestOptions,
    ) -> Result<IngestReport, AuthzError> {
        let changes = self.store.compare_with(Declared::of(config), options).await?;
        let report: IngestReport =
            [changes.departments, changes.entities, changes.rules].into_iter().collect();
        if !changes.is_empty() {
            let mut unit = Unit::new();
            let draft = Draft::system(EntryKind::ConfigReload, "ok").with_reason("ingestion");
            unit.record(changes.note(draft));
            self.ledger.append(unit).await?;
        }
        self.store.follow(changes).await?;
        Ok(report)
    }
}
