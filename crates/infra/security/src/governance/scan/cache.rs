//! Verdicts of text that was judged before. A conversation is sent again with each turn; what was scanned is recognised
//! by a keyed digest and not scanned again. The cache holds no text, and a miss costs a scan and nothing else.

use super::{Finding, RuleError};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use moka::sync::Cache;
use std::sync::Arc;
use std::time::Duration;

/// Most verdicts that are kept.
const ENTRIES: u64 = 100_000;
/// Shorter text is scanned faster than it is looked up.
pub(super) const MIN_LEN: usize = 512;
const LIFE: Duration = Duration::from_hours(24);

type Digest = [u8; 16];

pub(super) struct VerdictCache {
    key: LessSafeKey,
    nonce: [u8; 12],
    entries: Cache<Digest, Arc<[Finding]>>,
    nothing: Arc<[Finding]>,
}

impl VerdictCache {
    /// An empty cache for verdicts of the rule set `version`, under a key of this process.
    pub(super) fn new(version: &str) -> Result<Self, RuleError> {
        let mut secret = [0; 16];
        rand::fill(&mut secret).map_err(|_| RuleError::Random)?;
        let key = UnboundKey::new(&AES_128_GCM, &secret).map_err(|_| RuleError::Random)?;
        let mut nonce = [0; 12];
        for (to, from) in nonce.iter_mut().zip(version.bytes()) {
            *to = from;
        }
        Ok(Self {
            key: LessSafeKey::new(key),
            nonce,
            entries: Cache::builder().max_capacity(ENTRIES).time_to_live(LIFE).build(),
            nothing: Arc::new([]),
        })
    }

    /// The GMAC of the text under the process key. A GMAC with a fixed nonce is a universal hash (two texts collide with
    /// a chance below 2^-106, which nobody can raise without the key, and neither key nor digest ever leave this
    /// struct); it is not used as a signature. It is several times faster than any hash over long histories.
    pub(super) fn digest(&self, text: &[u8]) -> Option<Digest> {
        if text.len() < MIN_LEN {
            return None;
        }
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(text), &mut []).ok()?;
        tag.as_ref().try_into().ok()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<[Finding]>> {
        self.entries.get(digest)
    }

    pub(super) fn put(&self, digest: Digest, findings: &[Finding]) {
        let entry = if findings.is_empty() { self.nothing.clone() } else { findings.into() };
        self.entries.insert(digest, entry);
    }
}
