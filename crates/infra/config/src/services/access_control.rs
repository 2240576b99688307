//! `<services>/access-control/*.yaml`: departments, entities and rules (SEC-68). User rules never come from YAML.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Document, steps};
use crate::interpolate::Columns;
use crate::schema::check::Checker;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// One file, or all files of the folder together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessControlConfig {
    pub departments: Vec<DepartmentEntry>,
    pub entities: Vec<EntityEntry>,
    pub rules: Vec<RuleEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DepartmentEntry {
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    #[serde(default)]
    #[schemars(length(max = 320))]
    pub manager_email: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntityEntry {
    #[serde(rename = "type")]
    pub kind: EntityType,
    #[schemars(length(min = 1, max = 256))]
    pub id: String,
    /// Whether everyone whom no rule names may use it.
    #[serde(default)]
    pub default_included: bool,
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    pub entity_type: EntityType,
    /// One entity. Either this or `entity_match`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub entity_id: Option<String>,
    /// Entities whose id fits a pattern with `*`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub entity_match: Option<String>,
    #[serde(default)]
    pub access: AccessEffect,
    /// Each is a rule row of its own; any of them matches.
    #[serde(default)]
    pub roles: Vec<Subject>,
    /// Each is a rule row of its own, and must be declared under `departments`.
    #[serde(default)]
    pub departments: Vec<Subject>,
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub justification: Option<String>,
}

impl RuleEntry {
    /// Id or pattern of the entities, and whether it is a pattern.
    pub fn entity(&self) -> (&str, bool) {
        match (&self.entity_id, &self.entity_match) {
            (Some(id), _) => (id, false),
            (None, pattern) => (pattern.as_deref().unwrap_or_default(), true),
        }
    }
}

/// Name of a role or department, 1 to 128 bytes, case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Subject(#[schemars(length(min = 1, max = 128))] pub String);

impl Subject {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Kinds of things that rules speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntityType {
    GatewayRoute,
    McpServer,
    McpTool,
    Plugin,
    Agent,
    Marketplace,
    Skill,
    Hook,
}

impl EntityType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewayRoute => "gateway_route",
            Self::McpServer => "mcp_server",
            Self::McpTool => "mcp_tool",
            Self::Plugin => "plugin",
            Self::Agent => "agent",
            Self::Marketplace => "marketplace",
            Self::Skill => "skill",
            Self::Hook => "hook",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessEffect {
    #[default]
    Allow,
    Deny,
}

/// Keys that are refused with a sentence of their own.
const REFUSED: &[(&str, &str)] =
    &[("users", "user rules never come from YAML; use `systemprompt admin rules add`")];

/// Reads access-control files. It is made once: it holds the compiled schema.
pub struct AccessControlReader(Checker<AccessControlConfig>);

impl Default for AccessControlReader {
    fn default() -> Self {
        Self(Checker::new("access-control").refusing(REFUSED))
    }
}

impl AccessControlReader {
    /// Reads a single text, checked as if it were the only file of the folder. `file` is what findings call it.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its place.
    pub fn read(&self, file: &Path, text: &str) -> Result<AccessControlConfig, Diagnostics> {
        let document = Document::parse(file, text, text, &Columns::default())
            .map_err(|finding| Diagnostics(vec![*finding]))?;
        let config = self.0.read(&document).map_err(Diagnostics)?;
        let mut findings = Vec::new();
        let config = check(vec![(document, config)], &mut findings);
        if findings.iter().any(Diagnostic::is_error) { Err(Diagnostics(findings)) } else { Ok(config) }
    }

    pub(super) fn checker(&self) -> &Checker<AccessControlConfig> {
        &self.0
    }
}

/// Merges the files of the folder; what contradicts itself is a finding with both places.
pub(super) fn check(
    files: Vec<(Document, AccessControlConfig)>,
    findings: &mut Vec<Diagnostic>,
) -> AccessControlConfig {
    let mut all =
        Merge { findings, departments: HashMap::new(), entities: HashMap::new(), effects: HashMap::new() };
    for (document, file) in &files {
        all.declarations(document, file);
    }
    for (document, file) in &files {
        all.rules(document, file);
    }
    files.into_iter().fold(AccessControlConfig::default(), |mut merged, (_, file)| {
        merged.departments.extend(file.departments);
        merged.entities.extend(file.entities);
        merged.rules.extend(file.rules);
        merged
    })
}

/// What was declared so far, each with its place.
struct Merge<'a, 'f> {
    findings: &'f mut Vec<Diagnostic>,
    departments: HashMap<&'a str, String>,
    entities: HashMap<(EntityType, &'a str), String>,
    effects: HashMap<SubjectOfEntity<'a>, (AccessEffect, String)>,
}

/// Entity kind, id or pattern, whether it is a pattern, subject kind, subject.
type SubjectOfEntity<'a> = (EntityType, &'a str, bool, &'static str, &'a str);

impl<'a> Merge<'a, '_> {
    fn declarations(&mut self, document: &Document, file: &'a AccessControlConfig) {
        for (index, department) in file.departments.iter().enumerate() {
            let path = steps!["departments", index, "name"];
            self.findings.extend(untidy(&department.name).map(|f| document.locate(f, &path)));
            if let Some(first) = self.departments.get(department.name.as_str()) {
                let finding = duplicate("department", &department.name, first);
                self.findings.push(document.locate(finding, &path));
            } else {
                self.departments.insert(&department.name, document.spot(&path));
            }
        }
        for (index, entity) in file.entities.iter().enumerate() {
            let path = steps!["entities", index, "id"];
            if let Some(finding) = bad_id(entity.kind, &entity.id) {
                self.findings.push(document.locate(finding, &path));
            }
            let key = (entity.kind, entity.id.as_str());
            if let Some(first) = self.entities.get(&key) {
                let finding = duplicate(entity.kind.as_str(), &entity.id, first);
                self.findings.push(document.locate(finding, &path));
            } else {
                self.entities.insert(key, document.spot(&path));
            }
        }
    }

    fn rules(&mut self, document: &Document, file: &'a AccessControlConfig) {
        for (index, rule) in file.rules.iter().enumerate() {
            if let Err((member, finding)) =
                named(rule.entity_type, rule.entity_id.as_deref(), rule.entity_match.as_deref())
            {
                let Some(member) = member else {
                    self.findings.push(document.locate(finding, &steps!["rules", index]));
                    continue;
                };
                self.findings.push(document.locate(finding, &steps!["rules", index, member]));
            }
            if rule.roles.is_empty() && rule.departments.is_empty() {
                let finding = Diagnostic::error("subject_required", "a rule needs `roles` or `departments`");
                self.findings.push(document.locate(finding, &steps!["rules", index]));
            }
            for (at, department) in rule.departments.iter().enumerate() {
                if !self.departments.contains_key(department.as_str()) {
                    let finding = Diagnostic::error(
                        "undeclared_department",
                        format!(
                            "the department `{}` is not declared under `departments`",
                            department.as_str()
                        ),
                    )
                    .suggesting(department.as_str(), self.departments.keys().copied())
                    .with_allowed(sorted(self.departments.keys().copied()));
                    self.findings.push(document.locate(finding, &steps!["rules", index, "departments", at]));
                }
            }
            self.subjects(document, index, rule);
        }
    }

    fn subjects(&mut self, document: &Document, index: usize, rule: &'a RuleEntry) {
        let (entity, is_pattern) = rule.entity();
        let lists = [("role", "roles", &rule.roles), ("department", "departments", &rule.departments)];
        for (kind, list, subjects) in lists {
            for (at, subject) in subjects.iter().enumerate() {
                let path = steps!["rules", index, list, at];
                self.findings.extend(untidy(subject.as_str()).map(|f| document.locate(f, &path)));
                let key = (rule.entity_type, entity, is_pattern, kind, subject.as_str());
                match self.effects.get(&key) {
                    Some((effect, first)) if *effect != rule.access => {
                        let finding = Diagnostic::error(
                            "allowed_and_denied",
                            format!(
                                "the {kind} `{}` is both allowed and denied for {} `{entity}`: see also {first}",
                                subject.as_str(),
                                rule.entity_type.as_str(),
                            ),
                        );
                        self.findings.push(document.locate(finding, &path));
                    }
                    Some(_) => {}
                    None => {
                        self.effects.insert(key, (rule.access, document.spot(&path)));
                    }
                }
            }
        }
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

fn duplicate(what: &str, name: &str, first: &str) -> Diagnostic {
    Diagnostic::error("duplicate_name", format!("the {what} `{name}` is declared already at {first}"))
}

/// A name that looks like another one: ` crm` is not `crm`, and a rule about it would say nothing, unseen.
fn untidy(name: &str) -> Option<Diagnostic> {
    let finding = if name.contains(char::is_control) {
        Diagnostic::error("invalid_value", format!("{name:?} holds a control character"))
    } else if name.trim() != name {
        Diagnostic::error("invalid_value", format!("`{name}` has white space at its ends"))
    } else {
        return None;
    };
    Some(finding.with_remedy("write the name as it is"))
}

/// The entities that a rule names, and whether by a pattern; or what is wrong with that, and the member to blame. Every file that holds
/// rules is read with this.
pub(super) fn named<'r>(
    kind: EntityType,
    id: Option<&'r str>,
    pattern: Option<&'r str>,
) -> Result<(&'r str, bool), (Option<&'static str>, Diagnostic)> {
    match (id, pattern) {
        (Some(id), None) => match bad_id(kind, id) {
            None => Ok((id, false)),
            Some(finding) => Err((Some("entity_id"), finding)),
        },
        (None, Some(pattern)) if !pattern.contains('*') => {
            let finding = Diagnostic::error("invalid_value", format!("`{pattern}` has no `*`"));
            Err((Some("entity_match"), finding.with_remedy("one entity is named by `entity_id`")))
        }
        (None, Some(pattern)) => match untidy(pattern) {
            None => Ok((pattern, true)),
            Some(finding) => Err((Some("entity_match"), finding)),
        },
        (both, _) => {
            let what = if both.is_some() { "not both" } else { "one of them is missing" };
            let told = format!("a rule has either `entity_id` or `entity_match`; {what}");
            Err((None, Diagnostic::error("entity_required", told)))
        }
    }
}

fn bad_id(kind: EntityType, id: &str) -> Option<Diagnostic> {
    if let Some(finding) = untidy(id) {
        return Some(finding);
    }
    if id.contains('*') {
        let finding = Diagnostic::error("invalid_value", "an id has no `*`");
        return Some(finding.with_remedy("patterns stand in a rule's `entity_match`"));
    }
    let two_parts = id.split_once('/').is_some_and(|(server, tool)| !server.is_empty() && !tool.is_empty());
    (kind == EntityType::McpTool && !two_parts).then(|| {
        Diagnostic::error("invalid_value", format!("`{id}` does not name a tool"))
            .with_remedy("a tool is written `server/tool`")
    })
}
