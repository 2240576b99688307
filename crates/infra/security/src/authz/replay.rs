//! Replay of recorded decisions against a draft (AUD-64, SEC-75): each is decided anew from the facts that its record holds, by
//! the rules and by the policies behind them. It streams, so memory does not grow with the ledger, and it changes nothing.
//!
//! The policies go by what was kept: the findings of the decision, and the arguments where a policy needs them. Where they are
//! gone, cut or redacted and the decision turns on them, it is told as one that cannot be replayed.

mod policies;
mod record;
mod tally;

use super::audit::repository::GovernanceDecisionRepository;
use super::draft::Tried;
use super::hook::{check_actors, check_owner};
use super::resolver::{RuleSet, resolve};
use super::types::{AuthzDecision, AuthzRequest, EntityKind, EntityRef, entity_kind};
use crate::governance::replay::{Again, Notes, TriedPolicies};
use aws_lc_rs::digest::{SHA256, digest};
use policies::Place;
use record::{KEPT_ROLES, Matched, Record, is_lost};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use systemprompt_audit::{Filter, LedgerReader, ReadError};
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_models::{Millis, Principal};
use tally::{Decider, MAX_EXAMPLES, Tally};

/// Most decisions that one replay looks at.
pub const MAX_DECISIONS: u64 = 1_000_000;
/// Records that are looked at together, decisions or not.
const PAGE: i64 = 1000;

/// What a replay reads.
#[derive(Clone, Copy, Debug)]
pub struct ReplaySource<'a> {
    pub reader: &'a LedgerReader,
    pub decisions: &'a GovernanceDecisionRepository,
}

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
    /// Decisions that turn on what is gone or was cut.
    pub unreplayable: u64,
    /// How many for what reason.
    pub unreplayable_why: BTreeMap<&'static str, u64>,
    pub unreplayable_examples: Vec<String>,
    /// Which policies were not decided again, and where not all content was looked at.
    #[serde(flatten)]
    pub notes: Notes,
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

/// Flips of one principal at one entity by one rule or policy of the draft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlipGroup {
    /// `tool:<name>`, or the door, where the call was decided on no entity.
    pub entity: String,
    pub principal: String,
    /// Band of the rules, or policy, that decides now.
    pub matched_by: String,
    /// The rule of that band or policy; the policy's reason where it goes by none.
    pub rule_id: Option<String>,
    /// Band or policy that decided then.
    pub before: String,
    pub count: u64,
    /// Ledger ids.
    pub examples: Vec<String>,
}

/// How one decision came out.
enum Outcome {
    Unchanged,
    Flipped { now_allowed: bool, entity: String, decider: Decider },
    Unreplayable(&'static str),
    List,
}

/// Decides recorded decisions anew.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn replay(
    source: ReplaySource<'_>,
    draft: &Tried,
    policies: &TriedPolicies,
    scope: ReplayScope,
) -> Result<ReplayReport, ReadError> {
    let mut report = ReplayReport { since: scope.since, until: scope.until, ..ReplayReport::default() };
    let (mut denied, mut allowed) = (Tally::default(), Tally::default());
    let mut one = Deciding {
        source,
        rules: &draft.rules,
        policies,
        actors: scope.actors,
        principal: Principal::anonymous(),
    };
    let reader = source.reader;
    let mut seen = 0_u64;
    'streams: for stream in reader.streams().await? {
        let mut cursor = match first_since(reader, &stream.stream, scope.since).await? {
            Some(seq) => seq - 1,
            None => continue,
        };
        // Records behind the head as it was read belong to the time after the question.
        while cursor < stream.head_seq {
            let to = stream.head_seq.min(cursor + PAGE);
            let page = reader.decisions(&stream.stream, cursor, to).await?;
            for entry in &page {
                if entry.at >= scope.until {
                    continue 'streams;
                }
                if seen >= MAX_DECISIONS {
                    report.more = true;
                    break 'streams;
                }
                seen += 1;
                let place = Place { stream: &stream.stream, seq: entry.seq, id: &entry.id };
                let outcome = match entry.record.as_deref() {
                    Some(text) => one.decide(text, place, &mut report.notes).await?,
                    None => Outcome::Unreplayable("record_pruned"),
                };
                match outcome {
                    Outcome::Unchanged => {
                        report.decisions += 1;
                        report.unchanged += 1;
                    }
                    Outcome::Flipped { now_allowed, entity, decider } => {
                        report.decisions += 1;
                        let tally = if now_allowed { &mut allowed } else { &mut denied };
                        tally.add(entity, one.principal.user_id.as_str(), decider, &entry.id);
                    }
                    Outcome::List => report.lists += 1,
                    Outcome::Unreplayable(why) => {
                        report.unreplayable += 1;
                        *report.unreplayable_why.entry(why).or_default() += 1;
                        if report.unreplayable_examples.len() < MAX_EXAMPLES {
                            report.unreplayable_examples.push(entry.id.clone());
                        }
                    }
                }
            }
            cursor = to;
        }
    }
    (report.newly_denied, report.newly_allowed) = (denied.flips(), allowed.flips());
    Ok(report)
}

async fn first_since(reader: &LedgerReader, stream: &str, since: Millis) -> Result<Option<i64>, ReadError> {
    let filter =
        Filter { stream: Some(stream.to_owned()), since: Some(since), ascending: true, ..Filter::default() };
    Ok(reader.filtered(&filter, None, 1).await?.first().map(|row| row.seq))
}

/// What decides one record after the other. `principal` is used again for each, and afterwards holds who it was about.
struct Deciding<'a> {
    source: ReplaySource<'a>,
    rules: &'a RuleSet,
    policies: &'a TriedPolicies,
    actors: ActorCheck,
    principal: Principal,
}

impl Deciding<'_> {
    async fn decide(&mut self, text: &str, place: Place<'_>, notes: &mut Notes) -> sqlx::Result<Outcome> {
        let Ok(mut record) = serde_json::from_str::<Record<'_>>(text) else {
            return Ok(Outcome::Unreplayable("record_unreadable"));
        };
        if record.detail.listed.is_some() {
            return Ok(Outcome::List);
        }
        // Neither an entity nor a policy had a say.
        if record.detail.matched.is_empty() && record.detail.chain.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let Some(entities) = record.detail.entities(self.rules) else {
            return Ok(Outcome::Unreplayable("names_not_kept"));
        };
        if record.detail.roles.len() >= KEPT_ROLES {
            return Ok(Outcome::Unreplayable("roles_not_kept"));
        }
        self.become_principal_of(&mut record);
        let was_allowed = record.outcome != "deny";
        let ruled = self.rule(entities, record.detail.actor_check.unwrap_or(self.actors));
        let decider = |by: String, rule_id| Decider { by, rule_id, before: record.policy.to_string() };
        let (entity, now_allowed, decider) = match ruled {
            Some((entity, decision)) if !decision.is_allow() => {
                (entity.to_string(), false, decider(decision.policy().to_owned(), rule_of(&decision)))
            }
            ruled => {
                // A decision that is of no call never came to the policies.
                let again = if record.detail.origin().is_some() || record.is_governed() {
                    policies::decide(&self.source, self.policies, &record, place, &self.principal, notes)
                        .await?
                } else {
                    Again::Allow
                };
                let entity = match &ruled {
                    Some((entity, _)) => entity.to_string(),
                    None => nameless(&record),
                };
                match (again, ruled) {
                    (Again::Unknown(why), _) => return Ok(Outcome::Unreplayable(why)),
                    (Again::Deny { policy, rule }, _) => (entity, false, decider(policy, rule)),
                    (Again::Allow, Some((_, decision))) => {
                        (entity, true, decider(decision.policy().to_owned(), rule_of(&decision)))
                    }
                    (Again::Allow, None) => (entity, true, decider("governance".to_owned(), None)),
                }
            }
        };
        Ok(if now_allowed == was_allowed {
            Outcome::Unchanged
        } else {
            Outcome::Flipped { now_allowed, entity, decider }
        })
    }

    fn become_principal_of(&mut self, record: &mut Record<'_>) {
        let principal = &mut self.principal;
        principal.user_id = record.actor.id.as_ref().into();
        principal.session_id = record.session_id.as_deref().unwrap_or("anonymous").into();
        principal.permissions = record.detail.permissions().unwrap_or_default();
        principal.roles = std::mem::take(&mut record.detail.roles);
        principal.department = record.detail.department.take();
        principal.owner = record.detail.owner.as_deref().map(Into::into);
        let of_record = std::mem::take(&mut record.act_chain);
        principal.act_chain = record.detail.actors.take().unwrap_or(of_record);
    }

    /// What the rules say of the entities, in order; the first that they deny decides.
    fn rule(&self, entities: Vec<EntityRef>, actors: ActorCheck) -> Option<(EntityRef, AuthzDecision)> {
        let compiled = self.rules.compile(&self.principal);
        let mut last = None;
        for entity in entities {
            let decision = resolve(self.rules, &compiled, &entity);
            let request = AuthzRequest::new(&self.principal, &entity);
            let decision = check_owner(self.rules, request, decision);
            let decision = check_actors(self.rules, actors, request, decision);
            let is_allow = decision.is_allow();
            last = Some((entity, decision));
            if !is_allow {
                break;
            }
        }
        last
    }
}

fn rule_of(decision: &AuthzDecision) -> Option<String> {
    decision.rule.as_ref().map(|rule| rule.id.to_string())
}

/// What a call was about that was decided on no entity.
fn nameless(record: &Record<'_>) -> String {
    match (&record.detail.tool, record.detail.origin()) {
        (Some(tool), _) => format!("tool:{tool}"),
        (None, Some(origin)) => origin.as_str().to_owned(),
        (None, None) => "call".to_owned(),
    }
}

/// What the call was decided on, and the tool where only the draft names it: a tool is decided on beside its server as soon as a
/// rule speaks of it. A call that was refused at its first entity was never decided on its server. `None` for a name that the
/// record does not hold whole.
fn entities(
    matched: &[Matched<'_>],
    server: Option<&str>,
    tool: Option<&str>,
    rules: &RuleSet,
) -> Option<Vec<EntityRef>> {
    let mut entities = Vec::with_capacity(matched.len() + 2);
    for one in matched {
        let (kind, id) = one.entity.split_once(':')?;
        if id.contains("[secret:") {
            return None;
        }
        entities.push(EntityRef::new(entity_kind(kind)?, id));
    }
    let is_of = |entities: &[EntityRef], kind| entities.iter().any(|entity| entity.kind == kind);
    if let (Some(server), false, false) =
        (server, matched.is_empty(), is_of(&entities, EntityKind::McpServer))
    {
        if is_lost(server) {
            return None;
        }
        entities.push(EntityRef::new(EntityKind::McpServer, server));
    }
    let has_tool = is_of(&entities, EntityKind::McpTool);
    let server = entities.iter().find(|entity| entity.kind == EntityKind::McpServer);
    if let (Some(server), Some(tool), false) = (server, tool, has_tool) {
        if is_lost(tool) {
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

/// Whether the digest is that of these arguments in canonical form, or of their bytes where they are no JSON.
fn is_sha256_of(expected: &str, body: &[u8]) -> bool {
    let canonical = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|value| serde_json_canonicalizer::to_vec(&value).ok());
    hex::encode(digest(&SHA256, canonical.as_deref().unwrap_or(body))) == expected
}

#[cfg(test)]
mod tests;
