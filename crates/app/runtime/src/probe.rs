//! What a health probe asks of the database: once a second at most. Under load it would wait behind every request for a connection,
//! and tell of the load instead.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use systemprompt_models::Millis;

/// How long an answer counts, in milliseconds, and how long a probe waits for one.
const GOOD_FOR: Millis = 1000;
const TIMEOUT: Duration = Duration::from_secs(2);

/// The last answer; a failure is never kept.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// When it came; 0 if there is none.
    answered: AtomicI64,
}

impl Probe {
    /// Whether there is an answer of the last second, or `ask` brings one now.
    pub(crate) async fn answers(&self, now: Millis, ask: impl AsyncFnOnce() -> bool) -> bool {
        if (0..GOOD_FOR).contains(&(now - self.answered.load(Ordering::Relaxed))) {
            return true;
        }
        let answers = tokio::time::timeout(TIMEOUT, ask()).await.unwrap_or(false);
        self.answered.store(if answers { now } else { 0 }, Ordering::Relaxed);
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_a_second_and_a_failure_for_no_time() {
        let (probe, asked) = (Probe::default(), Cell::new(0));
        let ask = async |now: Millis, is_well: bool| {
            let answer = async || {
                asked.set(asked.get() + 1);
                is_well
            };
            (probe.answers(now, answer).await, asked.get())
        };
        let start = 1_790_000_000_000;
        for (at, is_well, want) in [
            (0, false, (false, 1)),
            (0, true, (true, 2)),
            (999, false, (true, 2)),
            (1000, false, (false, 3)),
            (1001, false, (false, 4)),
            (1002, true, (true, 5)),
            (2001, true, (true, 5)),
            // A clock that was set back makes no answer of the future count.
            (1001, false, (false, 6)),
        ] {
            assert_eq!(ask(start + at, is_well).await, want, "{at}");
        }
        assert!(!probe.answers(start, async || std::future::pending().await).await, "no answer in time");
    }
}
