//! Rows of departments.

use super::{AccessControlRepository, finish};
use crate::authz::types::Department;
use systemprompt_database::{on, on_tx, sql};

impl AccessControlRepository {
    /// At most `limit` departments behind `after`, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn departments(&self, after: &str, limit: i64) -> sqlx::Result<Vec<Department>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT name, description, manager_email, source, created_at, updated_at, version
             FROM departments WHERE name > $1 ORDER BY name LIMIT $2"
        )).bind(after).bind(limit).fetch_all(pool).await)
    }

    /// One department.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn department(&self, name: &str) -> sqlx::Result<Option<Department>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT name, description, manager_email, source, created_at, updated_at, version
             FROM departments WHERE name = $1"
        )).bind(name).fetch_optional(pool).await)
    }

    /// How many rules name a department.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rules_of_department(&self, name: &str) -> sqlx::Result<i64> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM access_control_rules WHERE rule_type = 'department' AND rule_value = $1"
        )).bind(name).fetch_one(pool).await)?;
        Ok(count)
    }

    /// Makes a department. `None` when it is there already.
    pub(crate) async fn insert_department(&self, new: &Department) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let made = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO departments (name, description, manager_email, source, created_at, updated_at, version)
             VALUES ($1, $2, $3, $4, $5, $5, 1) ON CONFLICT (name) DO NOTHING"
        )).bind(&new.name).bind(&new.description).bind(&new.manager_email).bind(&new.source).bind(new.updated_at)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if made == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }

    /// Changes a department that still has the version of `changed`. `None` when it has not.
    pub(crate) async fn update_department(&self, changed: &Department) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let done = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE departments SET description = $1, manager_email = $2, updated_at = $3, version = version + 1
             WHERE name = $4 AND version = $5"
        )).bind(&changed.description).bind(&changed.manager_email).bind(changed.updated_at).bind(&changed.name)
            .bind(changed.version).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if done == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }

    /// Deletes a department that still has `version` and that no rule names. `None` otherwise.
    pub(crate) async fn delete_department(&self, name: &str, version: i64) -> sqlx::Result<Option<i64>> {
        let mut tx = self.db.write_tx().await?;
        let deleted = on_tx!(tx, conn => sqlx::query(sql!(
            "DELETE FROM departments WHERE name = $1 AND version = $2 AND NOT EXISTS (
                 SELECT 1 FROM access_control_rules WHERE rule_type = 'department' AND rule_value = $1)"
        )).bind(name).bind(version).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if deleted == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        finish(tx).await.map(Some)
    }
}
