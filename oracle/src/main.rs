//! Case 16: the resolver and Cedar decide the same questions. Cedar knows the bands as two fixed policies over the allow and deny sets of
//! an entity, written down from the specification and not from the resolver. Each set of rules is asked a second time with its rows
//! in another order and some of them twice.

mod cedar;
mod world;

use cedar::Cedar;
use std::collections::BTreeMap;
use std::process::ExitCode;
use systemprompt_security::authz::{AuthzDecision, RuleSet, resolve};
use world::{Random, World};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const QUERIES: usize = 4_096;
/// Decisions that differ and are shown.
const MAX_SHOWN: usize = 5;

fn main() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for size in SIZES {
        match compare(size) {
            Ok(told) => {
                passed += 1;
                println!("ok    case 16: {told}");
            }
            Err(told) => {
                failed += 1;
                println!("FAIL  case 16: {told}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare(size: usize) -> Result<String, String> {
    let mut random = Random::new(size as u64);
    let mut world = World::new(&mut random, size);
    let cedar = Cedar::new(&world)?;
    let rules = RuleSet::build(1, &world.entities, &world.rules);
    world.shuffle(&mut random);
    let shuffled = RuleSet::build(1, &world.entities, &world.rules);
    let mut bands: BTreeMap<&str, usize> = BTreeMap::new();
    let mut differ = Vec::new();
    for _ in 0..QUERIES {
        let (who, entity) = world.query(&mut random);
        let principal = &world.principals[who];
        let decide = |set: &RuleSet| resolve(set, &set.compile(principal), &entity);
        let (ours, again) = (decide(&rules), decide(&shuffled));
        *bands.entry(ours.policy()).or_default() += 1;
        let theirs = cedar.decide(who, &entity)?;
        let by = |decision: &AuthzDecision| {
            (decision.policy(), decision.rule.as_ref().map(|rule| rule.id.clone()))
        };
        if ours.is_allow() != theirs || by(&ours) != by(&again) {
            differ.push(format!(
                "{} at {entity}: {:?}, again {:?}, Cedar {theirs}",
                principal.user_id,
                by(&ours),
                by(&again)
            ));
        }
    }
    let counted = bands.iter().map(|(band, count)| format!("{band} {count}")).collect::<Vec<_>>().join(", ");
    let told = format!("{QUERIES} queries over {size} rules, {} disagreements ({counted})", differ.len());
    // A band that no question reached was not compared.
    if differ.is_empty() && bands.len() == world::BANDS {
        return Ok(told);
    }
    differ.truncate(MAX_SHOWN);
    Err([vec![told], differ].concat().join("\n      "))
}
