//! What the configuration declares: entities (its routes, its servers, those of the access-control files) and the rules of those
//! files (SEC-68). Rows of the source `yaml` follow it; rows of another source are never touched.

use super::error::AuthzError;
use super::ingestion::IngestOptions;
use super::repository::UpsertRuleParams;
use super::resolver::pattern_matches;
use super::types::{AccessRule, Department, Entity, EntityKind, EntityRef, RuleType};
use std::collections::{BTreeMap, HashSet};
use systemprompt_audit::Draft;
use systemprompt_config::AccessControlConfig;
use systemprompt_config::services::access_control::{DepartmentEntry, RuleEntry};
use systemprompt_models::ids::RuleId;

/// Source of the rows that follow the configuration.
pub const DECLARED: &str = "yaml";
/// Rows that a record names of each sort.
const MAX_NAMED: usize = 32;
/// Longest name that a record repeats, in characters.
const MAX_NAME: usize = 200;

/// Entities and rules of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    entities: BTreeMap<(EntityKind, String), DeclaredEntity>,
    rules: BTreeMap<RuleKey, UpsertRuleParams>,
    departments: BTreeMap<String, DepartmentEntry>,
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
    pub(super) put_departments: Vec<DepartmentEntry>,
    pub(super) delete_departments: Vec<String>,
    /// The rules that go, in words, for the record.
    deleted_rules: Vec<String>,
    pub(super) declared: HashSet<(EntityKind, Box<str>)>,
    /// How many rows there were of each sort.
    pub entities: Counts,
    pub rules: Counts,
    pub departments: Counts,
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
    /// Rows of another source that stand where one was declared, and rows that differ and were not to be overridden.
    pub skipped: usize,
}

impl Declared {
    /// Entities and rules of the access-control files. Each role and department that a rule lists is a row of its own.
    pub fn of(config: &AccessControlConfig) -> Self {
        let departments = config.departments.iter().map(|d| (d.name.clone(), d.clone())).collect();
        let mut declared = Self { departments, ..Self::default() };
        for entity in &config.entities {
            let entry = DeclaredEntity {
                display_name: entity.description.clone(),
                default_included: entity.default_included,
            };
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
        (entities, rules, departments): (&[Entity], &[AccessRule], &[Department]),
        options: IngestOptions,
    ) -> Result<DeclaredChanges, AuthzError> {
        let mut changes = DeclaredChanges {
            declared: self.entities.keys().map(|(kind, id)| (*kind, id.as_str().into())).collect(),
            ..DeclaredChanges::default()
        };
        changes.departments(self.departments, departments, options);
        changes.entities(self.entities, entities, options);
        changes.rules(self.rules, rules, options)?;
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
        access: rule.access.into(),
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
            && self.put_departments.is_empty()
            && self.delete_departments.is_empty()
    }

    /// Says in a record what changes: how many rows of each sort became what, and the first of them by name.
    pub fn note(&self, draft: Draft) -> Draft {
        let draft = counted(draft, "departments", self.departments);
        let draft = counted(draft, "entities", self.entities);
        let draft = counted(draft, "rules", self.rules);
        let entity = |kind: EntityKind, id: &str| format!("{}:{id}", kind.as_str());
        let rule = |params: &UpsertRuleParams| {
            let of = entity(params.entity_type, &params.entity_id);
            let (subject, value) = (params.rule_type.as_str(), &params.rule_value);
            format!("{} {of} {subject}:{value}", params.access.as_str())
        };
        let draft = named(draft, "registered", self.registered());
        let gone = self.delete_entities.iter().map(ToString::to_string);
        let draft = named(draft, "forgotten", gone);
        let draft = named(draft, "rules_put", self.put_rules.iter().map(|(_, params)| rule(params)));
        named(draft, "rules_gone", self.deleted_rules.iter().cloned())
    }

    /// How many rules of entities the declared patterns expand to, at most.
    pub(super) fn expands_to(&self, entities: &[Entity]) -> usize {
        let patterns = self.put_rules.iter().filter(|(_, rule)| rule.is_pattern);
        let covered = |(kind, id): (EntityKind, &str), rule: &UpsertRuleParams| {
            rule.entity_type == kind && pattern_matches(&rule.entity_id, id)
        };
        patterns.fold(self.put_rules.len(), |sum, (_, rule)| {
            let there = entities.iter().filter(|e| covered((e.kind, &e.id), rule)).count();
            let new = self.put_entities.iter().filter(|e| covered((e.kind, &e.id), rule)).count();
            sum + there + new
        })
    }

    fn departments(
        &mut self,
        mut declared: BTreeMap<String, DepartmentEntry>,
        rows: &[Department],
        options: IngestOptions,
    ) {
        for row in rows {
            match declared.remove(&row.name) {
                Some(_) if row.source != DECLARED => self.departments.skipped += 1,
                Some(wanted)
                    if wanted.description != row.description || wanted.manager_email != row.manager_email =>
                {
                    if options.override_existing {
                        self.departments.updated += 1;
                        self.put_departments.push(wanted);
                    } else {
                        self.departments.skipped += 1;
                    }
                }
                None if row.source == DECLARED && options.delete_orphans => {
                    self.departments.deleted += 1;
                    self.delete_departments.push(row.name.clone());
                }
                _ => {}
            }
        }
        self.departments.inserted = declared.len();
        self.put_departments.extend(declared.into_values());
    }

    /// The entities that are registered by this, as `kind:id`.
    pub fn registered(&self) -> impl Iterator<Item = String> + '_ {
        self.put_entities.iter().map(|entity| format!("{}:{}", entity.kind.as_str(), entity.id))
    }

    fn entities(
        &mut self,
        mut declared: BTreeMap<(EntityKind, String), DeclaredEntity>,
        rows: &[Entity],
        options: IngestOptions,
    ) {
        for row in rows {
            let wanted = declared.remove(&(row.kind, row.id.clone()));
            match wanted {
                Some(_) if row.source != DECLARED => self.entities.skipped += 1,
                Some(wanted) => {
                    let differs = wanted.display_name != row.display_name
                        || wanted.default_included != row.default_included;
                    if differs && options.override_existing {
                        self.entities.updated += 1;
                        self.put_entity(row.kind, row.id.clone(), wanted);
                    } else if differs {
                        self.entities.skipped += 1;
                    }
                }
                None if row.source == DECLARED && options.delete_orphans => {
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
        options: IngestOptions,
    ) -> Result<(), AuthzError> {
        for params in declared.values() {
            params.validate()?;
        }
        for row in rows {
            let key = (row.entity_type, row.entity_id.clone(), row.rule_type, row.rule_value.clone());
            match declared.remove(&key) {
                Some(_) if row.source != DECLARED => self.rules.skipped += 1,
                Some(wanted) if wanted.access != row.access || wanted.justification != row.justification => {
                    if options.override_existing {
                        self.rules.updated += 1;
                        self.put_rules.push((row.id.clone(), wanted));
                    } else {
                        self.rules.skipped += 1;
                    }
                }
                None if row.source == DECLARED && options.delete_orphans => {
                    self.rules.deleted += 1;
                    let (kind, id) = (row.entity_type.as_str(), &row.entity_id);
                    let (subject, value) = (row.rule_type.as_str(), &row.rule_value);
                    self.deleted_rules.push(format!("{} {kind}:{id} {subject}:{value}", row.access.as_str()));
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

fn counted(draft: Draft, what: &str, counts: Counts) -> Draft {
    let numbers = [
        ("inserted", counts.inserted),
        ("updated", counts.updated),
        ("deleted", counts.deleted),
        ("skipped", counts.skipped),
    ];
    numbers
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .fold(draft, |draft, (name, number)| draft.with(&format!("{what}_{name}"), number))
}

fn named(draft: Draft, what: &str, names: impl Iterator<Item = String>) -> Draft {
    let names: Vec<String> =
        names.take(MAX_NAMED).map(|name| name.chars().take(MAX_NAME).collect()).collect();
    if names.is_empty() { draft } else { draft.with(what, names) }
}

#[cfg(test)]
mod tests;
