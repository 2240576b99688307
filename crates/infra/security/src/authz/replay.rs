//! Replay of recorded decisions against a draft of rules (AUD-64, SEC-75): each is decided anew from the facts that its record
//! holds. It streams, so memory does not grow with the ledger, and it changes nothing.
//!
//! The rules are replayed, and what the policies behind them found stays as recorded: a call that a policy refused stays refused,
//! and one that the rules refused, so that no policy was asked, counts as allowed once the draft allows it.

use super::draft::Tried;
use super::hook::check_actors;
use super::resolver::{RuleSet, resolve};
use super::types::{AuthzDecision, AuthzRequest, EntityKind, EntityRef, entity_kind};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use systemprompt_audit::{Filter, LedgerReader};
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_models::{Millis, Principal};

/// Most decisions that one replay looks at.
pub const MAX_DECISIONS: u64 = 1_000_000;
/// Groups that a report lists; the flips of further ones are counted.
const MAX_GROUPS: usize = 500;
/// Examples of a group.
const MAX_EXAMPLES: usize = 3;
const PAGE: i64 = 1000;
/// Roles that a record keeps; one with that many may have had more.
const KEPT_ROLES: usize = 32;
/// Characters of a name that a record keeps.
const KEPT_NAME: usize = 200;

/// Which decisions, and how the actors of a delegation chain count where the record does not say how they did.
#[derive(Clone, Copy, Debug)]
pub struct ReplayScope {
    /// Epoch milliseconds, inclusive and exclusive.
    pub since: Millis,
    pub until: Millis,
    pub actors: ActorCheck,
}

/// What a draft would have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    pub since: Millis,
    pub until: Millis,
    /// Decisions that were decided anew.
    pub decisions: u64,
    pub unchanged: u64,
    pub newly_denied: Flips,
    pub newly_allowed: Flips,
    /// Decisions whose facts are gone or were cut.
    pub unreplayable: u64,
    pub unreplayable_examples: Vec<String>,
    /// Records of filtered lists, which are no single decision.
    pub lists: u64,
    /// Whether there are more decisions in the time than one replay looks at.
    pub more: bool,
}

impl ReplayReport {
    pub fn flips(&self) -> u64 {
        self.newly_denied.count + self.newly_allowed.count
    }
}

/// Decisions that came out otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flips {
    pub count: u64,
    /// The most frequent first.
    pub groups: Vec<FlipGroup>,
    /// Flips of groups that are not listed.
    pub other: u64,
}

/// Flips of one principal at one entity by one rule of the draft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlipGroup {
    pub entity: String,
    pub principal: String,
    /// Band that decides now.
    pub matched_by: &'static str,
    pub rule_id: Option<String>,
    pub count: u64,
    /// Ledger ids.
    pub examples: Vec<String>,
}

/// The members of a record that a decision depends on.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    actor: Actor<'a>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(default)]
    act_chain: Vec<String>,
    #[serde(borrow)]
    detail: Detail<'a>,
}

#[derive(Deserialize)]
struct Actor<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Detail<'a> {
    #[serde(default, borrow)]
    matched: Vec<Matched<'a>>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    department: Option<String>,
    #[serde(default, borrow)]
    tool: Option<Cow<'a, str>>,
    #[serde(default)]
    listed: Option<u64>,
    #[serde(default)]
    actors: Option<Vec<String>>,
    #[serde(default)]
    actor_check: Option<ActorCheck>,
}

#[derive(Deserialize)]
struct Matched<'a> {
    #[serde(borrow)]
    entity: Cow<'a, str>,
}

/// How one decision came out.
enum Outcome {
    Unchanged,
    Flipped { now_allowed: bool, entity: EntityRef, decision: AuthzDecision },
    Unreplayable,
    List,
}

type GroupKey = (String, String, Option<String>);

#[derive(Default)]
struct Tally {
    count: u64,
    groups: HashMap<GroupKey, FlipGroup>,
    other: u64,
}

impl Tally {
    fn add(&mut self, entity: &EntityRef, principal: &str, decision: &AuthzDecision, id: &str) {
        self.count += 1;
        let rule_id = decision.rule.as_ref().map(|rule| rule.id.to_string());
        let key = (entity.to_string(), principal.to_owned(), rule_id.clone());
        if !self.groups.contains_key(&key) && self.groups.len() >= MAX_GROUPS {
            self.other += 1;
            return;
        }
        let group = self.groups.entry(key).or_insert_with(|| FlipGroup {
            entity: entity.to_string(),
            principal: principal.to_owned(),
            matched_by: decision.policy(),
            rule_id,
            count: 0,
            examples: Vec::new(),
        });
        group.count += 1;
        if group.examples.len() < MAX_EXAMPLES {
            group.examples.push(id.to_owned());
        }
    }

    fn flips(self) -> Flips {
        let mut groups: Vec<FlipGroup> = self.groups.into_values().collect();
        groups.sort_unstable_by(|a, b| {
            let names =
                |group: &FlipGroup| (group.entity.clone(), group.principal.clone(), group.rule_id.clone());
            b.count.cmp(&a.count).then_with(|| names(a).cmp(&names(b)))
        });
        Flips { count: self.count, groups, other: self.other }
    }
}

/// Decides recorded decisions anew.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn replay(
    reader: &LedgerReader,
    draft: &Tried,
    scope: ReplayScope,
) -> Result<ReplayReport, systemprompt_audit::ReadError> {
    let mut report = ReplayReport { since: scope.since, until: scope.until, ..ReplayReport::default() };
    let (mut denied, mut allowed) = (Tally::default(), Tally::default());
    let mut principal = Principal::anonymous();
    let mut seen = 0_u64;
    'streams: for stream in reader.streams().await? {
        let mut cursor = match first_since(reader, &stream.stream, scope.since).await? {
            Some(seq) => seq - 1,
            None => continue,
        };
        loop {
            let page = reader.decisions(&stream.stream, cursor, PAGE).await?;
            for entry in &page {
                // Records behind the head as it was read belong to the time after the question.
                if entry.seq > stream.head_seq || entry.at >= scope.until {
                    continue 'streams;
                }
                if seen >= MAX_DECISIONS {
                    report.more = true;
                    break 'streams;
                }
                seen += 1;
                let outcome = entry.record.as_deref().map_or(Outcome::Unreplayable, |text| {
                    decide(text, &draft.rules, scope.actors, &mut principal)
                });
                match outcome {
                    Outcome::Unchanged => {
                        report.decisions += 1;
                        report.unchanged += 1;
                    }
                    Outcome::Flipped { now_allowed, entity, decision } => {
                        report.decisions += 1;
                        let tally = if now_allowed { &mut allowed } else { &mut denied };
                        tally.add(&entity, principal.user_id.as_str(), &decision, &entry.id);
                    }
                    Outcome::List => report.lists += 1,
                    Outcome::Unreplayable => {
                        report.unreplayable += 1;
                        if report.unreplayable_examples.len() < MAX_EXAMPLES {
                            report.unreplayable_examples.push(entry.id.clone());
                        }
                    }
                }
            }
            match page.last() {
                Some(last) if page.len() as i64 == PAGE => cursor = last.seq,
                _ => break,
            }
        }
    }
    (report.newly_denied, report.newly_allowed) = (denied.flips(), allowed.flips());
    Ok(report)
}

async fn first_since(
    reader: &LedgerReader,
    stream: &str,
    since: Millis,
) -> Result<Option<i64>, systemprompt_audit::ReadError> {
    let filter =
        Filter { stream: Some(stream.to_owned()), since: Some(since), ascending: true, ..Filter::default() };
    Ok(reader.filtered(&filter, None, 1).await?.first().map(|row| row.seq))
}

/// Decides one record anew. `principal` is used again for each, and afterwards holds who it was about.
fn decide(text: &str, rules: &RuleSet, actors: ActorCheck, principal: &mut Principal) -> Outcome {
    let Ok(record) = serde_json::from_str::<Record<'_>>(text) else { return Outcome::Unreplayable };
    let detail = record.detail;
    if detail.listed.is_some() {
        return Outcome::List;
    }
    // Without an entity no rule had a say.
    if detail.matched.is_empty() {
        return Outcome::Unchanged;
    }
    let Some(entities) = entities(&detail.matched, detail.tool.as_deref(), rules) else {
        return Outcome::Unreplayable;
    };
    if detail.roles.len() >= KEPT_ROLES {
        return Outcome::Unreplayable;
    }
    principal.user_id = record.actor.id.as_ref().into();
    principal.roles = detail.roles;
    principal.department = detail.department;
    principal.act_chain = detail.actors.unwrap_or(record.act_chain);
    let actors = detail.actor_check.unwrap_or(actors);
    let was_allowed = record.outcome != "deny";
    // The policies ran when the rules let the call pass, and what they found stands.
    let policies_allow = record.kind != "governance.decision" || was_allowed;
    let compiled = rules.compile(principal);
    let mut last = None;
    for entity in entities {
        let decision = resolve(rules, &compiled, &entity);
        let request = AuthzRequest::new(principal, &entity);
        let decision = check_actors(rules, actors, request, decision);
        let is_allow = decision.is_allow();
        last = Some((entity, decision));
        if !is_allow {
            break;
        }
    }
    let Some((entity, decision)) = last else { return Outcome::Unchanged };
    let now_allowed = decision.is_allow() && policies_allow;
    if now_allowed == was_allowed {
        Outcome::Unchanged
    } else {
        Outcome::Flipped { now_allowed, entity, decision }
    }
}

/// What the call was decided on, and the tool where only the draft names it: a tool is decided on beside its server as soon as a
/// rule speaks of it. `None` for a name that the record does not hold whole.
fn entities(matched: &[Matched<'_>], tool: Option<&str>, rules: &RuleSet) -> Option<Vec<EntityRef>> {
    let mut entities = Vec::with_capacity(matched.len() + 1);
    for one in matched {
        let (kind, id) = one.entity.split_once(':')?;
        if id.contains("[secret:") {
            return None;
        }
        entities.push(EntityRef::new(entity_kind(kind)?, id));
    }
    let server = entities.iter().find(|entity| entity.kind == EntityKind::McpServer);
    let has_tool = entities.iter().any(|entity| entity.kind == EntityKind::McpTool);
    if let (Some(server), Some(tool), false) = (server, tool, has_tool) {
        if tool.chars().count() >= KEPT_NAME {
            return None;
        }
        // A hook names the tool as its client does: `mcp__<server>__<tool>`.
        let prefix = format!("mcp__{}__", server.id);
        let name = tool.strip_prefix(prefix.as_str()).unwrap_or(tool);
        let tool = EntityRef::new(EntityKind::McpTool, format!("{}/{name}", server.id));
        if rules.knows(&tool) {
            entities.push(tool);
        }
    }
    // Rules that no longer name the tool leave it to its server.
    entities.retain(|entity| entity.kind != EntityKind::McpTool || rules.knows(entity));
    Some(entities)
}

#[cfg(test)]
mod tests;
