//! A part of the rate counters: theoretical arrival times (GCRA, ITU-T I.371) of users and sessions, and the calls that
//! were charged lately.

use super::{Origin, PastCall};
use std::collections::{HashMap, VecDeque};
use systemprompt_models::Millis;

/// Users that one shard keeps counters of.
const MAX_USERS: usize = 4096;
/// Sessions of one user with a counter that has not run out.
const MAX_SESSIONS: usize = 4096;
/// Charged calls that one shard remembers; beyond it the oldest is forgotten (and would be charged again).
const MAX_CALLS: usize = 2048;
/// How long a charged call is remembered.
pub(super) const CALL_LIFE: Millis = 600_000;
/// Counters that ran out are removed once in so many charges.
const SWEEP: u32 = 4096;

/// How many calls are allowed: `limit` at once, refilled evenly over `window_s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    pub window_s: u32,
    /// Nanoseconds that one call takes from a session.
    pub(super) session: i64,
    /// Nanoseconds that one call takes from a user.
    pub(super) user: i64,
    /// Nanoseconds that a session and a user may take in advance.
    pub(super) session_depth: i64,
    pub(super) user_depth: i64,
}

impl Rate {
    /// None if a number is zero or beyond what counts exactly.
    pub fn new(limit: u32, window_s: u32, per_user_factor: u32) -> Option<Self> {
        if !(1..=10_000_000).contains(&limit)
            || !(1..=86_400).contains(&window_s)
            || !(1..=1000).contains(&per_user_factor)
        {
            return None;
        }
        let window = i64::from(window_s) * 1_000_000_000;
        let per_user = i64::from(limit) * i64::from(per_user_factor);
        let (session, user) = (window / i64::from(limit), window / per_user);
        let (session_depth, user_depth) = (session * i64::from(limit), user * per_user);
        (user > 0).then_some(Self { limit, window_s, session, user, session_depth, user_depth })
    }
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    Admitted,
    /// The call was charged when it passed another door.
    Known,
    /// Not now; after this many whole seconds one call is free.
    Limited {
        retry_after: u32,
    },
    /// There is no room for another counter.
    Full,
    /// The database did not take the charge.
    Unavailable,
}

#[derive(Default)]
struct User {
    tat: i64,
    sessions: HashMap<Box<str>, i64>,
}

#[derive(Default)]
pub(super) struct Shard {
    users: HashMap<Box<str>, User>,
    /// The doors that a charged call has passed.
    calls: HashMap<u128, u8>,
    order: VecDeque<(Millis, u128)>,
    since_sweep: u32,
}

impl Shard {
    pub(super) fn charge(&mut self, rate: &Rate, call: &PastCall<'_>, id: u128) -> Charge {
        self.forget(call.at);
        if let Some(doors) = self.calls.get_mut(&id)
            && *doors & door(call.origin) == 0
        {
            *doors |= door(call.origin);
            return Charge::Known;
        }
        let now = nanos(call.at);
        if self.users.len() >= MAX_USERS && !self.users.contains_key(call.user_id) {
            self.sweep(now);
            if self.users.len() >= MAX_USERS {
                return Charge::Full;
            }
        }
        let user = self.users.entry(call.user_id.into()).or_default();
        let old = user.sessions.get(call.session_id).copied();
        let session_tat = old.unwrap_or(0).max(now) + rate.session;
        let user_tat = user.tat.max(now) + rate.user;
        let over = (session_tat - rate.session_depth).max(user_tat - rate.user_depth) - now;
        if over > 0 {
            return Charge::Limited { retry_after: seconds(over) };
        }
        if old.is_none() && user.sessions.len() >= MAX_SESSIONS {
            user.sessions.retain(|_, tat| *tat > now);
            if user.sessions.len() >= MAX_SESSIONS {
                return Charge::Full;
            }
        }
        user.tat = user_tat;
        if let Some(tat) = user.sessions.get_mut(call.session_id) {
            *tat = session_tat;
        } else {
            user.sessions.insert(call.session_id.into(), session_tat);
        }
        self.remember(call, id);
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP {
            self.sweep(now);
        }
        Charge::Admitted
    }

    /// Charges without asking, for calls that were admitted before a restart.
    pub(super) fn seed(&mut self, rate: &Rate, call: &PastCall<'_>, id: u128) {
        if let Some(doors) = self.calls.get_mut(&id)
            && *doors & door(call.origin) == 0
        {
            *doors |= door(call.origin);
            return;
        }
        let at = nanos(call.at);
        let user = self.users.entry(call.user_id.into()).or_default();
        user.tat = user.tat.max(at) + rate.user;
        let session = user.sessions.entry(call.session_id.into()).or_default();
        *session = (*session).max(at) + rate.session;
        self.remember(call, id);
    }

    /// A second call through the same door is a call of its own, whatever id it claims: it was charged again, and the
    /// entry stays.
    fn remember(&mut self, call: &PastCall<'_>, id: u128) {
        if let Some(doors) = self.calls.get_mut(&id) {
            *doors |= door(call.origin);
            return;
        }
        if self.order.len() >= MAX_CALLS
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.calls.remove(&oldest);
        }
        self.calls.insert(id, door(call.origin));
        self.order.push_back((call.at, id));
    }

    fn forget(&mut self, now: Millis) {
        while let Some((at, id)) = self.order.front().copied()
            && at + CALL_LIFE <= now
        {
            self.order.pop_front();
            self.calls.remove(&id);
        }
    }

    /// Removes counters that have run out: they say the same as none.
    fn sweep(&mut self, now: i64) {
        self.since_sweep = 0;
        self.users.retain(|_, user| {
            user.sessions.retain(|_, tat| *tat > now);
            user.tat > now || !user.sessions.is_empty()
        });
    }
}

pub(super) fn door(origin: Origin) -> u8 {
    match origin {
        Origin::Hook => 1,
        Origin::Mcp => 2,
        Origin::Gateway => 4,
        Origin::A2a => 8,
        Origin::InferenceHook => 16,
    }
}

pub(super) fn nanos(at: Millis) -> i64 {
    at.saturating_mul(1_000_000)
}

pub(super) fn seconds(nanos: i64) -> u32 {
    u32::try_from((nanos + 999_999_999) / 1_000_000_000).unwrap_or(u32::MAX).max(1)
}
