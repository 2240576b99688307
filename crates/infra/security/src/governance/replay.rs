//! The pipeline over a call that was decided before (AUD-64): each policy decides anew from what was kept of the call, and says
//! where that is not enough. It counts nothing and leaves no trace.
//!
//! What a policy over content found is kept with the decision, whatever it led to then; so another action is tried on the very
//! findings. A policy that had not been asked looks at the arguments that were retained. Counters cannot be asked about the past:
//! what `rate_limit` said then stands.

use super::chain::LinkResult;
use super::facts::{CallFacts, Origin};
use super::leaks;
use super::pipeline::{FAULT, Parts, Pipeline, PipelineError, Policy, Stage, run};
use super::policy::{GovernancePolicy, Outcome, Reads};
use super::scan::Finding;
use super::secret_scan;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use systemprompt_config::profile::governance::History;
use systemprompt_config::services::governance::{GovernanceConfig, PolicyConfig};
use systemprompt_models::Permission;

/// Pointers of what stands beside the body of a model request, and of the names of a call: nothing there can be replaced.
const BESIDE: [&str; 12] = [
    "/?",
    "/headers",
    "/trace_id",
    "/context_id",
    "/task_id",
    "/agent_name",
    "/ai_tool_call_id",
    "/call_id",
    "/tool_name",
    "/plugin_id",
    "/agent_id",
    "/agent_scope",
];

/// Policies that are tried: those in force with a draft laid over them.
pub struct TriedPolicies {
    pipeline: Pipeline,
    /// Those that the draft makes other than they are.
    changed: BTreeSet<String>,
}

impl std::fmt::Debug for TriedPolicies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TriedPolicies").field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl TriedPolicies {
    /// A policy of the draft replaces the one of its id that is in force.
    ///
    /// # Errors
    /// A policy that there is not, that the draft lists twice, or whose parameters it does not take.
    pub fn of(
        in_force: &GovernanceConfig,
        draft: &[PolicyConfig],
        parts: &Parts,
    ) -> Result<Self, PipelineError> {
        let mut config = in_force.clone();
        let mut seen = BTreeSet::new();
        let mut changed = BTreeSet::new();
        for policy in draft {
            if !seen.insert(policy.id.as_str()) {
                return Err(PipelineError::Duplicate { id: policy.id.clone() });
            }
            match config.policies.iter_mut().find(|known| known.id == policy.id) {
                Some(known) if known == policy => continue,
                Some(known) => known.clone_from(policy),
                None => config.policies.push(policy.clone()),
            }
            changed.insert(policy.id.clone());
        }
        Ok(Self { pipeline: Pipeline::from_config(&config, parts)?, changed })
    }

    /// Whether any policy would refuse anything.
    pub fn is_enabled(&self) -> bool {
        self.pipeline.is_enabled()
    }
}

/// A link of the chain as a record keeps it.
#[derive(Debug, Deserialize)]
pub struct RecordedLink<'a> {
    #[serde(borrow)]
    pub policy_id: Cow<'a, str>,
    pub result: LinkResult,
}

impl RecordedLink<'_> {
    fn refused(&self) -> bool {
        matches!(self.result, LinkResult::Fail | LinkResult::Fault)
    }

    fn decided(&self) -> bool {
        matches!(self.result, LinkResult::Pass | LinkResult::Flag | LinkResult::Fail)
    }
}

/// What is left of the arguments of a call. Where they are whole they are the segments of its facts; a call without any has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arguments {
    Whole,
    /// Why they cannot be judged.
    Lost(&'static str),
}

/// What is known of a call beside its facts.
#[derive(Debug)]
pub struct Recorded<'a> {
    pub links: &'a [RecordedLink<'a>],
    pub findings: &'a [Finding],
    /// Whether it went on with what was found redacted.
    pub redacted: bool,
    pub arguments: Arguments,
    /// Whether the permissions of the facts are those of the call.
    pub permissions_known: bool,
    /// Whether its names were cut or hidden when they were recorded.
    pub names_lost: bool,
}

/// What deciding anew needs to have read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub arguments: bool,
    pub findings: bool,
}

/// How a call came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    Allow,
    Deny {
        policy: String,
        rule: Option<String>,
    },
    /// Nobody can tell, and why.
    Unknown(&'static str),
}

/// A policy that was not decided again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Decisions for which its recorded outcome was taken over.
    pub recorded: u64,
    /// Those of them that it refused.
    pub refused: u64,
    /// Decisions that were refused before it was asked; it counts as passed there.
    pub not_asked: u64,
}

/// What a replay has to say of how it was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Notes {
    /// By policy.
    pub taken_over: BTreeMap<String, Taken>,
    /// Decisions for which a policy that had not been asked before looked at the retained arguments: what stood beside them is not
    /// kept.
    pub arguments_alone: u64,
}

impl Notes {
    fn taken(&mut self, policy: &str, refused: bool) {
        let taken = self.of(policy);
        taken.recorded += 1;
        taken.refused += u64::from(refused);
    }

    fn of(&mut self, policy: &str) -> &mut Taken {
        if !self.taken_over.contains_key(policy) {
            self.taken_over.insert(policy.to_owned(), Taken::default());
        }
        self.taken_over.entry(policy.to_owned()).or_default()
    }
}

/// What one policy says.
enum Says {
    Pass,
    Redact { rule: Option<String>, in_body: bool },
    Deny { rule: Option<String> },
    Unknown(&'static str),
}

impl TriedPolicies {
    /// What has to be read of a call before [`Self::decide`].
    pub fn wants(&self, facts: &CallFacts<'_>, links: &[RecordedLink<'_>], has_findings: bool) -> Wants {
        let mut wants = Wants::default();
        if !self.pipeline.is_enabled() {
            return wants;
        }
        for stage in self.pipeline.stages() {
            let Some(Policy::Pure(policy)) = &stage.policy else { continue };
            match policy.reads(facts) {
                Reads::Names => {}
                Reads::Findings if has_decided(links, &stage.id) => wants.findings |= has_findings,
                Reads::Findings | Reads::Arguments => wants.arguments = true,
            }
        }
        wants
    }

    /// Decides anew.
    pub fn decide(&self, facts: &CallFacts<'_>, recorded: &Recorded<'_>, notes: &mut Notes) -> Again {
        let stages = self.pipeline.stages();
        // A value in use, and what was wrong with the call itself: no policy said so, and no draft changes it.
        let beside =
            |link: &&RecordedLink<'_>| link.refused() && !stages.iter().any(|s| *s.id == *link.policy_id);
        if let Some(link) = recorded.links.iter().find(beside) {
            if link.policy_id == leaks::ID {
                notes.taken(leaks::ID, true);
            }
            return Again::Deny { policy: link.policy_id.to_string(), rule: None };
        }
        if !self.pipeline.is_enabled() {
            return Again::Allow;
        }
        let mut redact: Option<(&Stage, Option<String>, bool)> = None;
        let mut unknown = None;
        let mut is_first_look = false;
        for stage in stages {
            let Some(policy) = &stage.policy else { continue };
            let says = match policy {
                Policy::Rate(_) => rate(&stage.id, recorded.links, notes),
                Policy::Pure(policy) => {
                    is_first_look |=
                        policy.reads(facts) == Reads::Findings && !has_decided(recorded.links, &stage.id);
                    self.says(&stage.id, policy.as_ref(), facts, recorded, notes)
                }
            };
            match says {
                Says::Pass => {}
                Says::Deny { rule } => return Again::Deny { policy: stage.id.to_string(), rule },
                // Whatever it would say, a later policy may refuse.
                Says::Unknown(why) => unknown = unknown.or(Some(why)),
                // Two policies want the content changed, and neither knows of the other's change.
                Says::Redact { rule, in_body } => {
                    let in_body = in_body && redact.is_none();
                    redact = Some((stage, rule, in_body));
                }
            }
        }
        if let Some(why) = unknown {
            return Again::Unknown(why);
        }
        notes.arguments_alone += u64::from(is_first_look);
        match redact {
            Some((stage, rule, false)) => Again::Deny { policy: stage.id.to_string(), rule },
            Some(_) | None => Again::Allow,
        }
    }

    fn says(
        &self,
        id: &str,
        policy: &dyn GovernancePolicy,
        facts: &CallFacts<'_>,
        recorded: &Recorded<'_>,
        notes: &mut Notes,
    ) -> Says {
        let link = recorded.links.iter().find(|link| link.policy_id == id && link.decided());
        let outcome = match (policy.reads(facts), link) {
            (Reads::Names, _) if recorded.names_lost => return Says::Unknown("names_not_kept"),
            (Reads::Names, _) => run_with(policy, facts, recorded),
            (Reads::Findings, Some(link)) => {
                return self.on_findings(id, policy, facts, recorded, (link, notes));
            }
            (Reads::Findings | Reads::Arguments, link) => match recorded.arguments {
                Arguments::Whole if recorded.names_lost => return Says::Unknown("names_not_kept"),
                Arguments::Whole => run_with(policy, facts, recorded),
                Arguments::Lost(why) => {
                    return match link {
                        Some(link) if !self.changed.contains(id) => taken_over(id, link, notes),
                        _ => Says::Unknown(why),
                    };
                }
            },
        };
        match outcome {
            Some(outcome) => says(outcome, id, facts, recorded),
            None => Says::Unknown("permissions_not_kept"),
        }
    }

    fn on_findings(
        &self,
        id: &str,
        policy: &dyn GovernancePolicy,
        facts: &CallFacts<'_>,
        recorded: &Recorded<'_>,
        (link, notes): (&RecordedLink<'_>, &mut Notes),
    ) -> Says {
        // It refused for another reason than a finding: what is too complex to look through stays so.
        let Some((outcome, count)) = policy.decide_on(facts, recorded.findings) else {
            return taken_over(id, link, notes);
        };
        if link.result == LinkResult::Fail && count == 0 {
            return taken_over(id, link, notes);
        }
        // Where a block that was refused before goes through, the record does not tell which one it was.
        let is_conversation = facts.origin == Origin::Gateway && facts.context_id.is_some();
        if is_conversation && count > 0 && id == secret_scan::ID && self.pipeline.history() != History::Block
        {
            return if self.changed.contains(id) {
                Says::Unknown("conversation_not_kept")
            } else {
                taken_over(id, link, notes)
            };
        }
        says(outcome, id, facts, recorded)
    }
}

/// The outcome; none where it depends on permissions that the record does not tell.
fn run_with(
    policy: &dyn GovernancePolicy,
    facts: &CallFacts<'_>,
    recorded: &Recorded<'_>,
) -> Option<Outcome> {
    let refuses = |outcome: &Outcome| matches!(outcome, Outcome::Fail { .. } | Outcome::Fault { .. });
    if recorded.permissions_known {
        return Some(run(policy, facts));
    }
    // Whoever may do more is refused less: what nobody is refused, and what everybody is, needs no permission to be known.
    let least = run(policy, &CallFacts { permissions: &[], ..facts.clone() });
    let all = CallFacts { permissions: &Permission::ALL, agent: None, agent_scope: None, ..facts.clone() };
    let most = run(policy, &all);
    (refuses(&least) == refuses(&most)).then_some(least)
}

fn has_decided(links: &[RecordedLink<'_>], id: &str) -> bool {
    links.iter().any(|link| link.policy_id == id && link.decided())
}

fn taken_over(id: &str, link: &RecordedLink<'_>, notes: &mut Notes) -> Says {
    notes.taken(id, link.refused());
    if link.refused() { Says::Deny { rule: None } } else { Says::Pass }
}

/// What the counters said. A call that was refused before it came to them was not counted.
fn rate(id: &str, links: &[RecordedLink<'_>], notes: &mut Notes) -> Says {
    let link = links.iter().find(|link| link.policy_id == id);
    let is_late = links.iter().take_while(|link| link.policy_id != id).any(RecordedLink::refused);
    match link {
        Some(link) if link.refused() || link.decided() || link.result == LinkResult::Skip && !is_late => {
            taken_over(id, link, notes)
        }
        _ => {
            notes.of(id).not_asked += 1;
            Says::Pass
        }
    }
}

fn says(outcome: Outcome, id: &str, facts: &CallFacts<'_>, recorded: &Recorded<'_>) -> Says {
    let rule = |findings: &[Finding], blocks: bool| {
        let found = findings.iter().find(|f| f.allowed_by.is_none() && (f.blocks || !blocks));
        found.map(|f| f.rule_id.to_string())
    };
    match outcome {
        Outcome::Pass { .. } | Outcome::Skip { .. } | Outcome::Flag { .. } => Says::Pass,
        Outcome::Fail { findings, reason, .. } => {
            Says::Deny { rule: rule(&findings, true).or_else(|| Some(reason.into_owned())) }
        }
        Outcome::Fault { .. } => Says::Unknown(FAULT),
        // The gateway alone replaces what was found, in the body of a request.
        Outcome::Redact { findings, redactions, .. } => {
            let is_beside = |f: &Finding| BESIDE.iter().any(|beside| f.pointer.starts_with(beside));
            let can = id == secret_scan::ID && facts.origin == Origin::Gateway;
            let in_body = can
                && (recorded.redacted
                    || !redactions.is_empty()
                    || !findings.iter().any(|f| f.allowed_by.is_none() && is_beside(f)));
            Says::Redact { rule: rule(&findings, false), in_body }
        }
    }
}
