//! The rows of the allow list, and every way to change them. A change is recorded, written and in force on this node before the
//! call returns; other nodes see its epoch within two seconds.

use super::{AllowError, AllowList, Allowance, NewAllowance};
use crate::repository::allow::AllowRepository;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_database::Db;
use systemprompt_models::ids::AllowanceId;
use systemprompt_models::{Clock, Millis, RequestContext};

/// Most entries that are held.
const MAX_ENTRIES: usize = 10_000;
/// How long the row of an ended entry is kept.
const KEEP_ENDED: Millis = 30 * 86_400_000;

/// The allow list with its rows. Clones share one copy.
#[derive(Clone)]
pub struct AllowStore(Arc<Inner>);

struct Inner {
    repository: AllowRepository,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    list: AllowList,
    epoch: AtomicI64,
    /// One change at a time on this node, so that an older copy never replaces a newer one.
    change: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for AllowStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AllowStore").field("list", &self.0.list).finish_non_exhaustive()
    }
}

impl AllowStore {
    /// Reads the rows into `list` for the first time.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn open(
        db: Db,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        list: AllowList,
    ) -> Result<Self, AllowError> {
        let inner = Inner {
            repository: AllowRepository::new(db),
            ledger,
            clock,
            list,
            epoch: AtomicI64::new(-1),
            change: tokio::sync::Mutex::new(()),
        };
        let store = Self(Arc::new(inner));
        store.refresh().await?;
        Ok(store)
    }

    /// At most `limit` entries in force behind the id `after`, the oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn page(&self, after: &str, limit: i64) -> Result<Vec<Allowance>, AllowError> {
        Ok(self.0.repository.active(after, self.0.clock.now(), limit).await?)
    }

    /// Makes an entry. `known` says which rules there are.
    ///
    /// # Errors
    /// A field out of bounds, an entry that does not narrow its rule, or a change that could not be recorded or written.
    pub async fn add(
        &self,
        by: &RequestContext,
        new: NewAllowance,
        known: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Allowance, AllowError> {
        new.check(known)?;
        let _one = self.0.change.lock().await;
        let now = self.0.clock.now();
        let most = i64::try_from(MAX_ENTRIES).unwrap_or(i64::MAX);
        if self.0.repository.active("", now, most).await?.len() >= MAX_ENTRIES {
            return Err(AllowError::TooMany(MAX_ENTRIES));
        }
        let life = |seconds: u64| Millis::try_from(seconds).unwrap_or(Millis::MAX).saturating_mul(1000);
        let entry = Allowance {
            id: AllowanceId::generate().as_str().into(),
            rule_id: new.rule_id,
            hmac: new.hmac,
            tool: new.tool,
            pointer: new.pointer,
            reason: new.reason.trim().to_owned(),
            owner: new.owner.trim().to_owned(),
            created_by: by.principal.user_id.to_string(),
            created_at: now,
            expires_at: new.expires_in_s.map(|seconds| now.saturating_add(life(seconds))),
        };
        self.record(draft(Draft::new(EntryKind::AdminAllowlistAdded, by, "ok"), &entry)).await?;
        self.0.repository.insert(&entry).await?;
        self.reload().await?;
        Ok(entry)
    }

    /// Ends an entry.
    ///
    /// # Errors
    /// No such entry in force, or a change that could not be recorded or written; the entry then stays.
    pub async fn remove(&self, by: &RequestContext, id: &str) -> Result<(), AllowError> {
        let _one = self.0.change.lock().await;
        let missing = || AllowError::NotFound(id.to_owned());
        let entry = self.0.repository.find(id, self.0.clock.now()).await?.ok_or_else(missing)?;
        self.record(draft(Draft::new(EntryKind::AdminAllowlistRemoved, by, "ok"), &entry)).await?;
        if !self.0.repository.delete(id).await? {
            return Err(missing());
        }
        self.reload().await
    }

    /// Asks for the epoch, and reads the entries again if they changed. Called every second.
    ///
    /// # Errors
    /// When they cannot be read; the copy then ages, and counts for nothing after a minute.
    pub async fn refresh(&self) -> Result<(), AllowError> {
        let _one = self.0.change.lock().await;
        let asked_at = self.0.clock.now();
        if self.0.repository.epoch().await? == self.0.epoch.load(Ordering::Relaxed) {
            self.0.list.confirm(asked_at);
            return Ok(());
        }
        self.reload().await
    }

    /// Deletes what ended long ago.
    ///
    /// # Errors
    /// When it cannot be written; it is tried again the next time.
    pub async fn sweep(&self) -> Result<(), AllowError> {
        Ok(self.0.repository.purge(self.0.clock.now() - KEEP_ENDED).await?)
    }

    async fn reload(&self) -> Result<(), AllowError> {
        let asked_at = self.0.clock.now();
        // The epoch is read first: rows that change in between belong to a later epoch and are read again.
        let epoch = self.0.repository.epoch().await?;
        let most = i64::try_from(MAX_ENTRIES).unwrap_or(i64::MAX);
        let entries = self.0.repository.active("", asked_at, most).await?;
        self.0.list.replace(entries, asked_at);
        self.0.epoch.store(epoch, Ordering::Relaxed);
        Ok(())
    }

    async fn record(&self, draft: Draft) -> Result<(), AllowError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.0.ledger.append(unit).await?;
        Ok(())
    }
}

/// Reason and owner are text of a person and stay in the row.
fn draft(draft: Draft, entry: &Allowance) -> Draft {
    draft
        .with("allowance_id", &*entry.id)
        .with("rule_id", entry.rule_id.as_str())
        .with("hmac", entry.hmac.clone())
        .with("tool", entry.tool.clone())
        .with("pointer", entry.pointer.clone())
        .with("expires_at", entry.expires_at)
}
