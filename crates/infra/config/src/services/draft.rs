//! Files that are tried and never put in force: a draft of rules and policies (`policy replay --draft`), and cases with what they must come
//! out as (`policy test`). Read like every other file, with line and column of what is wrong.

use super::access_control::{AccessEffect, EntityEntry, EntityType, Subject, named};
use super::folder::read_text;
use super::governance::PolicyConfig;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Document, steps};
use crate::schema::check::Checker;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Rules and policies that are laid over those in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyDraft {
    /// What the rules of the draft are laid over; its policies are laid over those in force.
    pub base: DraftBase,
    /// Entities that are registered, or whose `default_included` changes.
    #[schemars(length(max = 10_000))]
    pub entities: Vec<EntityEntry>,
    /// A rule of the same entity and subject replaces the one in force.
    #[schemars(length(max = 10_000))]
    pub rules: Vec<DraftRule>,
    /// A governance policy replaces the one of its id that is in force.
    #[schemars(length(max = 64))]
    pub policies: Vec<PolicyConfig>,
}

/// What stands before the draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DraftBase {
    /// The rules in force.
    #[default]
    Current,
    /// The entities that are registered, without any rule.
    Empty,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DraftRule {
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
    #[serde(default)]
    pub roles: Vec<Subject>,
    #[serde(default)]
    pub departments: Vec<Subject>,
    /// Ids of users.
    #[serde(default)]
    pub users: Vec<Subject>,
}

/// Cases with what they must come out as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyCases {
    #[schemars(length(min = 1, max = 10_000))]
    pub cases: Vec<PolicyCase>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyCase {
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    pub principal: CasePrincipal,
    /// `<kind>:<id>`.
    #[schemars(length(min = 3, max = 300))]
    pub entity: String,
    pub expect: AccessEffect,
    /// Band that must decide, such as `role_deny`.
    #[serde(default)]
    pub reason: Option<String>,
    /// Id of the rule that must decide.
    #[serde(default)]
    pub rule: Option<String>,
}

/// Whom a case is about. Roles and department of a user who is named are the user's, unless the case says others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CasePrincipal {
    /// Name or id of a user.
    pub user: Option<String>,
    pub roles: Option<Vec<String>>,
    pub department: Option<String>,
}

impl DraftRule {
    /// Id or pattern of the entities, and whether it is a pattern; none if the rule does not name them as it must.
    pub fn entity(&self) -> Option<(&str, bool)> {
        self.named().ok()
    }

    fn named(&self) -> Result<(&str, bool), (Option<&'static str>, Diagnostic)> {
        named(self.entity_type, self.entity_id.as_deref(), self.entity_match.as_deref())
    }

    /// What is wrong with the rule beyond its form, and the member to blame.
    fn finding(&self) -> Option<(Option<&'static str>, Diagnostic)> {
        if let Err(fault) = self.named() {
            return Some(fault);
        }
        let is_about_nobody = self.roles.is_empty() && self.departments.is_empty() && self.users.is_empty();
        let told = "a rule needs `roles`, `departments` or `users`";
        is_about_nobody.then(|| (None, Diagnostic::error("subject_required", told)))
    }
}

impl PolicyDraft {
    /// Most policies of a draft.
    pub const MAX_POLICIES: usize = 64;

    /// The first rule that cannot be used, and why.
    pub fn fault(&self) -> Option<(usize, String)> {
        let mut rules = self.rules.iter().enumerate();
        rules.find_map(|(index, rule)| rule.finding().map(|(_, finding)| (index, finding.message)))
    }
}

/// Reads a draft. The parameters of its policies are checked by the policies, where the draft is tried.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn read_draft(file: &Path) -> Result<PolicyDraft, Diagnostics> {
    let (document, draft) = read::<PolicyDraft>(file, "policy draft")?;
    let faults = draft.rules.iter().enumerate().filter_map(|(index, rule)| {
        let (member, finding) = rule.finding()?;
        Some(match member {
            Some(member) => document.locate(finding, &steps!["rules", index, member]),
            None => document.locate(finding, &steps!["rules", index]),
        })
    });
    let faults: Vec<Diagnostic> = faults.collect();
    if faults.is_empty() { Ok(draft) } else { Err(Diagnostics(faults)) }
}

/// Reads cases.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn read_cases(file: &Path) -> Result<PolicyCases, Diagnostics> {
    read(file, "policy cases").map(|(_, cases)| cases)
}

fn read<T: JsonSchema + DeserializeOwned>(
    file: &Path,
    what: &'static str,
) -> Result<(Document, T), Diagnostics> {
    let text = read_text(file).map_err(|error| {
        Diagnostics(vec![
            Diagnostic::error("unreadable", format!("it cannot be read: {error}")).in_file(file),
        ])
    })?;
    let columns = crate::interpolate::Columns::default();
    let document =
        Document::parse(file, &text, &text, &columns).map_err(|finding| Diagnostics(vec![*finding]))?;
    let value = Checker::new(what).read(&document).map_err(Diagnostics)?;
    Ok((document, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str) -> Result<PolicyDraft, Diagnostics> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("draft.yaml");
        std::fs::write(&file, text).unwrap();
        read_draft(&file)
    }

    #[test]
    fn a_draft_is_read_and_its_faults_have_their_place() {
        let read = draft(
            "rules:\n  - entity_type: mcp_tool\n    entity_id: demo/x\n    access: deny\n    roles: [user]\n",
        )
        .unwrap();
        assert_eq!((read.base, read.rules.len()), (DraftBase::Current, 1));
        let read = draft("policies:\n  - { id: pii, enabled: false }\n").unwrap();
        assert!(read.policies.iter().all(|policy| policy.id == "pii" && !policy.enabled));
        for (text, says) in [
            ("rules:\n  - entity_type: mcp_tool\n    roles: [a]\n", "either `entity_id`"),
            ("rules:\n  - entity_type: mcp_tool\n    entity_id: a/b\n", "needs `roles`"),
            // What a rule names is read as in the files that are put in force.
            ("rules:\n  - entity_type: mcp_tool\n    entity_id: a\n    roles: [a]\n", "does not name a tool"),
            ("rules:\n  - entity_type: agent\n    entity_id: a*\n    roles: [a]\n", "an id has no `*`"),
            ("rules:\n  - entity_type: agent\n    entity_match: a\n    roles: [a]\n", "has no `*`"),
            ("rule: []\n", "did you mean `rules`"),
            ("base: nothing\n", "allowed: current, empty"),
            ("policies:\n  - { id: pii, parameters: {} }\n", "allowed: after, enabled, id, params"),
        ] {
            let Diagnostics(findings) = draft(text).unwrap_err();
            let told = findings[0].to_string();
            assert!(told.contains(says) && told.contains("draft.yaml:"), "{told}");
        }
    }
}
