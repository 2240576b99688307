//! `bench authz`: the compiled resolver in process, one thread, 5,000 users over growing rule sets.

use crate::machine;
use crate::options::Options;
use crate::report::{Report, finished, median};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::time::{Duration, Instant};
use systemprompt_models::Principal;
use systemprompt_models::ids::{RuleId, UserId};
use systemprompt_security::authz::{
    Access, AccessRule, CompiledPrincipal, Entity, EntityKind, EntityRef, RuleSet, RuleType, resolve,
};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const USERS: usize = 5_000;
const ROLES: usize = 40;
const DEPARTMENTS: usize = 60;
/// Rules of one entity: a role, a department and two users, one of them denied.
const RULES_PER_ENTITY: usize = 4;
/// Queries prepared before, and asked again and again.
const QUERIES: usize = 65_536;
/// Entities of one filtered list.
const LIST: usize = 1_000;

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "authz",
        "Rule resolver",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "`resolve()` in process on one thread with all explanation fields; {USERS} users with three roles and a department \
             each, four rules an entity (role, department, user allow, user deny), {QUERIES} random pairs of user and entity asked \
             in turn. Mean over runs without a timer inside; percentiles from a second pass that times every call, the timer's own \
             cost included (the column *timer* is that cost alone). Rebuild compiles the whole set from its rows. *List* decides on \
             {LIST} entities for one user."
        ),
        "mean at most 20, 30 and 60 ns, p99 under 1 µs, 100k at most 6 × 1k; rebuild at 100k at most 50 ms; list at most 100 µs.",
    );
    let mut rows = Vec::new();
    for size in SIZES {
        rows.push(finished(measure(size, options)?));
    }
    report.table(
        &["rules", "mean ns", "p50 ns", "p99 ns", "p99.9 ns", "timer ns", "rebuild ms", "list µs"],
        &rows,
    );
    report.publish(options)
}

/// A compiled set of `size` rules.
pub fn rule_set(size: usize) -> RuleSet {
    let entities: Vec<Entity> = (0..size / RULES_PER_ENTITY).map(entity).collect();
    let rules: Vec<AccessRule> = (0..size).map(|number| rule(number, size)).collect();
    RuleSet::build(1, &entities, &rules)
}

fn measure(size: usize, options: &Options) -> Result<Vec<String>> {
    let entities: Vec<Entity> = (0..size / RULES_PER_ENTITY).map(entity).collect();
    let rules: Vec<AccessRule> = (0..size).map(|number| rule(number, size)).collect();
    let (mut rebuild, mut mean) = (Vec::new(), Vec::new());
    for _ in 0..options.runs_or(3) {
        let start = Instant::now();
        black_box(RuleSet::build(1, &entities, &rules));
        rebuild.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let set = RuleSet::build(1, &entities, &rules);
    let users: Vec<CompiledPrincipal> = (0..USERS).map(|number| set.compile(&principal(number))).collect();
    let refs: Vec<EntityRef> =
        entities.iter().map(|entity| EntityRef::new(entity.kind, entity.id.as_str())).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let queries: Vec<(&CompiledPrincipal, &EntityRef)> = (0..QUERIES)
        .filter_map(|_| Some((users.get(random.below(users.len()))?, refs.get(random.below(refs.len()))?)))
        .collect();

    for _ in 0..options.runs_or(3) {
        mean.push(mean_nanos(&set, &queries, options.run / 10));
    }
    let (times, timer) = each(&set, &queries)?;
    let one = users.first().context("a user")?;
    let list: Vec<f64> = (0..101).map(|_| list_micros(&set, one, &refs)).collect();
    let percentile = |percentile: f64| times.value_at_percentile(percentile).to_string();
    Ok(vec![
        format!("{size}"),
        format!("{:.1}", median(mean)),
        percentile(50.0),
        percentile(99.0),
        percentile(99.9),
        format!("{timer:.0}"),
        format!("{:.1}", median(rebuild)),
        format!("{:.0}", median(list)),
    ])
}

fn mean_nanos(set: &RuleSet, queries: &[(&CompiledPrincipal, &EntityRef)], time: Duration) -> f64 {
    let (mut count, start) = (0_u64, Instant::now());
    while start.elapsed() < time {
        for (user, entity) in queries {
            black_box(resolve(set, user, entity));
        }
        count += queries.len() as u64;
    }
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// Every call timed, and the mean cost of timing nothing.
fn each(set: &RuleSet, queries: &[(&CompiledPrincipal, &EntityRef)]) -> Result<(Histogram<u64>, f64)> {
    let mut times = Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3)?;
    for _ in 0..20 {
        for (user, entity) in queries {
            let start = Instant::now();
            black_box(resolve(set, user, entity));
            times.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
        }
    }
    let start = Instant::now();
    for _ in 0..QUERIES {
        black_box(Instant::now().elapsed());
    }
    Ok((times, start.elapsed().as_secs_f64() * 1e9 / QUERIES as f64))
}

fn list_micros(set: &RuleSet, user: &CompiledPrincipal, refs: &[EntityRef]) -> f64 {
    let start = Instant::now();
    for entity in refs.iter().cycle().take(LIST) {
        black_box(resolve(set, user, entity));
    }
    start.elapsed().as_secs_f64() * 1e6
}

fn entity_id(number: usize) -> String {
    format!("server-{number:06}")
}

fn entity(number: usize) -> Entity {
    Entity {
        kind: EntityKind::McpServer,
        id: entity_id(number),
        display_name: None,
        default_included: number.is_multiple_of(10),
        source: "bench".to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}

fn rule(number: usize, size: usize) -> AccessRule {
    let entity = number / RULES_PER_ENTITY;
    let spread = (number.wrapping_mul(2_654_435_761)) % size.max(1);
    let (rule_type, rule_value, access) = match number % RULES_PER_ENTITY {
        0 => (RuleType::Role, format!("role-{}", spread % ROLES), Access::Allow),
        1 => (RuleType::Department, format!("department-{}", spread % DEPARTMENTS), Access::Allow),
        2 => (RuleType::User, format!("user-{}", spread % USERS), Access::Allow),
        _ => (RuleType::User, format!("user-{}", (spread + 1) % USERS), Access::Deny),
    };
    AccessRule {
        id: RuleId::new(format!("rule-{number:06}")),
        entity_type: EntityKind::McpServer,
        entity_id: entity_id(entity),
        is_pattern: false,
        rule_type,
        rule_value,
        access,
        justification: None,
        source: "bench".to_owned(),
        created_by: "bench".to_owned(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}

fn principal(number: usize) -> Principal {
    let mut principal = Principal::anonymous();
    principal.user_id = UserId::new(format!("user-{number}"));
    principal.roles = [1, 7, 13].map(|step| format!("role-{}", (number * step) % ROLES)).to_vec();
    principal.department = Some(format!("department-{}", number % DEPARTMENTS));
    principal
}

/// Xorshift: the same queries in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}
