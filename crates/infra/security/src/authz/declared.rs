//! What the configuration declares: entities (its routes, its servers, those of the access-control files) and the rules of those
//! files (SEC-68). Rows of the source `yaml` follow it; rows of another source are never touched.

use super::error::AuthzError;
use super::repository::UpsertRuleParams;
use super::types::{Access, AccessRule, Entity, EntityKind, EntityRef, RuleType};
use std::collections::{BTreeMap, HashSet};
use systemprompt_config::AccessControlConfig;
use systemprompt_config::services::access_control::{AccessEffect, RuleEntry};
use systemprompt_models::ids::RuleId;

/// Source of the rows that follow the configuration.
pub const DECLARED: &str = "yaml";

/// Entities and rules of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    entities: BTreeMap<(EntityKind, String), DeclaredEntity>,
    rules: BTreeMap<RuleKey, UpsertRuleParams>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DeclaredEntity {
    display_name: Option<String>,
    default_included: bool,
}

/// Kind and id of the entity, whom the rule is about.
type RuleKey = (EntityKind, String, RuleType, String);

/// What makes the rows agree with a configuration.
#[derive(Debug, Default)]
pub struct DeclaredChanges {
    pub(super) put_entities: Vec<PutEntity>,
    pub(super) delete_entities: Vec<EntityRef>,
    pub(super) put_rules: Vec<(RuleId, UpsertRuleParams)>,
    pub(super) delete_rules: Vec<RuleId>,
    pub(super) declared: HashSet<(EntityKind, Box<str>)>,
    /// How many rows there were of each sort.
    pub entities: Counts,
    pub rules: Counts,
}

#[derive(Debug)]
pub(super) struct PutEntity {
    pub(super) kind: EntityKind,
    pub(super) id: String,
    pub(super) display_name: Option<String>,
    pub(super) default_included: bool,
}

/// Rows by what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub inserted: usize,
    pub updated: usize,
    pub deleted: usize,
    /// Rows of another source that stand where one was declared.
    pub skipped: usize,
}

impl Declared {
    /// Entities and rules of the access-control files. Each role and department that a rule lists is a row of its own.
    pub fn of(config: &AccessControlConfig) -> Self {
        let mut declared = Self::default();
        for entity in &config.entities {
            let entry = DeclaredEntity { display_name: None, default_included: entity.default_included };
            declared.entities.insert((entity.kind, entity.id.clone()), entry);
        }
        for rule in &config.rules {
            let roles = rule.roles.iter().map(|role| (RuleType::Role, role));
            let departments = rule.departments.iter().map(|department| (RuleType::Department, department));
            for (rule_type, subject) in roles.chain(departments) {
                let params = row(rule, rule_type, subject.as_str());
                let key =
                    (params.entity_type, params.entity_id.clone(), rule_type, params.rule_value.clone());
                declared.rules.insert(key, params);
            }
        }
        declared
    }

    /// Adds something that the configuration brings along, such as a route. What a file says of it stays as the file says.
    pub fn entity(&mut self, kind: EntityKind, id: &str, display_name: Option<&str>) {
        let entity = self.entities.entry((kind, id.to_owned())).or_default();
        entity.display_name = entity.display_name.take().or_else(|| display_name.map(str::to_owned));
    }

    /// What is to change so that the rows agree.
    ///
    /// # Errors
    /// A rule that is out of bounds.
    pub(super) fn changes(
        self,
        entities: &[Entity],
        rules: &[AccessRule],
    ) -> Result<DeclaredChanges, AuthzError> {
        let mut changes = DeclaredChanges {
            declared: self.entities.keys().map(|(kind, id)| (*kind, id.as_str().into())).collect(),
            ..DeclaredChanges::default()
        };
        changes.entities(self.entities, entities);
        changes.rules(self.rules, rules)?;
        Ok(changes)
    }
}

fn row(rule: &RuleEntry, rule_type: RuleType, subject: &str) -> UpsertRuleParams {
    let (entity, is_pattern) = rule.entity();
    UpsertRuleParams {
        entity_type: rule.entity_type,
        entity_id: entity.to_owned(),
        is_pattern,
        rule_type,
        rule_value: subject.to_owned(),
        access: match rule.access {
            AccessEffect::Allow => Access::Allow,
            AccessEffect::Deny => Access::Deny,
        },
        justification: rule.justification.clone(),
        source: DECLARED,
        created_by: "system".to_owned(),
    }
}

impl DeclaredChanges {
    /// Whether the rows agree already.
    pub fn is_empty(&self) -> bool {
        self.put_entities.is_empty()
            && self.delete_entities.is_empty()
            && self.put_rules.is_empty()
            && self.delete_rules.is_empty()
    }

    /// The entities that are registered by this, as `kind:id`.
    pub fn registered(&self) -> impl Iterator<Item = String> + '_ {
        self.put_entities.iter().map(|entity| format!("{}:{}", entity.kind.as_str(), entity.id))
    }

    fn entities(&mut self, mut declared: BTreeMap<(EntityKind, String), DeclaredEntity>, rows: &[Entity]) {
        for row in rows {
            let wanted = declared.remove(&(row.kind, row.id.clone()));
            match wanted {
                Some(_) if row.source != DECLARED => self.entities.skipped += 1,
                Some(wanted) => {
                    let differs = wanted.display_name != row.display_name
                        || wanted.default_included != row.default_included;
                    if differs {
                        self.entities.updated += 1;
                        self.put_entity(row.kind, row.id.clone(), wanted);
                    }
                }
                None if row.source == DECLARED => {
                    self.entities.deleted += 1;
                    self.delete_entities.push(EntityRef::new(row.kind, row.id.as_str()));
                }
                None => {}
            }
        }
        self.entities.inserted = declared.len();
        for ((kind, id), entity) in declared {
            self.put_entity(kind, id, entity);
        }
    }

    fn put_entity(&mut self, kind: EntityKind, id: String, entity: DeclaredEntity) {
        let DeclaredEntity { display_name, default_included } = entity;
        self.put_entities.push(PutEntity { kind, id, display_name, default_included });
    }

    fn rules(
        &mut self,
        mut declared: BTreeMap<RuleKey, UpsertRuleParams>,
        rows: &[AccessRule],
    ) -> Result<(), AuthzError> {
        for params in declared.values() {
            params.validate()?;
        }
        for row in rows {
            let key = (row.entity_type, row.entity_id.clone(), row.rule_type, row.rule_value.clone());
            match declared.remove(&key) {
                Some(_) if row.source != DECLARED => self.rules.skipped += 1,
                Some(wanted) if wanted.access != row.access || wanted.justification != row.justification => {
                    self.rules.updated += 1;
                    self.put_rules.push((row.id.clone(), wanted));
                }
                None if row.source == DECLARED => {
                    self.rules.deleted += 1;
                    self.delete_rules.push(row.id.clone());
                }
                _ => {}
            }
        }
        self.rules.inserted = declared.len();
        self.put_rules.extend(declared.into_values().map(|params| (RuleId::generate(), params)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
