//! Rules, entities and people at random, the same in every run.

use systemprompt_models::Principal;
use systemprompt_models::ids::{RuleId, UserId};
use systemprompt_security::authz::{Access, AccessRule, Entity, EntityKind, EntityRef, RuleType};

/// Bands that questions must reach: unknown, three denies, three allows, included by default, assigned by nothing.
pub const BANDS: usize = 9;

const RULES_OF_ENTITY: usize = 50;
const USERS: usize = 500;
const ROLES: usize = 60;
const DEPARTMENTS: usize = 25;
const PRINCIPALS: usize = 512;
const PATTERNS: usize = 12;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    /// Whether something happens that does so `percent` times in a hundred.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

pub struct World {
    pub entities: Vec<Entity>,
    pub rules: Vec<AccessRule>,
    pub principals: Vec<Principal>,
}

impl World {
    pub fn new(random: &mut Random, rules: usize) -> Self {
        let count = (rules / RULES_OF_ENTITY).max(1);
        let entities = (0..count).map(|n| entity(n, random.chance(30))).collect();
        let patterns = (0..PATTERNS).map(|n| {
            let digit = random.below(10);
            let of = if n % 2 == 0 { format!("server-{digit}*") } else { format!("*{digit}") };
            (of, true)
        });
        let patterns: Vec<(String, bool)> = patterns.collect();
        // One in twenty is about an entity that nobody registered.
        let exact = |random: &mut Random| (format!("server-{}", random.below(count + count / 20 + 1)), false);
        let rules = (0..rules).map(|n| {
            let (of, is_pattern) = patterns.get(n).cloned().unwrap_or_else(|| exact(random));
            rule(random, n, of, is_pattern)
        });
        let rules = rules.collect();
        let principals = (0..PRINCIPALS).map(|_| principal(random)).collect();
        Self { entities, rules, principals }
    }

    /// Puts the rows into another order, and repeats some of them under ids of their own.
    pub fn shuffle(&mut self, random: &mut Random) {
        for at in 0..self.rules.len() / 10 {
            let mut again = self.rules[at * 10].clone();
            // Behind the id that it repeats, so that it is not the one that is named.
            again.id = RuleId::new(format!("{}-again", again.id));
            self.rules.push(again);
        }
        for at in (1..self.rules.len()).rev() {
            self.rules.swap(at, random.below(at + 1));
        }
    }

    /// One of the principals by its place, and an entity, which may not be registered.
    pub fn query(&self, random: &mut Random) -> (usize, EntityRef) {
        let entities = self.entities.len();
        let id = format!("server-{}", random.below(entities + entities / 20 + 1));
        (random.below(self.principals.len()), EntityRef::new(EntityKind::McpServer, id))
    }
}

fn entity(n: usize, default_included: bool) -> Entity {
    Entity {
        kind: EntityKind::McpServer,
        id: format!("server-{n}"),
        display_name: None,
        default_included,
        source: "seed".to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}

fn rule(random: &mut Random, n: usize, entity_id: String, is_pattern: bool) -> AccessRule {
    let (rule_type, rule_value) = match random.below(3) {
        0 => (RuleType::User, user(random)),
        1 => (RuleType::Role, format!("role-{}", random.below(ROLES))),
        _ => (RuleType::Department, department(random)),
    };
    AccessRule {
        id: RuleId::new(format!("rul_{n:06}")),
        entity_type: EntityKind::McpServer,
        entity_id,
        is_pattern,
        rule_type,
        rule_value,
        access: if random.chance(40) { Access::Deny } else { Access::Allow },
        justification: None,
        source: "seed".to_owned(),
        created_by: "oracle".to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}

fn principal(random: &mut Random) -> Principal {
    let roles = (0..random.below(4)).map(|_| format!("role-{}", random.below(ROLES))).collect();
    let department = random.chance(70).then(|| department(random));
    let user_id = UserId::new(user(random));
    Principal { user_id, roles, department, ..Principal::anonymous() }
}

/// Half of all is about a few people, so that user rules meet the questions.
fn user(random: &mut Random) -> String {
    let among = if random.chance(50) { 20 } else { USERS };
    format!("user-{}", random.below(among))
}

/// The empty name is a department too, which matches nothing.
fn department(random: &mut Random) -> String {
    if random.chance(3) { String::new() } else { format!("department-{}", random.below(DEPARTMENTS)) }
}

/// Whether a pattern with one `*`, at its beginning or its end, is about an id.
pub fn covers(pattern: &str, id: &str) -> bool {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(start), _) => id.starts_with(start),
        (None, Some(end)) => id.ends_with(end),
        (None, None) => pattern == id,
    }
}
