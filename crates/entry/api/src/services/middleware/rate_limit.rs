//! HTTP rate limits (SEC-30): GCRA per key and group. The first step counts addresses and protects the checking of credentials;
//! the second counts verified principals with the tier of their token.

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use systemprompt_config::profile::rate_limits::{RateGroup, RateLimits};
use systemprompt_models::{Code, RateLimitTier, Refusal};

type Limiter = RateLimiter<u64, DefaultKeyedStateStore<u64>, DefaultClock>;

/// Keys that all limiters hold together before the idle ones are dropped.
const MAX_KEYS: usize = 100_000;
/// Checks between two looks at the number of keys.
const SWEEP_EVERY: u32 = 4096;
/// From this rate on a limit cannot bite before others do; such a group is not counted.
const UNCOUNTED_PER_SECOND: u32 = 1_000_000;

/// The limiters of a node. Keys are hashed with a per-process key, so that nobody can aim at another's cell.
pub struct RateLimit {
    limits: RateLimits,
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
    pub fn new(limits: &RateLimits) -> Self {
        let mut limiters = HashMap::new();
        for group in RateGroup::ALL {
            for tier in TIERS {
                limiters.insert((*group, tier), limiter(limits, *group, tier));
            }
        }
        Self {
            limits: limits.clone(),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
            limiters,
            checks: AtomicU32::new(0),
            sweeping: Mutex::new(()),
        }
    }

    /// Charges one request to `key`, or refuses it with the seconds until one would pass.
    pub fn check(&self, group: RateGroup, tier: RateLimitTier, key: impl Hash) -> Result<(), Refusal> {
        if self.limits.disabled {
            return Ok(());
        }
        let Some(Some(limiter)) = self.limiters.get(&(group, tier)) else { return Ok(()) };
        self.sweep();
        let cell = self.hasher.hash_one((group.as_str(), key));
        limiter.check_key(&cell).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            let seconds = wait.as_millis().div_ceil(1000).clamp(1, 3600) as u32;
            let limit = self.limits.limit(group, tier);
            let reason = format!("more than {limit} requests a second in the group `{}`", group.as_str());
            Refusal::new(Code::RateLimited, reason).with_retry_after(seconds)
        })
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

fn limiter(limits: &RateLimits, group: RateGroup, tier: RateLimitTier) -> Option<Limiter> {
    let rate = NonZeroU32::new(limits.limit(group, tier)).filter(|r| r.get() < UNCOUNTED_PER_SECOND)?;
    let burst = NonZeroU32::new(limits.burst(group, tier))?;
    Some(RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_three_times_the_limit_and_the_refusal_says_when_to_come_again() {
        let limit = RateLimit::new(&RateLimits { contexts_per_second: 4, ..RateLimits::default() });
        for (tier, want) in [(RateLimitTier::Anon, 6), (RateLimitTier::User, 12), (RateLimitTier::Admin, 120)]
        {
            let passed =
                (0..1000).take_while(|_| limit.check(RateGroup::Contexts, tier, "key").is_ok()).count();
            assert!((want..want + 3).contains(&passed), "{tier:?}: {passed}");
            let refusal = limit.check(RateGroup::Contexts, tier, "key").unwrap_err();
            assert_eq!((refusal.code, refusal.retry_after), (Code::RateLimited, Some(1)));
            assert!(limit.check(RateGroup::Contexts, tier, "another key").is_ok());
        }
        let off =
            RateLimit::new(&RateLimits { contexts_per_second: 1, disabled: true, ..RateLimits::default() });
        assert!((0..1000).all(|_| off.check(RateGroup::Contexts, RateLimitTier::Anon, "key").is_ok()));
    }
}
