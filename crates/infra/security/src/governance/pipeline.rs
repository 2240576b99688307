//! The pipeline: the configured policies in their order, run for one call. The first that refuses decides; one that
//! panics or takes too long refuses.

use super::allow::AllowList;
use super::argument_rules::{self, ArgumentRules};
use super::chain::{Chain, Denial, Link, LinkResult, Verdict};
use super::facts::CallFacts;
use super::injection::{self as prompt_injection, PromptInjection};
use super::leaks::{self, Leaks};
use super::names::{self, Names};
use super::params::{ParamError, closest, hint};
use super::pii::{self, Pii};
use super::policy::{GovernancePolicy, Outcome};
use super::rate_limit::{self, RateLimit, RateLimiter};
use super::scan::SecretScanner;
use super::scope_check::{self, ScopeCheck};
use super::secret_scan::{self, SecretScan};
use super::tool_blocklist::{self, ToolBlocklist};
use futures_util::FutureExt;
use serde_json::Value;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use systemprompt_config::profile::governance::History;
use systemprompt_config::services::governance::{
    BUILT_IN_POLICIES, GovernanceConfig, OFF_UNTIL_LISTED, PolicyConfig,
};
use systemprompt_leak::Scanner;
use systemprompt_models::Clock;

/// Reason of a denial because a policy could not decide.
pub const FAULT: &str = "policy_fault";

/// How long deciding may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub policy: Duration,
    pub chain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { policy: Duration::from_millis(100), chain: Duration::from_millis(250) }
    }
}

/// Makes a policy of its parameters.
pub type BuildPolicy = Arc<dyn Fn(&Value) -> Result<Box<dyn GovernancePolicy>, ParamError> + Send + Sync>;

/// A policy that an extension registers. It is on unless the configuration switches it off.
#[derive(Clone)]
pub struct ExtensionPolicy {
    pub id: Arc<str>,
    /// The policy that it follows, where the configuration names none; the last one if this names none either.
    pub after: Option<Arc<str>>,
    pub build: BuildPolicy,
}

/// What a pipeline is made of, beside its configuration. All of it outlives a reload.
#[derive(Clone)]
pub struct Parts {
    pub scanner: Arc<SecretScanner>,
    pub limiter: Arc<RateLimiter>,
    pub clock: Arc<dyn Clock>,
    pub extensions: Vec<ExtensionPolicy>,
    pub limits: Limits,
    /// The values in use, none of which a call may bring along.
    pub in_use: Scanner,
    /// Findings that are let pass.
    pub allowed: AllowList,
    /// What becomes of a block that was refused in the same conversation before.
    pub history: History,
}

impl Parts {
    /// Parts without extensions, and without values in use.
    pub fn new(scanner: Arc<SecretScanner>, limiter: Arc<RateLimiter>, clock: Arc<dyn Clock>) -> Self {
        let in_use = Scanner::new();
        let allowed = AllowList::empty(Arc::clone(&clock));
        Self {
            scanner,
            limiter,
            clock,
            extensions: Vec::new(),
            limits: Limits::default(),
            in_use,
            allowed,
            history: History::Block,
        }
    }

    /// Whether a policy makes findings of this name: a rule of the secret scan, a kind of another policy, or an operator's rule on
    /// arguments, whose names are the operator's own.
    pub fn knows_rule(&self, id: &str) -> bool {
        self.scanner.knows(id)
            || pii::knows(id)
            || prompt_injection::knows(id)
            || id.starts_with(argument_rules::PREFIX)
    }

    /// Ids of all policies, built-in ones first.
    pub fn policy_ids(&self) -> impl Iterator<Item = &str> {
        BUILT_IN_POLICIES.into_iter().chain(self.extensions.iter().map(|e| &*e.id))
    }

    /// The policy `id` with `params`; none if there is no such policy.
    pub fn build(&self, id: &str, params: &Value) -> Option<Result<Policy, ParamError>> {
        fn boxed(policy: impl GovernancePolicy) -> Policy {
            Policy::Pure(Box::new(policy))
        }
        Some(match id {
            scope_check::ID => ScopeCheck::new(params).map(boxed),
            secret_scan::ID => {
                SecretScan::new(params, self.scanner.clone(), self.allowed.clone(), self.history).map(boxed)
            }
            tool_blocklist::ID => ToolBlocklist::new(params).map(boxed),
            pii::ID => Pii::new(params, self.scanner.clone(), self.allowed.clone()).map(boxed),
            prompt_injection::ID => {
                PromptInjection::new(params, self.scanner.clone(), self.allowed.clone()).map(boxed)
            }
            argument_rules::ID => {
                ArgumentRules::new(params, self.scanner.clone(), self.allowed.clone()).map(boxed)
            }
            rate_limit::ID => {
                RateLimit::new(params, self.limiter.clone(), self.clock.clone()).map(Policy::Rate)
            }
            other => (self.extensions.iter().find(|e| *e.id == *other)?.build)(params).map(Policy::Pure),
        })
    }
}

/// A policy as the pipeline runs it.
pub enum Policy {
    /// Decides from the facts alone.
    Pure(Box<dyn GovernancePolicy>),
    /// Counts, and may wait for the database that does.
    Rate(RateLimit),
}

/// Why a pipeline was refused.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("there is no policy `{id}`{}", hint(.suggestion.as_deref()))]
    UnknownPolicy { id: String, suggestion: Option<String> },
    #[error("the policy `{id}` is listed twice")]
    Duplicate { id: String },
    #[error("two policies are registered under the id `{id}`")]
    IdTaken { id: String },
    #[error("policy `{id}`: {source}")]
    Params { id: String, source: ParamError },
    #[error("policy `{id}`: the place of a built-in policy is fixed, remove `after`")]
    FixedPlace { id: String },
    #[error("policy `{id}` follows `{after}`, which does not exist or follows `{id}` itself{}", hint(.suggestion.as_deref()))]
    NoPlace { id: String, after: String, suggestion: Option<String> },
}

pub(super) struct Stage {
    pub(super) id: Arc<str>,
    /// None if it is switched off.
    pub(super) policy: Option<Policy>,
}

/// The compiled pipeline. A reload builds a new one; the old one serves until then.
pub struct Pipeline {
    enabled: bool,
    limits: Limits,
    stages: Vec<Stage>,
    scanner: Arc<SecretScanner>,
    in_use: Scanner,
    history: History,
}

impl Pipeline {
    /// The pipeline of a configuration. Policies that it does not list are on, with their defaults.
    pub fn from_config(config: &GovernanceConfig, parts: &Parts) -> Result<Self, PipelineError> {
        for (at, policy) in config.policies.iter().enumerate() {
            let id = &policy.id;
            if !parts.policy_ids().any(|known| known == id) {
                let suggestion = closest(id, parts.policy_ids());
                return Err(PipelineError::UnknownPolicy { id: id.clone(), suggestion });
            }
            if config.policies.iter().take(at).any(|p| p.id == *id) {
                return Err(PipelineError::Duplicate { id: id.clone() });
            }
            if policy.after.is_some() && BUILT_IN_POLICIES.contains(&id.as_str()) {
                return Err(PipelineError::FixedPlace { id: id.clone() });
            }
        }
        let stages = order(config, parts)?.into_iter().map(|id| stage(id, config, parts));
        Ok(Self {
            enabled: config.enabled,
            limits: parts.limits,
            stages: stages.collect::<Result<_, PipelineError>>()?,
            scanner: parts.scanner.clone(),
            in_use: parts.in_use.clone(),
            history: parts.history,
        })
    }

    /// Whether the pipeline as a whole is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Ids of the policies in their order, and whether each is on.
    pub fn policies(&self) -> impl Iterator<Item = (&str, bool)> {
        self.stages.iter().map(|s| (&*s.id, self.enabled && s.policy.is_some()))
    }

    pub(super) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// What becomes of a block that was refused in its conversation before.
    pub(super) fn history(&self) -> History {
        self.history
    }

    /// The scanner for secrets.
    pub fn scanner(&self) -> &Arc<SecretScanner> {
        &self.scanner
    }

    /// The values in use.
    pub fn in_use(&self) -> &Scanner {
        &self.in_use
    }

    /// Looks through the ids and names of a call, given with the pointers that findings in them bear.
    pub fn names<'n>(&self, names: impl IntoIterator<Item = (&'static str, Option<&'n str>)>) -> Names {
        Names::look(names, &self.scanner, &self.in_use)
    }

    /// A name as it may be stored: secrets and values in use replaced by their marks.
    pub fn conceal(&self, name: &str) -> String {
        let name = self.in_use.redact_text(name).map_or_else(|| name.to_owned(), |(clean, _)| clean);
        let parts = self.scanner.redact_text(&name);
        let parts: Vec<_> = parts.split(names::PARTED).map(|part| self.scanner.redact_text(part)).collect();
        parts.join(names::PARTED)
    }

    /// Decides on a call. A value in use refuses it before any policy is asked, also where the policies are switched off: that
    /// is no policy of an operator but what leasing a secret means.
    pub async fn evaluate(&self, facts: &CallFacts<'_>) -> Chain {
        let began = Instant::now();
        let mut chain = Chain {
            links: Vec::with_capacity(self.stages.len() + 1),
            verdict: Verdict::Allow,
            findings: Vec::new(),
            retry_after: None,
            leaks: Leaks::of(facts, &self.in_use),
            redactions: Vec::new(),
        };
        let start = Instant::now();
        if !chain.leaks.is_empty() {
            chain.verdict = Verdict::Deny(chain.leaks.denial());
            chain.links.push(Link {
                allowed_by: Vec::new(),
                detail: Some(leaks::REASON.into()),
                elapsed_us: micros(start - began),
                policy_id: leaks::ID.into(),
                result: LinkResult::Fail,
            });
        }
        for stage in &self.stages {
            let idle = |result| Link {
                allowed_by: Vec::new(),
                policy_id: stage.id.clone(),
                result,
                detail: None,
                elapsed_us: 0,
            };
            let link = match &stage.policy {
                Some(policy) if self.enabled => {
                    if matches!(chain.verdict, Verdict::Deny(_)) {
                        idle(LinkResult::Skip)
                    } else {
                        let began = Instant::now();
                        let outcome = match policy {
                            Policy::Pure(policy) => {
                                self.in_time(run(policy.as_ref(), facts), began.elapsed())
                            }
                            Policy::Rate(policy) => self.wait(policy.evaluate(facts), start.elapsed()).await,
                        };
                        let took = began.elapsed();
                        let outcome = self.in_chain_time(outcome, start.elapsed());
                        conclude(&mut chain, stage.id.clone(), outcome, took)
                    }
                }
                _ => idle(LinkResult::Disabled),
            };
            chain.links.push(link);
        }
        chain
    }

    /// Waits for a policy that waits for the database: it may have what the chain has left, for in a burst the calls wait for each
    /// other there.
    async fn wait(&self, outcome: impl Future<Output = Outcome>, spent: Duration) -> Outcome {
        let left = self.limits.chain.saturating_sub(spent);
        let waited = tokio::time::timeout(left, AssertUnwindSafe(outcome).catch_unwind()).await;
        match waited {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Fault { detail: "the policy panicked".into() },
            Err(_) => late("the chain", self.limits.chain),
        }
    }

    /// An outcome that came too late is a fault.
    fn in_time(&self, outcome: Outcome, policy: Duration) -> Outcome {
        match outcome {
            Outcome::Fault { .. } => outcome,
            _ if policy > self.limits.policy => late("the policy", self.limits.policy),
            _ => outcome,
        }
    }

    fn in_chain_time(&self, outcome: Outcome, chain: Duration) -> Outcome {
        match outcome {
            Outcome::Fault { .. } => outcome,
            _ if chain > self.limits.chain => late("the chain", self.limits.chain),
            _ => outcome,
        }
    }
}

fn late(what: &str, limit: Duration) -> Outcome {
    Outcome::Fault { detail: format!("{what} took longer than {} ms", limit.as_millis()).into() }
}

/// All policies in their order: the built-in ones, and each extension's behind the one that it follows.
fn order<'p>(config: &GovernanceConfig, parts: &'p Parts) -> Result<Vec<&'p str>, PipelineError> {
    let mut ids: Vec<&str> = BUILT_IN_POLICIES.to_vec();
    ids.retain(|id| !OFF_UNTIL_LISTED.contains(id) || entry(config, id).is_some());
    let mut open: Vec<(&str, Option<&str>)> = Vec::new();
    for extension in &parts.extensions {
        let id = &*extension.id;
        if ids.contains(&id) || open.iter().any(|(other, _)| *other == id) {
            return Err(PipelineError::IdTaken { id: id.to_owned() });
        }
        let listed = entry(config, id).and_then(|p| p.after.as_deref());
        let after = match listed {
            Some(name) => match parts.policy_ids().find(|known| *known == name) {
                Some(known) => Some(known),
                None => return Err(no_place(id, name, parts)),
            },
            None => extension.after.as_deref(),
        };
        open.push((id, after));
    }
    while !open.is_empty() {
        let before = open.len();
        let mut waiting = Vec::new();
        for (id, after) in open {
            match after.map(|a| ids.iter().position(|known| *known == a)) {
                None => ids.push(id),
                Some(Some(at)) => ids.insert(at + 1, id),
                Some(None) => waiting.push((id, after)),
            }
        }
        open = waiting;
        if let Some((id, after)) = open.first().filter(|_| open.len() == before) {
            return Err(no_place(id, after.unwrap_or_default(), parts));
        }
    }
    Ok(ids)
}

fn no_place(id: &str, after: &str, parts: &Parts) -> PipelineError {
    let known = parts.policy_ids().any(|k| k == after);
    let suggestion = if known { None } else { closest(after, parts.policy_ids()) };
    PipelineError::NoPlace { id: id.to_owned(), after: after.to_owned(), suggestion }
}

fn entry<'c>(config: &'c GovernanceConfig, id: &str) -> Option<&'c PolicyConfig> {
    config.policies.iter().find(|p| p.id == id)
}

/// Parameters are checked even if the policy is switched off, so that switching it on finds no fault.
fn stage(id: &str, config: &GovernanceConfig, parts: &Parts) -> Result<Stage, PipelineError> {
    let listed = entry(config, id);
    let params = listed.map_or(&Value::Null, |p| &p.params);
    let policy = parts
        .build(id, params)
        .ok_or_else(|| PipelineError::UnknownPolicy { id: id.to_owned(), suggestion: None })?
        .map_err(|source| PipelineError::Params { id: id.to_owned(), source })?;
    Ok(Stage { id: id.into(), policy: listed.is_none_or(|p| p.enabled).then_some(policy) })
}

/// A policy keeps no state that a panic could leave half changed: the counters of `rate_limit` are changed last.
pub(super) fn run(policy: &dyn GovernancePolicy, facts: &CallFacts<'_>) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| policy.evaluate(facts)))
        .unwrap_or_else(|_| Outcome::Fault { detail: "the policy panicked".into() })
}

/// Takes an outcome over into the chain and gives its link.
fn conclude(chain: &mut Chain, policy_id: Arc<str>, outcome: Outcome, took: Duration) -> Link {
    let denial = |reason: Cow<'static, str>, message| Denial { policy: policy_id.clone(), reason, message };
    let before = chain.findings.len();
    let (result, detail) = match outcome {
        Outcome::Pass { detail } => (LinkResult::Pass, detail),
        Outcome::Skip { detail } => (LinkResult::Skip, Some(detail)),
        Outcome::Flag { detail, findings } => {
            let all_allowed = !findings.is_empty() && findings.iter().all(|f| f.allowed_by.is_some());
            chain.findings.extend(findings);
            (if all_allowed { LinkResult::Pass } else { LinkResult::Flag }, Some(detail))
        }
        Outcome::Redact { reason, message, findings, redactions } => {
            chain.findings.extend(findings);
            let detail = message.clone();
            if chain.verdict == Verdict::Allow {
                chain.verdict = Verdict::Redact(denial(reason, message));
                chain.redactions = redactions;
            } else {
                // Two policies want the content changed, and neither knows of the other's change.
                chain.redactions.clear();
            }
            (LinkResult::Flag, Some(detail))
        }
        Outcome::Fail { reason, message, findings, retry_after } => {
            chain.findings.extend(findings);
            chain.retry_after = retry_after;
            let detail = reason.clone();
            chain.verdict = Verdict::Deny(denial(reason, message));
            (LinkResult::Fail, Some(detail))
        }
        Outcome::Fault { detail } => {
            let message = "this policy could not decide, which refuses the call".into();
            chain.verdict = Verdict::Deny(denial(FAULT.into(), message));
            (LinkResult::Fault, Some(detail))
        }
    };
    let found = chain.findings.get(before..).unwrap_or_default();
    let mut allowed_by: Vec<Arc<str>> = found.iter().filter_map(|f| f.allowed_by.clone()).collect();
    allowed_by.sort_unstable();
    allowed_by.dedup();
    Link { allowed_by, policy_id, result, detail, elapsed_us: micros(took) }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
