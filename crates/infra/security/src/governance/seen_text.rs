//! Findings of content that a policy has looked at before: a conversation is sent again with each turn. The cache holds no text.

use super::facts::Segment;
use super::scan::{Finding, TooComplex, below};
use moka::sync::Cache;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

const ENTRIES: u64 = 20_000;
/// Shorter text is looked at faster than it is looked up.
const MIN_LEN: usize = 512;
const LIFE: Duration = Duration::from_hours(24);

/// What was found, by 128 bits of the text under two keys of this process.
pub(super) struct SeenText {
    keys: [RandomState; 2],
    entries: Cache<(u64, u64, usize), Arc<[Finding]>>,
}

impl SeenText {
    pub(super) fn new() -> Self {
        let entries = Cache::builder().max_capacity(ENTRIES).time_to_live(LIFE).build();
        Self { keys: [RandomState::new(), RandomState::new()], entries }
    }

    /// The findings of a segment as its body names them; `look` gives those that begin at the segment.
    pub(super) fn or_look(
        &self,
        segment: &Segment<'_>,
        look: impl FnOnce() -> Result<Vec<Finding>, TooComplex>,
    ) -> Result<Vec<Finding>, TooComplex> {
        let place = |found: &[Finding]| found.iter().map(|f| below(&segment.pointer, f)).collect();
        if segment.json.len() < MIN_LEN {
            return Ok(place(&look()?));
        }
        let [one, two] = &self.keys;
        let key = (one.hash_one(segment.json), two.hash_one(segment.json), segment.json.len());
        if let Some(known) = self.entries.get(&key) {
            return Ok(place(&known));
        }
        let found: Arc<[Finding]> = look()?.into();
        self.entries.insert(key, Arc::clone(&found));
        Ok(place(&found))
    }
}
