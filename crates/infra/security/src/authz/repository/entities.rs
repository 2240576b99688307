//! Rows of registered entities.

use super::{AccessControlRepository, finish};
use crate::authz::types::{Entity, EntityKind, entity_kind};
use systemprompt_database::{on, on_tx, sql};
use systemprompt_models::Millis;

#[derive(sqlx::FromRow)]
struct EntityRow {
    entity_type: String,
    entity_id: String,
    display_name: Option<String>,
    default_included: i64,
    source: String,
    created_at: Millis,
    updated_at: Millis,
    version: i64,
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
            version: self.version,
        })
    }
}

impl AccessControlRepository {
    /// All entities, by kind and id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn entities(&self) -> sqlx::Result<Vec<Entity>> {
        let rows: Vec<EntityRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT entity_type, entity_id, display_name, default_included, source, created_at, updated_at,
                    version
             FROM access_control_entities ORDER BY entity_type, entity_id"
        )).fetch_all(pool).await)?;
        Ok(rows.into_iter().filter_map(EntityRow::entity).collect())
    }

    /// At most `limit` entities behind `after` (kind and id), optionally of one kind.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn entities_page(
        &self,
        after: (&str, &str),
        kind: Option<EntityKind>,
        limit: i64,
    ) -> sqlx::Result<Vec<Entity>> {
        let rows: Vec<EntityRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT entity_type, entity_id, display_name, default_included, source, created_at, updated_at,
                    version
             FROM access_control_entities
             WHERE (entity_type > $1 OR (entity_type = $1 AND entity_id > $2))
               AND (CAST($3 AS TEXT) IS NULL OR entity_type = $3)
             ORDER BY entity_type, entity_id LIMIT $4"
        )).bind(after.0).bind(after.1).bind(kind.map(EntityKind::as_str)).bind(limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().filter_map(EntityRow::entity).collect())
    }

    /// One entity.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn entity(&self, kind: EntityKind, id: &str) -> sqlx::Result<Option<Entity>> {
        let row: Option<EntityRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT entity_type, entity_id, display_name, default_included, source, created_at, updated_at,
                    version
             FROM access_control_entities WHERE entity_type = $1 AND entity_id = $2"
        )).bind(kind.as_str()).bind(id).fetch_optional(pool).await)?;
        Ok(row.and_then(EntityRow::entity))
    }

    /// Registers an entity. `None` when it is there already.
    pub(crate) async fn insert_entity(&self, entity: &Entity) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let made = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO access_control_entities (entity_type, entity_id, display_name, default_included, source,
                 created_at, updated_at, version)
             VALUES ($1, $2, $3, $4, $5, $6, $6, 1)
             ON CONFLICT (entity_type, entity_id) DO NOTHING"
        )).bind(entity.kind.as_str()).bind(&entity.id).bind(&entity.display_name)
            .bind(i64::from(entity.default_included)).bind(&entity.source).bind(entity.updated_at)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if made == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }

    /// Changes an entity that still has the version of `entity`. `None` when it has not.
    pub(crate) async fn update_entity(&self, entity: &Entity) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let changed = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE access_control_entities
             SET display_name = $1, default_included = $2, source = $3, updated_at = $4, version = version + 1
             WHERE entity_type = $5 AND entity_id = $6 AND version = $7"
        )).bind(&entity.display_name).bind(i64::from(entity.default_included)).bind(&entity.source)
            .bind(entity.updated_at).bind(entity.kind.as_str()).bind(&entity.id).bind(entity.version)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if changed == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }

    /// Forgets an entity that still has `version`; its rules stay and decide nothing. `None` when it has not.
    pub(crate) async fn delete_entity(
        &self,
        kind: EntityKind,
        id: &str,
        version: i64,
    ) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let deleted = on_tx!(tx, conn => sqlx::query(sql!(
            "DELETE FROM access_control_entities WHERE entity_type = $1 AND entity_id = $2 AND version = $3"
        )).bind(kind.as_str()).bind(id).bind(version).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if deleted == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }
}
