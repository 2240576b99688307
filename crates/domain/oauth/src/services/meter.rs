//! What the endpoints count (ID-111). Every label is one of a closed set: no client, no user.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Two labels.
pub type Labels = (&'static str, &'static str);

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By grant and outcome.
    pub tokens: BTreeMap<Labels, u64>,
    /// By endpoint and error.
    pub refused: BTreeMap<Labels, u64>,
    /// Rows that the clean-up deleted, by table.
    pub cleaned: BTreeMap<&'static str, u64>,
}

/// Counts.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Counts>);

impl Meter {
    pub(crate) fn token(&self, grant: &'static str, is_issued: bool) {
        let outcome = if is_issued { "issued" } else { "refused" };
        self.change(|counts| *counts.tokens.entry((grant, outcome)).or_default() += 1);
    }

    pub(crate) fn refused(&self, endpoint: &'static str, error: &'static str) {
        self.change(|counts| *counts.refused.entry((endpoint, error)).or_default() += 1);
    }

    pub(crate) fn cleaned(&self, table: &'static str, rows: u64) {
        self.change(|counts| *counts.cleaned.entry(table).or_default() += rows);
    }

    pub fn read(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
