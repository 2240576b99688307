//! Entities: read, registered, changed, forgotten.

use super::{RuleStore, draft};
use crate::authz::error::AuthzError;
use crate::authz::types::{Entity, EntityKind, MAX_ENTITY_ID};
use systemprompt_audit::{EntryKind, Payload, Role};
use systemprompt_models::RequestContext;

impl RuleStore {
    /// All registered entities, by kind and id.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn entities(&self) -> Result<Vec<Entity>, AuthzError> {
        Ok(self.0.repository.entities().await?)
    }

    /// At most `limit` entities behind `after` (kind and id), optionally of one kind.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn entities_page(
        &self,
        after: (&str, &str),
        kind: Option<EntityKind>,
        limit: i64,
    ) -> Result<Vec<Entity>, AuthzError> {
        Ok(self.0.repository.entities_page(after, kind, limit).await?)
    }

    /// One entity, if registered.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn entity(&self, kind: EntityKind, id: &str) -> Result<Option<Entity>, AuthzError> {
        Ok(self.0.repository.entity(kind, id).await?)
    }

    /// Registers an entity, or changes its name and default, whatever it was.
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
        let _one = self.0.change.lock().await;
        let before = self.entity(kind, id).await?;
        self.put(by, entity(kind, id, display_name, default_included, source), before).await
    }

    /// Registers an entity that is not there yet (`version` is `None`), or changes one that still has `version`.
    ///
    /// # Errors
    /// An id out of bounds, an entity that is there although no version was given, another version, or a change that could not
    /// be recorded.
    pub async fn put_entity_version(
        &self,
        by: &RequestContext,
        (kind, id): (EntityKind, &str),
        (display_name, default_included): (Option<&str>, bool),
        version: Option<i64>,
    ) -> Result<Entity, AuthzError> {
        let _one = self.0.change.lock().await;
        let before = self.entity(kind, id).await?;
        super::expect_version("entity", id, before.as_ref().map(|e| e.version), version)?;
        self.put(by, entity(kind, id, display_name, default_included, "api"), before).await
    }

    async fn put(
        &self,
        by: &RequestContext,
        mut wanted: Entity,
        before: Option<Entity>,
    ) -> Result<Entity, AuthzError> {
        let (kind, id) = (wanted.kind, wanted.id.clone());
        if id.is_empty() || id.len() > MAX_ENTITY_ID || id.contains('*') || id.contains(char::is_control) {
            let message = format!("has 1 to {MAX_ENTITY_ID} bytes, no `*` and no control character");
            return Err(AuthzError::Invalid { field: "id", message });
        }
        if id.trim() != id {
            let message = "has no white space at its ends".to_owned();
            return Err(AuthzError::Invalid { field: "id", message });
        }
        if wanted.display_name.as_ref().is_some_and(|name| name.chars().count() > 256) {
            let message = "has at most 256 characters".to_owned();
            return Err(AuthzError::Invalid { field: "display_name", message });
        }
        let limits = self.0.limits;
        if before.is_none() && self.rules().expanded_by(kind, &id) > limits.max_expanded {
            return Err(AuthzError::TooManyRules(limits.max_rules));
        }
        let entry =
            if before.is_some() { EntryKind::AdminEntityChanged } else { EntryKind::AdminEntityCreated };
        let record = draft(entry, by, (kind.as_str(), &id))
            .with_payload(before.as_ref().map(|before| Payload::of(Role::Before, before)))
            .with_payload(Payload::of(Role::After, &wanted))
            .with("before", before.as_ref().map(|e| e.default_included))
            .with("after", wanted.default_included);
        self.record(record).await?;
        wanted.updated_at = self.0.clock.now();
        let written = match before {
            Some(before) => {
                wanted.version = before.version;
                self.0.repository.update_entity(&wanted).await?
            }
            None => self.0.repository.insert_entity(&wanted).await?,
        };
        written.ok_or_else(|| AuthzError::Changed { what: "entity", id: id.clone() })?;
        self.changed().await?;
        let entity = self.entity(kind, &id).await?;
        entity.ok_or_else(|| AuthzError::NotFound { what: "entity", id })
    }

    /// Forgets an entity; from then on it is denied as unknown. `version` is the one that the caller has seen; without one, the
    /// present one.
    ///
    /// # Errors
    /// When it is not registered, the configuration declares it, it has another version, or the change could not be recorded.
    pub async fn delete_entity(
        &self,
        by: &RequestContext,
        kind: EntityKind,
        id: &str,
        version: Option<i64>,
    ) -> Result<(), AuthzError> {
        let _one = self.0.change.lock().await;
        let missing = || AuthzError::NotFound { what: "entity", id: id.to_owned() };
        let before = self.entity(kind, id).await?.ok_or_else(missing)?;
        if version.is_some() {
            super::expect_version("entity", id, Some(before.version), version)?;
        }
        if self.0.declared.load().contains(&(kind, Box::from(id))) {
            return Err(AuthzError::Declared { what: "entity", id: format!("{}:{id}", kind.as_str()) });
        }
        let record = draft(EntryKind::AdminEntityDeleted, by, (kind.as_str(), id))
            .with_payload(Payload::of(Role::Before, &before))
            .with("before", before.default_included)
            .with("after", None::<bool>);
        self.record(record).await?;
        let deleted = self.0.repository.delete_entity(kind, id, before.version).await?;
        deleted.ok_or_else(|| AuthzError::Changed { what: "entity", id: id.to_owned() })?;
        self.changed().await
    }
}

fn entity(
    kind: EntityKind,
    id: &str,
    display_name: Option<&str>,
    default_included: bool,
    source: &str,
) -> Entity {
    Entity {
        kind,
        id: id.to_owned(),
        display_name: display_name.map(str::to_owned),
        default_included,
        source: source.to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}
