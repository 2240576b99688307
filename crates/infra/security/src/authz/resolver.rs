//! The compiled resolver. [`resolve`] is pure: it takes no lock and allocates nothing. Bands go from user over role to
//! department; the first band with a matching rule decides, and inside a band deny wins, so the order of rows never matters.

use super::audit::AuthzSource;
use super::types::{
    Access, AccessRule, AuthzDecision, DecidingRule, Entity, EntityKind, EntityRef, Matched, RuleType,
};
use aws_lc_rs::digest::{Context, SHA256};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use systemprompt_models::Principal;

/// Most rules that a set may hold; a change beyond is refused.
pub const MAX_RULES: usize = 1_000_000;

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
    rules: usize,
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
    bands: [HashMap<Box<str>, SubjectId, RandomState>; BANDS],
    count: SubjectId,
}

impl Subjects {
    fn get(&self, band: RuleType, value: &str) -> Option<SubjectId> {
        self.bands.get(band_slot(band))?.get(value).copied()
    }

    fn number(&mut self, band: RuleType, value: &str) -> SubjectId {
        if let Some(known) = self.get(band, value) {
            return known;
        }
        let next = self.count;
        if let Some(of_band) = self.bands.get_mut(band_slot(band)) {
            of_band.insert(value.into(), next);
            self.count += 1;
        }
        next
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

impl RuleSet {
    /// A set without entities: everything is unknown, so everything is denied.
    pub fn empty() -> Self {
        Self::build(0, &[], &[])
    }

    /// Compiles rows. Patterns expand over the registered entities here, so a new entity is covered when the set is built
    /// after its registration.
    pub fn build(epoch: i64, entities: &[Entity], rules: &[AccessRule]) -> Self {
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

    /// Whether an entity is registered; a tool is known as well when a rule names it or a pattern covers it (SEC-63).
    pub fn knows(&self, entity: &EntityRef) -> bool {
        self.rules_of(entity.kind, &entity.id).is_some() || self.rules_of_pattern(entity).is_some()
    }

    /// The rules of patterns that cover a tool which nothing else names.
    fn rules_of_pattern(&self, entity: &EntityRef) -> Option<EntityRules> {
        if entity.kind != EntityKind::McpTool {
            return None;
        }
        let mut covering =
            self.tool_patterns.iter().filter(|p| pattern_matches(&p.pattern, &entity.id)).peekable();
        covering.peek()?;
        let mut draft = Draft::default();
        for pattern in covering {
            draft.add(pattern.rule_type, pattern.rule.clone());
        }
        Some(draft.compiled())
    }

    /// Whether any rule names this very entity or a pattern over it.
    pub fn has_rules(&self, entity: &EntityRef) -> bool {
        self.rules_of(entity.kind, &entity.id)
            .is_some_and(|rules| rules.user.len() + rules.role.len() + rules.department.len() > 0)
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
    let of_pattern;
    let of_entity = match rules.rules_of(entity.kind, &entity.id) {
        Some(of_entity) => of_entity,
        None => match rules.rules_of_pattern(entity) {
            Some(found) => {
                of_pattern = found;
                &of_pattern
            }
            None => return rules.decided(Matched::UnknownEntity, None),
        },
    };
    if let Some(rule) = principal.user.and_then(|id| find(&of_entity.user, id)) {
        let matched = match rule.access {
            Access::Deny => Matched::UserDeny,
            Access::Allow => Matched::UserAllow,
        };
        return rules.decided(matched, Some(&rule.rule));
    }
    let mut role_allow = None;
    for rule in principal.roles.iter().filter_map(|id| find(&of_entity.role, *id)) {
        match rule.access {
            Access::Deny => return rules.decided(Matched::RoleDeny, Some(&rule.rule)),
            Access::Allow => role_allow = role_allow.or(Some(rule)),
        }
    }
    if let Some(rule) = role_allow {
        return rules.decided(Matched::RoleAllow, Some(&rule.rule));
    }
    if let Some(rule) = principal.department.and_then(|id| find(&of_entity.department, id)) {
        let matched = match rule.access {
            Access::Deny => Matched::DepartmentDeny,
            Access::Allow => Matched::DepartmentAllow,
        };
        return rules.decided(matched, Some(&rule.rule));
    }
    let matched = if of_entity.default_included { Matched::DefaultIncluded } else { Matched::NotAssigned };
    rules.decided(matched, None)
}

fn find(band: &[Compiled], subject: SubjectId) -> Option<&Compiled> {
    band.binary_search_by_key(&subject, |rule| rule.subject).ok().and_then(|at| band.get(at))
}

/// Whether `id` fits a pattern whose `*` stand for any text.
pub fn pattern_matches(pattern: &str, id: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == id };
    let Some(mut id) = id.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match id.find(part) {
            Some(at) => id = id.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    id.ends_with(tail)
}

#[derive(Default)]
struct Builder {
    subjects: Subjects,
    entities: [HashMap<Box<str>, Draft, RandomState>; KINDS],
    tool_patterns: Vec<ToolPattern>,
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
        let compiled = Compiled {
            subject: self.subjects.number(rule.rule_type, rule.rule_value.as_str()),
            access: rule.access,
            rule: Arc::new(DecidingRule {
                id: rule.id.clone(),
                rule_type: rule.rule_type,
                value: rule.rule_value.as_str().into(),
            }),
        };
        let Some(of_kind) = self.entities.get_mut(slot(rule.entity_type)) else { return };
        if rule.is_pattern {
            for (id, draft) in of_kind.iter_mut() {
                if pattern_matches(&rule.entity_id, id) {
                    draft.add(rule.rule_type, compiled.clone());
                }
            }
            if rule.entity_type == EntityKind::McpTool {
                let pattern = rule.entity_id.as_str().into();
                self.tool_patterns.push(ToolPattern { pattern, rule_type: rule.rule_type, rule: compiled });
            }
        } else if rule.entity_type == EntityKind::McpTool {
            // A rule that names a tool counts though nobody registered the tool: it can only narrow (SEC-63).
            of_kind.entry(rule.entity_id.as_str().into()).or_default().add(rule.rule_type, compiled);
        } else if let Some(draft) = of_kind.get_mut(rule.entity_id.as_str()) {
            // Rows of an entity that is not registered decide nothing: the entity stays unknown.
            draft.add(rule.rule_type, compiled);
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
            rules,
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

/// The same for the same entities and rules in any order; ids of rules do not count.
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
    let mut context = Context::new(&SHA256);
    let mut line = String::new();
    for (kind, id, default_included) in entities {
        line.clear();
        let _ = writeln!(line, "entity\t{kind}\t{id}\t{default_included}");
        context.update(line.as_bytes());
    }
    for ((kind, id, is_pattern), rule_type, value, access) in rules {
        line.clear();
        let _ = writeln!(line, "rule\t{kind}\t{id}\t{is_pattern}\t{rule_type}\t{value}\t{access}");
        context.update(line.as_bytes());
    }
    let digest = hex::encode(context.finish());
    digest.get(..16).unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
