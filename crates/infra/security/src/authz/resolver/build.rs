//! Compiling rows into a set. A hundred thousand rules take some tens of milliseconds, so this runs beside the requests.

use super::pattern::pattern_matches;
use super::{
    BANDS, Compiled, EntityRules, KINDS, MAX_EXPANDED, RuleSet, Subjects, ToolPattern, band_slot, slot,
};
use crate::authz::types::{Access, AccessRule, DecidingRule, Entity, EntityKind, RuleType};
use aws_lc_rs::digest::{SHA256, digest};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn build(epoch: i64, entities: &[Entity], rules: &[AccessRule]) -> RuleSet {
    let mut builder = Builder::default();
    for entity in entities {
        builder.entity(entity);
    }
    // Patterns last: they cover tools that only another rule names.
    for rule in rules.iter().filter(|r| !r.is_pattern).chain(rules.iter().filter(|r| r.is_pattern)) {
        builder.rule(rule);
    }
    builder.finish(epoch, hash_of(entities, rules), rules.len())
}

#[derive(Default)]
struct Builder {
    subjects: Subjects,
    entities: [HashMap<Box<str>, Draft, RandomState>; KINDS],
    tool_patterns: Vec<ToolPattern>,
    patterns: Vec<(EntityKind, Box<str>)>,
    expanded: usize,
}

#[derive(Default)]
struct Draft {
    default_included: bool,
    bands: [Vec<Compiled>; BANDS],
}

impl Builder {
    fn entity(&mut self, entity: &Entity) {
        if let Some(of_kind) = self.entities.get_mut(slot(entity.kind)) {
            let draft = of_kind.entry(entity.id.as_str().into()).or_default();
            draft.default_included = entity.default_included;
        }
    }

    fn rule(&mut self, rule: &AccessRule) {
        let (subject, value) = self.subjects.number(rule.rule_type, rule.rule_value.as_str());
        let compiled = Compiled {
            subject,
            access: rule.access,
            rule: Arc::new(DecidingRule { id: rule.id.clone(), rule_type: rule.rule_type, value }),
        };
        let Some(of_kind) = self.entities.get_mut(slot(rule.entity_type)) else { return };
        if rule.is_pattern {
            self.patterns.push((rule.entity_type, rule.entity_id.as_str().into()));
            for (id, draft) in of_kind.iter_mut() {
                if pattern_matches(&rule.entity_id, id) && self.expanded <= MAX_EXPANDED {
                    draft.add(rule.rule_type, compiled.clone());
                    self.expanded += 1;
                }
            }
            if rule.entity_type == EntityKind::McpTool {
                let pattern = rule.entity_id.as_str().into();
                self.tool_patterns.push(ToolPattern { pattern, rule_type: rule.rule_type, rule: compiled });
            }
        } else if rule.entity_type == EntityKind::McpTool {
            // A rule that names a tool counts though nobody registered the tool: it can only narrow (SEC-63).
            of_kind.entry(rule.entity_id.as_str().into()).or_default().add(rule.rule_type, compiled);
            self.expanded += 1;
        } else if let Some(draft) = of_kind.get_mut(rule.entity_id.as_str()) {
            // Rows of an entity that is not registered decide nothing: the entity stays unknown.
            draft.add(rule.rule_type, compiled);
            self.expanded += 1;
        }
    }

    fn finish(self, epoch: i64, set_hash: Arc<str>, rules: usize) -> RuleSet {
        let entities = self
            .entities
            .map(|of_kind| of_kind.into_iter().map(|(id, draft)| (id, draft.compiled())).collect());
        RuleSet {
            epoch,
            set_hash,
            subjects: self.subjects,
            entities,
            tool_patterns: self.tool_patterns,
            patterns: self.patterns,
            rules,
            expanded: self.expanded,
        }
    }
}

impl Draft {
    fn compiled(self) -> EntityRules {
        let [user, role, department] = self.bands.map(sorted);
        EntityRules { default_included: self.default_included, user, role, department }
    }

    fn add(&mut self, rule_type: RuleType, rule: Compiled) {
        if let Some(band) = self.bands.get_mut(band_slot(rule_type)) {
            band.push(rule);
        }
    }
}

/// One rule a subject: a deny before an allow, then the smaller rule id, so that the order of rows is no matter.
fn sorted(mut rules: Vec<Compiled>) -> Box<[Compiled]> {
    let rank = |rule: &Compiled| (rule.subject, rule.access == Access::Allow);
    rules.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.rule.id.cmp(&b.rule.id)));
    rules.dedup_by_key(|rule| rule.subject);
    rules.into_boxed_slice()
}

/// First 16 hex digits of a SHA-256 that is the same for the same entities and rules in any order; ids of rules do not count.
fn hash_of(entities: &[Entity], rules: &[AccessRule]) -> Arc<str> {
    let mut entities: Vec<_> =
        entities.iter().map(|e| (e.kind.as_str(), e.id.as_str(), e.default_included)).collect();
    entities.sort_unstable();
    let mut rules: Vec<_> = rules
        .iter()
        .map(|r| {
            let of = (r.entity_type.as_str(), r.entity_id.as_str(), r.is_pattern);
            (of, r.rule_type.as_str(), r.rule_value.as_str(), r.access.as_str())
        })
        .collect();
    rules.sort_unstable();
    let word = |is: bool| if is { "true" } else { "false" };
    let mut text = String::with_capacity((entities.len() + rules.len()) * 64);
    let mut line = |parts: &[&str]| {
        for part in parts {
            text.push_str(part);
            text.push('\t');
        }
        text.push('\n');
    };
    for (kind, id, default_included) in entities {
        line(&["entity", kind, id, word(default_included)]);
    }
    for ((kind, id, is_pattern), rule_type, value, access) in rules {
        line(&["rule", kind, id, word(is_pattern), rule_type, value, access]);
    }
    let digest = hex::encode(digest(&SHA256, text.as_bytes()));
    digest.get(..16).unwrap_or_default().into()
}
