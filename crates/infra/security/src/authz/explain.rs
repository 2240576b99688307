//! The slow path beside the resolver: which rows spoke, in which band, and why every other row of the entity did not.

use super::resolver::{RuleSet, pattern_matches, resolve};
use super::types::{AccessRule, AuthzDecision, EntityRef, RuleType};
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
    pub rules: Vec<ExplainedRule>,
}

/// Explains what `rules` (compiled from `rows`) decide for a principal.
pub fn explain(
    rules: &RuleSet,
    rows: &[AccessRule],
    principal: &Principal,
    entity: &EntityRef,
) -> Explanation {
    let decision = resolve(rules, &rules.compile(principal), entity);
    let of_entity = rows.iter().filter(|row| {
        row.entity_type == entity.kind
            && if row.is_pattern {
                pattern_matches(&row.entity_id, &entity.id)
            } else {
                *row.entity_id == *entity.id
            }
    });
    Explanation {
        entity: entity.to_string(),
        decision: decision.decision().as_str(),
        matched_by: decision.policy(),
        reason: decision.matched.reason(),
        rule_id: decision.rule.as_ref().map(|rule| rule.id.to_string()),
        epoch: decision.epoch,
        set_hash: decision.set_hash.to_string(),
        rules: of_entity.map(|row| explained(row, principal, &decision)).collect(),
    }
}

fn explained(row: &AccessRule, principal: &Principal, decision: &AuthzDecision) -> ExplainedRule {
    let matches = match row.rule_type {
        RuleType::User => row.rule_value == principal.user_id.as_str(),
        RuleType::Role => principal.roles.contains(&row.rule_value),
        RuleType::Department => {
            principal.department.as_deref().is_some_and(|name| !name.is_empty() && name == row.rule_value)
        }
    };
    let why = match &decision.rule {
        Some(rule) if rule.id == row.id => "it decided",
        _ if !matches => "its subject is not the principal's",
        Some(rule) if rule.rule_type < row.rule_type => "an earlier band decided",
        Some(_) => "another rule of its band decided",
        None => "the entity is not registered",
    };
    ExplainedRule {
        rule_id: row.id.to_string(),
        rule_type: row.rule_type,
        rule_value: row.rule_value.clone(),
        access: row.access.as_str(),
        pattern: row.is_pattern.then(|| row.entity_id.clone()),
        matches,
        why,
    }
}
