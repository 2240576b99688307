//! The rules of a node: rows, their compiled copy, and every way to change them. A change is recorded, written, compiled and
//! swapped in before the call returns; other nodes follow by the epoch.

use super::declared::{DECLARED, Declared, DeclaredChanges};
use super::error::AuthzError;
use super::repository::{AccessControlRepository, UpsertRuleParams};
use super::resolver::{MAX_RULES, RuleSet};
use super::types::{Access, AccessRule, Entity, EntityKind, MAX_ENTITY_ID};
use arc_swap::ArcSwap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_database::Db;
use systemprompt_events::{Bridge, Channel};
use systemprompt_models::ids::RuleId;
use systemprompt_models::{Clock, Millis, RequestContext};
use tokio::sync::Mutex;

/// Age of the last confirmation at which decisions are denied as stale.
pub const MAX_STALENESS_MS: Millis = 60_000;

/// Rules and entities. Clones share one compiled set.
#[derive(Clone)]
pub struct RuleStore(Arc<Inner>);

struct Inner {
    repository: AccessControlRepository,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    bridge: Bridge,
    rules: ArcSwap<RuleSet>,
    /// What this node's configuration declares; it is forgotten there and nowhere else.
    declared: ArcSwap<HashSet<(EntityKind, Box<str>)>>,
    confirmed_at: AtomicI64,
    /// One reload at a time, so that an older set never replaces a newer one.
    reload: Mutex<()>,
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
        let store = Self(Arc::new(Inner {
            repository: AccessControlRepository::new(db),
            ledger,
            clock,
            bridge,
            rules: ArcSwap::from_pointee(RuleSet::empty()),
            declared: ArcSwap::default(),
            confirmed_at: AtomicI64::new(0),
            reload: Mutex::new(()),
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

    /// At most `limit` rules behind the id `after`, by id, optionally of one entity.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn page(
        &self,
        after: &str,
        entity_type: Option<EntityKind>,
        entity_id: Option<&str>,
        limit: i64,
    ) -> Result<Vec<AccessRule>, AuthzError> {
        Ok(self.0.repository.page(after, entity_type, entity_id, limit).await?)
    }

    /// All registered entities, by kind and id.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn entities(&self) -> Result<Vec<Entity>, AuthzError> {
        Ok(self.0.repository.entities().await?)
    }

    /// Whether the set was not confirmed for [`MAX_STALENESS_MS`].
    pub fn is_stale(&self) -> bool {
        self.age() > MAX_STALENESS_MS
    }

    /// Milliseconds since the set was last confirmed.
    pub fn age(&self) -> Millis {
        self.0.clock.now() - self.0.confirmed_at.load(Ordering::Relaxed)
    }

    /// Asks for the epoch, and reloads if the rows are newer. Called every few seconds.
    ///
    /// # Errors
    /// When the rows cannot be read; the old set stays in force and ages.
    pub async fn refresh(&self) -> Result<(), AuthzError> {
        let asked_at = self.0.clock.now();
        let epoch = self.0.repository.epoch().await?;
        if epoch == self.rules().epoch() {
            self.0.confirmed_at.store(asked_at, Ordering::Relaxed);
            return Ok(());
        }
        self.reload().await
    }

    async fn reload(&self) -> Result<(), AuthzError> {
        let _one = self.0.reload.lock().await;
        let asked_at = self.0.clock.now();
        // The epoch is read first: rows that change in between belong to a later epoch and are loaded again.
        let epoch = self.0.repository.epoch().await?;
        let entities = self.0.repository.entities().await?;
        let rules = self.0.repository.rules().await?;
        let set = RuleSet::build(epoch, &entities, &rules);
        self.0.rules.store(Arc::new(set));
        self.0.confirmed_at.store(asked_at, Ordering::Relaxed);
        Ok(())
    }

    /// After a change of the rows: the new set is in force here before the caller goes on, and the other nodes are told.
    async fn changed(&self) -> Result<(), AuthzError> {
        self.reload().await?;
        self.0.bridge.publish(Channel::Rules, &self.rules().epoch().to_string()).await;
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
        let entities = self.0.repository.entities().await?;
        let rules = self.0.repository.rules().await?;
        let changes = declared.changes(&entities, &rules)?;
        if rules.len() + changes.rules.inserted > MAX_RULES {
            return Err(AuthzError::TooManyRules);
        }
        Ok(changes)
    }

    /// Makes the rows agree; the caller has recorded it.
    ///
    /// # Errors
    /// When the rows cannot be written; none is, then.
    pub async fn follow(&self, changes: DeclaredChanges) -> Result<(), AuthzError> {
        if !changes.is_empty() {
            self.0.repository.apply_declared(&changes, self.0.clock.now()).await?;
            self.changed().await?;
        }
        self.0.declared.store(Arc::new(changes.declared));
        Ok(())
    }

    /// Makes a rule.
    ///
    /// # Errors
    /// A field out of bounds, a rule of the same subject and entity, too many rules, or a change that could not be recorded.
    pub async fn create_rule(
        &self,
        by: &RequestContext,
        params: &UpsertRuleParams,
    ) -> Result<AccessRule, AuthzError> {
        params.validate()?;
        if let Some(known) = self.0.repository.find(params).await? {
            return Err(AuthzError::RuleExists(known.id.to_string()));
        }
        self.put_rule(by, params).await
    }

    /// Makes a rule, or replaces the one of the same subject and entity.
    ///
    /// # Errors
    /// As [`Self::create_rule`], but for the rule that exists.
    pub async fn put_rule(
        &self,
        by: &RequestContext,
        params: &UpsertRuleParams,
    ) -> Result<AccessRule, AuthzError> {
        params.validate()?;
        if self.rules().len() >= MAX_RULES {
            return Err(AuthzError::TooManyRules);
        }
        let before = self.0.repository.find(params).await?;
        let id = before.as_ref().map_or_else(RuleId::generate, |rule| rule.id.clone());
        let kind = if before.is_some() { EntryKind::AdminRuleChanged } else { EntryKind::AdminRuleCreated };
        let draft = rule_draft(kind, by, params.entity_type, &params.entity_id)
            .with("rule_id", id.as_str())
            .with("rule_type", params.rule_type.as_str())
            .with("before", before.map(|rule| rule.access.as_str()))
            .with("after", params.access.as_str());
        self.record(draft).await?;
        self.0.repository.upsert_rule(&id, params, self.0.clock.now()).await?;
        self.changed().await?;
        self.rule(id.as_str()).await
    }

    /// One rule.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn rule(&self, id: &str) -> Result<AccessRule, AuthzError> {
        let rule = self.0.repository.rule(id).await?;
        rule.ok_or_else(|| AuthzError::NotFound { what: "rule", id: id.to_owned() })
    }

    /// Changes the access of a rule, and its justification if one is given. `version` is the one that the caller has seen.
    ///
    /// # Errors
    /// No such rule, another version, or a change that could not be recorded.
    pub async fn change_rule(
        &self,
        by: &RequestContext,
        id: &str,
        version: i64,
        access: Access,
        justification: Option<&str>,
    ) -> Result<AccessRule, AuthzError> {
        let before = self.unchanged(id, version).await?;
        let draft = rule_draft(EntryKind::AdminRuleChanged, by, before.entity_type, &before.entity_id)
            .with("rule_id", id)
            .with("rule_type", before.rule_type.as_str())
            .with("before", before.access.as_str())
            .with("after", access.as_str());
        self.record(draft).await?;
        let justification = justification.or(before.justification.as_deref());
        let changed =
            self.0.repository.change_rule(id, version, access, justification, self.0.clock.now()).await?;
        changed.ok_or_else(|| AuthzError::Changed { what: "rule", id: id.to_owned() })?;
        self.changed().await?;
        self.rule(id).await
    }

    /// Deletes a rule. `version` is the one that the caller has seen; without one, the present one.
    ///
    /// # Errors
    /// No such rule, another version, or a change that could not be recorded.
    pub async fn delete_rule(
        &self,
        by: &RequestContext,
        id: &str,
        version: Option<i64>,
    ) -> Result<(), AuthzError> {
        let before = match version {
            Some(version) => self.unchanged(id, version).await?,
            None => self.rule(id).await?,
        };
        changeable(&before)?;
        let draft = rule_draft(EntryKind::AdminRuleDeleted, by, before.entity_type, &before.entity_id)
            .with("rule_id", id)
            .with("rule_type", before.rule_type.as_str())
            .with("before", before.access.as_str());
        self.record(draft).await?;
        let deleted = self.0.repository.delete_rule(id, before.version).await?;
        deleted.ok_or_else(|| AuthzError::Changed { what: "rule", id: id.to_owned() })?;
        self.changed().await
    }

    async fn unchanged(&self, id: &str, version: i64) -> Result<AccessRule, AuthzError> {
        let rule = self.rule(id).await?;
        changeable(&rule)?;
        if rule.version == version {
            Ok(rule)
        } else {
            Err(AuthzError::Changed { what: "rule", id: id.to_owned() })
        }
    }

    /// Registers an entity, or changes its name and default.
    ///
    /// # Errors
    /// An id out of bounds, or a change that could not be recorded.
    pub async fn put_entity(
        &self,
        by: &RequestContext,
        kind: EntityKind,
        id: &str,
        display_name: Option<&str>,
        default_included: bool,
        source: &str,
    ) -> Result<Entity, AuthzError> {
        if id.is_empty() || id.len() > MAX_ENTITY_ID || id.contains('*') {
            let message = format!("has 1 to {MAX_ENTITY_ID} bytes and no `*`");
            return Err(AuthzError::Invalid { field: "id", message });
        }
        let before = self.entity(kind, id).await?;
        let entry =
            if before.is_some() { EntryKind::AdminEntityChanged } else { EntryKind::AdminEntityCreated };
        let draft = rule_draft(entry, by, kind, id)
            .with("before", before.map(|e| e.default_included))
            .with("after", default_included);
        self.record(draft).await?;
        let now = self.0.clock.now();
        self.0.repository.upsert_entity(kind, id, display_name, default_included, source, now).await?;
        self.changed().await?;
        let entity = self.entity(kind, id).await?;
        entity.ok_or_else(|| AuthzError::NotFound { what: "entity", id: id.to_owned() })
    }

    /// One entity, if registered.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn entity(&self, kind: EntityKind, id: &str) -> Result<Option<Entity>, AuthzError> {
        let entities = self.0.repository.entities().await?;
        Ok(entities.into_iter().find(|e| e.kind == kind && e.id == id))
    }

    /// Forgets an entity; from then on it is denied as unknown.
    ///
    /// # Errors
    /// When it is not registered, the configuration declares it, or the change could not be recorded.
    pub async fn delete_entity(
        &self,
        by: &RequestContext,
        kind: EntityKind,
        id: &str,
    ) -> Result<(), AuthzError> {
        let missing = || AuthzError::NotFound { what: "entity", id: id.to_owned() };
        self.entity(kind, id).await?.ok_or_else(missing)?;
        if self.0.declared.load().contains(&(kind, Box::from(id))) {
            return Err(AuthzError::Declared { what: "entity", id: format!("{}:{id}", kind.as_str()) });
        }
        self.record(rule_draft(EntryKind::AdminEntityDeleted, by, kind, id)).await?;
        self.0.repository.delete_entity(kind, id).await?.ok_or_else(missing)?;
        self.changed().await
    }
}

/// A rule of the services folder is changed there: here the next reading would take the change back.
fn changeable(rule: &AccessRule) -> Result<(), AuthzError> {
    if rule.source == DECLARED {
        return Err(AuthzError::Declared { what: "rule", id: rule.id.to_string() });
    }
    Ok(())
}

fn rule_draft(kind: EntryKind, by: &RequestContext, entity: EntityKind, id: &str) -> Draft {
    Draft::new(kind, by, "ok").with_subject(entity.as_str(), id)
}
