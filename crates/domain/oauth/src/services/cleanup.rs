//! The job `oauth_cleanup`: rows whose time is over go, a little at a time, on one node (ID-104).

use crate::constants::CODE_REUSE_MEMORY;
use crate::error::OauthResult;
use crate::repository::api_keys::ApiKeyRepository;
use crate::repository::bridge_session::BridgeSessionRepository;
use crate::repository::oauth::cleanup::Ended;
use crate::services::clients::cleanup as clients;
use crate::state::OAuthState;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use systemprompt_database::Engine;
use systemprompt_models::Millis;

/// How often the job is due.
const EVERY: Millis = 10 * 60_000;
/// How long a node has the job without a sign of life.
const LEASE: Millis = 5 * 60_000;
/// Most rows of one transaction; fewer where those take too long.
const BATCH: i64 = 1000;
/// Rows of the first one, and fewest of any.
const FIRST: i64 = 100;
const FEWEST: i64 = 20;
/// A transaction that took longer is followed by a smaller one, one that took less than half of it by a larger one. Everybody who
/// writes to SQLite waits for it, nobody on PostgreSQL (ID-104).
const LONGEST_ALONE: Duration = Duration::from_millis(3);
const LONGEST: Duration = Duration::from_millis(50);
const DAY: Millis = 86_400_000;
/// How long refresh tokens stay behind the end of their family, and sessions behind their own.
const FAMILY_MEMORY: Millis = 7 * DAY;
const SESSION_MEMORY: Millis = 30 * DAY;
/// How long an API key is listed that has ended.
const KEY_MEMORY: Millis = 365 * DAY;
/// How long a notice can be read.
const NOTICE_MEMORY: Millis = 90 * DAY;
/// Rest between two transactions, so that callers come first.
const REST: Duration = Duration::from_millis(10);
/// Most turns of one run for one table; the next run goes on.
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
    ApiKeys,
    BridgeSessions,
    /// The security plane's.
    Sessions,
    Revocations,
    Cutoffs,
}

/// Where a run stands.
struct Run {
    epoch: i64,
    /// How long a transaction may take.
    longest: Duration,
    /// Rows of the next transaction.
    batch: i64,
    rounds: usize,
    renewed: Millis,
    /// No other node has taken it.
    has_job: bool,
}

impl Run {
    fn begin_table(&mut self) {
        self.batch = FIRST;
        self.rounds = 0;
    }

    fn goes_on(&mut self) -> bool {
        self.rounds += 1;
        self.has_job && self.rounds <= MAX_ROUNDS
    }

    fn pace(&mut self, held: Duration) {
        if held > self.longest {
            self.batch = (self.batch / 2).max(FEWEST);
        } else if held < self.longest / 2 {
            self.batch = (self.batch * 2).min(BATCH);
        }
    }
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
        let longest = match self.oauth.engine() {
            Engine::Sqlite => LONGEST_ALONE,
            Engine::Postgres => LONGEST,
        };
        let mut run = Run { epoch, longest, batch: FIRST, rounds: 0, renewed: began, has_job: true };
        let mut report = CleanupReport::default();
        for (ended, memory) in [
            (Ended::AuthCodes, CODE_REUSE_MEMORY),
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
            (Ended::FetchBudgets, 0),
        ] {
            let count = self.drain(&mut run, Rows::Of(ended), began - memory).await?;
            report.deleted.insert(ended.table(), count);
        }
        let (tokens, grants) = self.drain_families(&mut run, began - FAMILY_MEMORY).await?;
        report.deleted.insert(Ended::RefreshTokens.table(), tokens);
        report.deleted.insert(Ended::Grants.table(), grants);
        for (rows, table, memory) in [
            (Rows::ApiKeys, "user_api_keys", KEY_MEMORY),
            (Rows::BridgeSessions, "bridge_sessions", SESSION_MEMORY),
            (Rows::Sessions, "user_sessions", SESSION_MEMORY),
            (Rows::Revocations, "oauth_jti_revocations", 0),
            (Rows::Cutoffs, "token_cutoffs", 0),
        ] {
            let count = self.drain(&mut run, rows, began - memory).await?;
            report.deleted.insert(table, count);
        }
        if run.has_job {
            report.deleted.insert("oauth_clients", clients::unused_clients(self, BATCH).await?);
        }
        for (table, rows) in &report.deleted {
            self.meter.cleaned(table, *rows);
        }
        report.elapsed_ms = self.now() - began;
        Ok(report)
    }

    /// Deletes what one table has too much.
    async fn drain(&self, run: &mut Run, rows: Rows, before: Millis) -> OauthResult<u64> {
        run.begin_table();
        let mut total = 0;
        while run.goes_on() {
            let limit = run.batch.cast_unsigned();
            let deleted = self.delete_batch(run, rows, before).await?;
            total += deleted;
            if deleted < limit {
                break;
            }
        }
        Ok(total)
    }

    /// Deletes refresh tokens and then the grants that have none left, by turns. Returns how many of each.
    async fn drain_families(&self, run: &mut Run, before: Millis) -> OauthResult<(u64, u64)> {
        run.begin_table();
        let mut total = (0, 0);
        while run.goes_on() {
            let tokens = self.delete_batch(run, Rows::Of(Ended::RefreshTokens), before).await?;
            let grants = self.delete_batch(run, Rows::Of(Ended::Grants), before).await?;
            total = (total.0 + tokens, total.1 + grants);
            if tokens + grants == 0 {
                break;
            }
        }
        Ok(total)
    }

    /// One transaction and the rest after it; renews the lease when that is due.
    async fn delete_batch(&self, run: &mut Run, rows: Rows, before: Millis) -> OauthResult<u64> {
        let deleted = match rows {
            Rows::Of(ended) => self.oauth.delete_ended(ended, before, run.batch).await?,
            Rows::ApiKeys => ApiKeyRepository::new(self.db.clone()).delete_ended(before, run.batch).await?,
            Rows::BridgeSessions => {
                BridgeSessionRepository::new(self.db.clone()).delete_unseen(before, run.batch).await?
            }
            Rows::Sessions => self.sessions.delete_ended(before, run.batch).await?,
            Rows::Revocations => self.sessions.delete_revocations(before, run.batch).await?,
            Rows::Cutoffs => self.sessions.delete_cutoffs(before, run.batch).await?,
        };
        run.pace(deleted.held);
        let now = self.now();
        if now - run.renewed > LEASE / 10 {
            run.has_job = self.oauth.renew_cleanup(run.epoch, now + LEASE).await?;
            run.renewed = now;
        }
        if deleted.rows > 0 {
            tokio::time::sleep(REST).await;
        }
        Ok(deleted.rows)
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
