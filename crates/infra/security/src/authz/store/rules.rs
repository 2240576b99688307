//! Rules: read, made, changed, deleted.

use super::{RuleStore, draft};
use crate::authz::declared::DECLARED;
use crate::authz::error::AuthzError;
use crate::authz::repository::{Made, Request, UpsertRuleParams};
use crate::authz::types::{Access, AccessRule, EntityKind};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use systemprompt_audit::{Draft, EntryKind, Payload, Role};
use systemprompt_models::ids::RuleId;
use systemprompt_models::{Millis, RequestContext};

/// How long a repeated request is recognised by its key.
const REQUEST_LIFE: Millis = 86_400_000;

impl RuleStore {
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

    /// One rule.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn rule(&self, id: &str) -> Result<AccessRule, AuthzError> {
        let rule = self.0.repository.rule(id).await?;
        rule.ok_or_else(|| AuthzError::NotFound { what: "rule", id: id.to_owned() })
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
        let _one = self.0.change.lock().await;
        self.create(by, params, None).await
    }

    /// Makes a rule once, however often the request with this key comes within a day: a repetition gets the rule that the first
    /// one made.
    ///
    /// # Errors
    /// As [`Self::create_rule`], or a key that came with another rule before.
    pub async fn create_rule_once(
        &self,
        by: &RequestContext,
        params: &UpsertRuleParams,
        key: &str,
    ) -> Result<AccessRule, AuthzError> {
        let _one = self.0.change.lock().await;
        let (owner, digest, now) = (by.principal.user_id.as_str(), digest_of(params), self.0.clock.now());
        if let Some((before, rule)) = self.0.repository.request(owner, key, now).await? {
            if before != digest {
                return Err(AuthzError::OtherRequest);
            }
            return self.rule(&rule).await.map_err(|error| match error {
                AuthzError::NotFound { id, .. } => AuthzError::KeyUsed(id),
                other => other,
            });
        }
        let request = Request { owner, key, digest: &digest, expires_at: now + REQUEST_LIFE };
        self.create(by, params, Some(request)).await
    }

    async fn create(
        &self,
        by: &RequestContext,
        params: &UpsertRuleParams,
        request: Option<Request<'_>>,
    ) -> Result<AccessRule, AuthzError> {
        params.validate()?;
        if let Some(known) = self.0.repository.find(params).await? {
            return Err(AuthzError::RuleExists(known.id.to_string()));
        }
        let limits = self.0.limits;
        let full = AuthzError::TooManyRules(limits.max_rules);
        let rules = self.rules();
        if rules.len() >= limits.max_rules || rules.expanded_with(params) > limits.max_expanded {
            return Err(full);
        }
        let (id, now) = (RuleId::generate(), self.0.clock.now());
        let record = rule_draft(EntryKind::AdminRuleCreated, by, id.as_str(), params.entity())
            .with_payload(Payload::of(Role::After, params))
            .with("rule_type", params.rule_type.as_str())
            .with("before", Value::Null)
            .with("after", params.access.as_str());
        self.record(record).await?;
        let most = i64::try_from(limits.max_rules).unwrap_or(i64::MAX);
        match self.0.repository.insert_rule(&id, params, now, most, request).await? {
            Made::Rule => {}
            Made::Full => return Err(full),
            Made::Exists => {
                let known = self.0.repository.find(params).await?;
                return Err(AuthzError::RuleExists(known.map_or_else(String::new, |k| k.id.to_string())));
            }
        }
        self.changed().await?;
        self.rule(id.as_str()).await
    }

    /// Makes a rule, or gives the one of the same subject and entity this access.
    ///
    /// # Errors
    /// As [`Self::create_rule`], but for the rule that exists.
    pub async fn put_rule(
        &self,
        by: &RequestContext,
        params: &UpsertRuleParams,
    ) -> Result<AccessRule, AuthzError> {
        let _one = self.0.change.lock().await;
        params.validate()?;
        match self.0.repository.find(params).await? {
            Some(before) => self.change(by, before, params.access, params.justification.as_deref()).await,
            None => self.create(by, params, None).await,
        }
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
        let _one = self.0.change.lock().await;
        let before = self.unchanged(id, version).await?;
        self.change(by, before, access, justification).await
    }

    async fn change(
        &self,
        by: &RequestContext,
        before: AccessRule,
        access: Access,
        justification: Option<&str>,
    ) -> Result<AccessRule, AuthzError> {
        let (id, version) = (before.id.as_str(), before.version);
        let justification = justification.or(before.justification.as_deref());
        let record = rule_draft(EntryKind::AdminRuleChanged, by, id, before.entity())
            .with_payload(Payload::of(Role::Before, &before))
            .with_payload(Payload::of(
                Role::After,
                &json!({"access": access, "justification": justification}),
            ))
            .with("rule_type", before.rule_type.as_str())
            .with("before", before.access.as_str())
            .with("after", access.as_str());
        self.record(record).await?;
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
        let _one = self.0.change.lock().await;
        let before = match version {
            Some(version) => self.unchanged(id, version).await?,
            None => self.rule(id).await?,
        };
        changeable(&before)?;
        let record = rule_draft(EntryKind::AdminRuleDeleted, by, id, before.entity())
            .with_payload(Payload::of(Role::Before, &before))
            .with("rule_type", before.rule_type.as_str())
            .with("before", before.access.as_str())
            .with("after", Value::Null);
        self.record(record).await?;
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
}

/// A rule of the services folder is changed there: here the next reading would take the change back.
fn changeable(rule: &AccessRule) -> Result<(), AuthzError> {
    if rule.source == DECLARED {
        return Err(AuthzError::Declared { what: "rule", id: rule.id.to_string() });
    }
    Ok(())
}

fn rule_draft(kind: EntryKind, by: &RequestContext, id: &str, entity: (EntityKind, &str)) -> Draft {
    draft(kind, by, (entity.0.as_str(), entity.1)).with("rule_id", id)
}

fn digest_of(params: &UpsertRuleParams) -> String {
    let asked = json!([
        params.entity_type.as_str(),
        params.entity_id,
        params.rule_type.as_str(),
        params.rule_value,
        params.access.as_str(),
        params.justification,
    ]);
    hex::encode(digest(&SHA256, asked.to_string().as_bytes()))
}
