//! The form that is verified elsewhere. For each stream a header line, then its lines in order:
//!
//! ```text
//! {"format":"systemprompt.ledger.v1","stream":…,"origin":…,"vkeys":[…],"from":1,"to":9,"complete":true,"frontier":[]}
//! {"record":{…canonical text…},"hash":"…"}
//! {"stub":{"seq":3,"kind":"tool.opened","at":…,"hash":"…","by":"led_…"}}
//! {"checkpoint":"…signed note…","at":…}
//! ```
//!
//! A checkpoint stands behind the last record that it covers, so that one pass needs no memory. A range that ends between two
//! checkpoints brings the next one with the proof that its tree begins with the range's. A range that begins later brings the
//! frontier of the tree before it. A filtered export is not complete: each record has its proof, all lead to one checkpoint.

use super::{ExportFault, Source};
use crate::proof::{TreeReader, encode};
use crate::query::{self, MAX_PAGE};
use crate::repository::checkpoints::{self, CheckpointRow};
use crate::repository::entries::{After, Filter, LedgerRow};
use crate::repository::streams::Stream;
use crate::retention::{self, Plan};
use crate::tree::{consistency, inclusion};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use systemprompt_models::Millis;

/// What the header names.
pub const FORMAT: &str = "systemprompt.ledger.v1";
/// Longest line; a note has 64 KiB at most, a record 32.
pub(crate) const MAX_LINE: usize = 256 * 1024;
const CHECKPOINTS: i64 = 500;
/// Records whose proofs share what is read of the tree.
const PROOFS: usize = 64;

/// The first line of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub format: String,
    pub stream: String,
    pub origin: String,
    /// Public keys that signed checkpoints, for whoever has none; nobody believes them for standing here.
    pub vkeys: Vec<String>,
    pub from: u64,
    pub to: u64,
    /// Whether every record up to the newest checkpoint is in the file.
    pub complete: bool,
    /// Roots of the complete subtrees before `from`, in base64.
    pub frontier: Vec<String>,
    /// Of a filtered export: the size of the tree that the proofs are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Header {
    pub(crate) fn is_filtered(&self) -> bool {
        self.size.is_some()
    }

    /// Whether the origin is that of the stream.
    pub(crate) fn names(&self, stream: &str) -> bool {
        self.origin.strip_suffix(stream).is_some_and(|host| host.ends_with("/ledger/"))
    }
}

/// A pruned record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StubLine {
    pub(crate) seq: u64,
    pub(crate) kind: String,
    pub(crate) at: Millis,
    pub(crate) hash: String,
    /// The retention record that covers its end. Nobody believes it for standing here: the list of that record must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

/// A line as it is read.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    Header(Header),
    Record {
        text: &'a str,
        hash: Cow<'a, str>,
        inclusion: Option<Vec<String>>,
        /// The retention record that lists it, where it was not pruned yet.
        listed: Option<String>,
    },
    Stub(StubLine),
    Checkpoint {
        note: String,
        at: Millis,
        consistency: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    #[serde(default)]
    inclusion: Option<Vec<String>>,
    #[serde(default)]
    listed: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stubbed {
    stub: StubLine,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    checkpoint: String,
    #[serde(default)]
    at: Millis,
    #[serde(default)]
    consistency: Vec<String>,
}

const RECORD: &str = "{\"record\":";
/// `,"hash":"` + 64 digits + `"}`.
const HASH: &str = ",\"hash\":\"";
const HASH_TAIL: usize = HASH.len() + 64 + 2;

impl<'a> Line<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self, &'static str> {
        if let Some((record, hash)) = plain_record(text) {
            return Ok(Self::Record {
                text: record,
                hash: Cow::Borrowed(hash),
                inclusion: None,
                listed: None,
            });
        }
        let bad = "this is no line of an export";
        if text.starts_with(RECORD) {
            let line: RecordLine<'a> = serde_json::from_str(text).map_err(|_| bad)?;
            let RecordLine { record, hash, inclusion, listed } = line;
            return Ok(Self::Record { text: record.get(), hash, inclusion, listed });
        }
        if text.starts_with("{\"checkpoint\":") {
            let line: CheckpointLine = serde_json::from_str(text).map_err(|_| bad)?;
            return Ok(Self::Checkpoint {
                note: line.checkpoint,
                at: line.at,
                consistency: line.consistency,
            });
        }
        if text.starts_with("{\"stub\":") {
            return serde_json::from_str::<Stubbed>(text).map(|line| Self::Stub(line.stub)).map_err(|_| bad);
        }
        let header: Header = serde_json::from_str(text).map_err(|_| bad)?;
        if header.format == FORMAT {
            Ok(Self::Header(header))
        } else {
            Err("another format than is known here")
        }
    }
}

/// A record line as it is written, without parsing it twice.
fn plain_record(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix(RECORD)?;
    let (record, tail) = inner.split_at_checked(inner.len().checked_sub(HASH_TAIL)?)?;
    let hash = tail.strip_prefix(HASH)?.strip_suffix("\"}")?;
    hash.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some((record, hash))
}

/// A stream that is being written.
#[derive(Debug)]
pub(crate) struct Part {
    header: Option<Header>,
    stream: Stream,
    cursor: i64,
    to: i64,
    /// Stored checkpoints behind what is written, the next first.
    checkpoints: VecDeque<CheckpointRow>,
    loaded: i64,
    last_signed: i64,
    filtered: Option<Filtered>,
    /// Retention that was announced and is not carried out to its end.
    pending: Option<Plan>,
    done: bool,
}

#[derive(Debug)]
struct Filtered {
    filter: Filter,
    after: Option<After>,
    checkpoint: CheckpointRow,
    rows_done: bool,
}

impl Part {
    /// `None` for a stream that has nothing in the range.
    pub(crate) async fn begin(source: &Source, stream: Stream) -> Result<Option<Self>, ExportFault> {
        let (db, request) = (source.reader.db(), &source.request);
        let newest = checkpoints::newest(db, &stream.stream).await?;
        let signed = newest.as_ref().map(|row| row.size);
        let mut from = request.from.unwrap_or(1).max(1);
        let mut to = request.to.unwrap_or_else(|| signed.unwrap_or(stream.head_seq)).min(stream.head_seq);
        if let Some(since) = request.filter.since {
            match source.first_since(&stream.stream, since).await? {
                Some(seq) => from = from.max(seq),
                None => return Ok(None),
            }
        }
        if let Some(until) = request.filter.until
            && let Some(seq) = source.first_since(&stream.stream, until).await?
        {
            to = to.min(seq - 1);
        }
        if from > to {
            return Ok(None);
        }
        let keys = checkpoints::keys(db).await?;
        let prefix = format!("{}+", stream.origin);
        let mut header = Header {
            format: FORMAT.to_owned(),
            stream: stream.stream.clone(),
            origin: stream.origin.clone(),
            vkeys: keys.into_iter().map(|key| key.vkey).filter(|key| key.starts_with(&prefix)).collect(),
            from: from as u64,
            to: to as u64,
            complete: from == 1 && Some(to) == signed && !request.is_filtered(),
            frontier: Vec::new(),
            size: None,
        };
        let filtered = if request.is_filtered() {
            let checkpoint = newest.ok_or(ExportFault::NoCheckpoint)?;
            header.size = Some(checkpoint.size as u64);
            let filter = Filter { stream: Some(stream.stream.clone()), ..request.filter.clone() };
            Some(Filtered { filter, after: None, checkpoint, rows_done: false })
        } else {
            let before = (from - 1) as u64;
            let tree = TreeReader::new(&source.reader, &stream.stream, before).tree().await?;
            let peaks = tree.frontier().to_bytes();
            header.frontier = peaks.chunks(32).map(|peak| STANDARD.encode(peak)).collect();
            None
        };
        let pending = retention::pending(db).await?.filter(|plan| plan.stream == stream.stream);
        Ok(Some(Self {
            header: Some(header),
            stream,
            cursor: from - 1,
            to,
            checkpoints: VecDeque::new(),
            loaded: from - 1,
            last_signed: from - 1,
            filtered,
            pending,
            done: false,
        }))
    }

    pub(crate) async fn next(&mut self, source: &Source) -> Result<Option<String>, ExportFault> {
        if self.done {
            return Ok(None);
        }
        let mut out = String::new();
        if let Some(header) = self.header.take() {
            out.push_str(&serde_json::to_string(&header).unwrap_or_default());
            out.push('\n');
        }
        if self.filtered.is_some() {
            self.proven_records(source, &mut out).await?;
        } else {
            self.whole_records(source, &mut out).await?;
        }
        Ok(Some(out))
    }

    async fn whole_records(&mut self, source: &Source, out: &mut String) -> Result<(), ExportFault> {
        let limit = MAX_PAGE.min(self.to - self.cursor);
        let rows = source.reader.page(&self.stream.stream, self.cursor, limit).await?;
        for row in &rows {
            self.cursor = row.seq;
            let pending = self
                .pending
                .as_ref()
                .filter(|plan| (plan.from..=plan.to).contains(&row.seq) && plan.covers(&row.kind, row.at));
            record(out, row, None, pending.map(|plan| plan.by.as_str()));
            while let Some(stored) = self.checkpoint_at(source, row.seq).await? {
                self.last_signed = stored.size;
                checkpoint(out, &stored, &[]);
            }
        }
        if rows.is_empty() || self.cursor >= self.to {
            self.done = true;
            if self.last_signed < self.cursor {
                self.sign_end(source, out).await?;
            }
        }
        Ok(())
    }

    /// The stored checkpoint of exactly `size`.
    async fn checkpoint_at(&mut self, source: &Source, size: i64) -> sqlx::Result<Option<CheckpointRow>> {
        if self.checkpoints.is_empty() && self.loaded < i64::MAX {
            let (db, stream) = (source.reader.db(), &self.stream.stream);
            let rows = checkpoints::page(db, stream, self.loaded, CHECKPOINTS).await?;
            self.loaded = rows.last().map_or(i64::MAX, |row| row.size);
            self.checkpoints = rows.into();
        }
        Ok(self.checkpoints.pop_front_if(|row| row.size <= size))
    }

    /// The next checkpoint behind the end, with the proof that its tree begins with what is in the file.
    async fn sign_end(&mut self, source: &Source, out: &mut String) -> Result<(), ExportFault> {
        let rows = checkpoints::page(source.reader.db(), &self.stream.stream, self.cursor, 1).await?;
        let Some(next) = rows.first() else { return Ok(()) };
        let (old, new) = (self.cursor as u64, next.size as u64);
        let mut tree = TreeReader::new(&source.reader, &self.stream.stream, new);
        let proof = tree.ranges(&consistency(old, new)).await?;
        checkpoint(out, next, &encode(&proof));
        Ok(())
    }

    async fn proven_records(&mut self, source: &Source, out: &mut String) -> Result<(), ExportFault> {
        let (from, to) = (self.cursor + 1, self.to);
        let Some(filtered) = &mut self.filtered else { return Ok(()) };
        let size = filtered.checkpoint.size;
        if filtered.rows_done {
            checkpoint(out, &filtered.checkpoint, &[]);
            self.done = true;
            return Ok(());
        }
        let (lookup, after) = (source.lookup.as_ref(), filtered.after.as_ref());
        let page = query::page(&source.reader, lookup, &filtered.filter, after, MAX_PAGE).await?;
        let wanted: Vec<&LedgerRow> = page
            .rows
            .iter()
            .filter(|row| (from..=to.min(size)).contains(&row.seq) && row.record.is_some())
            .collect();
        for rows in wanted.chunks(PROOFS) {
            let mut tree = TreeReader::new(&source.reader, &self.stream.stream, size as u64);
            for row in rows {
                let proof = tree.ranges(&inclusion((row.seq - 1) as u64, size as u64)).await?;
                record(out, row, Some(&encode(&proof)), None);
            }
        }
        filtered.rows_done = page.next.is_none();
        filtered.after = page.next;
        Ok(())
    }
}

/// The record's text goes out as it is: it is the very thing that was hashed.
pub(crate) fn record(out: &mut String, row: &LedgerRow, proof: Option<&[String]>, listed: Option<&str>) {
    let Some(text) = &row.record else {
        let stub = StubLine {
            seq: row.seq as u64,
            kind: row.kind.clone(),
            at: row.at,
            hash: row.hash.clone(),
            by: row.pruned_by.clone(),
        };
        let _ = writeln!(out, "{{\"stub\":{}}}", serde_json::to_string(&stub).unwrap_or_default());
        return;
    };
    let _ = write!(out, "{RECORD}{text}{HASH}{}\"", row.hash);
    if let Some(proof) = proof {
        let _ = write!(out, ",\"inclusion\":{}", serde_json::to_string(proof).unwrap_or_default());
    }
    if let Some(listed) = listed {
        let _ = write!(out, ",\"listed\":{}", serde_json::to_string(listed).unwrap_or_default());
    }
    out.push_str("}\n");
}

fn checkpoint(out: &mut String, row: &CheckpointRow, consistency: &[String]) {
    let note = serde_json::to_string(&row.note).unwrap_or_default();
    let _ = write!(out, "{{\"checkpoint\":{note},\"at\":{}", row.at);
    if !consistency.is_empty() {
        let _ = write!(out, ",\"consistency\":{}", serde_json::to_string(consistency).unwrap_or_default());
    }
    out.push_str("}\n");
}
