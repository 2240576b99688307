//! The rows of the configuration, in one transaction.

use super::{AccessControlRepository, finish};
use crate::authz::declared::DeclaredChanges;
use systemprompt_database::{on_tx, sql};
use systemprompt_models::Millis;

impl AccessControlRepository {
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
                     created_at, updated_at, version)
                 VALUES ($1, $2, $3, $4, 'yaml', $5, $5, 1)
                 ON CONFLICT (entity_type, entity_id) DO UPDATE
                 SET display_name = excluded.display_name, default_included = excluded.default_included,
                     updated_at = excluded.updated_at, version = access_control_entities.version + 1
                 WHERE access_control_entities.source = 'yaml'"
            )).bind(entity.kind.as_str()).bind(&entity.id).bind(&entity.display_name)
                .bind(i64::from(entity.default_included)).bind(now).execute(&mut *conn).await.map(drop))?;
        }
        for name in &changes.delete_departments {
            on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM departments WHERE name = $1 AND source = 'yaml'"))
                .bind(name).execute(&mut *conn).await.map(drop))?;
        }
        for department in &changes.put_departments {
            on_tx!(tx, conn => sqlx::query(sql!(
                "INSERT INTO departments (name, description, manager_email, source, created_at, updated_at, version)
                 VALUES ($1, $2, $3, 'yaml', $4, $4, 1)
                 ON CONFLICT (name) DO UPDATE
                 SET description = excluded.description, manager_email = excluded.manager_email,
                     updated_at = excluded.updated_at, version = departments.version + 1
                 WHERE departments.source = 'yaml'"
            )).bind(&department.name).bind(&department.description).bind(&department.manager_email).bind(now)
                .execute(&mut *conn).await.map(drop))?;
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
