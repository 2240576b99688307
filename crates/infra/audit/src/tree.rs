//! The Merkle tree over a stream's records (RFC 6962, RFC 9162 section 2.1): its frontier, the tiles that a growing tree
//! completes, which subtrees a proof is made of, and the check of a proof.
//!
//! A leaf's hash is the hash of its record (`SHA-256(0x00 || canonical text)`); a node's is `SHA-256(0x01 || left || right)`.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Hashes in a complete tile (C2SP tlog-tiles).
pub const TILE_WIDTH: u64 = 256;
/// Levels of the tree that one tile spans.
pub(crate) const TILE_HEIGHT: u32 = 8;

/// The hash of a node over its two children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[1]);
    context.update(left);
    context.update(right);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The root over hashes that stand beside each other, the rightmost subtrees being the smallest.
fn fold(subtrees: &[Hash]) -> Hash {
    let mut from_right = subtrees.iter().rev();
    match from_right.next() {
        Some(last) => from_right.fold(*last, |right, left| node_hash(left, &right)),
        None => empty_root(),
    }
}

/// The root of a tree without leaves.
pub fn empty_root() -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, b"").as_ref());
    hash
}

/// The roots of the complete subtrees that a tree consists of, the largest first; at most 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// A frontier from where it was stored; `None` when the number of hashes does not fit `size`.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Option<Self> {
        let (peaks, rest) = bytes.as_chunks::<32>();
        let fits = rest.is_empty() && peaks.len() == size.count_ones() as usize;
        fits.then(|| Self { size, peaks: peaks.to_vec() })
    }

    /// As it is stored: the hashes one after the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.peaks.concat()
    }

    /// Leaves of the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        fold(&self.peaks)
    }

    /// Appends a leaf. `made` sees every complete subtree that this makes, with its height: the leaf itself (0) first.
    pub fn push(&mut self, leaf: Hash, mut made: impl FnMut(u32, &Hash)) {
        let (mut node, mut height) = (leaf, 0);
        made(height, &node);
        while (self.size >> height) & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            node = node_hash(&left, &node);
            height += 1;
            made(height, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }
}

/// A complete tile: 256 hashes of one level, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    pub level: u32,
    pub index: u64,
    pub root: Hash,
    pub hashes: Vec<Hash>,
}

/// A tree that grows: its frontier, and per level the hashes that do not fill a tile yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    frontier: Frontier,
    open: Vec<Vec<Hash>>,
}

impl Tree {
    /// A tree of `size` leaves from the hashes of each level that do not fill a tile, the leaves first. `None` when their
    /// numbers do not fit.
    pub(crate) fn restore(size: u64, open: Vec<Vec<Hash>>) -> Option<Self> {
        if open.len() != levels(size) {
            return None;
        }
        let mut peaks = Vec::new();
        for (level, hashes) in open.iter().enumerate().rev() {
            let count = size >> (TILE_HEIGHT as usize * level);
            if hashes.len() as u64 != count % TILE_WIDTH {
                return None;
            }
            let mut rest = hashes.as_slice();
            for (height, _) in cover(0, rest.len() as u64) {
                let (peak, after) = rest.split_at_checked(1 << height)?;
                peaks.push(merkle(peak));
                rest = after;
            }
        }
        Some(Self { frontier: Frontier { size, peaks }, open })
    }

    pub(crate) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Appends a leaf; tiles that it completes go to `done`.
    pub(crate) fn push(&mut self, leaf: Hash, done: &mut Vec<Tile>) {
        let Self { frontier, open } = self;
        let index = frontier.size();
        frontier.push(leaf, |height, node| {
            if !height.is_multiple_of(TILE_HEIGHT) {
                return;
            }
            let level = height / TILE_HEIGHT;
            if let Some(below) = level.checked_sub(1)
                && let Some(hashes) = open.get_mut(below as usize)
            {
                let hashes = std::mem::take(hashes);
                done.push(Tile { level: below, index: index >> height, root: *node, hashes });
            }
            if open.len() <= level as usize {
                open.push(Vec::with_capacity(TILE_WIDTH as usize));
            }
            if let Some(hashes) = open.get_mut(level as usize) {
                hashes.push(*node);
            }
        });
    }
}

/// Levels of tiles that a tree of `size` leaves has hashes in.
pub(crate) fn levels(size: u64) -> usize {
    (u64::BITS - size.leading_zeros()).div_ceil(TILE_HEIGHT) as usize
}

/// The root over `hashes`, as a tree of its own.
pub fn merkle(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for hash in hashes {
        frontier.push(*hash, |_, _| {});
    }
    frontier.root()
}

/// A complete subtree: its height, and its number among those of that height.
pub(crate) type Node = (u32, u64);

/// The complete subtrees over the leaves `lo..hi`, from left to right.
pub(crate) fn cover(mut lo: u64, hi: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    while lo < hi {
        let height = lo.trailing_zeros().min((hi - lo).ilog2());
        nodes.push((height, lo >> height));
        lo += 1 << height;
    }
    nodes
}

/// A hash of a proof: the root over the leaves `lo..hi`.
pub(crate) type Range = (u64, u64);

/// The largest power of two below `n`; `n` is 2 or more.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// What an inclusion proof of the leaf `index` in a tree of `size` consists of (RFC 9162 section 2.1.3.1).
pub(crate) fn inclusion(index: u64, size: u64) -> Vec<Range> {
    let (mut lo, mut hi) = (0, size);
    let mut path = Vec::new();
    while hi - lo > 1 {
        let middle = lo + split(hi - lo);
        if index < middle {
            path.push((middle, hi));
            hi = middle;
        } else {
            path.push((lo, middle));
            lo = middle;
        }
    }
    path.reverse();
    path
}

/// What the proof consists of that a tree of `new` leaves begins with one of `old` (RFC 9162 section 2.1.4.1); `old` is 1 or
/// more and at most `new`.
pub(crate) fn consistency(old: u64, new: u64) -> Vec<Range> {
    let (mut lo, mut hi) = (0, new);
    let mut path = Vec::new();
    while old < hi {
        let middle = lo + split(hi - lo);
        if old <= middle {
            path.push((middle, hi));
            hi = middle;
        } else {
            path.push((lo, middle));
            lo = middle;
        }
    }
    if lo > 0 {
        path.push((lo, hi));
    }
    path.reverse();
    path
}

/// The root over the roots of [`cover`].
pub(crate) fn range_root(subtrees: &[Hash]) -> Hash {
    fold(subtrees)
}

/// Whether `leaf` stands at `index` in the tree of `size` leaves with this `root` (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    inclusion_root(leaf, index, size, proof).is_some_and(|found| found == *root)
}

/// The root that an inclusion proof leads to; `None` for a proof of another length than the place needs.
pub(crate) fn inclusion_root(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Whether the tree of `new` leaves with `new_root` begins with that of `old` leaves with `old_root` (RFC 9162 section
/// 2.1.4.2).
pub fn verify_consistency(old: u64, new: u64, proof: &[Hash], old_root: &Hash, new_root: &Hash) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // A tree that is complete in itself is no part of its own proof.
    let (first, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        let Some((first, rest)) = proof.split_first() else { return false };
        (first, rest)
    };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// A hash in lower-case hex.
pub(crate) fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests;
