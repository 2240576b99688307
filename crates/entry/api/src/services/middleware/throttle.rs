//! Throttle (SEC-25): an address that is refused again and again gets a smaller share of the limits per address, and in the end
//! nothing for a minute. Requests are refused, never delayed; a verified credential is not slowed by its address.

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use systemprompt_models::Millis;

/// How an answer names the cause.
pub const REASON: &str = "rejections";

const MAX_CLIENTS: u64 = 65_536;
const MINUTE: Millis = 60_000;
/// Rejections of so many minutes count.
const MINUTES: usize = 10;
/// Scores from which the levels 1, 2 and 3 hold.
const LEVELS: [u32; 3] = [10, 50, 100];

/// What an address has earned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// 0 to 3.
    pub level: u8,
    /// Cells that one request costs in the limits per address.
    pub cost: u32,
    /// Seconds for which nothing is served.
    pub blocked_s: Option<u32>,
}

/// Rejections by minute.
#[derive(Debug, Default)]
struct Track {
    minute: i64,
    counts: [u32; MINUTES],
    blocked_until: Millis,
}

impl Track {
    /// Forgets minutes that are too long ago.
    fn turn(&mut self, now: Millis) {
        let minute = now.div_euclid(MINUTE);
        let passed = usize::try_from(minute.saturating_sub(self.minute)).unwrap_or_default().min(MINUTES);
        self.counts.rotate_right(passed);
        self.counts.iter_mut().take(passed).for_each(|count| *count = 0);
        self.minute = self.minute.max(minute);
    }

    fn score(&self) -> u32 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Rejections of clients. Of too many the least recently seen are forgotten.
#[derive(Debug)]
pub struct Throttle(Cache<IpAddr, Arc<Mutex<Track>>>);

impl Default for Throttle {
    fn default() -> Self {
        let cache = Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(Duration::from_mins(10));
        Self(cache.eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl Throttle {
    /// Notes that somebody at `client` was refused.
    pub fn note(&self, client: IpAddr, now: Millis) {
        let track = self.0.get_with(client, Arc::default);
        let mut track = track.lock().unwrap_or_else(PoisonError::into_inner);
        track.turn(now);
        if let Some(first) = track.counts.first_mut() {
            *first = first.saturating_add(1);
        }
        if track.score() >= LEVELS[2] {
            track.blocked_until = now + MINUTE;
        }
    }

    pub fn level(&self, client: IpAddr, now: Millis) -> Level {
        let Some(track) = self.0.get(&client) else { return Level { cost: 1, ..Level::default() } };
        let mut track = track.lock().unwrap_or_else(PoisonError::into_inner);
        track.turn(now);
        let score = track.score();
        let level = LEVELS.iter().filter(|least| score >= **least).count() as u8;
        let left = u32::try_from((track.blocked_until - now).max(0)).unwrap_or_default();
        let cost = match level {
            0 => 1,
            1 => 2,
            _ => 4,
        };
        Level { level, cost, blocked_s: (left > 0).then(|| left.div_ceil(1000)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    #[test]
    fn rejections_of_ten_minutes_make_the_level() {
        let (throttle, client) = (Throttle::default(), IpAddr::from([203, 0, 113, 7]));
        let mut sent = 0;
        for (score, level, cost, blocked) in [
            (9, 0, 1, None),
            (10, 1, 2, None),
            (49, 1, 2, None),
            (50, 2, 4, None),
            (99, 2, 4, None),
            (100, 3, 4, Some(60)),
        ] {
            while sent < score {
                throttle.note(client, NOW);
                sent += 1;
            }
            assert_eq!(throttle.level(client, NOW), Level { level, cost, blocked_s: blocked }, "{score}");
        }
        assert_eq!(throttle.level(client, NOW + 59_500).blocked_s, Some(1));
        assert_eq!(throttle.level(client, NOW + 60_000).blocked_s, None, "whoever waits is served again");
        throttle.note(client, NOW + 61_000);
        assert_eq!(
            throttle.level(client, NOW + 61_000).blocked_s,
            Some(60),
            "and blocked by the next rejection"
        );
        assert_eq!(throttle.level(client, NOW + 20 * MINUTE).level, 0);
        assert_eq!(throttle.level(IpAddr::from([203, 0, 113, 8]), NOW).level, 0);
    }
}
