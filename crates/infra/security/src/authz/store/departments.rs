//! Departments: what rules of that band may name. They decide nothing by themselves.

use super::{RuleStore, draft, expect_version};
use crate::authz::declared::DECLARED;
use crate::authz::error::AuthzError;
use crate::authz::types::{Department, MAX_RULE_VALUE};
use systemprompt_audit::{EntryKind, Payload, Role};
use systemprompt_models::RequestContext;

/// What records call a department.
const SUBJECT: &str = "department";

impl RuleStore {
    /// At most `limit` departments behind the name `after`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn departments(&self, after: &str, limit: i64) -> Result<Vec<Department>, AuthzError> {
        Ok(self.0.repository.departments(after, limit).await?)
    }

    /// One department.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn department(&self, name: &str) -> Result<Department, AuthzError> {
        let found = self.0.repository.department(name).await?;
        found.ok_or_else(|| AuthzError::NotFound { what: "department", id: name.to_owned() })
    }

    /// Makes a department (`version` is `None`), or changes one that still has `version`.
    ///
    /// # Errors
    /// A field out of bounds, a department that is there although no version was given, another version, one of the
    /// configuration, or a change that could not be recorded.
    pub async fn put_department(
        &self,
        by: &RequestContext,
        name: &str,
        (description, manager_email): (Option<&str>, Option<&str>),
        version: Option<i64>,
    ) -> Result<Department, AuthzError> {
        let _one = self.0.change.lock().await;
        let length = name.chars().count();
        if length == 0 || length > MAX_RULE_VALUE || name.contains(char::is_control) {
            let message = format!("has 1 to {MAX_RULE_VALUE} characters, none of them a control character");
            return Err(AuthzError::Invalid { field: "name", message });
        }
        for (field, value, most) in
            [("description", description, 1024), ("manager_email", manager_email, 320)]
        {
            if value.is_some_and(|text| text.chars().count() > most) {
                return Err(AuthzError::Invalid { field, message: format!("has at most {most} characters") });
            }
        }
        let before = self.0.repository.department(name).await?;
        expect_version(SUBJECT, name, before.as_ref().map(|d| d.version), version)?;
        let entry =
            if before.is_some() { EntryKind::AdminEntityChanged } else { EntryKind::AdminEntityCreated };
        if let Some(before) = &before {
            changeable(before)?;
        }
        let now = self.0.clock.now();
        let wanted = Department {
            name: name.to_owned(),
            description: description.map(str::to_owned),
            manager_email: manager_email.map(str::to_owned),
            source: "api".to_owned(),
            created_at: now,
            updated_at: now,
            version: before.as_ref().map_or(1, |d| d.version),
        };
        let record = draft(entry, by, (SUBJECT, name))
            .with_payload(before.as_ref().map(|before| Payload::of(Role::Before, before)))
            .with_payload(Payload::of(Role::After, &wanted));
        self.record(record).await?;
        let written = match before {
            Some(_) => self.0.repository.update_department(&wanted).await?,
            None => self.0.repository.insert_department(&wanted).await?,
        };
        written.ok_or_else(|| AuthzError::Changed { what: SUBJECT, id: name.to_owned() })?;
        self.changed().await?;
        self.department(name).await
    }

    /// Deletes a department that no rule names.
    ///
    /// # Errors
    /// No such department, another version, rules that name it, one of the configuration, or a change that could not be recorded.
    pub async fn delete_department(
        &self,
        by: &RequestContext,
        name: &str,
        version: i64,
    ) -> Result<(), AuthzError> {
        let _one = self.0.change.lock().await;
        let before = self.department(name).await?;
        expect_version(SUBJECT, name, Some(before.version), Some(version))?;
        changeable(&before)?;
        let rules = self.0.repository.rules_of_department(name).await?;
        if rules > 0 {
            return Err(AuthzError::InUse { what: SUBJECT, id: name.to_owned(), rules });
        }
        let record = draft(EntryKind::AdminEntityDeleted, by, (SUBJECT, name));
        self.record(record.with_payload(Payload::of(Role::Before, &before))).await?;
        let deleted = self.0.repository.delete_department(name, version).await?;
        deleted.ok_or_else(|| AuthzError::Changed { what: SUBJECT, id: name.to_owned() })?;
        self.changed().await
    }
}

fn changeable(department: &Department) -> Result<(), AuthzError> {
    if department.source == DECLARED {
        return Err(AuthzError::Declared { what: SUBJECT, id: department.name.clone() });
    }
    Ok(())
}
