//! The tree in verification: it is built anew from the records, and compared with the stored tiles, the stored checkpoints, the
//! checkpoints kept elsewhere, and what other streams say of this one.

use super::links::{KeyChain, LINK};
use super::{Finding, Report, Signed};
use crate::checkpoint::note_digest;
use crate::note::{Note, NoteError, VerifierKey};
use crate::payload::Role;
use crate::payload::read::PayloadError;
use crate::proof::{ProofError, TreeReader, frontier};
use crate::repository::checkpoints::{self, CheckpointRow};
use crate::repository::entries::{LedgerReader, LedgerRow};
use crate::repository::streams::Stream;
use crate::repository::tiles;
use crate::tree::{Hash, Tile, Tree, from_hex};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use systemprompt_models::Millis;

const PAGE: i64 = 500;
/// Checkpoints whose record has not been met yet; there is one at most unless rows were forged.
const MAX_UNRECORDED: usize = 4096;

/// The keys that checkpoints are verified with.
pub(super) struct Keys<'a> {
    given: &'a [VerifierKey],
    recorded: Vec<VerifierKey>,
}

impl<'a> Keys<'a> {
    pub(super) async fn read(
        reader: &LedgerReader,
        given: &'a [VerifierKey],
    ) -> sqlx::Result<(Self, Vec<Finding>)> {
        let (mut recorded, mut findings) = (Vec::new(), Vec::new());
        for row in checkpoints::keys(reader.db()).await? {
            match row.vkey.parse::<VerifierKey>() {
                Ok(key) if key.id() == row.key_id => recorded.push(key),
                _ => findings.push(Finding {
                    check: "key_altered",
                    stream: String::new(),
                    seq: 0,
                    expected: format!("the verifier key {}", row.key_id),
                    found: row.vkey,
                }),
            }
        }
        Ok((Self { given, recorded }, findings))
    }

    fn of(&self, origin: &str) -> KeyChain {
        KeyChain::new(origin, self.given, &self.recorded)
    }
}

/// Checkpoints that name no stream of this database: it is an older one, or another.
pub(super) fn notes_of_no_stream(streams: &[Stream], notes: &[Note]) -> Vec<Finding> {
    let checkpoints = notes.iter().filter_map(|note| note.unverified_checkpoint().ok());
    checkpoints
        .filter(|checkpoint| !streams.iter().any(|stream| stream.origin == checkpoint.origin))
        .map(|checkpoint| Finding {
            check: "rollback",
            stream: checkpoint.origin.clone(),
            seq: 1,
            expected: format!("the stream of a checkpoint kept elsewhere, {} records", checkpoint.size),
            found: "no such stream in this database".into(),
        })
        .collect()
}

/// What a record will say of a stored checkpoint.
struct Unrecorded {
    digest: String,
    at: Millis,
}

/// The pass over one stream.
pub(super) struct TreePass<'a> {
    reader: &'a LedgerReader,
    stream: &'a Stream,
    keys: KeyChain,
    /// Absent once a finding has made the rest meaningless, or for a stream of an older version that was not started since.
    tree: Option<Tree>,
    from: i64,
    /// Stored checkpoints that are ahead, the next first; `loaded` is the largest size read.
    ahead: VecDeque<CheckpointRow>,
    loaded: i64,
    exhausted: bool,
    /// Checkpoints kept elsewhere that are ahead, by size.
    outside: BTreeMap<u64, Vec<(Note, Hash)>>,
    /// Notes whose records are still to come, by size.
    unrecorded: BTreeMap<u64, Unrecorded>,
    newest: Option<Signed>,
}

impl<'a> TreePass<'a> {
    /// Begins before the record `from`.
    pub(super) async fn begin(
        reader: &'a LedgerReader,
        stream: &'a Stream,
        from: i64,
        keys: &'a Keys<'_>,
        notes: &[Note],
    ) -> sqlx::Result<(Self, Vec<Finding>)> {
        let mut findings = Vec::new();
        let before = (from - 1) as u64;
        let tree = if stream.frontier.is_none() && stream.head_seq > 0 {
            None
        } else {
            match TreeReader::new(reader, &stream.stream, before).tree().await {
                Ok(tree) => Some(tree),
                Err(ProofError::Read(error)) => return Err(error),
                // Records that are missing before are a gap of their own when they are asked for.
                Err(error) => {
                    findings.push(Finding {
                        check: "tile_missing",
                        stream: stream.stream.clone(),
                        seq: from,
                        expected: format!("the tree over the records 1 to {before}"),
                        found: error.to_string(),
                    });
                    None
                }
            }
        };
        let mut pass = Self {
            reader,
            stream,
            keys: keys.of(&stream.origin),
            tree,
            from,
            ahead: VecDeque::new(),
            loaded: before as i64,
            exhausted: false,
            outside: BTreeMap::new(),
            unrecorded: BTreeMap::new(),
            newest: None,
        };
        pass.keep_outside(notes);
        Ok((pass, findings))
    }

    fn finding(&self, check: &'static str, seq: u64, expected: String, found: String) -> Finding {
        Finding { check, stream: self.stream.stream.clone(), seq: seq as i64, expected, found }
    }

    /// Their signatures are checked where they stand, when it is known which key may have made them.
    fn keep_outside(&mut self, notes: &[Note]) {
        for note in notes {
            let Ok(checkpoint) = note.unverified_checkpoint() else { continue };
            if checkpoint.origin == self.stream.origin && checkpoint.size >= self.from as u64 {
                let at_size = self.outside.entry(checkpoint.size).or_default();
                at_size.push((note.clone(), checkpoint.root));
            }
        }
    }

    fn check_outside(&mut self, note: &Note, size: u64) -> Option<Finding> {
        let error = self.keys.verify(note, size).err()?;
        let expected = "a checkpoint kept elsewhere, signed with a trusted key".to_owned();
        Some(self.finding(code(error), size, expected, error.to_string()))
    }

    /// Takes in a record with its recomputed hash.
    pub(super) async fn record(
        &mut self,
        row: &LedgerRow,
        leaf: Hash,
        seq: i64,
        anchors: &mut Anchors,
        report: &mut Report,
    ) -> sqlx::Result<()> {
        if row.kind == "system.checkpoint" {
            report.add_all(self.checkpoint_record(row, anchors));
            self.long_list(row, anchors).await?;
        } else if row.kind == LINK {
            self.keys.link(seq as u64, detail_of(row).as_ref());
        }
        let Some(tree) = &mut self.tree else { return Ok(()) };
        if tree.frontier().size() + 1 != seq as u64 {
            // A gap, which was told already.
            self.tree = None;
            return Ok(());
        }
        let mut done = Vec::new();
        tree.push(leaf, &mut done);
        let size = tree.frontier().size();
        for tile in &done {
            report.add_all(self.check_tile(tile).await?);
        }
        for (note, root) in self.outside.remove(&size).unwrap_or_default() {
            if let Some(finding) = self.check_outside(&note, size) {
                report.add(finding);
                continue;
            }
            report.outside += 1;
            self.compare(size, &root, "kept elsewhere", report);
        }
        while let Some(row) = self.next_at(size).await? {
            self.check_row(&row, report);
        }
        Ok(())
    }

    async fn check_tile(&self, tile: &Tile) -> sqlx::Result<Option<Finding>> {
        let stored = tiles::tile(self.reader.db(), &self.stream.stream, tile.level, tile.index).await?;
        let check = match stored {
            None => "tile_missing",
            Some(stored) if stored != tile.hashes.concat() => "tile_altered",
            Some(_) => {
                let (level, index) = (tile.level, tile.index);
                let roots =
                    tiles::roots(self.reader.db(), &self.stream.stream, level, index, index + 1).await?;
                if roots.first().is_some_and(|root| root.as_slice() == tile.root) {
                    return Ok(None);
                }
                "tile_altered"
            }
        };
        let last = (tile.index + 1) << (8 * (tile.level + 1));
        let expected = format!("tile {} of level {} over the records", tile.index, tile.level);
        Ok(Some(self.finding(check, last, expected, "another, or none".into())))
    }

    /// The stored checkpoint of this size, if there is one.
    async fn next_at(&mut self, size: u64) -> sqlx::Result<Option<CheckpointRow>> {
        if self.ahead.is_empty() && !self.exhausted {
            let rows = checkpoints::page(self.reader.db(), &self.stream.stream, self.loaded, PAGE).await?;
            self.exhausted = (rows.len() as i64) < PAGE;
            self.loaded = rows.last().map_or(self.loaded, |row| row.size);
            self.ahead = rows.into();
        }
        Ok(self.ahead.pop_front_if(|row| row.size as u64 <= size))
    }

    fn check_row(&mut self, row: &CheckpointRow, report: &mut Report) {
        let size = row.size as u64;
        if self.unrecorded.len() >= MAX_UNRECORDED {
            self.unrecorded.pop_first();
        }
        self.unrecorded.insert(size, Unrecorded { digest: note_digest(&row.note), at: row.at });
        let stream = self.stream;
        let altered = |what: &str| Finding {
            check: "checkpoint_altered",
            stream: stream.stream.clone(),
            seq: row.size,
            expected: format!("{what} as the note says"),
            found: "another".into(),
        };
        let Ok((note, checkpoint)) =
            row.note.parse::<Note>().and_then(|note| note.unverified_checkpoint().map(|c| (note, c)))
        else {
            let finding = altered("a checkpoint in the note");
            return report.add(finding);
        };
        let agree = checkpoint.origin == self.stream.origin
            && checkpoint.size == size
            && from_hex(&row.root) == Some(checkpoint.root);
        if !agree {
            let finding = altered("origin, size and root");
            report.add(finding);
        }
        let key = match self.keys.verify(&note, size) {
            Ok(key) => key,
            Err(error) => {
                let expected = format!("a checkpoint signed with a key of {}", self.stream.origin);
                return report.add(self.finding(code(error), size, expected, error.to_string()));
            }
        };
        if key.id() != row.key_id {
            let finding = altered("key_id");
            report.add(finding);
        }
        let vkey = key.to_string();
        if agree && self.compare(size, &checkpoint.root, "stored", report) {
            report.checkpoints += 1;
            self.newest = Some(Signed {
                stream: self.stream.stream.clone(),
                size: row.size,
                at: row.at,
                vkey,
                trusted: self.keys.is_anchored(),
            });
        }
    }

    /// Compares a signed root with the tree; after the first difference the rest would only repeat it.
    fn compare(&mut self, size: u64, root: &Hash, kept: &str, report: &mut Report) -> bool {
        let Some(tree) = &self.tree else { return false };
        let Some((expected, found)) = differs(root, &tree.frontier().root(), kept) else { return true };
        report.add(self.finding(MISMATCH, size, expected, found));
        self.tree = None;
        false
    }

    /// The heads of many streams, which are a payload. One that is gone or altered is told with the payloads.
    async fn long_list(&self, row: &LedgerRow, anchors: &mut Anchors) -> sqlx::Result<()> {
        if row.record.as_deref().is_none_or(|text| !text.contains("\"heads_root\"")) {
            return Ok(());
        }
        match self.reader.payload(row, Role::Heads.as_str()).await {
            Ok(body) => {
                let heads: Value = serde_json::from_slice(&body.bytes).unwrap_or_default();
                anchors.keep(&self.stream.stream, row.seq, &serde_json::json!({"heads": heads}));
                Ok(())
            }
            Err(PayloadError::Read(error)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// A record of a checkpoint: its row is there, and what it says of other streams is kept.
    fn checkpoint_record(&mut self, row: &LedgerRow, anchors: &mut Anchors) -> Option<Finding> {
        let record: Value = serde_json::from_str(row.record.as_deref()?).ok()?;
        let detail = record.get("detail")?;
        anchors.keep(&self.stream.stream, row.seq, detail);
        let size = detail.get("size").and_then(Value::as_u64)?;
        let digest = detail.get("note_sha256").and_then(Value::as_str)?;
        if self.tree.is_none() || size < self.from as u64 {
            return None;
        }
        let check = match self.unrecorded.remove(&size) {
            Some(found) if found.digest == digest => {
                // Older records do not tell the time.
                let made_at = detail.get("made_at").and_then(Value::as_i64).filter(|at| *at != found.at)?;
                let expected = format!("the checkpoint of {size} records made at {made_at}");
                let found = format!("made at {}", found.at);
                return Some(self.finding("checkpoint_altered", row.seq as u64, expected, found));
            }
            Some(_) => "checkpoint_altered",
            None => "checkpoint_missing",
        };
        let expected = format!("the checkpoint of {size} records with the note {digest}");
        Some(self.finding(check, row.seq as u64, expected, "another, or none".into()))
    }

    /// At the head: the stored frontier, and checkpoints of more records than there are.
    pub(super) async fn end(&mut self, report: &mut Report) -> sqlx::Result<()> {
        let stored = frontier(self.stream);
        let built = self.tree.as_ref().map(Tree::frontier);
        if let Some(built) = built.filter(|built| built.size() == self.stream.head_seq as u64)
            && self.stream.head_seq > 0
            && stored.as_ref() != Some(built)
        {
            let expected = format!("the frontier of the tree of {} records", built.size());
            report.add(self.finding("frontier_altered", built.size(), expected, "another".into()));
        }
        let newest = checkpoints::newest(self.reader.db(), &self.stream.stream).await?;
        // A server that goes on writing makes checkpoints behind the head that was read.
        let streams = self.reader.streams().await?;
        let now = streams.iter().find(|s| s.stream == self.stream.stream).map_or(0, |s| s.head_seq);
        let head = format!("the head at seq {now}");
        if let Some(size) = newest.map(|row| row.size).filter(|size| *size > now) {
            let expected = format!("records {} to {size}, which a stored checkpoint has", now + 1);
            report.add(self.finding("tail_missing", now as u64 + 1, expected, head.clone()));
        }
        for (size, notes) in self.outside.split_off(&(now as u64 + 1)) {
            for (note, _) in notes {
                let expected =
                    format!("records {} to {size}, which a checkpoint kept elsewhere has", now + 1);
                let rollback = self.finding("rollback", now as u64 + 1, expected, head.clone());
                report.add(self.check_outside(&note, size).unwrap_or(rollback));
            }
        }
        Ok(())
    }

    /// Ends the pass: a key that signed must have been handed its trust, if not in this range, then before or behind it.
    pub(super) async fn close(mut self, report: &mut Report) -> sqlx::Result<()> {
        if !self.keys.doubts().is_empty() {
            self.follow_links().await?;
        }
        for doubt in self.keys.doubts().to_vec() {
            let expected = format!("a checkpoint signed with a key of {}", self.stream.origin);
            let found = format!("{}, which no trusted key has handed its place to", doubt.key.id());
            report.add(self.finding("key_unknown", doubt.size, expected, found));
        }
        report.signed.extend(self.newest);
        Ok(())
    }

    /// Rotations outside the range, each proven to stand in the newest checkpoint if a trusted key signed that.
    async fn follow_links(&mut self) -> sqlx::Result<()> {
        for row in checkpoints::keys(self.reader.db()).await? {
            let Some(entry) = self.reader.by_id(&row.ledger_id).await? else { continue };
            if entry.kind != LINK || entry.stream != self.stream.stream {
                continue;
            }
            let proof = match self.reader.prove(&entry).await {
                Ok(proof) => proof,
                Err(ProofError::Read(error)) => return Err(error),
                Err(_) => continue,
            };
            let Ok(checkpoint) = proof.verify(self.keys.trusted()) else { continue };
            let signer = proof.checkpoint.parse::<Note>();
            let signer = signer.and_then(|note| note.verify(self.keys.trusted()).cloned());
            if let Ok(signer) = signer {
                self.keys.proven(entry.seq as u64, detail_of(&entry).as_ref(), &signer, checkpoint.size);
            }
        }
        Ok(())
    }
}

fn detail_of(row: &LedgerRow) -> Option<Value> {
    let mut record: Value = serde_json::from_str(row.record.as_deref()?).ok()?;
    record.get_mut("detail").map(Value::take)
}

/// What is told where a signed root is not the one that the records make.
pub(super) const MISMATCH: &str = "checkpoint_mismatch";

/// What was signed and what was found, in words, where a checkpoint does not have the root that the records make. `kept` says where
/// the checkpoint is.
pub(super) fn differs(signed: &Hash, built: &Hash, kept: &str) -> Option<(String, String)> {
    let expected = || format!("root {} of the checkpoint that is {kept}", hex::encode(signed));
    (signed != built).then(|| (expected(), format!("root {}", hex::encode(built))))
}

pub(super) fn code(error: NoteError) -> &'static str {
    match error {
        NoteError::Unsigned => "key_unknown",
        NoteError::BadSignature => "checkpoint_signature",
        _ => "checkpoint_altered",
    }
}

/// What streams say of each other: of each stream the largest size that any names, since it covers all smaller ones.
#[derive(Default)]
pub(super) struct Anchors(BTreeMap<String, Anchor>);

struct Anchor {
    size: u64,
    root: String,
    by: String,
    seq: i64,
}

impl Anchors {
    fn keep(&mut self, by: &str, seq: i64, detail: &Value) {
        let Some(heads) = detail.get("heads").and_then(Value::as_object) else { return };
        for (stream, head) in heads.iter().filter(|(stream, _)| *stream != by) {
            let size = head.get("size").and_then(Value::as_u64).unwrap_or_default();
            let root = head.get("root").and_then(Value::as_str).unwrap_or_default();
            if self.0.get(stream).is_none_or(|known| known.size < size) {
                let anchor = Anchor { size, root: root.to_owned(), by: by.to_owned(), seq };
                self.0.insert(stream.clone(), anchor);
            }
        }
    }

    /// Compares what was said with the streams as they are.
    pub(super) async fn check(self, reader: &LedgerReader, streams: &[Stream]) -> sqlx::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for (name, anchor) in self.0 {
            let Anchor { size, root, by, seq } = anchor;
            let finding = |check, seq, found: String| Finding {
                check,
                stream: name.clone(),
                seq,
                expected: format!("{size} records with root {root}, as {by} seq {seq} says"),
                found,
            };
            let Some(stream) = streams.iter().find(|stream| stream.stream == name) else {
                findings.push(finding("stream_missing", seq, "no such stream".into()));
                continue;
            };
            // Read anew: a record that names it may be younger than the list of streams.
            let now = reader.streams().await?;
            let head = now.iter().find(|s| s.stream == name).map_or(stream.head_seq, |s| s.head_seq);
            if size > head as u64 {
                findings.push(finding("tail_missing", head + 1, format!("the head at seq {head}")));
                continue;
            }
            match TreeReader::new(reader, &name, head as u64).root(size).await {
                Ok(found) if hex::encode(found) == root => {}
                Ok(found) => {
                    let found = format!("root {}", hex::encode(found));
                    findings.push(finding("anchor_mismatch", size as i64, found));
                }
                Err(ProofError::Read(error)) => return Err(error),
                Err(error) => findings.push(finding("anchor_mismatch", size as i64, error.to_string())),
            }
        }
        Ok(findings)
    }
}
