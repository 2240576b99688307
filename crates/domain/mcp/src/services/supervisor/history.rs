//! How often a server ended lately, and what follows for its next start (SCR-56): a back-off that doubles, and a crash loop
//! that is tried only now and then.

use super::StartError;
use crate::services::registry::InstanceKey;
use std::collections::VecDeque;
use std::time::Duration;
use systemprompt_models::Millis;

const FIRST_BACKOFF: Millis = 500;
const MAX_BACKOFF: Millis = 30_000;
/// A child that ran this long starts the counting anew.
const HEALTHY: Duration = Duration::from_mins(1);
/// So many ends within the window are a crash loop.
const LOOP_EXITS: usize = 5;
const LOOP_WINDOW: Millis = 5 * 60_000;
const LOOP_PAUSE: Millis = 15 * 60_000;

/// Ends of a server that nobody asked for. Another definition of the server begins with none.
#[derive(Debug, Default)]
pub(super) struct History {
    key: Option<InstanceKey>,
    /// Latest last, at most [`LOOP_EXITS`].
    ends: VecDeque<Millis>,
    /// Ends in a row without a healthy time between.
    in_a_row: u32,
}

impl History {
    /// The history of the definition `key`.
    pub(super) fn of(&mut self, key: InstanceKey) -> &mut Self {
        if self.key != Some(key) {
            *self = Self { key: Some(key), ..Self::default() };
        }
        self
    }

    /// Whether a start of the definition `key` was the last one admitted.
    pub(super) fn is_of(&self, key: InstanceKey) -> bool {
        self.key == Some(key)
    }

    pub(super) fn ended(&mut self, now: Millis, ran_for: Duration) {
        if ran_for >= HEALTHY {
            self.ends.clear();
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.ends.push_back(now);
        if self.ends.len() > LOOP_EXITS {
            self.ends.pop_front();
        }
    }

    /// Milliseconds to wait before the next start.
    pub(super) fn admit(&self, now: Millis) -> Result<Millis, StartError> {
        let (Some(first), Some(last)) = (self.ends.front(), self.ends.back()) else { return Ok(0) };
        let is_loop = self.ends.len() == LOOP_EXITS && last - first <= LOOP_WINDOW;
        let since = (now - last).max(0);
        if is_loop && since < LOOP_PAUSE {
            let retry_s = (LOOP_PAUSE - since) / 1000;
            return Err(StartError::CrashLoop { exits: LOOP_EXITS, retry_s });
        }
        let backoff =
            FIRST_BACKOFF.saturating_mul(1 << self.in_a_row.saturating_sub(1).min(16)).min(MAX_BACKOFF);
        Ok((backoff - since).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_and_a_healthy_time_ends_it() {
        let mut history = History::default();
        assert_eq!(history.admit(0).unwrap(), 0);
        let mut waits = Vec::new();
        for at in [0, 400_000, 800_000, 1_200_000] {
            history.ended(at, Duration::from_secs(1));
            waits.push(history.admit(at).unwrap());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000]);
        assert_eq!(history.admit(1_203_000).unwrap(), 1000);
        history.ended(1_300_000, Duration::from_secs(61));
        assert_eq!(history.admit(1_300_000).unwrap(), 500);
    }

    #[test]
    fn five_ends_in_five_minutes_are_a_crash_loop_with_one_trial_each_quarter_of_an_hour() {
        let mut history = History::default();
        for at in 0..5 {
            history.ended(at * 60_000, Duration::from_secs(1));
        }
        let last = 4 * 60_000;
        assert!(matches!(history.admit(last + 60_000), Err(StartError::CrashLoop { retry_s: 840, .. })));
        assert_eq!(history.admit(last + LOOP_PAUSE).unwrap(), 0, "one trial");
        history.ended(last + LOOP_PAUSE, Duration::from_secs(1));
        assert!(history.admit(last + LOOP_PAUSE + 120_000).is_ok(), "the loop's ends lie apart now");
    }
}
