//! Counters that several nodes share: rows in PostgreSQL, charged in batches. A batch takes what has come while the one before it
//! ran, so that the cost of a transaction is shared by all calls that wait for it.
//!
//! The batches are made by a thread of its own with a small runtime of its own: on the server's, each answer of the database
//! would wait until the workers have no request left to look at.

use super::PastCall;
use super::shard::{CALL_LIFE, Charge, Rate, door, nanos, seconds};
use crate::repository::rates::{self, Calls, Charged, Claim, Granted, Prices, RateConnection, Terms};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use sqlx::PgPool;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use systemprompt_models::Millis;
use systemprompt_models::ids::CallId;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Most charges that wait; further calls are refused.
const MAX_WAITING: usize = 8192;
/// Most charges of one transaction.
const MAX_BATCH: usize = 512;
/// Longest that a batch may take; what it charged is taken back then.
const BATCH_TIME: Duration = Duration::from_secs(2);
/// How long a counter that ran out is kept: long enough that sweeping is rare.
const IDLE_NANOS: i64 = 86_400_000_000_000;

/// The counters of all nodes of one database. The thread ends with this value.
pub(super) struct Shared {
    pool: PgPool,
    waiting: mpsc::Sender<Pending>,
}

struct Pending {
    wanted: Wanted,
    answer: oneshot::Sender<Charge>,
}

/// A charge with the keys of its rows.
struct Wanted {
    rate: Rate,
    at: Millis,
    user: String,
    session: String,
    /// Of a call whose id came from outside; nobody else knows one that was made here.
    call: Option<String>,
    door: i64,
}

impl Wanted {
    fn of(rate: &Rate, call: &PastCall<'_>) -> Self {
        Self {
            rate: *rate,
            at: call.at,
            user: format!("user/{}", call.user_id),
            session: format!("session/{}/{}", call.user_id, call.session_id),
            call: CallId::from(call.call_id).uuid().is_none().then(|| call_key(call)),
            door: i64::from(door(call.origin)),
        }
    }
}

/// User and call id, in a length that a client cannot choose.
fn call_key(call: &PastCall<'_>) -> String {
    let mut digest = Digest::new(&SHA256);
    digest.update(call.user_id.as_bytes());
    digest.update(b"\0");
    digest.update(call.call_id.as_bytes());
    hex::encode(digest.finish().as_ref().get(..16).unwrap_or_default())
}

impl Shared {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn new(pool: PgPool) -> std::io::Result<Self> {
        let (waiting, charges) = mpsc::channel(MAX_WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Worker {
            conn: RateConnection::of(&pool),
            charges,
            next: VecDeque::new(),
            callers: Handle::current(),
        };
        std::thread::Builder::new()
            .name("call-limit".into())
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok(Self { pool, waiting })
    }

    pub(super) async fn charge(&self, rate: &Rate, call: &PastCall<'_>) -> Charge {
        let (answer, answered) = oneshot::channel();
        match self.waiting.try_send(Pending { wanted: Wanted::of(rate, call), answer }) {
            Ok(()) => answered.await.unwrap_or(Charge::Unavailable),
            Err(mpsc::error::TrySendError::Full(_)) => Charge::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Charge::Unavailable,
        }
    }

    pub(super) async fn sweep(&self, now: Millis) -> Result<u64, sqlx::Error> {
        rates::sweep(&self.pool, now - CALL_LIFE, nanos(now) - IDLE_NANOS).await
    }
}

/// Makes the batches.
struct Worker {
    conn: RateConnection,
    charges: mpsc::Receiver<Pending>,
    /// What was received and does not go along with the batch before it.
    next: VecDeque<Pending>,
    /// Where those run who wait.
    callers: Handle,
}

impl Worker {
    async fn run(mut self) {
        while let Some(batch) = self.batch().await {
            let (wanted, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|pending| (pending.wanted, pending.answer)).unzip();
            let charged = tokio::time::timeout(BATCH_TIME, charge_all(&mut self.conn, &wanted)).await;
            let failed = match charged {
                Ok(Ok(charges)) => {
                    // To wake them from within their runtime is cheaper than from here, one after another.
                    self.callers.spawn(async move {
                        for (answer, charge) in answers.into_iter().zip(charges) {
                            let _ = answer.send(charge);
                        }
                    });
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer in {BATCH_TIME:?}"),
            };
            // Who waits hears of it by the end of their channel.
            tracing::error!(error = failed, calls = wanted.len(), "the call limit could not be charged");
            self.conn.forget();
        }
    }

    /// The charges that go together: of one rate, which changes when the configuration does, and of each call one, so that a
    /// second door finds what became of the first. None when nobody charges any more.
    async fn batch(&mut self) -> Option<Vec<Pending>> {
        if self.next.is_empty() {
            self.next.push_back(self.charges.recv().await?);
        }
        while self.next.len() < MAX_BATCH
            && let Ok(pending) = self.charges.try_recv()
        {
            self.next.push_back(pending);
        }
        let rate = self.next.front()?.wanted.rate;
        let mut calls: HashSet<&str> = HashSet::new();
        let goes_along = |Pending { wanted, .. }: &&Pending| wanted.rate == rate;
        let mut count = 0;
        for Pending { wanted, .. } in self.next.iter().take_while(goes_along) {
            if wanted.call.as_deref().is_some_and(|call| !calls.insert(call)) {
                break;
            }
            count += 1;
        }
        Some(self.next.drain(..count).collect())
    }
}

/// Charges a batch in one transaction: calls that were paid at another door cost nothing; the others need a free cell of their
/// session and of their user.
async fn charge_all(conn: &mut RateConnection, wanted: &[Wanted]) -> Result<Vec<Charge>, sqlx::Error> {
    let Some(rate) = wanted.first().map(|w| w.rate) else { return Ok(Vec::new()) };
    let at = wanted.iter().map(|w| w.at).max().unwrap_or_default();
    let now = nanos(at);
    let prices = Prices {
        at,
        expired: at - CALL_LIFE,
        session: Terms { cost: rate.session, depth: rate.session_depth, now },
        user: Terms { cost: rate.user, depth: rate.user_depth, now },
    };
    let mut batch = Batch { wanted, outcomes: vec![None; wanted.len()] };
    let mut tx = conn.begin().await?;
    let Charged { claims, sessions, users } = tx.charge(&batch.calls(), &prices).await?;
    batch.pass_paid(&claims);
    batch.apply(&sessions, prices.session, |w| &w.session);
    // A user is asked only for what the sessions let through, so that only a user's own limit gives anything back.
    let mut back: HashMap<&str, i64> = HashMap::new();
    for refused in batch.apply(&users, prices.user, |w| &w.user) {
        *back.entry(&refused.session).or_default() += rate.session;
    }
    if !back.is_empty() {
        tx.refund(&back).await?;
    }
    let unpaid = batch.unpaid(&claims);
    if !unpaid.is_empty() {
        tx.unclaim(unpaid).await?;
    }
    tx.commit().await?;
    Ok(batch.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Charge::Admitted)).collect())
}

/// What is known of each charge of a batch so far.
struct Batch<'w> {
    wanted: &'w [Wanted],
    /// None while nothing speaks against it.
    outcomes: Vec<Option<Charge>>,
}

impl<'w> Batch<'w> {
    fn calls(&self) -> Calls<'w> {
        let mut calls = Calls::default();
        for wanted in self.wanted {
            calls.keys.push(wanted.call.as_deref());
            calls.doors.push(wanted.door);
            calls.sessions.push(&wanted.session);
            calls.users.push(&wanted.user);
        }
        calls
    }

    fn pass_paid(&mut self, claims: &HashMap<String, Claim>) {
        for (outcome, wanted) in self.outcomes.iter_mut().zip(self.wanted) {
            if wanted.call.as_ref().and_then(|call| claims.get(call)) == Some(&Claim::Paid) {
                *outcome = Some(Charge::Known);
            }
        }
    }

    /// Gives what was granted to the calls in their order, and refuses the rest; returns those.
    fn apply(
        &mut self,
        granted: &HashMap<String, Granted>,
        terms: Terms,
        key: impl Fn(&'w Wanted) -> &'w str,
    ) -> Vec<&'w Wanted> {
        let mut left: HashMap<&str, i64> = granted.iter().map(|(key, g)| (key.as_str(), g.calls)).collect();
        let mut refused = Vec::new();
        for (outcome, wanted) in self.outcomes.iter_mut().zip(self.wanted).filter(|(o, _)| o.is_none()) {
            match left.get_mut(key(wanted)) {
                Some(left) if *left > 0 => *left -= 1,
                _ => {
                    let tat = granted.get(key(wanted)).map_or(terms.now, |g| g.tat);
                    let over = tat + terms.cost - terms.depth - terms.now;
                    *outcome = Some(Charge::Limited { retry_after: seconds(over) });
                    refused.push(wanted);
                }
            }
        }
        refused
    }

    /// Calls that were claimed by this batch, and then refused.
    fn unpaid(&self, claims: &HashMap<String, Claim>) -> Vec<&'w str> {
        let refused = self.outcomes.iter().zip(self.wanted).filter(|(outcome, _)| outcome.is_some());
        let calls = refused.filter_map(|(_, wanted)| wanted.call.as_deref());
        calls.filter(|call| claims.get(*call) == Some(&Claim::New)).collect()
    }
}

#[cfg(test)]
mod tests;
