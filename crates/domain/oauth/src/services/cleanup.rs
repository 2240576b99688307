//! The job `oauth_cleanup`: rows whose time is over go, a little at a time, on one node (ID-104).

use crate::constants::CODE_REUSE_MEMORY;
use crate::error::OauthResult;
use crate::repository::oauth::cleanup::Ended;
use crate::services::clients::cleanup as clients;
use crate::state::OAuthState;
use serde::Serialize;
use std::collections::BTreeMap;
use systemprompt_models::Millis;

/// How often the job is due.
const EVERY: Millis = 10 * 60_000;
/// How long a node has the job without a sign of life.
const LEASE: Millis = 5 * 60_000;
/// Most rows of one transaction; fewer where those take too long.
const BATCH: i64 = 1000;
/// Rows of the first one.
const FIRST: i64 = 100;
/// A transaction that took longer is followed by a smaller one, since every caller waits for it; one that took less than half of it
/// by a larger one.
const LONGEST: Millis = 4;
const DAY: Millis = 86_400_000;
/// How long refresh tokens stay behind the end of their family, and sessions behind their own.
const FAMILY_MEMORY: Millis = 7 * DAY;
const SESSION_MEMORY: Millis = 30 * DAY;
/// How long a notice can be read.
const NOTICE_MEMORY: Millis = 90 * DAY;
/// Rest between two transactions, so that callers come first.
const REST: std::time::Duration = std::time::Duration::from_millis(5);
/// Most transactions of one run for one table; the next run goes on.
const MAX_ROUNDS: usize = 50_000;

/// What a run deleted, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CleanupReport {
    pub deleted: BTreeMap<&'static str, u64>,
    pub elapsed_ms: Millis,
}

/// Whose rows go.
#[derive(Clone, Copy)]
enum Rows {
    Of(Ended),
    /// The security plane's.
    Sessions,
}

impl OAuthState {
    /// Runs the job if it is due and no other node has it.
    ///
    /// # Errors
    /// When rows cannot be read or deleted; the next run goes on.
    pub async fn clean_up_if_due(&self, node: &str) -> OauthResult<Option<CleanupReport>> {
        let now = self.now();
        let Some(epoch) = self.oauth.claim_cleanup(node, now, now + LEASE, now - EVERY).await? else {
            return Ok(None);
        };
        let report = self.clean_up(epoch).await;
        let result = match &report {
            Ok(report) => serde_json::to_string(report).unwrap_or_default(),
            Err(error) => format!("{{\"failed\":\"{}\"}}", error.code().as_str()),
        };
        self.oauth.finish_cleanup(epoch, self.now(), &result).await?;
        report.map(Some)
    }

    async fn clean_up(&self, epoch: i64) -> OauthResult<CleanupReport> {
        let began = self.now();
        let mut report = CleanupReport::default();
        for (ended, memory) in [
            (Ended::AuthCodes, CODE_REUSE_MEMORY),
            (Ended::RefreshTokens, FAMILY_MEMORY),
            (Ended::Grants, FAMILY_MEMORY),
            (Ended::AssertionJtis, 0),
            (Ended::DeviceCodes, 0),
            (Ended::ParRequests, 0),
            (Ended::AuthorizeRequests, 0),
            (Ended::Challenges, 0),
            (Ended::ExchangeCodes, 0),
            (Ended::SetupTokens, 0),
            (Ended::AuthAttempts, DAY),
            (Ended::CimdDocuments, DAY),
            (Ended::UserRequests, 0),
            (Ended::UserNotices, NOTICE_MEMORY),
        ] {
            let count = self.in_batches(epoch, Rows::Of(ended), began - memory).await?;
            report.deleted.insert(ended.table(), count);
        }
        let sessions = self.in_batches(epoch, Rows::Sessions, began - SESSION_MEMORY).await?;
        report.deleted.insert("user_sessions", sessions);
        report.deleted.insert("oauth_clients", clients::unused_clients(self, BATCH).await?);
        report.deleted.insert("oauth_fetch_budget", clients::fetch_budgets(self, BATCH).await?);
        for (table, rows) in &report.deleted {
            self.meter.cleaned(table, *rows);
        }
        report.elapsed_ms = self.now() - began;
        Ok(report)
    }

    /// Deletes until nothing is left, in transactions that stay short. Ends early when another node has taken the job.
    async fn in_batches(&self, epoch: i64, rows: Rows, before: Millis) -> OauthResult<u64> {
        let (mut batch, mut total, mut renewed) = (FIRST, 0, self.now());
        for _ in 0..MAX_ROUNDS {
            let began = self.now();
            let deleted = match rows {
                Rows::Of(ended) => self.oauth.delete_ended(ended, before, batch).await?,
                Rows::Sessions => self.sessions.delete_ended(before, batch).await?,
            };
            total += deleted;
            if deleted < batch.cast_unsigned() {
                break;
            }
            let now = self.now();
            if now - began > LONGEST {
                batch = (batch / 2).max(20);
            } else if now - began < LONGEST / 2 {
                batch = (batch * 2).min(BATCH);
            }
            if now - renewed > LEASE / 10 {
                if !self.oauth.renew_cleanup(epoch, now + LEASE).await? {
                    break;
                }
                renewed = now;
            }
            tokio::time::sleep(REST).await;
        }
        Ok(total)
    }

    /// Counts the sessions that count and the clients that registered themselves, for the metrics.
    ///
    /// # Errors
    /// When they cannot be read; what was counted before stands.
    pub async fn measure(&self) -> OauthResult<()> {
        let most = i64::from(self.settings().identity.registration_max_clients);
        let sessions = self.sessions.count_live().await?;
        self.meter.measured(sessions, self.clients.count_registered().await?, most);
        Ok(())
    }

    /// Writes the entries of refusals that were counted in minutes that are over.
    pub async fn record_refusals(&self) {
        for draft in self.refusals.take(self.now()) {
            if let Err(error) = self.record(draft).await {
                tracing::warn!(%error, "counted refusals could not be recorded");
            }
        }
    }
}
