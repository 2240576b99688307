//! Verification of an export with nothing else at hand: no database, no server, one pass, memory that does not grow with the
//! number of records. The file is not believed in anything: its keys count only where a key from outside hands its trust on.

use super::links::{KeyChain, LINK};
use super::stubs::Stubs;
use super::tree::{MISMATCH, differs};
use super::{Exported, Finding, Report, Signed};
use crate::chain::{genesis, leaf_digest};
use crate::checkpoint::note_digest;
use crate::export::jsonl::{FORMAT, Header, Line, MAX_LINE, StubLine};
use crate::note::{Note, VerifierKey};
use crate::proof::decode;
use crate::record::{EntryKind, is_canonical};
use crate::retention::Told;
use crate::tree::{Frontier, Hash, from_hex, inclusion_root, verify_consistency};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read as _};
use systemprompt_models::Millis;

/// Checkpoint records whose note has not been met; there is one at most unless lines were taken out.
const MAX_UNMET: usize = 64;

/// What an export is verified with.
#[derive(Clone, Debug, Default)]
pub struct OfflineScope {
    /// Only this stream's part.
    pub stream: Option<String>,
    /// Keys from outside the file.
    pub keys: Vec<VerifierKey>,
    /// Checkpoints from outside the file.
    pub notes: Vec<Note>,
    /// Leaves signatures aside: the file fits itself, whoever made it.
    pub structure_only: bool,
}

/// Why a file could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the file cannot be read")]
    Io(#[from] std::io::Error),
    #[error("line {0}: {1}")]
    Line(u64, &'static str),
    #[error("the file holds no export of the form `{FORMAT}`")]
    NoExport,
    #[error("the file has no stream `{0}`")]
    NoSuchStream(String),
}

/// Verifies every stream of an export.
///
/// # Errors
/// A file that is no export. What is wrong with an export is in the report.
pub fn verify_export(input: impl BufRead, scope: &OfflineScope) -> Result<Report, ExportError> {
    let mut report = Report::default();
    let mut lines = Lines { input, number: 0, text: Vec::new() };
    let mut part: Option<Part<'_>> = None;
    let (mut parts, mut skipped) = (0_u64, false);
    let (mut stubs, mut seen) = (Stubs::default(), BTreeSet::new());
    while let Some(text) = lines.next()? {
        let number = text.0;
        let bad = |why| ExportError::Line(number, why);
        match Line::read(text.1).map_err(bad)? {
            Line::Header(header) => {
                if let Some(done) = part.take() {
                    done.end(&mut report);
                }
                parts += 1;
                skipped = scope.stream.as_ref().is_some_and(|name| *name != header.stream);
                if !skipped {
                    report.streams += 1;
                    if !seen.insert(header.stream.clone()) {
                        report.add(Finding {
                            check: "stream_repeated",
                            stream: header.stream.clone(),
                            seq: header.from as i64,
                            expected: "each stream once".into(),
                            found: "it begins again".into(),
                        });
                    }
                    part = Some(
                        Part::begin(header, scope, &mut report)
                            .ok_or_else(|| bad("frontier and `from` do not fit"))?,
                    );
                }
            }
            _ if skipped => {}
            line => {
                let Some(part) = &mut part else { return Err(ExportError::NoExport) };
                part.take(line, &mut stubs, &mut report).map_err(bad)?;
            }
        }
    }
    match (part, &scope.stream) {
        (Some(part), _) => part.end(&mut report),
        (None, Some(name)) if parts > 0 && report.streams == 0 => {
            return Err(ExportError::NoSuchStream(name.clone()));
        }
        (None, _) if parts == 0 => return Err(ExportError::NoExport),
        (None, _) => {}
    }
    stubs.end(&mut report);
    Ok(report)
}

/// Lines of bounded length, read into one buffer.
struct Lines<R> {
    input: R,
    number: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<(u64, &str)>, ExportError> {
        loop {
            self.text.clear();
            self.number += 1;
            let read = self.input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return Ok(None);
            }
            if self.text.len() > MAX_LINE {
                return Err(ExportError::Line(self.number, "the line is longer than any of an export"));
            }
            while self.text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                self.text.pop();
            }
            if !self.text.is_empty() {
                break;
            }
        }
        let text = std::str::from_utf8(&self.text);
        text.map(|text| Some((self.number, text))).map_err(|_| ExportError::Line(self.number, "no UTF-8"))
    }
}

/// What a record says of its own place.
struct Place {
    id: String,
    stream: String,
    seq: u64,
    at: Millis,
    prev_hash: String,
    kind: String,
}

impl Place {
    fn of(record: &Value) -> Option<Self> {
        let text = |name: &str| record.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            id: text("id")?,
            stream: text("stream")?,
            seq: record.get("seq")?.as_u64()?,
            at: record.get("at")?.as_i64()?,
            prev_hash: text("prev_hash")?,
            kind: text("kind")?,
        })
    }
}

/// The pass over one stream of the file.
struct Part<'a> {
    header: Header,
    scope: &'a OfflineScope,
    keys: KeyChain,
    /// Of a whole range: the tree so far. Absent once a finding has made the rest meaningless.
    tree: Option<Frontier>,
    /// Of a filtered export: the root that all its proofs lead to.
    proven: Option<Hash>,
    /// Last `seq`, hash and time.
    last: (u64, Option<String>, Millis),
    outside: BTreeMap<u64, Vec<(Note, Hash)>>,
    unmet: BTreeMap<u64, (String, Millis)>,
    signed_to: u64,
    newest: Option<Signed>,
}

impl<'a> Part<'a> {
    fn begin(header: Header, scope: &'a OfflineScope, report: &mut Report) -> Option<Self> {
        let before = header.from.checked_sub(1)?;
        let tree = if header.is_filtered() {
            None
        } else {
            let peaks = header.frontier.iter().map(|text| decode(text)).collect::<Option<Vec<Hash>>>()?;
            Some(Frontier::from_bytes(before, &peaks.concat())?)
        };
        let known: Vec<VerifierKey> = header.vkeys.iter().filter_map(|key| key.parse().ok()).collect();
        let keys = KeyChain::new(&header.origin, &scope.keys, &known);
        let mut outside: BTreeMap<u64, Vec<(Note, Hash)>> = BTreeMap::new();
        for note in &scope.notes {
            let Ok(checkpoint) = note.unverified_checkpoint() else { continue };
            if checkpoint.origin == header.origin && checkpoint.size >= header.from {
                outside.entry(checkpoint.size).or_default().push((note.clone(), checkpoint.root));
            }
        }
        let first = (before == 0).then(|| genesis(&header.origin));
        let part = Self {
            scope,
            keys,
            tree,
            proven: None,
            last: (before, first, 0),
            outside,
            unmet: BTreeMap::new(),
            signed_to: before,
            newest: None,
            header,
        };
        if !part.keys.is_anchored() && !scope.structure_only {
            let expected = "a key of this stream, given with --key".to_owned();
            report.add(part.finding("no_trusted_key", before + 1, expected, "no trusted key".into()));
        }
        let Header { stream, from, to, complete, .. } = part.header.clone();
        let filtered = part.header.is_filtered();
        let fits = !(complete && (filtered || from != 1)) && (!filtered || part.header.frontier.is_empty());
        if !fits {
            let found = "a header that claims to be both".into();
            report.add(part.finding("header_altered", from, "a whole export, or a selection".into(), found));
        }
        report.exported.push(Exported { stream, from, to, complete: complete && fits, filtered });
        Some(part)
    }

    fn finding(&self, check: &'static str, seq: u64, expected: String, found: String) -> Finding {
        Finding { check, stream: self.header.stream.clone(), seq: seq as i64, expected, found }
    }

    fn take(&mut self, line: Line<'_>, stubs: &mut Stubs, report: &mut Report) -> Result<(), &'static str> {
        match line {
            Line::Header(_) => {}
            Line::Record { text, hash, inclusion, listed } => {
                report.records += 1;
                let place = self.record(text, &hash, inclusion.as_deref(), stubs, report)?;
                if let Some(by) = listed {
                    stubs.still_there(&self.header.stream, by, (place.seq, &place.kind, place.at, &hash));
                }
            }
            Line::Stub(stub) => {
                report.records += 1;
                self.stub(stub, stubs, report)?;
            }
            Line::Checkpoint { note, at, consistency } => self.checkpoint(&note, at, &consistency, report)?,
        }
        Ok(())
    }

    fn record(
        &mut self,
        text: &str,
        hash: &str,
        inclusion: Option<&[String]>,
        stubs: &mut Stubs,
        report: &mut Report,
    ) -> Result<Place, &'static str> {
        let leaf = leaf_digest(text.as_bytes());
        let record: Value = serde_json::from_str(text).map_err(|_| "the record is no JSON")?;
        let place = Place::of(&record).ok_or("the record does not say its place")?;
        if from_hex(hash) != Some(leaf) || !is_canonical(&record, text) {
            report.add(self.finding("record_altered", place.seq, hash.to_owned(), hex::encode(leaf)));
        }
        if place.stream != self.header.stream || !self.header.names(&place.stream) {
            report.add(self.finding(
                "record_altered",
                place.seq,
                self.header.origin.clone(),
                place.stream.clone(),
            ));
        }
        if place.kind == EntryKind::SystemRetention.as_str()
            && let Some(told) = Told::of(&record, place.at)
        {
            stubs.told(&place.id, told);
        }
        if self.header.is_filtered() {
            let inclusion = inclusion.ok_or("a filtered export has a proof a record")?;
            self.included(&place, leaf, inclusion, report)?;
            return Ok(place);
        }
        self.follows(place.seq, place.at, Some(&place.prev_hash), hash, report);
        if place.kind == LINK {
            self.keys.link(place.seq, record.get("detail"));
        }
        if place.kind == "system.checkpoint" && !self.scope.structure_only {
            self.names_checkpoint(place.seq, record.get("detail"), report);
        }
        self.grow(place.seq, leaf, report);
        Ok(place)
    }

    fn stub(&mut self, stub: StubLine, stubs: &mut Stubs, report: &mut Report) -> Result<(), &'static str> {
        if self.header.is_filtered() {
            return Err("a filtered export has no stubs");
        }
        let leaf = from_hex(&stub.hash).ok_or("the hash of a stub is no hash")?;
        self.follows(stub.seq, stub.at, None, &stub.hash, report);
        self.grow(stub.seq, leaf, report);
        report.add_all(stubs.stub(&self.header.stream, stub));
        Ok(())
    }

    /// Whether a line stands where it must; the chain goes on behind it.
    fn follows(&mut self, seq: u64, at: Millis, prev_hash: Option<&str>, hash: &str, report: &mut Report) {
        let (last, last_hash, last_at) = std::mem::take(&mut self.last);
        if seq != last + 1 {
            report.add(self.finding("gap", seq, format!("seq {}", last + 1), format!("seq {seq}")));
            self.tree = None;
        } else if let (Some(expected), Some(found)) = (last_hash, prev_hash)
            && expected != found
        {
            report.add(self.finding("chain_broken", seq, expected, found.to_owned()));
        }
        if at < last_at {
            report.add(self.finding("time_fell", seq, format!("at least {last_at}"), at.to_string()));
        }
        self.last = (seq, Some(hash.to_owned()), at);
    }

    fn grow(&mut self, seq: u64, leaf: Hash, report: &mut Report) {
        let Some(tree) = &mut self.tree else { return };
        tree.push(leaf, |_, _| {});
        if self.outside.is_empty() {
            return;
        }
        for (note, root) in self.outside.remove(&seq).unwrap_or_default() {
            if let Err(error) = self.sign(&note, seq) {
                let expected = "a checkpoint kept elsewhere, signed with a trusted key".to_owned();
                report.add(self.finding(super::tree::code(error), seq, expected, error.to_string()));
            } else if self.compare(seq, &root, "kept elsewhere", report) {
                report.outside += 1;
            }
        }
    }

    fn sign(&mut self, note: &Note, size: u64) -> Result<String, crate::note::NoteError> {
        if self.scope.structure_only || !self.keys.is_anchored() {
            return Ok(String::new());
        }
        self.keys.verify(note, size).map(|key| key.to_string())
    }

    fn compare(&mut self, size: u64, root: &Hash, kept: &str, report: &mut Report) -> bool {
        let Some(tree) = &self.tree else { return false };
        let Some((expected, found)) = differs(root, &tree.root(), kept) else { return true };
        report.add(self.finding(MISMATCH, size, expected, found));
        self.tree = None;
        false
    }

    /// A record of a filtered export: its proof leads to the one root.
    fn included(
        &mut self,
        place: &Place,
        leaf: Hash,
        inclusion: &[String],
        report: &mut Report,
    ) -> Result<(), &'static str> {
        let size = self.header.size.ok_or("a filtered export names the size of its tree")?;
        if place.seq <= self.last.0 {
            report.add(self.finding(
                "gap",
                place.seq,
                format!("a seq above {}", self.last.0),
                place.seq.to_string(),
            ));
        }
        self.last = (place.seq, None, place.at);
        let siblings = inclusion.iter().map(|text| decode(text)).collect::<Option<Vec<Hash>>>();
        let siblings = siblings.ok_or("a hash of a proof is not 32 bytes in base64")?;
        let root = place.seq.checked_sub(1).and_then(|index| inclusion_root(&leaf, index, size, &siblings));
        match (root, self.proven) {
            (Some(root), None) => self.proven = Some(root),
            (Some(root), Some(known)) if root == known => {}
            _ => {
                let expected = format!("a record of the tree of {size}");
                report.add(self.finding("not_included", place.seq, expected, hex::encode(leaf)));
            }
        }
        Ok(())
    }

    /// Each checkpoint left a record with the digest of its note, so none can be taken out of the file unseen.
    fn names_checkpoint(&mut self, seq: u64, detail: Option<&Value>, report: &mut Report) {
        let text = |name: &str| detail?.get(name)?.as_str();
        let size = detail.and_then(|detail| detail.get("size")?.as_u64());
        let (Some(size), Some(digest)) = (size, text("note_sha256")) else { return };
        if size < self.header.from || self.tree.is_none() {
            return;
        }
        let check = match self.unmet.remove(&size) {
            Some((found, at)) if found == digest => {
                // Older records do not tell the time.
                let made_at = detail.and_then(|detail| detail.get("made_at")?.as_i64());
                if let Some(made_at) = made_at.filter(|made_at| *made_at != at) {
                    let expected = format!("the checkpoint of {size} records made at {made_at}");
                    report.add(self.finding("checkpoint_altered", seq, expected, format!("made at {at}")));
                }
                return;
            }
            Some(_) => "checkpoint_altered",
            None => "checkpoint_missing",
        };
        let expected = format!("the checkpoint of {size} records with the note {digest}");
        report.add(self.finding(check, seq, expected, "another, or none".into()));
    }

    fn checkpoint(
        &mut self,
        text: &str,
        at: Millis,
        consistency: &[String],
        report: &mut Report,
    ) -> Result<(), &'static str> {
        let note: Note = text.parse().map_err(|_| "the checkpoint is no signed note")?;
        let checkpoint = note.unverified_checkpoint().map_err(|_| "the note is no checkpoint")?;
        let size = checkpoint.size;
        if checkpoint.origin != self.header.origin {
            report.add(self.finding(
                "checkpoint_altered",
                size,
                self.header.origin.clone(),
                checkpoint.origin,
            ));
            return Ok(());
        }
        let vkey = match self.sign(&note, size) {
            Ok(vkey) => vkey,
            Err(error) => {
                let expected = format!("a checkpoint signed with a key of {}", self.header.origin);
                report.add(self.finding(super::tree::code(error), size, expected, error.to_string()));
                return Ok(());
            }
        };
        let fits = if self.header.is_filtered() {
            self.fits_proofs(size, &checkpoint.root, report)
        } else if size == self.last.0 {
            self.compare(size, &checkpoint.root, "in the file", report)
        } else {
            self.fits_behind(size, &checkpoint.root, consistency, report)?
        };
        if size == self.last.0 && !self.header.is_filtered() {
            if self.unmet.len() >= MAX_UNMET {
                self.unmet.pop_first();
            }
            self.unmet.insert(size, (note_digest(text), at));
        }
        if fits {
            report.checkpoints += 1;
            self.signed_to = self.last.0;
            let stream = self.header.stream.clone();
            self.newest =
                Some(Signed { stream, size: self.last.0 as i64, at, vkey, trusted: self.keys.is_anchored() });
        }
        Ok(())
    }

    fn fits_proofs(&mut self, size: u64, root: &Hash, report: &mut Report) -> bool {
        let fits = self.header.size == Some(size) && self.proven.is_none_or(|proven| proven == *root);
        if !fits {
            let expected = format!("root {} of the checkpoint in the file", hex::encode(root));
            let found = self.proven.map(hex::encode).unwrap_or_default();
            report.add(self.finding("checkpoint_mismatch", size, expected, format!("root {found}")));
        }
        fits
    }

    /// A checkpoint of more records than the range has: the tree of it begins with ours.
    fn fits_behind(
        &mut self,
        size: u64,
        root: &Hash,
        consistency: &[String],
        report: &mut Report,
    ) -> Result<bool, &'static str> {
        let Some(tree) = &self.tree else { return Ok(false) };
        let proof = consistency.iter().map(|text| decode(text)).collect::<Option<Vec<Hash>>>();
        let proof = proof.ok_or("a hash of a proof is not 32 bytes in base64")?;
        let found = tree.root();
        if verify_consistency(self.last.0, size, &proof, &found, root) {
            return Ok(true);
        }
        let expected = format!("a tree that the checkpoint of {size} records begins with");
        report.add(self.finding(
            "checkpoint_mismatch",
            self.last.0,
            expected,
            format!("root {}", hex::encode(found)),
        ));
        Ok(false)
    }

    fn end(mut self, report: &mut Report) {
        let last = self.last.0;
        if !self.header.is_filtered() && last != self.header.to {
            let expected = format!("records {} to {}, as the header says", last + 1, self.header.to);
            report.add(self.finding("tail_missing", last + 1, expected, format!("the end at seq {last}")));
        }
        let is_empty = self.header.to < self.header.from;
        let has_signature = self.newest.is_some() || self.header.is_filtered() && self.proven.is_none();
        // Behind another finding the missing signature is no news.
        let is_whole = self.header.is_filtered() || self.tree.is_some() && last == self.header.to;
        if !self.scope.structure_only && !is_empty && is_whole && (self.signed_to < last || !has_signature) {
            let expected = format!("a checkpoint over the records {} to {last}", self.signed_to + 1);
            report.add(self.finding("checkpoint_missing", last, expected, "none in the file".into()));
        }
        for (size, notes) in std::mem::take(&mut self.outside) {
            if self.header.is_filtered() || size <= last || notes.is_empty() {
                continue;
            }
            let expected = format!("records {} to {size}, which a checkpoint kept elsewhere has", last + 1);
            report.add(self.finding("tail_missing", last + 1, expected, format!("the end at seq {last}")));
        }
        for doubt in self.keys.doubts().to_vec() {
            let expected = format!("a checkpoint signed with a key of {}", self.header.origin);
            let found = format!("{}, which no trusted key has handed its place to", doubt.key.id());
            report.add(self.finding("key_unknown", doubt.size, expected, found));
        }
        if !self.scope.structure_only {
            report.signed.extend(self.newest);
        }
    }
}
