//! Allow lists (SEC-88): findings that somebody answers for. An entry names a rule and narrows it, by the digest of one value, by
//! tool, by place or by time; what it lets pass stays a finding, with the entry's id. The list is empty as shipped: examples of
//! documentation are refused like real keys.

pub mod error;
pub mod store;
#[cfg(test)]
mod tests;

pub use error::AllowError;
pub use store::AllowStore;

use super::facts::CallFacts;
use super::scan::Finding;
use super::tool_name::{ToolName, fits};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use systemprompt_models::{Clock, Millis};

/// Longest reason and owner, in characters.
pub const MAX_TEXT: usize = 200;
/// Longest pattern of a tool or a place, in bytes.
pub const MAX_PATTERN: usize = 256;
/// Longest life of an entry that has an end, in seconds: ten years.
pub const MAX_LIFE_S: u64 = 315_360_000;
/// A copy that is older than this counts for nothing: what it lets pass may have been taken back.
pub const MAX_AGE: Millis = 60_000;

/// An entry, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allowance {
    pub id: Arc<str>,
    pub rule_id: String,
    /// The one value, as findings bear it.
    pub hmac: Option<String>,
    /// Tools; `*` stands for any text.
    pub tool: Option<String>,
    /// JSON pointers; `*` stands for any text.
    pub pointer: Option<String>,
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    pub created_by: String,
    pub created_at: Millis,
    pub expires_at: Option<Millis>,
}

/// An entry to be made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAllowance {
    pub rule_id: String,
    #[serde(default)]
    pub hmac: Option<String>,
    #[serde(default)]
    pub tool: Option<String>,
    #[serde(default)]
    pub pointer: Option<String>,
    pub reason: String,
    pub owner: String,
    /// Seconds; until it is removed if absent.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
}

impl NewAllowance {
    fn check(&self, known: &dyn Fn(&str) -> bool) -> Result<(), AllowError> {
        let invalid = |field, message: String| Err(AllowError::Invalid { field, message });
        if !known(&self.rule_id) {
            return invalid("rule_id", format!("there is no rule `{}`", self.rule_id));
        }
        if let Some(hmac) = &self.hmac
            && !(hmac.len() == 32 && hmac.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        {
            return invalid("hmac", "the 32 hex digits that a finding bears, never the value itself".into());
        }
        for (field, pattern) in [("tool", &self.tool), ("pointer", &self.pointer)] {
            if pattern.as_ref().is_some_and(|p| p.is_empty() || p.len() > MAX_PATTERN) {
                return invalid(field, format!("1 to {MAX_PATTERN} bytes"));
            }
        }
        if self.pointer.as_ref().is_some_and(|p| !p.starts_with(['/', '*'])) {
            return invalid("pointer", "begins with `/` or `*`".into());
        }
        for (field, text) in [("reason", &self.reason), ("owner", &self.owner)] {
            let length = text.trim().chars().count();
            if !(1..=MAX_TEXT).contains(&length) {
                return invalid(field, format!("1 to {MAX_TEXT} characters"));
            }
        }
        if self.expires_in_s.is_some_and(|seconds| !(1..=MAX_LIFE_S).contains(&seconds)) {
            return invalid("expires_in_s", format!("1 to {MAX_LIFE_S}; leave it out for no end"));
        }
        // A pattern of asterisks alone fits whatever there is.
        let narrows = |pattern: &Option<String>| {
            pattern.as_ref().is_some_and(|p| !p.contains('*') || p.bytes().any(|b| !matches!(b, b'*' | b'/')))
        };
        if self.hmac.is_none()
            && !narrows(&self.tool)
            && !narrows(&self.pointer)
            && self.expires_in_s.is_none()
        {
            let message = "an entry narrows its rule: give `hmac`, `tool`, `pointer` (more than `*`) or `expires_in_s`; a rule is switched \
                           off in the policy's `rules`";
            return invalid("rule_id", message.into());
        }
        Ok(())
    }
}

/// The entries in force on this node. Clones share one copy.
#[derive(Clone)]
pub struct AllowList(Arc<List>);

struct List {
    clock: Arc<dyn Clock>,
    entries: ArcSwap<Vec<Allowance>>,
    confirmed_at: AtomicI64,
}

impl std::fmt::Debug for AllowList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AllowList").field("entries", &self.0.entries.load().len()).finish_non_exhaustive()
    }
}

impl AllowList {
    /// A list without entries.
    pub fn empty(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(List { clock, entries: ArcSwap::default(), confirmed_at: AtomicI64::new(0) }))
    }

    fn replace(&self, entries: Vec<Allowance>, at: Millis) {
        self.0.entries.store(Arc::new(entries));
        self.confirm(at);
    }

    fn confirm(&self, at: Millis) {
        self.0.confirmed_at.store(at, Ordering::Relaxed);
    }

    /// Notes on each finding which entry lets it pass.
    pub fn apply(&self, facts: &CallFacts<'_>, findings: &mut [Finding]) {
        let entries = self.0.entries.load();
        if entries.is_empty() || findings.is_empty() {
            return;
        }
        let now = self.0.clock.now();
        if now.saturating_sub(self.0.confirmed_at.load(Ordering::Relaxed)) > MAX_AGE {
            return;
        }
        let tool = facts.tool.map(|tool| ToolName::new(tool, facts.server));
        for finding in findings {
            let entry = entries.iter().find(|e| e.covers(finding, tool.as_ref(), now));
            finding.allowed_by = entry.map(|e| Arc::clone(&e.id));
        }
    }
}

impl Allowance {
    fn covers(&self, finding: &Finding, tool: Option<&ToolName<'_>>, now: Millis) -> bool {
        *self.rule_id == *finding.rule_id
            && self.expires_at.is_none_or(|end| now < end)
            && self.hmac.as_deref().is_none_or(|hmac| *hmac == *finding.hmac)
            && self.pointer.as_deref().is_none_or(|pattern| fits(pattern, &finding.pointer))
            && self.tool.as_deref().is_none_or(|pattern| {
                tool.is_some_and(|t| t.is(pattern) || fits(pattern, t.given) || fits(pattern, &t.qualified()))
            })
    }
}
