//! Retention (AUD-32, AUD-33): payloads whose time is over are deleted, records become stubs that keep the proof whole. Before
//! anything goes, a `system.retention` record says durably what: the cutoff of each kind, how many, and the digest of the list.

mod plan;

pub use crate::repository::retention::RetentionState;
pub(crate) use plan::{Digest, Plan, Told};

use crate::error::LedgerError;
use crate::ledger::Ledger;
use crate::lookup::LookupError;
use crate::payload::{Class, ClassCounts, PayloadRow};
use crate::record::{Draft, EntryKind};
use crate::repository::payloads::{self, Behind};
use crate::repository::retention::{self as rows, Part};
use crate::unit::Unit;
use plan::Progress;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use systemprompt_database::Db;
use systemprompt_models::{Millis, RequestContext};

pub const DAY_MS: Millis = 86_400_000;
/// When the daily run is due: 03:20 UTC.
const DUE_MS: Millis = (3 * 60 + 20) * 60_000;
/// How long a node has the job without renewing it.
const LEASE_MS: Millis = 10 * 60_000;
/// Entries that one retention record covers at most.
const COVERED: u64 = 20_000;
/// Entries that become stubs in one write transaction.
const PART: usize = 250;
const PAGE: i64 = 1000;
/// A body that no record has named for this long is swept.
const UNNAMED_MS: Millis = 10 * 60_000;
/// Rest between two write transactions, so that callers come first.
const REST: Duration = Duration::from_millis(5);

/// How long what is kept, in days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetentionRules {
    pub default_days: u32,
    /// By family, as `tool.*`.
    pub kinds: BTreeMap<String, u32>,
    pub payloads: PayloadDays,
}

/// How long the payloads of each class are kept, in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PayloadDays {
    pub inference: u32,
    pub tool: u32,
    pub change: u32,
    pub client: u32,
    pub note: u32,
}

impl Default for PayloadDays {
    fn default() -> Self {
        Self { inference: 30, tool: 90, change: 1100, client: 30, note: 400 }
    }
}

impl PayloadDays {
    pub fn of(&self, class: Class) -> u32 {
        match class {
            Class::Inference => self.inference,
            Class::Tool => self.tool,
            Class::Change => self.change,
            Class::Client => self.client,
            Class::Note => self.note,
        }
    }
}

impl Default for RetentionRules {
    fn default() -> Self {
        let kinds = [("admin.*".to_owned(), 1100)];
        Self { default_days: 400, kinds: kinds.into(), payloads: PayloadDays::default() }
    }
}

impl RetentionRules {
    /// Days for which records of a kind are kept; none: for ever.
    pub fn days(&self, kind: &str) -> Option<u32> {
        let family = kind.split('.').next().unwrap_or(kind);
        if family == "system" {
            return None;
        }
        Some(self.kinds.get(&format!("{family}.*")).copied().unwrap_or(self.default_days))
    }

    fn cutoff(now: Millis, days: u32) -> Millis {
        now - Millis::from(days) * DAY_MS
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionReport {
    pub started_at: Millis,
    pub finished_at: Millis,
    /// Payloads that were deleted, by class.
    pub payloads: ClassCounts,
    /// Records that became stubs, by kind.
    pub records: BTreeMap<String, u64>,
    /// Rows beside records that went with them.
    pub rows: u64,
    /// `system.retention` records that say so.
    pub covered_by: u64,
    /// Bodies that no record had named.
    pub swept: u64,
    /// Why the run ended before its end, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Why a run ended early. What was done is done; the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error("another node applies the retention")]
    Held,
    #[error("another node has taken the retention over")]
    Lost,
    #[error("the ledger did not take the record of what was about to go")]
    Ledger(#[from] LedgerError),
    #[error("the store failed")]
    Store(#[from] sqlx::Error),
    #[error("the look-up file could not forget what was pruned")]
    Lookup(#[from] LookupError),
    #[error("the node is stopping")]
    Stopping,
}

/// What is on record and being carried out, or was when a run was cut off.
pub(crate) async fn pending(db: &Db) -> sqlx::Result<Option<Plan>> {
    Ok(Plan::pending(&rows::state(db).await?))
}

/// The latest time, not after `now`, at which a run was due.
pub fn last_due(now: Millis) -> Millis {
    let today = now.div_euclid(DAY_MS) * DAY_MS + DUE_MS;
    if today <= now { today } else { today - DAY_MS }
}

impl Ledger {
    /// Applies the retention if a run is due and no other node does it; `None` when there is nothing to do.
    ///
    /// # Errors
    /// Why it ended early.
    pub async fn retain_if_due(
        &self,
        rules: &RetentionRules,
    ) -> Result<Option<RetentionReport>, RetentionError> {
        let due = last_due(self.now());
        if rows::state(self.db()).await?.started_at.is_some_and(|started| started >= due) {
            return Ok(None);
        }
        match self.claim_retention(due).await? {
            Some((epoch, state)) => self.retain(rules, None, epoch, &state).await.map(Some),
            None => Ok(None),
        }
    }

    /// Applies the retention now.
    ///
    /// # Errors
    /// When another node is at it, or why it ended early.
    pub async fn retain_now(
        &self,
        rules: &RetentionRules,
        by: &RequestContext,
    ) -> Result<RetentionReport, RetentionError> {
        let (epoch, state) = self.claim_retention(Millis::MAX).await?.ok_or(RetentionError::Held)?;
        self.retain(rules, Some(by), epoch, &state).await
    }

    /// The job as it stands.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn retention_state(&self) -> sqlx::Result<RetentionState> {
        rows::state(self.db()).await
    }

    /// Deletes bodies that were written for a record which never came. Returns how many.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub async fn sweep_bodies(&self) -> sqlx::Result<u64> {
        payloads::sweep_bodies(self.db(), self.now() - UNNAMED_MS).await
    }

    async fn claim_retention(&self, due: Millis) -> sqlx::Result<Option<(i64, RetentionState)>> {
        let now = self.now();
        let claimed = rows::claim(self.db(), self.stream(), now, now + LEASE_MS, due).await?;
        Ok(claimed.map(|state| (state.epoch, state)))
    }

    async fn retain(
        &self,
        rules: &RetentionRules,
        by: Option<&RequestContext>,
        epoch: i64,
        state: &RetentionState,
    ) -> Result<RetentionReport, RetentionError> {
        let _one = self.clearing().lock().await;
        let now = self.now();
        let report = RetentionReport { started_at: now, ..RetentionReport::default() };
        let mut run = Run { ledger: self, rules, by, epoch, now, report };
        let done = run.all(state).await;
        let mut report = run.report;
        report.finished_at = self.now();
        let progress = match &done {
            Ok(progress) => serde_json::to_string(progress).ok(),
            Err(error) => {
                report.failed = Some(error.to_string());
                None
            }
        };
        let result = serde_json::to_string(&report).unwrap_or_default();
        rows::finish(self.db(), epoch, report.finished_at, progress.as_deref(), &result).await?;
        done.map(|_| report)
    }
}

/// One run of the job.
struct Run<'a> {
    ledger: &'a Ledger,
    rules: &'a RetentionRules,
    by: Option<&'a RequestContext>,
    epoch: i64,
    now: Millis,
    report: RetentionReport,
}

impl Run<'_> {
    async fn all(&mut self, state: &RetentionState) -> Result<Progress, RetentionError> {
        // What a run that was cut off had recorded is carried out first.
        if let Some(plan) = Plan::pending(state) {
            self.carry_out(&plan).await?;
        }
        self.report.swept = self.ledger.sweep_bodies().await?;
        self.payloads().await?;
        let mut progress = Progress::read(state.progress.as_deref(), self.rules);
        let days: BTreeSet<u32> =
            self.rules.kinds.values().copied().chain([self.rules.default_days]).collect();
        let streams = self.ledger.reader().streams().await?;
        for days in days {
            for stream in &streams {
                let from = progress.done(days);
                let first =
                    rows::first_since(self.ledger.db(), &stream.stream, stream.head_seq, from).await?;
                self.records(&stream.stream, days, first).await?;
            }
            progress.set_done(days, RetentionRules::cutoff(self.now, days));
        }
        Ok(progress)
    }

    /// Keeps the job, and rests.
    async fn renew(&self, pending: Option<&str>) -> Result<(), RetentionError> {
        if self.ledger.is_stopping() {
            return Err(RetentionError::Stopping);
        }
        let until = self.ledger.now() + LEASE_MS;
        if !rows::renew(self.ledger.db(), self.epoch, until, pending).await? {
            return Err(RetentionError::Lost);
        }
        tokio::time::sleep(REST).await;
        Ok(())
    }

    fn draft(&self) -> Draft {
        match self.by {
            Some(by) => Draft::new(EntryKind::SystemRetention, by, "ok"),
            None => Draft::system(EntryKind::SystemRetention, "ok"),
        }
    }

    /// Makes a retention record durable; returns its id.
    async fn tell(&mut self, draft: Draft) -> Result<String, RetentionError> {
        let mut unit = Unit::new();
        let id = unit.record(draft).to_string();
        self.ledger.append(unit).await?;
        self.report.covered_by += 1;
        Ok(id)
    }

    /// Payloads whose class's time is over, in two passes: what there is, and, once that is on record, its end.
    async fn payloads(&mut self) -> Result<(), RetentionError> {
        let mut counts = ClassCounts::new();
        let mut cutoffs = Map::new();
        for class in Class::ALL {
            let cutoff = RetentionRules::cutoff(self.now, self.rules.payloads.of(class));
            let mut due = 0;
            for stream in self.ledger.reader().streams().await? {
                due += self.count_due(class, &stream.stream, cutoff).await?;
            }
            if due > 0 {
                counts.insert(class, due);
                cutoffs.insert(class.as_str().to_owned(), cutoff.into());
            }
        }
        if counts.is_empty() {
            return Ok(());
        }
        let total: u64 = counts.values().sum();
        let draft = self
            .draft()
            .with("scope", "payloads")
            .with("cutoffs", Value::Object(cutoffs))
            .with("counts", serde_json::to_value(&counts).unwrap_or_default())
            .with("count", total);
        self.tell(draft).await?;
        for class in counts.into_keys() {
            let cutoff = RetentionRules::cutoff(self.now, self.rules.payloads.of(class));
            for stream in self.ledger.reader().streams().await? {
                let deleted = self.delete_due(class, &stream.stream, cutoff).await?;
                *self.report.payloads.entry(class).or_default() += deleted;
            }
        }
        Ok(())
    }

    async fn count_due(&self, class: Class, stream: &str, cutoff: Millis) -> sqlx::Result<u64> {
        let (mut behind, mut count) = (Behind::default(), 0);
        loop {
            let (due, more) = self.due_page(class, stream, cutoff, &behind).await?;
            count += due.len() as u64;
            match due.last() {
                Some(last) if more => behind = Behind::of(last),
                _ => return Ok(count),
            }
        }
    }

    async fn delete_due(&self, class: Class, stream: &str, cutoff: Millis) -> Result<u64, RetentionError> {
        let mut deleted = 0;
        loop {
            let (due, more) = self.due_page(class, stream, cutoff, &Behind::default()).await?;
            for part in payloads::portions(&due) {
                deleted += payloads::delete(self.ledger.db(), part).await?;
                self.renew(None).await?;
            }
            if !more || due.is_empty() {
                return Ok(deleted);
            }
        }
    }

    /// The oldest payloads behind a place that are due, and whether there may be more.
    async fn due_page(
        &self,
        class: Class,
        stream: &str,
        cutoff: Millis,
        behind: &Behind,
    ) -> sqlx::Result<(Vec<PayloadRow>, bool)> {
        let mut page = payloads::page(self.ledger.db(), class, stream, behind, PAGE).await?;
        let read = page.len();
        // The time of records never falls within a stream.
        page.retain(|row| row.at < cutoff);
        let more = read as i64 == PAGE && page.len() == read;
        Ok((page, more))
    }

    /// Records of a stream whose kinds are kept for `days`, from `first` on, where an earlier run ended.
    async fn records(&mut self, stream: &str, days: u32, first: i64) -> Result<(), RetentionError> {
        let cutoff = RetentionRules::cutoff(self.now, days);
        let mut after = first - 1;
        let mut plan = Plan::new(stream);
        loop {
            let page = rows::members(self.ledger.db(), stream, after, PAGE).await?;
            let mut is_over = (page.len() as i64) < PAGE;
            for member in &page {
                if member.at >= cutoff {
                    is_over = true;
                    break;
                }
                after = member.seq;
                if member.is_stub == 0 && self.rules.days(&member.kind) == Some(days) {
                    plan.add(member, cutoff);
                }
            }
            if plan.count >= COVERED || (is_over && plan.count > 0) {
                let plan = std::mem::replace(&mut plan, Plan::new(stream));
                self.cover(plan).await?;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Records what is about to go, and lets it go.
    async fn cover(&mut self, mut plan: Plan) -> Result<(), RetentionError> {
        let draft = self
            .draft()
            .with("scope", "records")
            .with("stream", plan.stream.as_str())
            .with("from", plan.from)
            .with("to", plan.to)
            .with("cutoffs", serde_json::to_value(&plan.cutoffs).unwrap_or_default())
            .with("count", plan.count)
            .with("sha256", plan.digest.finish());
        plan.by = self.tell(draft).await?;
        self.carry_out(&plan).await
    }

    /// Makes stubs of what a record covers. Doing it twice changes nothing the second time.
    async fn carry_out(&mut self, plan: &Plan) -> Result<(), RetentionError> {
        let pending = serde_json::to_string(plan).unwrap_or_default();
        self.renew(Some(&pending)).await?;
        let mut after = plan.from - 1;
        while after < plan.to {
            let page = rows::members(self.ledger.db(), &plan.stream, after, PAGE).await?;
            let page: Vec<_> = page.into_iter().filter(|member| member.seq <= plan.to).collect();
            let Some(last) = page.last() else { break };
            after = last.seq;
            for members in page.chunks(PART) {
                self.prune(plan, members).await?;
                self.renew(Some(&pending)).await?;
            }
        }
        if let Some(lookup) = self.ledger.lookup() {
            lookup.forget(&plan.stream, plan.from, plan.to).await?;
        }
        self.renew(None).await
    }

    async fn prune(&mut self, plan: &Plan, members: &[rows::Member]) -> Result<(), RetentionError> {
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        let due = members.iter().filter(|member| member.is_stub == 0 && plan.covers(&member.kind, member.at));
        let due: Vec<_> = due.collect();
        for member in &due {
            *kinds.entry(&member.kind).or_default() += 1;
        }
        let (Some(first), Some(last)) = (due.first(), due.last()) else { return Ok(()) };
        let ids = due.iter().map(|member| member.id.as_str());
        let (least, most) = (ids.clone().min().unwrap_or_default(), ids.max().unwrap_or_default());
        let part =
            Part { stream: &plan.stream, from: first.seq, to: last.seq, ids: (least, most), by: &plan.by };
        let of_kind = |kind: &&str| Some(((*kind).to_owned(), *plan.cutoffs.get(*kind)?));
        let cutoffs: Vec<(String, Millis)> = kinds.keys().filter_map(of_kind).collect();
        let (_, rows) = rows::prune(self.ledger.db(), self.ledger.tables(), &part, &cutoffs).await?;
        self.report.rows += rows;
        for (kind, count) in kinds {
            *self.report.records.entry(kind.to_owned()).or_default() += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
