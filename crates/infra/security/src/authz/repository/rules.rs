//! Rows of rules, and the requests that made them under a key.

use super::{AccessControlRepository, UpsertRuleParams, finish};
use crate::authz::types::{Access, AccessRule, EntityKind, entity_kind};
use systemprompt_database::{WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::RuleId;

/// A request that may come twice: its maker, the key, and a digest of what it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub owner: &'a str,
    pub key: &'a str,
    pub digest: &'a str,
    pub expires_at: Millis,
}

/// What became of a rule that was to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    Rule,
    /// There is one of the same subject and entity, or the request was carried out already.
    Exists,
    /// The set holds as many rules as it may.
    Full,
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

impl AccessControlRepository {
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

    /// What the request of this owner and key asked for, and the rule that it made.
    pub(crate) async fn request(
        &self,
        owner: &str,
        key: &str,
        now: Millis,
    ) -> sqlx::Result<Option<(String, String)>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT digest, rule_id FROM rule_requests WHERE owner_id = $1 AND key = $2 AND expires_at > $3"
        )).bind(owner).bind(key).bind(now).fetch_optional(pool).await)
    }

    /// Makes a rule, if there is none of the same subject and entity and fewer than `most` in all.
    pub(crate) async fn insert_rule(
        &self,
        id: &RuleId,
        params: &UpsertRuleParams,
        now: Millis,
        most: i64,
        request: Option<Request<'_>>,
    ) -> sqlx::Result<Made> {
        let mut tx = self.db.write_tx().await?;
        if let Some(request) = request
            && !note_request(&mut tx, id, request, now).await?
        {
            tx.rollback().await?;
            return Ok(Made::Exists);
        }
        let made = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO access_control_rules (id, entity_type, entity_id, is_pattern, rule_type, rule_value, access,
                 justification, source, created_by, created_at, updated_at, version)
             SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS BIGINT), CAST($5 AS TEXT),
                    CAST($6 AS TEXT), CAST($7 AS TEXT), CAST($8 AS TEXT), CAST($9 AS TEXT), CAST($10 AS TEXT),
                    CAST($11 AS BIGINT), CAST($11 AS BIGINT), 1
             WHERE (SELECT COUNT(*) FROM access_control_rules) < $12
             ON CONFLICT (entity_type, entity_id, rule_type, rule_value) DO NOTHING"
        ))
            .bind(id.as_str()).bind(params.entity_type.as_str()).bind(&params.entity_id)
            .bind(i64::from(params.is_pattern)).bind(params.rule_type.as_str()).bind(&params.rule_value)
            .bind(params.access.as_str()).bind(&params.justification).bind(params.source).bind(&params.created_by)
            .bind(now).bind(most).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if made == 0 {
            tx.rollback().await?;
            let there = self.find(params).await?.is_some();
            return Ok(if there { Made::Exists } else { Made::Full });
        }
        finish(tx).await?;
        Ok(Made::Rule)
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
}

/// Notes the request, in the transaction that carries it out. False when another one did.
async fn note_request(
    tx: &mut WriteTx,
    id: &RuleId,
    request: Request<'_>,
    now: Millis,
) -> sqlx::Result<bool> {
    let Request { owner, key, digest, expires_at } = request;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM rule_requests WHERE expires_at <= $1"))
        .bind(now).execute(&mut *conn).await.map(drop))?;
    let noted = on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO rule_requests (owner_id, key, digest, rule_id, expires_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (owner_id, key) DO NOTHING"
    )).bind(owner).bind(key).bind(digest).bind(id.as_str()).bind(expires_at)
        .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    Ok(noted == 1)
}
