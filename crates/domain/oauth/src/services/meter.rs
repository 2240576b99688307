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
    /// Fetches of clients' metadata documents, by what came of them.
    pub cimd_fetches: BTreeMap<&'static str, u64>,
    /// Sessions that count, and clients that registered themselves, as of the last minute.
    pub sessions_active: i64,
    pub clients_registered: i64,
    /// Most clients that may register themselves.
    pub clients_registered_max: i64,
    /// Sign-ins that wait for a place to compute a password's hash.
    pub argon2_queue: i64,
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

    pub(crate) fn cimd_fetch(&self, outcome: &'static str) {
        self.change(|counts| *counts.cimd_fetches.entry(outcome).or_default() += 1);
    }

    pub(crate) fn measured(&self, sessions: i64, clients: i64, most: i64) {
        self.change(|counts| {
            (counts.sessions_active, counts.clients_registered) = (sessions, clients);
            counts.clients_registered_max = most;
        });
    }

    pub fn read(&self) -> Counts {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        counts.argon2_queue = i64::try_from(super::password::waiting()).unwrap_or(i64::MAX);
        counts
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
