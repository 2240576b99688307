//! Rows of entities, rules and departments. Every change raises the epoch in its own transaction.

mod declared;
mod departments;
mod entities;
mod rules;

use super::error::AuthzError;
use super::types::{Access, EntityKind, MAX_ENTITY_ID, MAX_RULE_VALUE, RuleType};
use serde::Serialize;
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};

pub(crate) use rules::{Made, Request};

/// A rule to be made or replaced.
#[derive(Clone, Debug, Serialize)]
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
    /// Kind of the entities, and the id or the pattern.
    pub fn entity(&self) -> (EntityKind, &str) {
        (self.entity_type, &self.entity_id)
    }

    /// Checks the bounds of SEC-61.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn validate(&self) -> Result<(), AuthzError> {
        let invalid = |field, message: String| Err(AuthzError::Invalid { field, message });
        if self.entity_id.is_empty() || self.entity_id.len() > MAX_ENTITY_ID {
            return invalid("entity_id", format!("has 1 to {MAX_ENTITY_ID} bytes"));
        }
        if self.entity_id.contains(char::is_control) {
            return invalid("entity_id", "has no control characters".into());
        }
        // A rule about ` crm` would say nothing of `crm`, and nobody would see why.
        if self.entity_id.trim() != self.entity_id {
            return invalid("entity_id", "has no white space at its ends".into());
        }
        if self.rule_value.trim() != self.rule_value {
            return invalid("rule_value", "has no white space at its ends".into());
        }
        if self.entity_id.contains('*') != self.is_pattern {
            return invalid("is_pattern", "is true exactly when the entity id holds a `*`".into());
        }
        let length = self.rule_value.chars().count();
        if length == 0 || length > MAX_RULE_VALUE || self.rule_value.contains(char::is_control) {
            let message = format!("has 1 to {MAX_RULE_VALUE} characters, none of them a control character");
            return invalid("rule_value", message);
        }
        let two_parts = self
            .entity_id
            .split_once('/')
            .is_some_and(|(server, tool)| !server.is_empty() && !tool.is_empty());
        if self.entity_type == EntityKind::McpTool && !self.is_pattern && !two_parts {
            return invalid("entity_id", "names a tool as `server/tool`".into());
        }
        if self.justification.as_ref().is_some_and(|text| text.chars().count() > 1000) {
            return invalid("justification", "has at most 1000 characters".into());
        }
        Ok(())
    }
}

/// Reads and writes entities, rules and departments.
#[derive(Clone, Debug)]
pub struct AccessControlRepository {
    db: Db,
}

impl AccessControlRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The epoch of the rows, and what they compile to if a node has said so already.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn epoch(&self) -> sqlx::Result<(i64, Option<String>)> {
        on!(&self.db, pool => sqlx::query_as(sql!("SELECT epoch, set_hash FROM authz_epoch WHERE one = 1"))
            .fetch_one(pool).await)
    }

    /// Says what the rows of an epoch compile to, unless they changed again.
    pub(crate) async fn note_hash(&self, epoch: i64, set_hash: &str) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE authz_epoch SET set_hash = $1 WHERE one = 1 AND epoch = $2 AND set_hash IS NULL"
        )).bind(set_hash).bind(epoch).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }
}

/// Raises the epoch and commits.
async fn finish(mut tx: WriteTx) -> sqlx::Result<i64> {
    let (epoch,): (i64,) = on_tx!(tx, conn => sqlx::query_as(sql!(
        "UPDATE authz_epoch SET epoch = epoch + 1, set_hash = NULL WHERE one = 1 RETURNING epoch"
    )).fetch_one(&mut *conn).await)?;
    tx.commit().await?;
    Ok(epoch)
}
