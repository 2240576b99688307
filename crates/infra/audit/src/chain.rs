//! The hash chain: `seq`, `at` and `prev_hash` of each record, and its hash.
//!
//! `hash = SHA-256(0x00 || canonical text)`, at once the chain hash and the RFC 6962 leaf hash of the tree that grows beside.

use crate::record::{RecordError, Rendered};
use crate::tree::{Hash, Tile, Tree};
use aws_lc_rs::digest::{Context, SHA256};
use std::sync::Arc;
use systemprompt_models::Millis;
use systemprompt_models::ids::EntryId;

/// The place of the next record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub stream: Arc<str>,
    pub epoch: i64,
    /// `seq` of the last record; 0 before the first.
    pub head_seq: i64,
    /// Hash of the last record in lower-case hex, or [`genesis`] before the first.
    pub head_hash: String,
    pub last_at: Millis,
    /// The tree over the records up to the head.
    pub tree: Arc<Tree>,
}

/// A record in its place.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub rendered: &'a Rendered,
    pub seq: i64,
    pub at: Millis,
    pub text: String,
    pub prev_hash: String,
    pub hash: String,
    pub leaf: Hash,
}

impl Chain {
    /// Gives a record its place; the chain moves on.
    pub(crate) fn seal<'a>(&mut self, rendered: &'a Rendered, now: Millis) -> Result<Entry<'a>, RecordError> {
        let at = now.max(self.last_at);
        let seq = self.head_seq + 1;
        let text = if at > now {
            rendered.with_clock_back(at - now)?.join(&self.stream, seq, at, &self.head_hash)
        } else {
            rendered.join(&self.stream, seq, at, &self.head_hash)
        };
        let leaf = leaf_digest(text.as_bytes());
        let hash = hex::encode(leaf);
        let prev_hash = std::mem::replace(&mut self.head_hash, hash.clone());
        self.head_seq = seq;
        self.last_at = at;
        Ok(Entry { rendered, seq, at, text, prev_hash, hash, leaf })
    }

    /// Puts the leaves of a batch into the tree; returns the tiles that they complete.
    pub(crate) fn grow(&mut self, leaves: impl Iterator<Item = Hash>) -> Vec<Tile> {
        let (mut tree, mut tiles) = (Tree::clone(&self.tree), Vec::new());
        for leaf in leaves {
            tree.push(leaf, &mut tiles);
        }
        self.tree = Arc::new(tree);
        tiles
    }
}

impl Entry<'_> {
    pub(crate) fn id(&self) -> &EntryId {
        &self.rendered.id
    }
}

/// SHA-256(0x00 || text) in lower-case hex.
pub fn leaf_hash(text: &str) -> String {
    hex::encode(leaf_digest(text.as_bytes()))
}

/// SHA-256(0x00 || bytes).
pub(crate) fn leaf_digest(bytes: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// `prev_hash` of a stream's first record: SHA-256 of `systemprompt.ledger.v1\n` and the origin.
pub fn genesis(origin: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(b"systemprompt.ledger.v1\n");
    context.update(origin.as_bytes());
    hex::encode(context.finish())
}
