//! The rules of a node: rows, their compiled copy, and every way to change them. A change is recorded, written, compiled and
//! swapped in before the call returns; other nodes follow by the epoch.

mod departments;
mod entities;
mod rules;

use super::declared::{Declared, DeclaredChanges};
use super::error::AuthzError;
use super::ingestion::IngestOptions;
use super::repository::AccessControlRepository;
use super::resolver::{MAX_EXPANDED, MAX_RULES, RuleSet};
use super::types::{AccessRule, EntityKind};
use arc_swap::ArcSwap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_database::Db;
use systemprompt_events::{Bridge, Channel};
use systemprompt_models::{Clock, Millis, RequestContext};
use tokio::sync::{Mutex, watch};

/// Age of the last confirmation at which decisions are denied as stale, where nothing else is configured.
pub const MAX_STALENESS_MS: Millis = 60_000;
/// How long a caller is kept waiting for a set that is at least as new as it asks for.
pub const VERSION_WAIT: Duration = Duration::from_secs(1);

/// What a store is held to.
#[derive(Clone, Copy, Debug)]
pub struct RuleLimits {
    /// Age of the last confirmation at which decisions are denied as stale.
    pub max_staleness: Millis,
    pub max_rules: usize,
    pub max_expanded: usize,
}

impl Default for RuleLimits {
    fn default() -> Self {
        Self { max_staleness: MAX_STALENESS_MS, max_rules: MAX_RULES, max_expanded: MAX_EXPANDED }
    }
}

/// Rules and entities. Clones share one compiled set.
#[derive(Clone)]
pub struct RuleStore(Arc<Inner>);

struct Inner {
    repository: AccessControlRepository,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    bridge: Bridge,
    limits: RuleLimits,
    rules: ArcSwap<RuleSet>,
    /// What this node's configuration declares; it is forgotten there and nowhere else.
    declared: ArcSwap<HashSet<(EntityKind, Box<str>)>>,
    confirmed_at: AtomicI64,
    /// The epoch in force, for those who wait for one.
    epoch: watch::Sender<i64>,
    /// One reload at a time, so that an older set never replaces a newer one.
    reload: Mutex<()>,
    /// One change at a time on this node: what is there is looked at, recorded, then changed.
    change: Mutex<()>,
}

impl std::fmt::Debug for RuleStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleStore").field("epoch", &self.rules().epoch()).finish_non_exhaustive()
    }
}

impl RuleStore {
    /// Loads and compiles the rules.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn load(
        db: Db,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        bridge: Bridge,
    ) -> Result<Self, AuthzError> {
        Self::load_with(db, ledger, clock, bridge, RuleLimits::default()).await
    }

    /// Loads and compiles the rules under other limits than the usual ones.
    ///
    /// # Errors
    /// When they cannot be read, or are more than the limits allow.
    pub async fn load_with(
        db: Db,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        bridge: Bridge,
        limits: RuleLimits,
    ) -> Result<Self, AuthzError> {
        let store = Self(Arc::new(Inner {
            repository: AccessControlRepository::new(db),
            ledger,
            clock,
            bridge,
            limits,
            rules: ArcSwap::from_pointee(RuleSet::empty()),
            declared: ArcSwap::default(),
            confirmed_at: AtomicI64::new(0),
            epoch: watch::Sender::new(0),
            reload: Mutex::new(()),
            change: Mutex::new(()),
        }));
        store.reload().await?;
        Ok(store)
    }

    /// The compiled rules.
    pub fn rules(&self) -> Arc<RuleSet> {
        self.0.rules.load_full()
    }

    /// All rules, by id.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn rows(&self) -> Result<Vec<AccessRule>, AuthzError> {
        Ok(self.0.repository.rules().await?)
    }

    /// Whether the set was not confirmed for as long as it may be.
    pub fn is_stale(&self) -> bool {
        self.age() > self.0.limits.max_staleness
    }

    /// Milliseconds since the set was last confirmed.
    pub fn age(&self) -> Millis {
        self.0.clock.now().saturating_sub(self.0.confirmed_at.load(Ordering::Relaxed))
    }

    /// Asks for the epoch, and reloads if the rows are newer. Called every few seconds.
    ///
    /// # Errors
    /// When the rows cannot be read; the old set stays in force and ages.
    pub async fn refresh(&self) -> Result<(), AuthzError> {
        let asked_at = self.0.clock.now();
        let (epoch, told) = self.0.repository.epoch().await?;
        let rules = self.rules();
        if epoch == rules.epoch() {
            compare_hashes(&rules, told.as_deref());
            self.0.confirmed_at.fetch_max(asked_at, Ordering::Relaxed);
            return Ok(());
        }
        // Held on to, the old set would be freed here, among the requests.
        drop(rules);
        self.reload().await
    }

    /// Waits until a set of this epoch or a newer one is in force, at most [`VERSION_WAIT`]. Returns whether there is one.
    pub async fn at_least(&self, epoch: i64) -> bool {
        if self.rules().epoch() >= epoch {
            return true;
        }
        let mut seen = self.0.epoch.subscribe();
        let follow = async {
            // A notification may have been lost, so the rows are asked once; after that they are waited for.
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "the rules could not be asked for a newer version");
            }
            seen.wait_for(|now| *now >= epoch).await.is_ok()
        };
        tokio::time::timeout(VERSION_WAIT, follow).await.unwrap_or(false)
    }

    async fn reload(&self) -> Result<(), AuthzError> {
        let _one = self.0.reload.lock().await;
        let asked_at = self.0.clock.now();
        // The epoch is read first: rows that change in between belong to a later epoch and are loaded again.
        let (epoch, told) = self.0.repository.epoch().await?;
        let entities = self.0.repository.entities().await?;
        let rules = self.0.repository.rules().await?;
        // Compiling, and freeing what it was made from, takes tens of milliseconds for many rules: no request waits for that.
        let built = tokio::task::spawn_blocking(move || RuleSet::build(epoch, &entities, &rules)).await;
        let set = built.map_err(|_| AuthzError::NotCompiled)?;
        if set.expanded() > self.0.limits.max_expanded {
            tracing::error!(
                epoch,
                rules = set.len(),
                "the rules expand to more than fits; the old set stays"
            );
            return Err(AuthzError::TooManyRules(self.0.limits.max_rules));
        }
        compare_hashes(&set, told.as_deref());
        let old = self.0.rules.swap(Arc::new(set));
        drop(tokio::task::spawn_blocking(move || drop(old)));
        self.0.confirmed_at.fetch_max(asked_at, Ordering::Relaxed);
        self.0.epoch.send_replace(epoch);
        Ok(())
    }

    /// After a change of the rows: the new set is in force here before the caller goes on, and the other nodes are told.
    async fn changed(&self) -> Result<(), AuthzError> {
        self.reload().await?;
        let rules = self.rules();
        if let Err(error) = self.0.repository.note_hash(rules.epoch(), rules.set_hash()).await {
            tracing::warn!(%error, "the digest of the rules could not be noted for other nodes");
        }
        self.0.bridge.publish(Channel::Rules, &rules.epoch().to_string()).await;
        Ok(())
    }

    async fn record(&self, draft: Draft) -> Result<(), AuthzError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.0.ledger.append(unit).await?;
        Ok(())
    }

    /// What has to change so that the rows agree with a configuration. Nothing is changed yet.
    ///
    /// # Errors
    /// A rule out of bounds, too many rules, or rows that cannot be read.
    pub async fn compare(&self, declared: Declared) -> Result<DeclaredChanges, AuthzError> {
        self.compare_with(declared, IngestOptions::default()).await
    }

    /// The same, with a say in what becomes of rows that differ and of rows that are declared no more.
    ///
    /// # Errors
    /// As [`Self::compare`].
    pub async fn compare_with(
        &self,
        declared: Declared,
        options: IngestOptions,
    ) -> Result<DeclaredChanges, AuthzError> {
        let entities = self.0.repository.entities().await?;
        let rules = self.0.repository.rules().await?;
        let departments = self.0.repository.departments("", i64::MAX).await?;
        let changes = declared.changes((&entities, &rules, &departments), options)?;
        if self.rules().expanded() + changes.expands_to(&entities) > self.0.limits.max_expanded {
            return Err(AuthzError::TooManyRules(self.0.limits.max_rules));
        }
        let count = (rules.len() + changes.rules.inserted).saturating_sub(changes.rules.deleted);
        if count > self.0.limits.max_rules {
            return Err(AuthzError::TooManyRules(self.0.limits.max_rules));
        }
        Ok(changes)
    }

    /// Makes the rows agree; the caller has recorded it.
    ///
    /// # Errors
    /// When the rows cannot be written; none is, then.
    pub async fn follow(&self, changes: DeclaredChanges) -> Result<(), AuthzError> {
        let _one = self.0.change.lock().await;
        if !changes.is_empty() {
            self.0.repository.apply_declared(&changes, self.0.clock.now()).await?;
            self.changed().await?;
        }
        self.0.declared.store(Arc::new(changes.declared));
        Ok(())
    }
}

/// Two nodes that read one epoch must decide by the same rules.
fn compare_hashes(rules: &RuleSet, told: Option<&str>) {
    if let Some(told) = told
        && told != &**rules.set_hash()
    {
        tracing::error!(
            epoch = rules.epoch(),
            here = &**rules.set_hash(),
            there = told,
            "another node compiled other rules of the same epoch; is it of another version?"
        );
    }
}

fn draft(kind: EntryKind, by: &RequestContext, (subject, id): (&'static str, &str)) -> Draft {
    Draft::new(kind, by, "ok").with_subject(subject, id)
}

/// Whether what is there is what the caller has seen.
fn expect_version(
    what: &'static str,
    id: &str,
    present: Option<i64>,
    seen: Option<i64>,
) -> Result<(), AuthzError> {
    match (present, seen) {
        (None, Some(_)) => Err(AuthzError::Changed { what, id: id.to_owned() }),
        (Some(_), None) => Err(AuthzError::VersionRequired { what, id: id.to_owned() }),
        (present, seen) if present == seen => Ok(()),
        _ => Err(AuthzError::Changed { what, id: id.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
