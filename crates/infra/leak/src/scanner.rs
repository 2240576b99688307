//! The scanner: which values are in use, and the questions one asks it.

use crate::forms::{Form, forms};
use crate::index::{Guarded, Index, Match};
use crate::stream::StreamScanner;
use arc_swap::ArcSwap;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use systemprompt_models::Secret;

/// Shortest value that can be matched safely, in bytes.
pub const MIN_LENGTH: usize = 8;
/// Fewest different characters of a value that can be matched safely.
pub const MIN_DISTINCT: usize = 5;
/// Most values that are guarded at a time.
pub const MAX_VALUES: usize = 4096;
/// Most bytes of all forms of all values together.
const MAX_FORM_BYTES: usize = 64 * 1024 * 1024;

/// Why a value cannot be guarded. Nothing here repeats it.
#[derive(Debug, thiserror::Error)]
pub enum LeakError {
    #[error(
        "the value of `{name}` has {length} bytes; a value under {MIN_LENGTH} cannot be told from ordinary text"
    )]
    TooShort { name: Box<str>, length: usize },
    #[error(
        "the value of `{name}` has {distinct} different characters; with fewer than {MIN_DISTINCT} it cannot be told from ordinary text"
    )]
    TooPlain { name: Box<str>, distinct: usize },
    #[error("{MAX_VALUES} values are in use already; `{name}` cannot be guarded")]
    Full { name: Box<str> },
}

/// A value that was found. It carries the name, never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub name: Arc<str>,
    pub form: Form,
    /// Byte offset in the text that was scanned; of a string inside JSON, in that string.
    pub offset: usize,
}

/// Knows the values in use. Clones share them.
#[derive(Clone, Default)]
pub struct Scanner(Arc<Shared>);

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    index: ArcSwap<Index>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    next: u64,
    values: Vec<Entry>,
}

struct Entry {
    id: u64,
    holds: usize,
    guarded: Arc<Guarded>,
}

/// Keeps a value guarded for as long as it lives. Scanners see the value from the moment that `hold` returns.
#[must_use = "the value is guarded only while the hold lives"]
pub struct Hold {
    shared: Arc<Shared>,
    id: u64,
}

impl Scanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// Guards `value` under `name`. The index is built here, on the caller's time, and is in force when this returns.
    ///
    /// # Errors
    /// The value is too short or too plain to be matched safely, or the scanner is full.
    pub fn hold(&self, name: &str, value: &Secret<String>) -> Result<Hold, LeakError> {
        check(name, value.expose())?;
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let plain = value.expose().as_bytes();
        let known = held.values.iter_mut().find(|e| {
            &*e.guarded.name == name && e.guarded.texts.first().is_some_and(|t| t.bytes.as_slice() == plain)
        });
        if let Some(entry) = known {
            entry.holds += 1;
            return Ok(Hold { shared: self.0.clone(), id: entry.id });
        }
        let guarded = Arc::new(Guarded { name: name.into(), texts: forms(value.expose()) });
        let size = held.values.iter().map(|e| e.guarded.bytes()).sum::<usize>() + guarded.bytes();
        if held.values.len() >= MAX_VALUES || size > MAX_FORM_BYTES {
            return Err(LeakError::Full { name: name.into() });
        }
        let values = held.values.iter().map(|e| e.guarded.clone()).chain([guarded.clone()]).collect();
        let index = Index::build(values);
        let id = held.next;
        held.next += 1;
        held.values.push(Entry { id, holds: 1, guarded });
        self.0.index.store(Arc::new(index));
        Ok(Hold { shared: self.0.clone(), id })
    }

    /// Whether no value is in use, so that there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.0.index.load().is_empty()
    }

    /// Every value in `bytes`.
    pub fn scan(&self, bytes: &[u8]) -> Vec<Hit> {
        let index = self.0.index.load();
        hits(&index, index.regions(bytes))
    }

    /// Every value in raw JSON text, for the path of every request: a value whose letters are parted by blanks within a short
    /// word is not looked for. Offsets count in the raw text.
    pub fn scan_request(&self, json: &[u8]) -> Vec<Hit> {
        let index = self.0.index.load();
        if index.is_empty() { Vec::new() } else { hits(&index, index.regions_quickly(json)) }
    }

    /// A scanner for text that arrives in pieces.
    pub fn stream(&self) -> StreamScanner {
        StreamScanner::new(self.clone())
    }

    pub(crate) fn index(&self) -> arc_swap::Guard<Arc<Index>> {
        self.0.index.load()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = held.values.iter().position(|e| e.id == self.id) else { return };
        let Some(entry) = held.values.get_mut(at) else { return };
        entry.holds -= 1;
        if entry.holds > 0 {
            return;
        }
        held.values.remove(at);
        let index = Index::build(held.values.iter().map(|e| e.guarded.clone()).collect());
        self.shared.index.store(Arc::new(index));
    }
}

fn hits(index: &Index, found: Vec<Match>) -> Vec<Hit> {
    found.into_iter().map(|m| Hit { name: index.name(&m), form: m.form, offset: m.start }).collect()
}

fn check(name: &str, value: &str) -> Result<(), LeakError> {
    if value.len() < MIN_LENGTH {
        return Err(LeakError::TooShort { name: name.into(), length: value.len() });
    }
    let distinct = value.chars().collect::<BTreeSet<_>>().len();
    if distinct < MIN_DISTINCT {
        return Err(LeakError::TooPlain { name: name.into(), distinct });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
