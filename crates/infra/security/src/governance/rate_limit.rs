//! `rate_limit` (SEC-84): how many calls a session may make. GCRA, counted exactly: 300 at once, then five a second, per
//! verified user and session; five times as much per user, so that inventing sessions gains nothing. A call that passes
//! several doors is charged once.
//!
//! On SQLite the counters are in memory: the one node counts all of its calls, and a start seeds them from the decisions of
//! the last minutes. On PostgreSQL they are rows that all nodes share. Either way they outlive a reload of the configuration.

mod shard;
mod shared;

use super::facts::{CallFacts, Origin};
use super::params::{self, ParamError};
use super::policy::Outcome;
use serde::Deserialize;
use serde_json::Value;
use shard::Shard;
pub use shard::{Charge, Rate};
use shared::Shared;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use systemprompt_database::Db;
use systemprompt_models::{Clock, Millis};

pub const ID: &str = "rate_limit";

const ALLOWED: [&str; 3] = ["limit", "window_s", "per_user_factor"];
/// Parts of the table that are locked on their own.
const SHARDS: usize = 64;

#[derive(Deserialize)]
#[serde(default)]
struct Params {
    limit: u32,
    window_s: u32,
    per_user_factor: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { limit: 300, window_s: 60, per_user_factor: 5 }
    }
}

/// The counters of all sessions and users.
pub struct RateLimiter(Counters);

enum Counters {
    Own(Own),
    Shared(Shared),
}

/// Counters of this node alone.
struct Own {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    second: RandomState,
}

/// A call that was charged before this start, as the decision rows of the last ten minutes tell it. Only calls that
/// reached the limit count: those that were allowed.
#[derive(Clone, Copy, Debug)]
pub struct PastCall<'a> {
    pub user_id: &'a str,
    pub session_id: &'a str,
    pub call_id: &'a str,
    pub origin: Origin,
    pub at: Millis,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl RateLimiter {
    /// Counters in memory, for a node that is alone with its database.
    pub fn new() -> Self {
        Self(Counters::Own(Own {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            hasher: RandomState::new(),
            second: RandomState::new(),
        }))
    }

    /// Counters in the database where several nodes may share it, else in memory.
    ///
    /// # Errors
    /// When the thread that charges them cannot be started.
    pub fn of(db: &Db) -> std::io::Result<Self> {
        Ok(match db {
            Db::Sqlite(_) => Self::new(),
            Db::Postgres(pool) => Self(Counters::Shared(Shared::new(pool.clone())?)),
        })
    }

    /// Charges a call, if the session's and the user's rate allow it. `call.at` is the present.
    pub async fn charge(&self, rate: &Rate, call: &PastCall<'_>) -> Charge {
        match &self.0 {
            Counters::Own(own) => own.charge(rate, call),
            Counters::Shared(shared) => shared.charge(rate, call).await,
        }
    }

    /// Takes over what was charged before this start; the order does not matter. `rate` is the configured one. Shared counters
    /// know it already.
    pub fn seed<'a>(&self, rate: &Rate, past: impl IntoIterator<Item = PastCall<'a>>) {
        let Counters::Own(own) = &self.0 else { return };
        let mut past: Vec<PastCall<'a>> = past.into_iter().collect();
        past.sort_by_key(|c| c.at);
        for call in &past {
            let id = own.call_key(call);
            own.with_shard(call.user_id, |shard| shard.seed(rate, call, id));
        }
    }

    /// Whether a start has to seed the counters.
    pub fn wants_seed(&self) -> bool {
        matches!(self.0, Counters::Own(_))
    }

    /// Removes shared counters that have run out, and calls that are too old to come again. Returns how many rows went.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sweep(&self, now: Millis) -> Result<u64, sqlx::Error> {
        match &self.0 {
            Counters::Own(_) => Ok(0),
            Counters::Shared(shared) => shared.sweep(now).await,
        }
    }
}

impl Own {
    fn charge(&self, rate: &Rate, call: &PastCall<'_>) -> Charge {
        let id = self.call_key(call);
        self.with_shard(call.user_id, |shard| shard.charge(rate, call, id)).unwrap_or(Charge::Full)
    }

    fn with_shard<T>(&self, user: &str, work: impl FnOnce(&mut Shard) -> T) -> Option<T> {
        let index = self.hasher.hash_one(user) as usize % SHARDS;
        self.shards.get(index).map(|s| work(&mut s.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// User and call id, as 128 bits under two keys of this process.
    fn call_key(&self, call: &PastCall<'_>) -> u128 {
        let key = (call.user_id, call.call_id);
        u128::from(self.hasher.hash_one(key)) << 64 | u128::from(self.second.hash_one(key))
    }
}

/// The policy: a rate, and the counters that it is held against.
pub struct RateLimit {
    rate: Rate,
    limiter: Arc<RateLimiter>,
    clock: Arc<dyn Clock>,
}

impl RateLimit {
    pub fn new(params: &Value, limiter: Arc<RateLimiter>, clock: Arc<dyn Clock>) -> Result<Self, ParamError> {
        Ok(Self { rate: rate(params)?, limiter, clock })
    }
}

/// The rate that parameters give.
pub fn rate(params: &Value) -> Result<Rate, ParamError> {
    let Params { limit, window_s, per_user_factor } = params::read(params, &ALLOWED)?;
    Rate::new(limit, window_s, per_user_factor).ok_or_else(|| {
        let message = "at least 1, at most: `limit` 10000000, `window_s` 86400, `per_user_factor` 1000, and a \
                       rate of 1000000 calls a millisecond";
        ParamError::value([], message)
    })
}

impl RateLimit {
    /// Charges the call. Unlike the other policies this one may wait, for the database.
    pub async fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome {
        if !facts.counted {
            return Outcome::Skip { detail: "a report on a call".into() };
        }
        let call = PastCall {
            user_id: facts.principal.user_id.as_str(),
            session_id: facts.principal.session_id.as_str(),
            call_id: facts.call_id.as_str(),
            origin: facts.origin,
            at: self.clock.now(),
        };
        match self.limiter.charge(&self.rate, &call).await {
            Charge::Admitted => Outcome::PASS,
            Charge::Known => Outcome::Pass { detail: Some("charged at another door".into()) },
            Charge::Limited { retry_after } => Outcome::Fail {
                reason: "rate_limit_exceeded".into(),
                message: format!(
                    "more than {} calls in {} s; try again in {retry_after} s",
                    self.rate.limit, self.rate.window_s
                )
                .into(),
                findings: Vec::new(),
                retry_after: Some(retry_after),
            },
            Charge::Full => Outcome::Fault { detail: "the table of rate counters is full".into() },
            Charge::Unavailable => {
                Outcome::Fault { detail: "the rate counters cannot be updated in the database".into() }
            }
        }
    }
}
