//! Proofs over a stored tree (AUD-45): that a record stands in a checkpoint, and that one checkpoint continues another. Each
//! reads a tile a level and at most one row that is not complete yet.

use crate::chain::leaf_digest;
use crate::note::{Checkpoint, Note, NoteError, VerifierKey};
use crate::repository::checkpoints::{self, CheckpointRow};
use crate::repository::entries::{LedgerReader, LedgerRow};
use crate::repository::streams::Stream;
use crate::repository::tiles;
use crate::tree::{
    Frontier, Hash, Node, Range, TILE_HEIGHT, TILE_WIDTH, Tree, consistency, cover, from_hex, inclusion,
    levels, range_root, verify_consistency, verify_inclusion,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("there is no stream `{0}`")]
    NoSuchStream(String),
    #[error("no checkpoint holds this record yet; one is made every few seconds")]
    NotYet,
    #[error("sizes: 1 to {0}, `from` not above `to`")]
    BadSizes(u64),
    #[error(
        "the stored tree of {stream} is damaged at level {level}, tile {tile}; `audit verify` shows all of it"
    )]
    Damaged { stream: String, level: u32, tile: u64 },
    #[error("the checkpoint of {0} does not fit its records; `audit verify` shows all of it")]
    Mismatch(String),
    #[error("the ledger cannot be read")]
    Read(#[from] sqlx::Error),
}

/// That a record stands at a place of a signed tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// The canonical text, byte for byte. Its leaf hash is SHA-256 over a zero byte and this.
    pub record: String,
    /// Counted from 0: `seq` less 1.
    pub leaf_index: u64,
    /// The signed note.
    pub checkpoint: String,
    /// Siblings from the leaf to the root, in base64.
    pub inclusion: Vec<String>,
}

/// That the tree at one size begins with the tree at another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsistencyProof {
    pub stream: String,
    pub origin: String,
    pub from: u64,
    pub to: u64,
    /// Roots at both sizes, in base64.
    pub from_root: String,
    pub to_root: String,
    /// Hashes in the order of RFC 9162 section 2.1.4, in base64.
    pub consistency: Vec<String>,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    #[error("the checkpoint: {0}")]
    Note(#[from] NoteError),
    #[error("a hash of the proof is not 32 bytes in base64")]
    Hash,
    #[error("the record names another place than the proof: stream and seq")]
    Place,
    #[error("the record is not in the tree of the checkpoint")]
    NotIncluded,
}

impl InclusionProof {
    /// Checks the proof against trusted keys, with nothing else at hand.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Checkpoint, ProofFault> {
        let note: Note = self.checkpoint.parse()?;
        note.verify(keys)?;
        let checkpoint = note.unverified_checkpoint()?;
        let siblings: Option<Vec<Hash>> = self.inclusion.iter().map(|text| decode(text)).collect();
        let siblings = siblings.ok_or(ProofFault::Hash)?;
        let record: serde_json::Value = serde_json::from_str(&self.record).map_err(|_| ProofFault::Place)?;
        let is_place = record.get("seq").and_then(serde_json::Value::as_u64) == Some(self.leaf_index + 1)
            && record.get("stream").and_then(serde_json::Value::as_str).is_some_and(|stream| {
                checkpoint.origin.strip_suffix(stream).is_some_and(|host| host.ends_with("/ledger/"))
            });
        if !is_place {
            return Err(ProofFault::Place);
        }
        let leaf = leaf_digest(self.record.as_bytes());
        let included = verify_inclusion(&leaf, self.leaf_index, checkpoint.size, &siblings, &checkpoint.root);
        if included { Ok(checkpoint) } else { Err(ProofFault::NotIncluded) }
    }
}

pub(crate) fn decode(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

pub(crate) fn encode(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

/// Reads the tree of a stream up to a size that is in the store.
pub(crate) struct TreeReader<'a> {
    reader: &'a LedgerReader,
    stream: &'a str,
    size: u64,
    /// At most the tiles of one proof.
    seen: HashMap<(u32, u64), Vec<Hash>>,
}

impl<'a> TreeReader<'a> {
    pub(crate) fn new(reader: &'a LedgerReader, stream: &'a str, size: u64) -> Self {
        Self { reader, stream, size, seen: HashMap::new() }
    }

    /// Hashes of a level, the whole tile or as many as the tree has.
    async fn tile(&mut self, level: u32, tile: u64) -> Result<&[Hash], ProofError> {
        if !self.seen.contains_key(&(level, tile)) {
            let hashes = self.read(level, tile).await?;
            self.seen.insert((level, tile), hashes);
        }
        Ok(self.seen.get(&(level, tile)).map(Vec::as_slice).unwrap_or_default())
    }

    async fn read(&self, level: u32, tile: u64) -> Result<Vec<Hash>, ProofError> {
        let (db, stream) = (self.reader.db(), self.stream);
        let damaged = || ProofError::Damaged { stream: stream.to_owned(), level, tile };
        let first = tile * TILE_WIDTH;
        let count = (self.size >> (TILE_HEIGHT * level)).saturating_sub(first).min(TILE_WIDTH);
        let hashes: Option<Vec<Hash>> = if count == TILE_WIDTH {
            let row = tiles::tile(db, stream, level, tile).await?.ok_or_else(damaged)?;
            let (hashes, rest) = row.as_chunks::<32>();
            rest.is_empty().then(|| hashes.to_vec())
        } else if let Some(below) = level.checked_sub(1) {
            let rows = tiles::roots(db, stream, below, first, first + count).await?;
            rows.into_iter().map(|row| row.try_into().ok()).collect()
        } else {
            let rows = tiles::leaves(db, stream, first, first + count).await?;
            rows.iter().map(|row| from_hex(row)).collect()
        };
        hashes.filter(|hashes| hashes.len() as u64 == count).ok_or_else(damaged)
    }

    async fn node(&mut self, (height, index): Node) -> Result<Hash, ProofError> {
        let (level, inner) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
        let first = index << inner;
        let (tile, offset) = (first / TILE_WIDTH, (first % TILE_WIDTH) as usize);
        let stream = self.stream;
        let hashes = self.tile(level, tile).await?;
        let part = hashes.get(offset..offset + (1 << inner));
        part.map(crate::tree::merkle).ok_or_else(|| ProofError::Damaged {
            stream: stream.to_owned(),
            level,
            tile,
        })
    }

    async fn range(&mut self, (lo, hi): Range) -> Result<Hash, ProofError> {
        let mut subtrees = Vec::new();
        for node in cover(lo, hi) {
            subtrees.push(self.node(node).await?);
        }
        Ok(range_root(&subtrees))
    }

    pub(crate) async fn ranges(&mut self, ranges: &[Range]) -> Result<Vec<Hash>, ProofError> {
        let mut hashes = Vec::with_capacity(ranges.len());
        for range in ranges {
            hashes.push(self.range(*range).await?);
        }
        Ok(hashes)
    }

    /// The root of the first `size` leaves.
    pub(crate) async fn root(&mut self, size: u64) -> Result<Hash, ProofError> {
        self.range((0, size)).await
    }

    /// The tree at the size of this reader, ready to grow.
    pub(crate) async fn tree(&mut self) -> Result<Tree, ProofError> {
        let mut open = Vec::new();
        for level in 0..levels(self.size) as u32 {
            let tile = (self.size >> (TILE_HEIGHT * level)) / TILE_WIDTH;
            open.push(self.read(level, tile).await?);
        }
        Tree::restore(self.size, open).ok_or_else(|| ProofError::Damaged {
            stream: self.stream.to_owned(),
            level: 0,
            tile: 0,
        })
    }
}

/// The tree of a claimed stream. One that an older version wrote last has none stored; it is built from all records once.
pub(crate) async fn restore(reader: &LedgerReader, stream: &Stream) -> Result<Tree, ProofError> {
    let size = stream.head_seq as u64;
    if stream.frontier.is_some() || size == 0 {
        return TreeReader::new(reader, &stream.stream, size).tree().await;
    }
    tracing::info!(
        stream = stream.stream,
        records = size,
        "building the tree over the records of an older version"
    );
    let (mut tree, mut done) = (Tree::default(), Vec::new());
    let mut at = 0;
    while at < size {
        let to = (at + 10_000).min(size);
        let rows = tiles::leaves(reader.db(), &stream.stream, at, to).await?;
        let damaged =
            || ProofError::Damaged { stream: stream.stream.clone(), level: 0, tile: at / TILE_WIDTH };
        if rows.len() as u64 != to - at {
            return Err(damaged());
        }
        for row in &rows {
            tree.push(from_hex(row).ok_or_else(damaged)?, &mut done);
        }
        at = to;
    }
    tiles::store(reader.db(), stream, tree.frontier(), &done).await?;
    Ok(tree)
}

impl LedgerReader {
    pub(crate) async fn stream(&self, name: &str) -> Result<Stream, ProofError> {
        let found = self.streams().await?.into_iter().find(|stream| stream.stream == name);
        found.ok_or_else(|| ProofError::NoSuchStream(name.to_owned()))
    }

    /// The newest checkpoint of a stream.
    ///
    /// # Errors
    /// An unknown stream, one without a checkpoint, or a database that cannot be read.
    pub async fn checkpoint(&self, stream: &str) -> Result<CheckpointRow, ProofError> {
        if let Some(row) = checkpoints::newest(self.db(), stream).await? {
            return Ok(row);
        }
        self.stream(stream).await?;
        Err(ProofError::NotYet)
    }

    /// Proves that a record stands in the newest checkpoint of its stream.
    ///
    /// # Errors
    /// No checkpoint that holds it, or a tree that does not fit the checkpoint.
    pub async fn prove(&self, row: &LedgerRow) -> Result<InclusionProof, ProofError> {
        let mismatch = || ProofError::Mismatch(row.stream.clone());
        let record = row.record.clone().ok_or_else(mismatch)?;
        let newest = self.checkpoint(&row.stream).await?;
        let note: Note = newest.note.parse().map_err(|_| mismatch())?;
        let checkpoint = note.unverified_checkpoint().map_err(|_| mismatch())?;
        let index = (row.seq - 1) as u64;
        if index >= checkpoint.size {
            return Err(ProofError::NotYet);
        }
        let head = self.stream(&row.stream).await?.head_seq as u64;
        if checkpoint.size > head {
            return Err(mismatch());
        }
        let mut tree = TreeReader::new(self, &row.stream, head);
        let siblings = tree.ranges(&inclusion(index, checkpoint.size)).await?;
        let leaf = leaf_digest(record.as_bytes());
        if !verify_inclusion(&leaf, index, checkpoint.size, &siblings, &checkpoint.root) {
            return Err(mismatch());
        }
        Ok(InclusionProof {
            record,
            leaf_index: index,
            checkpoint: newest.note,
            inclusion: encode(&siblings),
        })
    }

    /// Proves that a stream's tree of `to` records begins with that of `from`.
    ///
    /// # Errors
    /// Sizes that the stream does not have, or a damaged tree.
    pub async fn prove_consistency(
        &self,
        stream: &str,
        from: u64,
        to: u64,
    ) -> Result<ConsistencyProof, ProofError> {
        let row = self.stream(stream).await?;
        let head = row.head_seq as u64;
        if from == 0 || from > to || to > head {
            return Err(ProofError::BadSizes(head));
        }
        let mut tree = TreeReader::new(self, stream, head);
        let (from_root, to_root) = (tree.root(from).await?, tree.root(to).await?);
        let proof = tree.ranges(&consistency(from, to)).await?;
        if !verify_consistency(from, to, &proof, &from_root, &to_root) {
            return Err(ProofError::Mismatch(stream.to_owned()));
        }
        Ok(ConsistencyProof {
            stream: row.stream,
            origin: row.origin,
            from,
            to,
            from_root: STANDARD.encode(from_root),
            to_root: STANDARD.encode(to_root),
            consistency: encode(&proof),
        })
    }
}

/// The stored frontier of a stream, when it fits its head.
pub(crate) fn frontier(stream: &Stream) -> Option<Frontier> {
    Frontier::from_bytes(stream.head_seq as u64, stream.frontier.as_deref()?)
}
