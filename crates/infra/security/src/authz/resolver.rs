//! The compiled resolver. [`resolve`] is pure: it takes no lock and allocates nothing. Bands go from user over role to
//! department; the first band with a matching rule decides, and inside a band deny wins, so the order of rows never matters.

mod build;
mod pattern;

use super::audit::AuthzSource;
use super::repository::UpsertRuleParams;
use super::types::{
    Access, AccessRule, AuthzDecision, DecidingRule, Entity, EntityKind, EntityRef, Matched, RuleType,
};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;
use systemprompt_models::Principal;

pub use pattern::pattern_matches;

/// Most rules that a set may hold; a change beyond is refused.
pub const MAX_RULES: usize = 1_000_000;
/// Most rules of entities that a set may hold once its patterns are expanded; a set beyond is not put in force.
pub const MAX_EXPANDED: usize = 4_000_000;

type SubjectId = u32;

/// Rules of one entity, each band sorted by subject.
#[derive(Debug, Default)]
struct EntityRules {
    default_included: bool,
    user: Box<[Compiled]>,
    role: Box<[Compiled]>,
    department: Box<[Compiled]>,
}

#[derive(Clone, Debug)]
struct Compiled {
    subject: SubjectId,
    access: Access,
    rule: Arc<DecidingRule>,
}

/// All rules, compiled. Immutable; a change builds a new one and swaps it in.
#[derive(Debug)]
pub struct RuleSet {
    epoch: i64,
    set_hash: Arc<str>,
    subjects: Subjects,
    /// By kind, then by id: one look-up hashes only the id.
    entities: [HashMap<Box<str>, EntityRules, RandomState>; KINDS],
    /// Patterns over tools. A server's tools are not registered one by one, so these are matched when a tool is decided on.
    tool_patterns: Vec<ToolPattern>,
    /// Every pattern, for the bound of what they expand to.
    patterns: Vec<(EntityKind, Box<str>)>,
    rules: usize,
    expanded: usize,
}

#[derive(Debug)]
struct ToolPattern {
    pattern: Box<str>,
    rule_type: RuleType,
    rule: Compiled,
}

/// What rules name, by band, numbered in order of appearance.
#[derive(Debug, Default)]
struct Subjects {
    bands: [HashMap<Arc<str>, SubjectId, RandomState>; BANDS],
    count: SubjectId,
}

impl Subjects {
    fn get(&self, band: RuleType, value: &str) -> Option<SubjectId> {
        self.bands.get(band_slot(band))?.get(value).copied()
    }

    /// The number of a subject and its one copy of the text.
    fn number(&mut self, band: RuleType, value: &str) -> (SubjectId, Arc<str>) {
        let next = self.count;
        let Some(of_band) = self.bands.get_mut(band_slot(band)) else { return (next, value.into()) };
        if let Some((text, number)) = of_band.get_key_value(value) {
            return (*number, Arc::clone(text));
        }
        let text: Arc<str> = value.into();
        of_band.insert(Arc::clone(&text), next);
        self.count += 1;
        (next, text)
    }
}

const BANDS: usize = 3;

fn band_slot(band: RuleType) -> usize {
    match band {
        RuleType::User => 0,
        RuleType::Role => 1,
        RuleType::Department => 2,
    }
}

const KINDS: usize = 8;

fn slot(kind: EntityKind) -> usize {
    match kind {
        EntityKind::GatewayRoute => 0,
        EntityKind::McpServer => 1,
        EntityKind::McpTool => 2,
        EntityKind::Plugin => 3,
        EntityKind::Agent => 4,
        EntityKind::Marketplace => 5,
        EntityKind::Skill => 6,
        EntityKind::Hook => 7,
    }
}

/// A principal in terms of a rule set: ids of the subjects that rules may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledPrincipal {
    user: Option<SubjectId>,
    roles: Vec<SubjectId>,
    department: Option<SubjectId>,
}

impl CompiledPrincipal {
    /// Whether a subject of a band is one of the principal's.
    fn is(&self, band: RuleType, subject: SubjectId) -> bool {
        match band {
            RuleType::User => self.user == Some(subject),
            RuleType::Role => self.roles.binary_search(&subject).is_ok(),
            RuleType::Department => self.department == Some(subject),
        }
    }
}

impl RuleSet {
    /// A set without entities: everything is unknown, so everything is denied.
    pub fn empty() -> Self {
        Self::build(0, &[], &[])
    }

    /// Compiles rows. Patterns expand over the registered entities here, so a new entity is covered when the set is built
    /// after its registration.
    pub fn build(epoch: i64, entities: &[Entity], rules: &[AccessRule]) -> Self {
        build::build(epoch, entities, rules)
    }

    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// First 16 hex digits of the SHA-256 over entities and rules in order of their keys.
    pub fn set_hash(&self) -> &Arc<str> {
        &self.set_hash
    }

    pub fn len(&self) -> usize {
        self.rules
    }

    pub fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// Rules of entities, patterns expanded. Beyond [`MAX_EXPANDED`] they are not expanded further, and the set must not be
    /// put in force.
    pub fn expanded(&self) -> usize {
        self.expanded
    }

    /// What [`Self::expanded`] would be with one rule more.
    pub(crate) fn expanded_with(&self, rule: &UpsertRuleParams) -> usize {
        if !rule.is_pattern {
            return self.expanded + 1;
        }
        let of_kind = self.entities.get(slot(rule.entity_type));
        let covered = of_kind
            .map_or(0, |of_kind| of_kind.keys().filter(|id| pattern_matches(&rule.entity_id, id)).count());
        self.expanded + covered
    }

    /// Whether a registered entity fits a pattern.
    pub fn covers_anything(&self, kind: EntityKind, pattern: &str) -> bool {
        let of_kind = self.entities.get(slot(kind));
        of_kind.is_some_and(|of_kind| of_kind.keys().any(|id| pattern_matches(pattern, id)))
    }

    /// What it would be with one entity more.
    pub(crate) fn expanded_by(&self, kind: EntityKind, id: &str) -> usize {
        let covering =
            self.patterns.iter().filter(|(of, pattern)| *of == kind && pattern_matches(pattern, id));
        self.expanded + covering.count()
    }

    /// Whether an entity is registered; a tool is known as well when a rule names it or a pattern covers it (SEC-63).
    pub fn knows(&self, entity: &EntityRef) -> bool {
        self.rules_of(entity.kind, &entity.id).is_some() || self.covering(entity).next().is_some()
    }

    /// The patterns that cover a tool; nothing for other kinds, whose patterns are expanded.
    fn covering<'a>(&'a self, entity: &'a EntityRef) -> impl Iterator<Item = &'a ToolPattern> {
        let patterns: &[ToolPattern] =
            if entity.kind == EntityKind::McpTool { &self.tool_patterns } else { &[] };
        patterns.iter().filter(|p| pattern_matches(&p.pattern, &entity.id))
    }

    /// Decides on a tool that only patterns speak of.
    fn resolve_covered(&self, principal: &CompiledPrincipal, entity: &EntityRef) -> AuthzDecision {
        let mut known = false;
        let mut best: Option<((u8, bool), &ToolPattern)> = None;
        for pattern in self.covering(entity) {
            known = true;
            if !principal.is(pattern.rule_type, pattern.rule.subject) {
                continue;
            }
            // The band, and in it deny before allow; then the smaller rule id, so that the order of rows is no matter.
            let rank = (band_slot(pattern.rule_type) as u8, pattern.rule.access == Access::Allow);
            let is_better = best.is_none_or(|(best_rank, by)| {
                rank.cmp(&best_rank).then_with(|| pattern.rule.rule.id.cmp(&by.rule.rule.id)).is_lt()
            });
            if is_better {
                best = Some((rank, pattern));
            }
        }
        match best {
            Some((_, by)) => self.decided(matched(by.rule_type, by.rule.access), Some(&by.rule.rule)),
            None if known => self.decided(Matched::NotAssigned, None),
            None => self.decided(Matched::UnknownEntity, None),
        }
    }

    fn rules_of(&self, kind: EntityKind, id: &str) -> Option<&EntityRules> {
        self.entities.get(slot(kind)).and_then(|of_kind| of_kind.get(id))
    }

    /// Compiles a principal. Subjects that no rule names fall out.
    pub fn compile(&self, principal: &Principal) -> CompiledPrincipal {
        let mut roles: Vec<SubjectId> =
            principal.roles.iter().filter_map(|role| self.subjects.get(RuleType::Role, role)).collect();
        roles.sort_unstable();
        roles.dedup();
        let department = principal.department.as_deref().filter(|name| !name.is_empty());
        CompiledPrincipal {
            user: self.subjects.get(RuleType::User, principal.user_id.as_str()),
            roles,
            department: department.and_then(|name| self.subjects.get(RuleType::Department, name)),
        }
    }

    /// Compiles somebody who is only known by a user id: an actor of a delegation chain.
    pub fn compile_actor(&self, subject: &str) -> CompiledPrincipal {
        CompiledPrincipal { user: self.subjects.get(RuleType::User, subject), ..CompiledPrincipal::default() }
    }

    fn decided(&self, matched: Matched, rule: Option<&Arc<DecidingRule>>) -> AuthzDecision {
        AuthzDecision {
            matched,
            rule: rule.map(Arc::clone),
            source: AuthzSource::Rules,
            epoch: self.epoch,
            set_hash: Arc::clone(&self.set_hash),
            told: None,
            actors: None,
            elapsed_us: 0,
        }
    }
}

/// Decides on one entity for one compiled principal (SEC-62).
///
/// ```
/// use systemprompt_models::Principal;
/// use systemprompt_security::authz::{EntityKind, EntityRef, RuleSet, resolve};
/// let rules = RuleSet::empty();
/// let nobody = rules.compile(&Principal::anonymous());
/// let decision = resolve(&rules, &nobody, &EntityRef::new(EntityKind::McpServer, "demo"));
/// assert_eq!(decision.policy(), "unknown_entity");
/// ```
pub fn resolve(rules: &RuleSet, principal: &CompiledPrincipal, entity: &EntityRef) -> AuthzDecision {
    let Some(of_entity) = rules.rules_of(entity.kind, &entity.id) else {
        return rules.resolve_covered(principal, entity);
    };
    if let Some(rule) = principal.user.and_then(|id| find(&of_entity.user, id)) {
        return rules.decided(matched(RuleType::User, rule.access), Some(&rule.rule));
    }
    // Of several roles in a band the rule with the smaller id is named, so that the order of rows is no matter here either.
    let (mut deny, mut allow) = (None::<&Compiled>, None::<&Compiled>);
    for rule in principal.roles.iter().filter_map(|id| find(&of_entity.role, *id)) {
        let named = match rule.access {
            Access::Deny => &mut deny,
            Access::Allow => &mut allow,
        };
        if named.is_none_or(|by| rule.rule.id < by.rule.id) {
            *named = Some(rule);
        }
    }
    if let Some(rule) = deny.or(allow) {
        return rules.decided(matched(RuleType::Role, rule.access), Some(&rule.rule));
    }
    if let Some(rule) = principal.department.and_then(|id| find(&of_entity.department, id)) {
        return rules.decided(matched(RuleType::Department, rule.access), Some(&rule.rule));
    }
    let matched = if of_entity.default_included { Matched::DefaultIncluded } else { Matched::NotAssigned };
    rules.decided(matched, None)
}

/// The band that a rule decides in.
fn matched(rule_type: RuleType, access: Access) -> Matched {
    match (rule_type, access) {
        (RuleType::User, Access::Deny) => Matched::UserDeny,
        (RuleType::User, Access::Allow) => Matched::UserAllow,
        (RuleType::Role, Access::Deny) => Matched::RoleDeny,
        (RuleType::Role, Access::Allow) => Matched::RoleAllow,
        (RuleType::Department, Access::Deny) => Matched::DepartmentDeny,
        (RuleType::Department, Access::Allow) => Matched::DepartmentAllow,
    }
}

fn find(band: &[Compiled], subject: SubjectId) -> Option<&Compiled> {
    band.binary_search_by_key(&subject, |rule| rule.subject).ok().and_then(|at| band.get(at))
}

#[cfg(test)]
mod tests;
