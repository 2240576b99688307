//! Counters that several nodes share: rows in PostgreSQL, charged in batches. A batch takes what has come while the one before it
//! ran, so that the cost of a transaction is shared by all calls that wait for it.

use super::PastCall;
use super::shard::{CALL_LIFE, Charge, Rate, door, nanos, seconds};
use crate::repository::rates::{self, Claim, Granted, RateTx, Terms};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use systemprompt_database::Db;
use systemprompt_models::ids::CallId;
use systemprompt_models::{Millis, Tasks};
use tokio::sync::oneshot;

/// Most charges that wait; further calls are refused.
const MAX_WAITING: usize = 8192;
/// Most charges of one transaction.
const MAX_BATCH: usize = 512;
/// Longest that a batch may take; what it charged is taken back then.
const BATCH_TIME: Duration = Duration::from_secs(2);
/// How long a counter that ran out is kept: long enough that sweeping is rare.
const IDLE_NANOS: i64 = 86_400_000_000_000;

/// The counters of all nodes of one database.
#[derive(Clone)]
pub(super) struct Shared {
    db: Db,
    tasks: Tasks,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    charges: Vec<Pending>,
    /// Whether a task works on them.
    is_worked_on: bool,
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
    pub(super) fn new(db: Db, tasks: Tasks) -> Self {
        Self { db, tasks, waiting: Arc::default() }
    }

    pub(super) async fn charge(&self, rate: &Rate, call: &PastCall<'_>) -> Charge {
        let (answer, answered) = oneshot::channel();
        let pending = Pending { wanted: Wanted::of(rate, call), answer };
        match self.queue(pending) {
            Queued::Full => return Charge::Full,
            Queued::Behind => {}
            Queued::First => {
                let own = self.clone();
                // A task of its own: a caller that goes away must not take the others' charges with it.
                self.tasks.spawn("call-limit", async move { own.work().await });
            }
        }
        answered.await.unwrap_or(Charge::Unavailable)
    }

    fn queue(&self, pending: Pending) -> Queued {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.charges.len() >= MAX_WAITING {
            return Queued::Full;
        }
        waiting.charges.push(pending);
        if std::mem::replace(&mut waiting.is_worked_on, true) { Queued::Behind } else { Queued::First }
    }

    /// Batch after batch, until nothing waits.
    async fn work(&self) {
        while let Some(batch) = self.next_batch() {
            let (wanted, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|pending| (pending.wanted, pending.answer)).unzip();
            let charged = tokio::time::timeout(BATCH_TIME, charge_all(&self.db, &wanted)).await;
            let charges = match charged {
                Ok(Ok(charges)) => charges,
                Ok(Err(error)) => {
                    tracing::error!(%error, calls = wanted.len(), "the call limit could not be charged");
                    vec![Charge::Unavailable; wanted.len()]
                }
                Err(_) => {
                    tracing::error!(calls = wanted.len(), "charging the call limit took too long");
                    vec![Charge::Unavailable; wanted.len()]
                }
            };
            for (answer, charge) in answers.into_iter().zip(charges) {
                let _ = answer.send(charge);
            }
        }
    }

    /// The charges that go together: of one rate, which changes when the configuration does, and of each call one, so that a
    /// second door finds what became of the first.
    fn next_batch(&self) -> Option<Vec<Pending>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = waiting.charges.first() else {
            waiting.is_worked_on = false;
            return None;
        };
        let rate = first.wanted.rate;
        let mut calls: HashSet<&str> = HashSet::new();
        let mut count = 0;
        for Pending { wanted, .. } in waiting.charges.iter().take(MAX_BATCH) {
            if wanted.rate != rate || wanted.call.as_deref().is_some_and(|call| !calls.insert(call)) {
                break;
            }
            count += 1;
        }
        Some(waiting.charges.drain(..count).collect())
    }

    pub(super) async fn sweep(&self, now: Millis) -> Result<u64, sqlx::Error> {
        rates::sweep(&self.db, now - CALL_LIFE, nanos(now) - IDLE_NANOS).await
    }
}

enum Queued {
    First,
    Behind,
    Full,
}

/// Charges a batch in one transaction: calls that were paid at another door cost nothing; the others need a free cell of their
/// session and of their user.
async fn charge_all(db: &Db, wanted: &[Wanted]) -> Result<Vec<Charge>, sqlx::Error> {
    let Some(rate) = wanted.first().map(|w| w.rate) else { return Ok(Vec::new()) };
    let at = wanted.iter().map(|w| w.at).max().unwrap_or_default();
    let now = nanos(at);
    let mut batch = Batch { wanted, outcomes: vec![None; wanted.len()] };
    let mut tx = RateTx::begin(db).await?;
    let doors = batch.doors();
    let mut claims = HashMap::new();
    if !doors.is_empty() {
        claims = tx.claim(&doors, at, at - CALL_LIFE).await?;
        batch.pass_paid(&claims);
    }
    let terms = Terms { cost: rate.session, depth: rate.session_depth, now };
    let sessions = tx.charge(&batch.asked(|w| &w.session), terms).await?;
    batch.apply(&sessions, terms, |w| &w.session);
    // A user is asked only for what the sessions let through, so that only a user's own limit gives anything back.
    let terms = Terms { cost: rate.user, depth: rate.user_depth, now };
    let users = tx.charge(&batch.asked(|w| &w.user), terms).await?;
    let mut back: HashMap<&str, i64> = HashMap::new();
    for refused in batch.apply(&users, terms, |w| &w.user) {
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
    /// The calls that are to be claimed, with their doors.
    fn doors(&self) -> HashMap<&'w str, i64> {
        self.wanted.iter().filter_map(|w| Some((w.call.as_deref()?, w.door))).collect()
    }

    fn pass_paid(&mut self, claims: &HashMap<String, Claim>) {
        for (outcome, wanted) in self.outcomes.iter_mut().zip(self.wanted) {
            if wanted.call.as_ref().and_then(|call| claims.get(call)) == Some(&Claim::Paid) {
                *outcome = Some(Charge::Known);
            }
        }
    }

    /// How many calls each key is asked for.
    fn asked(&self, key: impl Fn(&'w Wanted) -> &'w str) -> HashMap<&'w str, i64> {
        let mut asked = HashMap::new();
        for (_, wanted) in self.outcomes.iter().zip(self.wanted).filter(|(outcome, _)| outcome.is_none()) {
            *asked.entry(key(wanted)).or_default() += 1;
        }
        asked
    }

    /// Gives what was granted to the calls in their order, and refuses the rest; returns those.
    fn apply(
        &mut self,
        granted: &HashMap<&str, Granted>,
        terms: Terms,
        key: impl Fn(&'w Wanted) -> &'w str,
    ) -> Vec<&'w Wanted> {
        let mut left: HashMap<&str, i64> = granted.iter().map(|(key, g)| (*key, g.calls)).collect();
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
