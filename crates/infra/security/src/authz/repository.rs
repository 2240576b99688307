//! Rows of entities and rules. Every change raises the epoch in its own transaction.

use super::declared::DeclaredChanges;
use super::error::AuthzError;
use super::types::{
    Access, AccessRule, Entity, EntityKind, MAX_ENTITY_ID, MAX_RULE_VALUE, RuleType, entity_kind,
};
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::RuleId;

/// A rule to be made or replaced.
#[derive(Clone, Debug)]
pub struct UpsertRuleParams {
    pub entity_type: EntityKind,
    pub entity_id: String,
    pub is_pattern: bool,
    pub rule_type: RuleType,
    pub rule_value: String,
    pub access: Access,
    pub justification: Option<String>,
    /// `yaml`, `api`, `cli` or `seed`.
    pub source: &'static str,
    /// User id of who made it.
    pub created_by: String,
}

impl UpsertRuleParams {
    /// Checks the bounds of SEC-61.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn validate(&self) -> Result<(), AuthzError> {
        let invalid = |field, message: String| Err(AuthzError::Invalid { field, message });
        if self.entity_id.is_empty() || self.entity_id.len() > MAX_ENTITY_ID {
            return invalid("entity_id", format!("has 1 to {MAX_ENTITY_ID} bytes"));
        }
        if self.entity_id.contains('*') != self.is_pattern {
            return invalid("is_pattern", "is true exactly when the entity id holds a `*`".into());
        }
        let length = self.rule_value.chars().count();
        if length == 0 || length > MAX_RULE_VALUE {
            return invalid("rule_value", format!("has 1 to {MAX_RULE_VALUE} characters"));
        }
        if self.justification.as_ref().is_some_and(|text| text.chars().count() > 1000) {
            return invalid("justification", "has at most 1000 characters".into());
        }
        Ok(())
    }
}

#[derive(sqlx::FromRow)]
struct EntityRow {
    entity_type: String,
    entity_id: String,
    display_name: Option<String>,
    default_included: i64,
    source: String,
    created_at: Millis,
    updated_at: Millis,
}

impl EntityRow {
    fn entity(self) -> Option<Entity> {
        Some(Entity {
            kind: entity_kind(&self.entity_type)?,
            id: self.entity_id,
            display_name: self.display_name,
            default_included: self.default_included != 0,
            source: self.source,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

#[derive(sqlx::FromRow)]
struct RuleRow {
    id: String,
    entity_type: String,
    entity_id: String,
    is_pattern: i64,
    rule_type: String,
    rule_value: String,
    access: String,
    justification: Option<String>,
    source: String,
    created_by: String,
    created_at: Millis,
    updated_at: Millis,
    version: i64,
}

impl RuleRow {
    /// The rule; a row with a word that this version does not know is left out, and so allows nothing.
    fn rule(self) -> Option<AccessRule> {
        Some(AccessRule {
            id: RuleId::new(self.id),
            entity_type: entity_kind(&self.entity_type)?,
            entity_id: self.entity_id,
            is_pattern: self.is_pattern != 0,
            rule_type: self.rule_type.parse().ok()?,
            rule_value: self.rule_value,
            access: self.access.parse().ok()?,
            justification: self.justification,
            source: self.source,
            created_by: self.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
            version: self.version,
        })
    }
}

/// Reads and writes entities and rules.
#[derive(Clone, Debug)]
pub struct AccessControlRepository {
    db: Db,
}

impl AccessControlRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The epoch of the rows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn epoch(&self) -> sqlx::Result<i64> {
        let (epoch,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!("SELECT epoch FROM authz_epoch WHERE one = 1"))
            .fetch_one(pool).await)?;
        Ok(epoch)
    }

    /// All entities, by kind and id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn entities(&self) -> sqlx::Result<Vec<Entity>> {
        let rows: Vec<EntityRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT entity_type, entity_id, display_name, default_included, source, created_at, updated_at
             FROM access_control_entities ORDER BY entity_type, entity_id"
        )).fetch_all(pool).await)?;
        Ok(rows.into_iter().filter_map(EntityRow::entity).collect())
    }

    /// All rules, by id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rules(&self) -> sqlx::Result<Vec<AccessRule>> {
        let rows: Vec<RuleRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, entity_type, entity_id, is_pattern, rule_type, rule_value, access, justification, source,
                    created_by, created_at, updated_at, version
             FROM access_control_rules ORDER BY id"
        )).fetch_all(pool).await)?;
        Ok(rows.into_iter().filter_map(RuleRow::rule).collect())
    }

    /// A page of rules behind `after`, by id, optionally of one entity.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(
        &self,
        after: &str,
        entity_type: Option<EntityKind>,
        entity_id: Option<&str>,
        limit: i64,
    ) -> sqlx::Result<Vec<AccessRule>> {
        let rows: Vec<RuleRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, entity_type, entity_id, is_pattern, rule_type, rule_value, access, justification, source,
                    created_by, created_at, updated_at, version
             FROM access_control_rules
             WHERE id > $1 AND (CAST($2 AS TEXT) IS NULL OR entity_type = $2)
               AND (CAST($3 AS TEXT) IS NULL OR entity_id = $3)
             ORDER BY id LIMIT $4"
        )).bind(after).bind(entity_type.map(EntityKind::as_str)).bind(entity_id).bind(limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().filter_map(RuleRow::rule).collect())
    }

    /// One rule.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rule(&self, id: &str) -> sqlx::Result<Option<AccessRule>> {
        let row: Option<RuleRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, entity_type, entity_id, is_pattern, rule_type, rule_value, access, justification, source,
                    created_by, created_at, updated_at, version
             FROM access_control_rules WHERE id = $1"
        )).bind(id).fetch_optional(pool).await)?;
        Ok(row.and_then(RuleRow::rule))
    }

    /// The rule of one subject on one entity.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn find(&self, params: &UpsertRuleParams) -> sqlx::Result<Option<AccessRule>> {
        let row: Option<RuleRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, entity_type, entity_id, is_pattern, rule_type, rule_value, access, justification, source,
                    created_by, created_at, updated_at, version
             FROM access_control_rules
             WHERE entity_type = $1 AND entity_id = $2 AND rule_type = $3 AND rule_value = $4"
        )).bind(params.entity_type.as_str()).bind(&params.entity_id).bind(params.rule_type.as_str())
            .bind(&params.rule_value).fetch_optional(pool).await)?;
        Ok(row.and_then(RuleRow::rule))
    }

    /// Makes a rule, or replaces the one of the same subject and entity. Returns the new epoch.
    pub(crate) async fn upsert_rule(
        &self,
        id: &RuleId,
        params: &UpsertRuleParams,
        now: Millis,
    ) -> sqlx::Result<i64> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO access_control_rules (id, entity_type, entity_id, is_pattern, rule_type, rule_value, access,
                 justification, source, created_by, created_at, updated_at, version)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, 1)
             ON CONFLICT (entity_type, entity_id, rule_type, rule_value) DO UPDATE
             SET access = excluded.access, justification = excluded.justification, source = excluded.source,
                 updated_at = excluded.updated_at, version = access_control_rules.version + 1"
        ))
            .bind(id.as_str()).bind(params.entity_type.as_str()).bind(&params.entity_id)
            .bind(i64::from(params.is_pattern)).bind(params.rule_type.as_str()).bind(&params.rule_value)
            .bind(params.access.as_str()).bind(&params.justification).bind(params.source).bind(&params.created_by)
            .bind(now).execute(&mut *conn).await.map(drop))?;
        finish(tx).await
    }

    /// Changes access and justification of a rule that still has `version`. `None` when it has not.
    pub(crate) async fn change_rule(
        &self,
        id: &str,
        version: i64,
        access: Access,
        justification: Option<&str>,
        now: Millis,
    ) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let changed = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE access_control_rules SET access = $1, justification = $2, updated_at = $3, version = version + 1
             WHERE id = $4 AND version = $5"
        )).bind(access.as_str()).bind(justification).bind(now).bind(id).bind(version)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if changed == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }

    /// Deletes a rule that still has `version`. `None` when it has not.
    pub(crate) async fn delete_rule(&self, id: &str, version: i64) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let deleted = on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM access_control_rules WHERE id = $1 AND version = $2"))
            .bind(id).bind(version).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if deleted == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }

    /// Registers an entity, or changes its name and default.
    pub(crate) async fn upsert_entity(
        &self,
        kind: EntityKind,
        id: &str,
        display_name: Option<&str>,
        default_included: bool,
        source: &str,
        now: Millis,
    ) -> sqlx::Result<i64> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO access_control_entities (entity_type, entity_id, display_name, default_included, source,
                 created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $6)
             ON CONFLICT (entity_type, entity_id) DO UPDATE
             SET display_name = excluded.display_name, default_included = excluded.default_included,
                 source = excluded.source, updated_at = excluded.updated_at"
        )).bind(kind.as_str()).bind(id).bind(display_name).bind(i64::from(default_included)).bind(source).bind(now)
            .execute(&mut *conn).await.map(drop))?;
        finish(tx).await
    }

    /// Forgets an entity; its rules stay and decide nothing. `None` when it is not registered.
    pub(crate) async fn delete_entity(&self, kind: EntityKind, id: &str) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let deleted = on_tx!(tx, conn => sqlx::query(sql!(
            "DELETE FROM access_control_entities WHERE entity_type = $1 AND entity_id = $2"
        )).bind(kind.as_str()).bind(id).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if deleted == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }

    /// Makes the rows of the configuration what it says, in one transaction; a row that got another source meanwhile stays.
    pub(crate) async fn apply_declared(&self, changes: &DeclaredChanges, now: Millis) -> sqlx::Result<i64> {
        let mut tx = self.db.write_tx().await?;
        for entity in &changes.delete_entities {
            on_tx!(tx, conn => sqlx::query(sql!(
                "DELETE FROM access_control_entities WHERE entity_type = $1 AND entity_id = $2 AND source = 'yaml'"
            )).bind(entity.kind.as_str()).bind(&*entity.id).execute(&mut *conn).await.map(drop))?;
        }
        for entity in &changes.put_entities {
            on_tx!(tx, conn => sqlx::query(sql!(
                "INSERT INTO access_control_entities (entity_type, entity_id, display_name, default_included, source,
                     created_at, updated_at)
                 VALUES ($1, $2, $3, $4, 'yaml', $5, $5)
                 ON CONFLICT (entity_type, entity_id) DO UPDATE
                 SET display_name = excluded.display_name, default_included = excluded.default_included,
                     updated_at = excluded.updated_at
                 WHERE access_control_entities.source = 'yaml'"
            )).bind(entity.kind.as_str()).bind(&entity.id).bind(&entity.display_name)
                .bind(i64::from(entity.default_included)).bind(now).execute(&mut *conn).await.map(drop))?;
        }
        for id in &changes.delete_rules {
            on_tx!(tx, conn => sqlx::query(sql!(
                "DELETE FROM access_control_rules WHERE id = $1 AND source = 'yaml'"
            )).bind(id.as_str()).execute(&mut *conn).await.map(drop))?;
        }
        for (id, rule) in &changes.put_rules {
            on_tx!(tx, conn => sqlx::query(sql!(
                "INSERT INTO access_control_rules (id, entity_type, entity_id, is_pattern, rule_type, rule_value, access,
                     justification, source, created_by, created_at, updated_at, version)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'yaml', $9, $10, $10, 1)
                 ON CONFLICT (entity_type, entity_id, rule_type, rule_value) DO UPDATE
                 SET access = excluded.access, justification = excluded.justification,
                     updated_at = excluded.updated_at, version = access_control_rules.version + 1
                 WHERE access_control_rules.source = 'yaml'"
            ))
                .bind(id.as_str()).bind(rule.entity_type.as_str()).bind(&rule.entity_id)
                .bind(i64::from(rule.is_pattern)).bind(rule.rule_type.as_str()).bind(&rule.rule_value)
                .bind(rule.access.as_str()).bind(&rule.justification).bind(&rule.created_by).bind(now)
                .execute(&mut *conn).await.map(drop))?;
        }
        finish(tx).await
    }
}

/// Raises the epoch and commits.
async fn finish(mut tx: WriteTx) -> sqlx::Result<i64> {
    let (epoch,): (i64,) = on_tx!(tx, conn => sqlx::query_as(sql!(
        "UPDATE authz_epoch SET epoch = epoch + 1 WHERE one = 1 RETURNING epoch"
    )).fetch_one(&mut *conn).await)?;
    tx.commit().await?;
    Ok(epoch)
}
