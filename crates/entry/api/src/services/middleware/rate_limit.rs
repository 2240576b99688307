//! HTTP rate limits (SEC-30): GCRA per key and group. The first step counts addresses and protects the checking of credentials;
//! the second counts verified principals with the tier of their token.

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use systemprompt_config::profile::rate_limits::{RateGroup, RateLimits};
use systemprompt_models::{Code, RateLimitTier, Refusal};

type Limiter = RateLimiter<u64, DefaultKeyedStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// Keys that all limiters hold together before the idle ones are dropped.
const MAX_KEYS: usize = 100_000;
/// Checks between two looks at the number of keys.
const SWEEP_EVERY: u32 = 4096;
/// From this rate on a limit cannot bite before others do; such a group is not counted.
const UNCOUNTED_PER_SECOND: u32 = 1_000_000;

/// What a limit leaves a caller, as the headers `RateLimit` and `RateLimit-Policy` say it (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    group: &'static str,
    burst: u32,
    /// Seconds in which an empty quota fills.
    window_s: u32,
    remaining: u32,
    /// Seconds until a request passes, or until the quota is full again.
    reset_s: u32,
}

impl Quotas {
    /// Writes the two headers.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let limit = format!("\"{}\";r={};t={}", self.group, self.remaining, self.reset_s);
        let policy = format!("\"{}\";q={};w={}", self.group, self.burst, self.window_s);
        for (name, value) in [("ratelimit", limit), ("ratelimit-policy", policy)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// The limiters of a node, each with its share of what all nodes admit (SEC-32): a guard, and approximate, for clients do not
/// spread evenly. Keys are hashed with a per-process key, so that nobody can aim at another's cell.
pub struct RateLimit {
    limits: RateLimits,
    nodes: u32,
    clock: DefaultClock,
    hasher: RandomState,
    limiters: HashMap<(RateGroup, RateLimitTier), Option<Limiter>>,
    checks: AtomicU32,
    sweeping: Mutex<()>,
}

const TIERS: [RateLimitTier; 6] = [
    RateLimitTier::Admin,
    RateLimitTier::User,
    RateLimitTier::Service,
    RateLimitTier::A2a,
    RateLimitTier::Mcp,
    RateLimitTier::Anon,
];

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit").finish_non_exhaustive()
    }
}

impl RateLimit {
    /// The share of one of `nodes` nodes.
    pub fn new(limits: &RateLimits, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        let mut limiters = HashMap::new();
        for group in RateGroup::ALL {
            for tier in TIERS {
                limiters.insert((*group, tier), limiter(share(limits, nodes, (*group, tier))));
            }
        }
        Self {
            limits: limits.clone(),
            nodes,
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
            limiters,
            checks: AtomicU32::new(0),
            sweeping: Mutex::new(()),
        }
    }

    /// Whether every limit is off.
    pub fn is_disabled(&self) -> bool {
        self.limits.disabled
    }

    /// Charges one request to `key`, or refuses it with the seconds until one would pass. `cost` is 1, more for an address that
    /// is throttled. What is left is told in both cases.
    pub fn check(
        &self,
        (group, tier): (RateGroup, RateLimitTier),
        key: impl Hash,
        cost: u32,
    ) -> (Option<Quotas>, Result<(), Refusal>) {
        let Some(Some(limiter)) = self.limiters.get(&(group, tier)).filter(|_| !self.limits.disabled) else {
            return (None, Ok(()));
        };
        self.sweep();
        let (limit, burst) = share(&self.limits, self.nodes, (group, tier));
        let cell = self.hasher.hash_one((group.as_str(), key));
        let cost = NonZeroU32::new(cost.min(burst)).unwrap_or(NonZeroU32::MIN);
        let quotas = |remaining: u32, reset_s: u32| {
            let window_s = burst.div_ceil(limit);
            Some(Quotas { group: group.as_str(), burst, window_s, remaining, reset_s })
        };
        // The cost never exceeds the burst, so the outer error cannot happen; it would refuse.
        match limiter.check_key_n(&cell, cost) {
            Ok(Ok(state)) => {
                let remaining = state.remaining_burst_capacity();
                (quotas(remaining, burst.saturating_sub(remaining).div_ceil(limit)), Ok(()))
            }
            refused => {
                let wait =
                    refused.ok().and_then(Result::err).map(|until| until.wait_time_from(self.clock.now()));
                let seconds = wait.map_or(1, |wait| wait.as_millis().div_ceil(1000).clamp(1, 3600) as u32);
                let reason = format!("more than {limit} requests a second in the group `{}`", group.as_str());
                let refusal = Refusal::new(Code::RateLimited, reason).with_retry_after(seconds);
                (quotas(0, seconds), Err(refusal))
            }
        }
    }

    /// Drops idle keys once there are too many.
    fn sweep(&self) {
        if !self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            return;
        }
        let Ok(_one) = self.sweeping.try_lock() else { return };
        let limiters = || self.limiters.values().flatten();
        if limiters().map(RateLimiter::len).sum::<usize>() > MAX_KEYS {
            limiters().for_each(RateLimiter::retain_recent);
        }
    }
}

/// Limit a second and burst of one of `nodes` nodes.
fn share(limits: &RateLimits, nodes: u32, (group, tier): (RateGroup, RateLimitTier)) -> (u32, u32) {
    let of = |all: u32| (all / nodes).max(1);
    (of(limits.limit(group, tier)), of(limits.burst(group, tier)))
}

fn limiter((limit, burst): (u32, u32)) -> Option<Limiter> {
    let rate = NonZeroU32::new(limit).filter(|r| r.get() < UNCOUNTED_PER_SECOND)?;
    let burst = NonZeroU32::new(burst)?;
    let quota = Quota::per_second(rate).allow_burst(burst);
    Some(RateLimiter::keyed(quota).with_middleware::<StateInformationMiddleware>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_three_times_the_limit_and_the_refusal_says_when_to_come_again() {
        let limit = RateLimit::new(&RateLimits { contexts_per_second: 4, ..RateLimits::default() }, 1);
        for (tier, want) in [(RateLimitTier::Anon, 6), (RateLimitTier::User, 12), (RateLimitTier::Admin, 120)]
        {
            let passed = (0..1000)
                .take_while(|_| limit.check((RateGroup::Contexts, tier), "key", 1).1.is_ok())
                .count();
            assert!((want..want + 3).contains(&passed), "{tier:?}: {passed}");
            let (quotas, refused) = limit.check((RateGroup::Contexts, tier), "key", 1);
            let refusal = refused.unwrap_err();
            assert_eq!((refusal.code, refusal.retry_after), (Code::RateLimited, Some(1)));
            let mut headers = HeaderMap::new();
            quotas.unwrap().apply(&mut headers);
            assert_eq!(headers["ratelimit"], "\"contexts\";r=0;t=1");
            assert_eq!(headers["ratelimit-policy"], format!("\"contexts\";q={want};w=3").as_str());
            assert!(limit.check((RateGroup::Contexts, tier), "another key", 1).1.is_ok());
        }
        let off = RateLimit::new(
            &RateLimits { contexts_per_second: 1, disabled: true, ..RateLimits::default() },
            1,
        );
        let anon = (RateGroup::Contexts, RateLimitTier::Anon);
        assert!((0..1000).all(|_| off.check(anon, "key", 1).1.is_ok()));
    }

    #[test]
    fn a_throttled_address_has_a_half_or_a_quarter() {
        let limit = RateLimit::new(&RateLimits { wellknown_per_second: 8, ..RateLimits::default() }, 1);
        for (cost, want) in [(1, 24), (2, 12), (4, 6)] {
            let group = (RateGroup::Wellknown, RateLimitTier::User);
            let passed = (0..1000).take_while(|_| limit.check(group, cost, cost).1.is_ok()).count();
            assert!((want..want + 2).contains(&passed), "{cost}: {passed}");
        }
        // Even the smallest limit serves a throttled address now and then.
        let least = RateLimits { wellknown_per_second: 1, burst_multiplier: 1, ..RateLimits::default() };
        let anon = (RateGroup::Wellknown, RateLimitTier::Anon);
        assert!(RateLimit::new(&least, 1).check(anon, "key", 4).1.is_ok());
    }

    #[test]
    fn each_of_several_nodes_admits_its_share_and_at_least_one() {
        let limits = RateLimits { contexts_per_second: 8, ..RateLimits::default() };
        for (nodes, want) in [(1, 24), (2, 12), (3, 8), (100, 1)] {
            let limit = RateLimit::new(&limits, nodes);
            let user = (RateGroup::Contexts, RateLimitTier::User);
            let passed = (0..1000).take_while(|_| limit.check(user, "key", 1).1.is_ok()).count();
            assert!((want..want + 2).contains(&passed), "{nodes}: {passed}");
        }
    }
}
