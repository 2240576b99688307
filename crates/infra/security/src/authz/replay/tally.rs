//! What came out otherwise, in groups with examples.

use super::{FlipGroup, Flips};
use std::collections::HashMap;

/// Groups that a report lists; the flips of further ones are counted.
const MAX_GROUPS: usize = 500;
/// Examples of a group.
pub(super) const MAX_EXAMPLES: usize = 3;

/// What decides now, and what decided then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decider {
    /// A band of the rules, or a policy.
    pub by: String,
    pub rule_id: Option<String>,
    pub before: String,
}

type GroupKey = (String, String, Decider);

#[derive(Default)]
pub(super) struct Tally {
    count: u64,
    groups: HashMap<GroupKey, FlipGroup>,
    other: u64,
}

impl Tally {
    pub(super) fn add(&mut self, entity: String, principal: &str, decider: Decider, id: &str) {
        self.count += 1;
        let key = (entity, principal.to_owned(), decider);
        if !self.groups.contains_key(&key) && self.groups.len() >= MAX_GROUPS {
            self.other += 1;
            return;
        }
        let (entity, principal, decider) = &key;
        let new = FlipGroup {
            entity: entity.clone(),
            principal: principal.clone(),
            matched_by: decider.by.clone(),
            rule_id: decider.rule_id.clone(),
            before: decider.before.clone(),
            count: 0,
            examples: Vec::new(),
        };
        let group = self.groups.entry(key).or_insert(new);
        group.count += 1;
        if group.examples.len() < MAX_EXAMPLES {
            group.examples.push(id.to_owned());
        }
    }

    pub(super) fn flips(self) -> Flips {
        let mut groups: Vec<FlipGroup> = self.groups.into_values().collect();
        groups.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| names(a).cmp(&names(b))));
        Flips { count: self.count, groups, other: self.other }
    }
}

fn names(group: &FlipGroup) -> (&str, &str, &str, Option<&str>, &str) {
    let FlipGroup { entity, principal, matched_by, rule_id, before, .. } = group;
    (entity, principal, matched_by, rule_id.as_deref(), before)
}
