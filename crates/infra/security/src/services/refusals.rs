//! Refusals of callers who are nobody yet. One by one an outsider could fill the ledger with them; they are counted by reason
//! and become one record a minute (AUD-19).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use systemprompt_audit::{Draft, EntryKind};

/// Most reasons of one record.
const MAX_REASONS: usize = 100;

/// Counts by reason.
#[derive(Debug, Default)]
pub struct RefusalCounts(Mutex<BTreeMap<&'static str, i64>>);

impl RefusalCounts {
    /// Counts a refusal. `reason` is one of a closed set, never a text of the caller's.
    pub fn count(&self, reason: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() < MAX_REASONS || counts.contains_key(reason) {
            *counts.entry(reason).or_default() += 1;
        }
    }

    /// The record of what was counted, which begins anew; nothing when there was nothing.
    pub fn take(&self) -> Option<Draft> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counts.is_empty() {
            return None;
        }
        let total: i64 = counts.values().sum();
        let draft = Draft::system(EntryKind::SystemRefusals, "ok").with("total", total);
        Some(counts.into_iter().fold(draft, |draft, (reason, count)| draft.with(reason, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_one_record_with_a_count_for_each_reason() {
        let counts = RefusalCounts::default();
        assert!(counts.take().is_none());
        for _ in 0..1000 {
            counts.count("scanner-path");
        }
        counts.count("unauthenticated");
        let draft = counts.take().unwrap();
        assert_eq!(draft.detail["total"], 1001);
        assert_eq!(
            (&draft.detail["scanner-path"], &draft.detail["unauthenticated"]),
            (&1000.into(), &1.into())
        );
        assert!(counts.take().is_none());
    }
}
