//! The slow path beside the resolver: which rows spoke, in which band, and why every other row of the entity did not.

use super::resolver::{RuleSet, pattern_matches, resolve};
use super::types::{Access, AccessRule, AuthzDecision, EntityRef, Matched, RuleType};
use serde::Serialize;
use systemprompt_models::Principal;

/// A row of the entity and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedRule {
    pub rule_id: String,
    pub rule_type: RuleType,
    pub rule_value: String,
    pub access: &'static str,
    pub pattern: Option<String>,
    /// Whether its subject is one of the principal's.
    pub matches: bool,
    /// Why it did or did not decide.
    pub why: &'static str,
    pub source: String,
    pub justification: Option<String>,
}

/// One band: whether a rule of it matched, and whether it was the one that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedBand {
    /// The label of decisions that this band makes.
    pub band: &'static str,
    /// Ids of the rows of this band whose subject is one of the principal's.
    pub matching: Vec<String>,
    pub decided: bool,
}

/// A decision with all rows that could have spoken.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub entity: String,
    pub decision: &'static str,
    pub matched_by: &'static str,
    pub reason: &'static str,
    pub rule_id: Option<String>,
    pub epoch: i64,
    pub set_hash: String,
    /// In the order in which they are asked.
    pub bands: Vec<ExplainedBand>,
    pub rules: Vec<ExplainedRule>,
}

/// The bands of SEC-62, in order.
const BANDS: [Matched; 9] = [
    Matched::UnknownEntity,
    Matched::UserDeny,
    Matched::UserAllow,
    Matched::RoleDeny,
    Matched::RoleAllow,
    Matched::DepartmentDeny,
    Matched::DepartmentAllow,
    Matched::DefaultIncluded,
    Matched::NotAssigned,
];

/// Explains what `rules` (compiled from `rows`) decide for a principal.
pub fn explain(
    rules: &RuleSet,
    rows: &[AccessRule],
    principal: &Principal,
    entity: &EntityRef,
) -> Explanation {
    let decision = resolve(rules, &rules.compile(principal), entity);
    let of_entity: Vec<&AccessRule> = rows.iter().filter(|row| is_of(row, entity)).collect();
    let bands = BANDS.iter().map(|band| explained_band(*band, &of_entity, principal, &decision));
    Explanation {
        entity: entity.to_string(),
        decision: decision.decision().as_str(),
        matched_by: decision.policy(),
        reason: decision.matched.reason(),
        rule_id: decision.rule.as_ref().map(|rule| rule.id.to_string()),
        epoch: decision.epoch,
        set_hash: decision.set_hash.to_string(),
        bands: bands.collect(),
        rules: of_entity.iter().map(|row| explained(row, principal, &decision)).collect(),
    }
}

fn is_of(row: &AccessRule, entity: &EntityRef) -> bool {
    row.entity_type == entity.kind
        && if row.is_pattern {
            pattern_matches(&row.entity_id, &entity.id)
        } else {
            *row.entity_id == *entity.id
        }
}

fn explained_band(
    band: Matched,
    rows: &[&AccessRule],
    principal: &Principal,
    decision: &AuthzDecision,
) -> ExplainedBand {
    let of_band = match band {
        Matched::UserDeny => Some((RuleType::User, Access::Deny)),
        Matched::UserAllow => Some((RuleType::User, Access::Allow)),
        Matched::RoleDeny => Some((RuleType::Role, Access::Deny)),
        Matched::RoleAllow => Some((RuleType::Role, Access::Allow)),
        Matched::DepartmentDeny => Some((RuleType::Department, Access::Deny)),
        Matched::DepartmentAllow => Some((RuleType::Department, Access::Allow)),
        _ => None,
    };
    let matching = rows
        .iter()
        .filter(|row| of_band == Some((row.rule_type, row.access)) && miss(row, principal).is_none());
    ExplainedBand {
        band: band.as_str(),
        matching: matching.map(|row| row.id.to_string()).collect(),
        decided: decision.matched == band,
    }
}

/// Why the subject of a row is none of the principal's.
fn miss(row: &AccessRule, principal: &Principal) -> Option<&'static str> {
    match (row.rule_type, principal.department.as_deref()) {
        (RuleType::User, _) if row.rule_value == principal.user_id.as_str() => None,
        (RuleType::User, _) => Some("it is about another user"),
        (RuleType::Role, _) if principal.roles.contains(&row.rule_value) => None,
        (RuleType::Role, _) if principal.roles.is_empty() => Some("the principal has no roles"),
        (RuleType::Role, _) => Some("the principal does not have this role"),
        (RuleType::Department, None | Some("")) => Some("the principal has no department"),
        (RuleType::Department, Some(name)) if name == row.rule_value => None,
        (RuleType::Department, Some(_)) => Some("the principal is of another department"),
    }
}

fn explained(row: &AccessRule, principal: &Principal, decision: &AuthzDecision) -> ExplainedRule {
    let miss = miss(row, principal);
    let why = match (&decision.rule, miss) {
        (Some(rule), _) if rule.id == row.id => "it decided",
        (_, Some(miss)) => miss,
        (Some(rule), None) if rule.rule_type < row.rule_type => "an earlier band decided",
        (Some(_), None) if decision.is_allow() != (row.access == Access::Allow) => "a deny of its band wins",
        (Some(_), None) => "another rule of its band decided as well",
        (None, None) => "the entity is not registered",
    };
    ExplainedRule {
        rule_id: row.id.to_string(),
        rule_type: row.rule_type,
        rule_value: row.rule_value.clone(),
        access: row.access.as_str(),
        pattern: row.is_pattern.then(|| row.entity_id.clone()),
        matches: miss.is_none(),
        why,
        source: row.source.clone(),
        justification: row.justification.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::types::{Entity, EntityKind};
    use systemprompt_models::ids::{RuleId, UserId};

    fn row(id: &str, entity: &str, rule_type: RuleType, value: &str, access: Access) -> AccessRule {
        AccessRule {
            id: RuleId::new(id),
            entity_type: EntityKind::McpServer,
            entity_id: entity.into(),
            is_pattern: entity.contains('*'),
            rule_type,
            rule_value: value.into(),
            access,
            justification: None,
            source: "api".into(),
            created_by: "test".into(),
            created_at: 0,
            updated_at: 0,
            version: 1,
        }
    }

    #[test]
    fn every_row_of_the_entity_says_why_it_did_or_did_not_decide() {
        use Access::{Allow, Deny};
        use RuleType::{Department, Role, User};
        let crm = Entity {
            kind: EntityKind::McpServer,
            id: "crm".into(),
            display_name: None,
            default_included: false,
            source: "api".into(),
            created_at: 0,
            updated_at: 0,
            version: 1,
        };
        let rows = [
            row("r1", "crm", Role, "dev", Allow),
            row("r2", "c*", Role, "temp", Deny),
            row("r3", "crm", User, "bob", Allow),
            row("r4", "crm", Department, "sales", Allow),
            row("r5", "crm", Department, "legal", Deny),
            row("r6", "crm", Role, "ops", Allow),
            row("r7", "other", Role, "dev", Allow),
            row("r8", "crm*", Role, "temp", Deny),
        ];
        let set = RuleSet::build(3, &[crm], &rows);
        let mut ann = Principal::anonymous();
        ann.user_id = UserId::new("ann");
        ann.roles = vec!["dev".into(), "temp".into()];
        ann.department = Some("sales".into());
        let told = explain(&set, &rows, &ann, &EntityRef::new(EntityKind::McpServer, "crm"));
        assert_eq!(
            (told.decision, told.matched_by, told.rule_id.as_deref()),
            ("deny", "role_deny", Some("r2"))
        );
        let why: Vec<(&str, &str)> = told.rules.iter().map(|r| (r.rule_id.as_str(), r.why)).collect();
        assert_eq!(
            why,
            [
                ("r1", "a deny of its band wins"),
                ("r2", "it decided"),
                ("r3", "it is about another user"),
                ("r4", "an earlier band decided"),
                ("r5", "the principal is of another department"),
                ("r6", "the principal does not have this role"),
                ("r8", "another rule of its band decided as well"),
            ]
        );
        let bands: Vec<(&str, usize, bool)> =
            told.bands.iter().map(|b| (b.band, b.matching.len(), b.decided)).collect();
        assert_eq!(
            bands,
            [
                ("unknown_entity", 0, false),
                ("user_deny", 0, false),
                ("user_allow", 0, false),
                ("role_deny", 2, true),
                ("role_allow", 1, false),
                ("department_deny", 0, false),
                ("department_allow", 1, false),
                ("default_included", 0, false),
                ("not_assigned", 0, false),
            ]
        );
        let ghost = explain(&set, &rows, &ann, &EntityRef::new(EntityKind::McpServer, "crmx"));
        assert_eq!(ghost.matched_by, "unknown_entity");
        assert_eq!(
            ghost.rules.iter().map(|r| r.why).collect::<Vec<_>>(),
            ["the entity is not registered"; 2]
        );
    }
}
