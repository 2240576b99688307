//! Rows that stand beside the chain and that records tell the truth about: the row of a stream, and its keys (AUD-51, AUD-52).
//! Each checkpoint repeats what its stream's row says; a repair tells how the stream before it was closed; keys come with the first
//! checkpoint that they signed or with a rotation, which also retires the one before.
//!
//! Records of older versions tell less. What none tells is left unchecked, and `docs/audit.md` says what that is.

use super::Finding;
use super::links::LINK;
use crate::note::VerifierKey;
use crate::repository::checkpoints::{self, KeyRow};
use crate::repository::entries::{LedgerReader, LedgerRow};
use crate::repository::streams::Stream;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;
use systemprompt_models::Millis;

const CHECKPOINT: &str = "system.checkpoint";
const REPAIR: &str = "system.repair";
const PAGE: i64 = 1000;
/// Keys of one stream that are followed, as rotations are.
const MAX_KEYS: usize = 1025;

/// A key as records tell it.
#[derive(Debug)]
struct KeyTold {
    /// The record that it came with, and its place.
    by: String,
    seq: i64,
    valid_from: Option<Millis>,
    retired: Option<Retired>,
}

/// By which record a key was replaced, and when, if that tells it.
#[derive(Debug)]
struct Retired {
    seq: i64,
    at: Option<Millis>,
}

/// What the newest checkpoint says of its stream's row.
#[derive(Debug)]
struct RowTold {
    seq: i64,
    node_id: String,
    epoch: i64,
    created_at: Millis,
    predecessor: Option<String>,
}

/// How a stream was closed, as its successor tells.
#[derive(Debug)]
struct Closed {
    by: String,
    seq: i64,
    head: (i64, String),
    reason_sha256: String,
    at: Option<Millis>,
}

/// What was told of the stream under way, and of closed streams.
#[derive(Debug, Default)]
pub(super) struct Rows {
    keys: BTreeMap<String, KeyTold>,
    row: Option<RowTold>,
    /// By the name of the closed stream.
    closed: BTreeMap<String, Closed>,
}

impl Rows {
    /// Takes in a record.
    pub(super) fn record(&mut self, stream: &Stream, row: &LedgerRow) {
        if ![CHECKPOINT, LINK, REPAIR].contains(&row.kind.as_str()) {
            return;
        }
        let record: Value =
            row.record.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let Some(detail) = record.get("detail") else { return };
        match row.kind.as_str() {
            CHECKPOINT => self.checkpoint(row, detail),
            LINK => self.rotation(&stream.origin, row, detail),
            _ => self.repair(row, detail),
        }
    }

    fn checkpoint(&mut self, row: &LedgerRow, detail: &Value) {
        if let Some(key) = detail.get("key_id").and_then(Value::as_str) {
            self.key(key.to_owned(), row, detail.get("made_at").and_then(Value::as_i64));
        }
        if let Some(told) = detail.get("row").and_then(|told| RowTold::read(row.seq, told)) {
            self.row = Some(told);
        }
    }

    fn rotation(&mut self, origin: &str, row: &LedgerRow, detail: &Value) {
        let id = |name: &str| -> Option<String> {
            let public = STANDARD.decode(detail.get(name)?.as_str()?).ok()?.try_into().ok()?;
            Some(VerifierKey::new(origin, public).id())
        };
        let at = detail.get("made_at").and_then(Value::as_i64);
        if let Some(old) = id("old_key").and_then(|old| self.keys.get_mut(&old)) {
            old.retired = Some(Retired { seq: row.seq, at });
        }
        if let Some(new) = id("new_key") {
            self.key(new, row, at.map(|at| at.saturating_add(1)));
        }
    }

    /// The first record that names a key is the one that it came with.
    fn key(&mut self, id: String, row: &LedgerRow, valid_from: Option<Millis>) {
        if self.keys.len() < MAX_KEYS {
            let told = KeyTold { by: row.id.clone(), seq: row.seq, valid_from, retired: None };
            self.keys.entry(id).or_insert(told);
        }
    }

    fn repair(&mut self, row: &LedgerRow, detail: &Value) {
        let text = |name: &str| detail.get(name).and_then(Value::as_str).map(str::to_owned);
        let head_seq = detail.get("head_seq").and_then(Value::as_i64);
        if let (Some(old), Some(head_seq), Some(head_hash), Some(reason_sha256)) =
            (text("predecessor"), head_seq, text("head_hash"), text("reason_sha256"))
        {
            let at = detail.get("closed_at").and_then(Value::as_i64);
            let (by, head) = (row.stream.clone(), (head_seq, head_hash));
            self.closed.insert(old, Closed { by, seq: row.seq, head, reason_sha256, at });
        }
    }

    /// Ends a stream. Of one that was read from its first record to its head the keys are known.
    pub(super) async fn end_stream(
        &mut self,
        reader: &LedgerReader,
        stream: &Stream,
        is_whole: bool,
    ) -> sqlx::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let told = self.row.take();
        findings.extend(told.and_then(|told| told.differs(stream)));
        // Of a stream that was closed the end may be lost, and with it what its keys came with.
        if is_whole && stream.closed_at.is_none() {
            let mut of_keys = self.check_keys(reader, stream).await?;
            if !of_keys.is_empty() {
                // A server that goes on writing: what its rows say, the records behind the head that was read may tell.
                self.read_on(reader, stream).await?;
                of_keys = self.check_keys(reader, stream).await?;
            }
            findings.append(&mut of_keys);
        }
        self.keys.clear();
        Ok(findings)
    }

    async fn read_on(&mut self, reader: &LedgerReader, stream: &Stream) -> sqlx::Result<()> {
        let mut after = stream.head_seq;
        loop {
            let page = reader.page(&stream.stream, after, PAGE).await?;
            for row in page.iter().filter(|row| row.kind != REPAIR) {
                self.record(stream, row);
            }
            match page.last() {
                Some(last) if page.len() as i64 == PAGE => after = last.seq,
                _ => break,
            }
        }
        self.row = None;
        Ok(())
    }

    async fn check_keys(&self, reader: &LedgerReader, stream: &Stream) -> sqlx::Result<Vec<Finding>> {
        let rows = checkpoints::keys(reader.db()).await?;
        let own =
            |row: &&KeyRow| row.key_id.rsplit_once('+').is_some_and(|(origin, _)| origin == stream.origin);
        let mut findings = Vec::new();
        for row in rows.iter().filter(own) {
            let finding = |seq, expected: String, found: String| Finding {
                check: "key_altered",
                stream: stream.stream.clone(),
                seq,
                expected,
                found,
            };
            match self.keys.get(&row.key_id) {
                None => findings.push(finding(0, "keys that a record names".to_owned(), row.key_id.clone())),
                Some(told) => {
                    let differs = told.differs(row);
                    findings.extend(differs.map(|(seq, expected, found)| {
                        finding(seq, format!("{} {expected}", row.key_id), found)
                    }));
                }
            }
        }
        for (id, told) in self.keys.iter().filter(|(id, _)| !rows.iter().any(|row| row.key_id == **id)) {
            findings.push(Finding {
                check: "key_missing",
                stream: stream.stream.clone(),
                seq: told.seq,
                expected: format!("the key {id}"),
                found: "no such row".to_owned(),
            });
        }
        Ok(findings)
    }

    /// When all streams were read: each was closed as its successor says, or not at all.
    pub(super) fn end(&self, streams: &[Stream]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for stream in streams {
            let finding = |seq, expected: String, found: String| Finding {
                check: "stream_altered",
                stream: stream.stream.clone(),
                seq,
                expected,
                found,
            };
            let found = || match stream.closed_at {
                Some(at) => format!("closed at {at} with seq {} as its last", stream.head_seq),
                None => "open".to_owned(),
            };
            let is_closed = stream.closed_at.is_some() || stream.closed_reason.is_some();
            match self.closed.get(&stream.stream) {
                Some(told) if !told.agrees(stream) => {
                    let expected = format!(
                        "closed with seq {} as its last, and for the reason with SHA-256 {}, as {} seq {} says",
                        told.head.0, told.reason_sha256, told.by, told.seq
                    );
                    findings.push(finding(stream.head_seq, expected, found()));
                }
                // A repair whose successor was not started yet has no record of its own.
                None if is_closed && !streams.iter().any(|next| next.awaits(&stream.stream)) => {
                    findings.push(finding(
                        stream.head_seq,
                        "open, as no repair says otherwise".to_owned(),
                        found(),
                    ));
                }
                Some(_) | None => {}
            }
            let succeeds = self.closed.iter().find(|(_, told)| told.by == stream.stream).map(|(old, _)| old);
            if stream.head_seq > 0 && succeeds != stream.predecessor.as_ref() {
                let name = |old: Option<&String>| old.map_or("none", String::as_str).to_owned();
                let expected = format!("predecessor {}, as its first record says", name(succeeds));
                findings.push(finding(1, expected, name(stream.predecessor.as_ref())));
            }
        }
        findings
    }
}

impl Stream {
    /// Whether it is the successor of `old` and has no record yet.
    fn awaits(&self, old: &str) -> bool {
        self.head_seq == 0 && self.predecessor.as_deref() == Some(old)
    }
}

impl Closed {
    fn agrees(&self, stream: &Stream) -> bool {
        let reason = stream.closed_reason.as_deref().unwrap_or_default();
        let at = stream.closed_at;
        (stream.head_seq, &stream.head_hash) == (self.head.0, &self.head.1)
            && hex::encode(digest(&SHA256, reason.as_bytes())) == self.reason_sha256
            && at.is_some()
            && self.at.is_none_or(|told| at == Some(told))
    }
}

impl RowTold {
    fn read(seq: i64, told: &Value) -> Option<Self> {
        Some(Self {
            seq,
            node_id: told.get("node_id")?.as_str()?.to_owned(),
            epoch: told.get("epoch")?.as_i64()?,
            created_at: told.get("created_at")?.as_i64()?,
            predecessor: told.get("predecessor").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// Each start raises the epoch, so the row may be ahead of what a checkpoint says, and never behind.
    fn differs(self, stream: &Stream) -> Option<Finding> {
        let agrees = self.node_id == stream.node_id
            && self.created_at == stream.created_at
            && self.predecessor == stream.predecessor
            && self.epoch <= stream.epoch;
        let told = |node: &str, epoch: i64, created_at: Millis, predecessor: Option<&str>| {
            let predecessor = predecessor.unwrap_or("none");
            format!("node {node}, epoch {epoch}, created at {created_at}, predecessor {predecessor}")
        };
        (!agrees).then(|| Finding {
            check: "stream_altered",
            stream: stream.stream.clone(),
            seq: self.seq,
            expected: told(&self.node_id, self.epoch, self.created_at, self.predecessor.as_deref()),
            found: told(&stream.node_id, stream.epoch, stream.created_at, stream.predecessor.as_deref()),
        })
    }
}

impl KeyTold {
    /// Place, expected and found of the first column that differs.
    fn differs(&self, row: &KeyRow) -> Option<(i64, String, String)> {
        if row.ledger_id != self.by {
            return Some((self.seq, format!("from {}", self.by), format!("from {}", row.ledger_id)));
        }
        if let Some(at) = self.valid_from.filter(|at| *at != row.valid_from) {
            return Some((self.seq, format!("valid from {at}"), row.valid_from.to_string()));
        }
        let found = format!(
            "{} {}",
            row.state,
            row.retired_at.map_or_else(|| "never".to_owned(), |at| at.to_string())
        );
        match &self.retired {
            None if row.state != "active" || row.retired_at.is_some() => {
                Some((self.seq, "active, as no rotation says otherwise".to_owned(), found))
            }
            Some(Retired { seq, at }) => {
                let agrees = row.state == "retired"
                    && row.retired_at.is_some_and(|found| at.is_none_or(|told| told == found));
                let when = at.map_or_else(String::new, |at| format!(" at {at}"));
                (!agrees).then(|| (*seq, format!("retired{when}"), found))
            }
            None => None,
        }
    }
}
