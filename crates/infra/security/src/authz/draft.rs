//! A draft of rules, compiled beside those in force: what `policy replay` and `policy test` decide with (SEC-75). Nothing of it is
//! stored.

use super::error::AuthzError;
use super::resolver::{MAX_RULES, RuleSet};
use super::store::RuleStore;
use super::types::{AccessRule, Entity, EntityKind, RuleType};
use std::collections::HashMap;
use systemprompt_config::services::access_control::Subject;
use systemprompt_config::services::draft::{DraftBase, DraftRule, PolicyDraft};
use systemprompt_models::ids::RuleId;

/// Source of the rows of a draft.
const SOURCE: &str = "draft";

/// Rules that are tried: compiled, and the rows that they came from.
#[derive(Debug)]
pub struct Tried {
    pub rules: RuleSet,
    pub rows: Vec<AccessRule>,
}

/// Kind, id or pattern, whom the rule is about.
type Key = (EntityKind, String, RuleType, String);

fn key(row: &AccessRule) -> Key {
    (row.entity_type, row.entity_id.clone(), row.rule_type, row.rule_value.clone())
}

impl RuleStore {
    /// The rules in force with `draft` laid over them.
    ///
    /// # Errors
    /// Rows that cannot be read, or more rules than a set may hold.
    pub async fn tried(&self, draft: Option<&PolicyDraft>) -> Result<Tried, AuthzError> {
        let (entities, rows) = (self.entities().await?, self.rows().await?);
        let epoch = self.rules().epoch();
        let Some(draft) = draft else {
            return Ok(Tried { rules: RuleSet::build(epoch, &entities, &rows), rows });
        };
        let entities = with_entities(entities, draft);
        let rows = match draft.base {
            DraftBase::Current => with_rules(rows, draft),
            DraftBase::Empty => with_rules(Vec::new(), draft),
        };
        if rows.len() > MAX_RULES {
            return Err(AuthzError::TooManyRules(MAX_RULES));
        }
        Ok(Tried { rules: RuleSet::build(epoch, &entities, &rows), rows })
    }
}

fn with_entities(mut entities: Vec<Entity>, draft: &PolicyDraft) -> Vec<Entity> {
    for wanted in &draft.entities {
        let known = entities.iter_mut().find(|entity| entity.kind == wanted.kind && entity.id == wanted.id);
        match known {
            Some(entity) => entity.default_included = wanted.default_included,
            None => entities.push(Entity {
                kind: wanted.kind,
                id: wanted.id.clone(),
                display_name: None,
                default_included: wanted.default_included,
                source: SOURCE.to_owned(),
                created_at: 0,
                updated_at: 0,
                version: 0,
            }),
        }
    }
    entities
}

fn with_rules(rows: Vec<AccessRule>, draft: &PolicyDraft) -> Vec<AccessRule> {
    let mut by_key: HashMap<Key, AccessRule> = rows.into_iter().map(|row| (key(&row), row)).collect();
    for (index, rule) in draft.rules.iter().enumerate() {
        for row in rows_of(index, rule) {
            by_key.insert(key(&row), row);
        }
    }
    let mut rows: Vec<AccessRule> = by_key.into_values().collect();
    rows.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    rows
}

/// One row a subject. Its id says where in the file it stands: `draft[2]/role:user`.
fn rows_of(index: usize, rule: &DraftRule) -> Vec<AccessRule> {
    let Some((entity, is_pattern)) = rule.entity() else { return Vec::new() };
    let of = |rule_type: RuleType, list: &[Subject]| -> Vec<AccessRule> {
        let row = |subject: &Subject| AccessRule {
            id: RuleId::new(format!("draft[{index}]/{}:{}", rule_type.as_str(), subject.as_str())),
            entity_type: rule.entity_type,
            entity_id: entity.to_owned(),
            is_pattern,
            rule_type,
            rule_value: subject.as_str().to_owned(),
            access: rule.access.into(),
            justification: None,
            source: SOURCE.to_owned(),
            created_by: SOURCE.to_owned(),
            created_at: 0,
            updated_at: 0,
            version: 0,
        };
        list.iter().map(row).collect()
    };
    let lists = [
        (RuleType::Role, &rule.roles),
        (RuleType::Department, &rule.departments),
        (RuleType::User, &rule.users),
    ];
    lists.into_iter().flat_map(|(rule_type, list)| of(rule_type, list)).collect()
}
