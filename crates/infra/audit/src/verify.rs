//! Verification of the chain (AUD-51): the canonical text, its hash, the links, the sequence, the time, the columns that people
//! query, the tree with its signed checkpoints, the payloads, what retention and erasure took away, and the companion rows.
//! Nothing here trusts a column that it can recompute.

mod gone;
pub(crate) mod links;
pub mod offline;
mod rows;
mod stubs;
mod tree;

use crate::chain::{genesis, leaf_digest};
use crate::note::{Note, VerifierKey};
use crate::payload::{Named, Owners};
use crate::repository::companions;
use crate::repository::entries::{Filter, LedgerReader, LedgerRow};
use crate::repository::streams::Stream;
use crate::tree::{Hash, from_hex};
use crate::unit::Table;
use gone::{Gone, Holder};
use rows::Rows;
use serde::Serialize;
use serde_json::Value;
use systemprompt_models::Millis;
use tree::{Anchors, Keys, TreePass};

/// Entries that the check at start reads back.
const TAIL: i64 = 1024;
const PAGE: i64 = 1000;
/// What findings call the copy of the last checkpoint that lies beside the database.
pub const COPY: &str = "ledger/last-checkpoint";
/// Findings that a report lists; the rest is counted.
const MAX_FINDINGS: usize = 1000;

/// What was found to be wrong, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Records: `record_altered`, `column_altered`, `gap`, `chain_broken`, `time_fell`, `tail_missing`, `behind_head`.
    /// Rows: `row_missing`, `row_differs`. Payloads: `payload_altered`, `payload_missing`. Retention: `stub_unexplained`. Tree: `tile_missing`, `tile_altered`, `frontier_altered`. Checkpoints:
    /// `checkpoint_mismatch`, `checkpoint_altered`, `checkpoint_missing`, `checkpoint_signature`, `key_unknown`,
    /// `key_altered`, `key_missing`, `anchor_mismatch`, `rollback`. Streams: `stream_missing`, `stream_altered`. Exports: `header_altered`, `stream_repeated`.
    pub check: &'static str,
    pub stream: String,
    pub seq: i64,
    pub expected: String,
    pub found: String,
}

/// Result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub streams: usize,
    pub records: u64,
    pub rows: u64,
    /// Payloads whose body, or salt, is what their record commits to.
    pub payloads: u64,
    /// Payloads that an erasure took away, as a record says.
    pub erased: u64,
    /// Payloads whose time was over, as a record says.
    pub expired: u64,
    /// Records that retention made stubs of, as a record says.
    pub pruned: u64,
    /// Stored checkpoints whose signature and root were checked.
    pub checkpoints: u64,
    /// Checkpoints kept elsewhere that were compared.
    pub outside: u64,
    /// The newest good checkpoint of each stream.
    pub signed: Vec<Signed>,
    /// Of a file: what it claims to hold of each stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exported: Vec<Exported>,
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more: u64,
}

impl Report {
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }

    fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// Up to where a signature vouches for a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signed {
    pub stream: String,
    pub size: i64,
    pub at: Millis,
    pub vkey: String,
    /// Whether the key came from outside the database.
    pub trusted: bool,
}

/// What a file claims to hold of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    pub stream: String,
    pub from: u64,
    pub to: u64,
    /// Whether it is said to be every record from the first to a checkpoint. Anything else is a selection.
    pub complete: bool,
    /// Whether single records were picked, which are proven one by one.
    pub filtered: bool,
}

/// What verification cannot show; `audit verify --explain` prints it.
pub const LIMITS: &str = "\
What `audit verify` shows: no record, index column, payload or companion row was changed, added or removed since it was written,
but for what a record of retention or erasure says; the records stand in one chain and one tree; each signed checkpoint is a checkpoint of this very tree; nothing is missing before
the newest checkpoint that is stored, kept beside the database, or given with --checkpoint.

What it cannot show:
  * Who holds root on the node and the signing key can rewrite everything since the last checkpoint that somebody else keeps.
    Give witnesses (audit.witness) or keep notes of `audit checkpoint` elsewhere, and pass them with --checkpoint.
  * A cut behind the last checkpoint that is kept elsewhere is seen only from there.
  * Without --key, and away from the node, the public key is read from the database itself: an attacker who replaced the key and
    all checkpoints is then not seen. The report says `trusted: false`.
  * The ledger proves what was recorded, not that the node told the truth.
  * A proof or an export of a selection (by a filter or a range) shows that its records stand in the ledger, not that nothing was
    left out.
";

/// Which part of the ledger to verify.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub stream: Option<String>,
    /// First `seq`, inclusive.
    pub from: Option<i64>,
    /// Last `seq`, inclusive.
    pub to: Option<i64>,
    /// Records from this time on; the later of this and `from` holds.
    pub since: Option<Millis>,
    /// Keys from outside the database. For the streams that they name, no other key counts.
    pub keys: Vec<VerifierKey>,
    /// Checkpoints from outside the database.
    pub notes: Vec<Note>,
    /// Whether the node's own copy of its last checkpoint is there and is none.
    pub is_copy_altered: bool,
}

impl Scope {
    fn is_whole(&self) -> bool {
        self.stream.is_none() && self.from.is_none() && self.to.is_none() && self.since.is_none()
    }
}

/// Why a verification could not be carried out; this is no finding.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("there is no stream `{0}`")]
    NoSuchStream(String),
    #[error("the range ends before it begins, or begins before 1")]
    EmptyRange,
    #[error("nothing lies in this range: {stream} ends at seq {head}")]
    BehindEnd { stream: String, head: i64 },
    #[error("the ledger cannot be read")]
    Read(#[from] sqlx::Error),
}

/// Verifies streams and, when whole streams are asked for, the companion rows.
///
/// # Errors
/// An unknown stream, a range that holds nothing, or a database that cannot be read.
pub async fn verify(
    reader: &LedgerReader,
    tables: &[&'static Table],
    scope: &Scope,
) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    let streams = reader.streams().await?;
    let wanted: Vec<&Stream> =
        streams.iter().filter(|s| scope.stream.as_ref().is_none_or(|name| *name == s.stream)).collect();
    if let (Some(name), true) = (&scope.stream, wanted.is_empty()) {
        return Err(VerifyError::NoSuchStream(name.clone()));
    }
    let from = scope.from.unwrap_or(1);
    if from < 1 || scope.to.is_some_and(|to| from > to) {
        return Err(VerifyError::EmptyRange);
    }
    // Where several streams are asked for, those that are shorter have nothing in the range.
    let ends_before = |stream: &Stream| from > stream.head_seq.max(1);
    if let Some(longest) = wanted.iter().max_by_key(|stream| stream.head_seq)
        && ends_before(longest)
    {
        let (stream, head) = (longest.stream.clone(), longest.head_seq);
        return Err(VerifyError::BehindEnd { stream, head });
    }
    let (keys, findings) = Keys::read(reader, &scope.keys).await?;
    report.add_all(findings);
    if scope.is_copy_altered {
        report.add(Finding {
            check: "checkpoint_altered",
            stream: COPY.to_owned(),
            seq: 0,
            expected: "a signed checkpoint".into(),
            found: "something else".into(),
        });
    }
    let mut anchors = Anchors::default();
    let (mut gone, mut rows) = (Gone::new(reader), Rows::default());
    for stream in wanted.into_iter().filter(|stream| !ends_before(stream)) {
        report.streams += 1;
        let passes = (&mut anchors, &mut gone, &mut rows);
        verify_stream(reader, stream, scope, &keys, passes, &mut report).await?;
    }
    if scope.is_whole() {
        gone.strays(&mut report).await?;
        gone.end(&mut report);
        report.add_all(anchors.check(reader, &streams).await?);
        report.add_all(reader.orphan_streams().await?.into_iter().map(orphan));
        report.add_all(rows.end(&streams));
        report.add_all(tree::notes_of_no_stream(&streams, &scope.notes));
        for table in tables {
            let (checked, findings) = companions::check(reader.db(), table).await?;
            report.rows += checked;
            report.add_all(findings);
        }
    }
    Ok(report)
}

/// Entries whose stream has lost its row: without a head nobody can tell where they should end.
fn orphan(stream: String) -> Finding {
    Finding {
        check: "stream_missing",
        stream,
        seq: 0,
        expected: "the stream's own row".into(),
        found: "entries alone".into(),
    }
}

async fn verify_stream(
    reader: &LedgerReader,
    stream: &Stream,
    scope: &Scope,
    keys: &Keys<'_>,
    (anchors, gone, rows): (&mut Anchors, &mut Gone<'_>, &mut Rows),
    report: &mut Report,
) -> Result<(), VerifyError> {
    let since = match scope.since {
        Some(since) => first_since(reader, stream, since).await?,
        None => 1,
    };
    let from = scope.from.unwrap_or(1).max(since);
    // Up to the head as it was read: a server that goes on writing is not damaged for that.
    let to = scope.to.unwrap_or(stream.head_seq);
    let mut link = Link::before(reader, stream, from).await?;
    let (mut tree, findings) = TreePass::begin(reader, stream, from, keys, &scope.notes).await?;
    report.add_all(findings);
    while link.cursor < to {
        let before = link.cursor;
        let page = reader.page(&stream.stream, link.cursor, PAGE).await?;
        let mut holders = Vec::new();
        for row in page.iter().filter(|row| row.seq <= to) {
            report.records += 1;
            let Checked { leaf, findings, named, owners } = link.check(row);
            report.add_all(findings);
            if row.record.is_none() {
                report.add_all(gone.stub(row).await?);
            }
            if !named.is_empty() {
                holders.push(Holder { seq: row.seq, at: row.at, named, owners });
            }
            tree.record(row, leaf, link.seq, anchors, report).await?;
            rows.record(stream, row);
        }
        // Payloads of records that are missing are told with the records.
        if let Some(last) = page.last() {
            gone.payloads(&stream.stream, (before, last.seq.min(to)), &holders, report).await?;
        }
        match page.last() {
            Some(last) if last.seq < to => link.cursor = last.seq,
            _ => break,
        }
    }
    if scope.to.is_none() && from <= stream.head_seq + 1 {
        report.add_all(link.check_head(stream));
        report.add_all(behind_head(reader, stream).await?);
        tree.end(report).await?;
    }
    let is_whole = from == 1 && scope.to.is_none();
    gone.end_stream(is_whole, report).await?;
    report.add_all(rows.end_stream(reader, stream, is_whole).await?);
    tree.close(report).await?;
    Ok(())
}

/// The first `seq` that is not older than `since`; behind the head when there is none.
async fn first_since(reader: &LedgerReader, stream: &Stream, since: Millis) -> sqlx::Result<i64> {
    let filter = Filter {
        stream: Some(stream.stream.clone()),
        since: Some(since),
        ascending: true,
        ..Filter::default()
    };
    let first = reader.filtered(&filter, None, 1).await?;
    Ok(first.first().map_or(stream.head_seq + 1, |row| row.seq))
}

/// A record behind the head belongs to a batch that moved the head with it; if the head still stands, nobody appended it.
async fn behind_head(reader: &LedgerReader, stream: &Stream) -> sqlx::Result<Option<Finding>> {
    let Some(row) = reader.page(&stream.stream, stream.head_seq, 1).await?.into_iter().next() else {
        return Ok(None);
    };
    let now = reader.streams().await?.into_iter().find(|s| s.stream == stream.stream);
    let has_moved = now.is_some_and(|now| now.head_seq >= row.seq);
    Ok((!has_moved).then(|| Finding {
        check: "behind_head",
        stream: row.stream,
        seq: row.seq,
        expected: format!("nothing behind seq {}", stream.head_seq),
        found: row.id,
    }))
}

/// What a record looked like by itself.
struct Checked {
    leaf: Hash,
    findings: Vec<Finding>,
    named: Vec<Named>,
    owners: Owners,
}

/// The end of what was verified so far.
struct Link {
    cursor: i64,
    seq: i64,
    hash: String,
    at: Millis,
}

impl Link {
    async fn before(reader: &LedgerReader, stream: &Stream, from: i64) -> sqlx::Result<Self> {
        if from > 1
            && let Some(row) =
                reader.page(&stream.stream, from - 2, 1).await?.into_iter().find(|r| r.seq == from - 1)
        {
            return Ok(Self { cursor: row.seq, seq: row.seq, hash: row.hash, at: row.at });
        }
        Ok(Self { cursor: from - 1, seq: from - 1, hash: genesis(&stream.origin), at: 0 })
    }

    /// Checks a record, or what retention left of one: of a stub the hash is taken as it stands, since the tree and the record
    /// behind it vouch for it.
    fn check(&mut self, row: &LedgerRow) -> Checked {
        let mut found = Vec::new();
        let finding = |check, expected: String, actual: String| Finding {
            check,
            stream: row.stream.clone(),
            seq: row.seq,
            expected,
            found: actual,
        };
        let (leaf, value) = if let Some(text) = &row.record {
            let leaf = leaf_digest(text.as_bytes());
            let hash = hex::encode(leaf);
            let value = serde_json::from_str::<Value>(text).unwrap_or_default();
            let canonical = serde_json_canonicalizer::to_string(&value).unwrap_or_default();
            if hash != row.hash || canonical != *text {
                found.push(finding("record_altered", row.hash.clone(), hash));
            }
            (leaf, value)
        } else {
            let leaf = from_hex(&row.hash);
            if leaf.is_none() {
                found.push(finding("record_altered", "a hash".into(), row.hash.clone()));
            }
            (leaf.unwrap_or_default(), Value::Null)
        };
        if row.seq == self.seq + 1 {
            if row.prev_hash != self.hash {
                found.push(finding("chain_broken", self.hash.clone(), row.prev_hash.clone()));
            }
        } else {
            found.push(finding("gap", format!("seq {}", self.seq + 1), format!("seq {}", row.seq)));
        }
        if row.at < self.at {
            found.push(finding("time_fell", format!("at least {}", self.at), row.at.to_string()));
        }
        let altered =
            if row.record.is_some() { altered_columns(row, &value) } else { left_over_columns(row) };
        for (column, expected, actual) in altered {
            found.push(finding("column_altered", format!("{column} = {expected}"), actual));
        }
        *self = Self { cursor: row.seq, seq: row.seq, hash: row.hash.clone(), at: row.at };
        Checked { leaf, findings: found, named: Named::of(&value), owners: Owners::of(&value) }
    }

    fn check_head(&self, stream: &Stream) -> Option<Finding> {
        let ends_there = stream.head_seq == self.seq && stream.head_hash == self.hash;
        (!ends_there).then(|| Finding {
            check: "tail_missing",
            stream: stream.stream.clone(),
            seq: self.seq + 1,
            expected: format!("records {} to {}, head {}", self.seq + 1, stream.head_seq, stream.head_hash),
            found: format!("head {} at seq {}", self.hash, self.seq),
        })
    }
}

/// Columns of a stub that should be empty: (column, expected, found).
fn left_over_columns(row: &LedgerRow) -> Vec<(&'static str, String, String)> {
    let columns = [
        ("actor_kind", &row.actor_kind),
        ("actor_id", &row.actor_id),
        ("act_chain", &row.act_chain),
        ("session_id", &row.session_id),
        ("context_id", &row.context_id),
        ("task_id", &row.task_id),
        ("trace_id", &row.trace_id),
        ("client_id", &row.client_id),
        ("subject_kind", &row.subject_kind),
        ("subject_id", &row.subject_id),
        ("outcome", &row.outcome),
        ("reason", &row.reason),
        ("policy", &row.policy),
    ];
    let left = columns.into_iter().filter_map(|(column, value)| Some((column, value.clone()?)));
    left.map(|(column, found)| (column, String::new(), found)).collect()
}

/// Columns that differ from the record: (column, expected, found).
fn altered_columns(row: &LedgerRow, record: &Value) -> Vec<(&'static str, String, String)> {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let act_chain = record
        .get("act_chain")
        .and_then(Value::as_array)
        .map(|chain| chain.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let number = |pointer: &str| record.pointer(pointer).and_then(Value::as_i64).map(|n| n.to_string());
    let pairs: [(&'static str, Option<String>, Option<String>); 21] = [
        ("stream", text("/stream"), Some(row.stream.clone())),
        ("seq", number("/seq"), Some(row.seq.to_string())),
        ("id", text("/id"), Some(row.id.clone())),
        ("at", number("/at"), Some(row.at.to_string())),
        ("kind", text("/kind"), Some(row.kind.clone())),
        ("actor_kind", text("/actor/kind"), row.actor_kind.clone()),
        ("actor_id", text("/actor/id"), row.actor_id.clone()),
        ("act_chain", act_chain, row.act_chain.clone()),
        ("session_id", text("/session_id"), row.session_id.clone()),
        ("context_id", text("/context_id"), row.context_id.clone()),
        ("task_id", text("/task_id"), row.task_id.clone()),
        ("trace_id", text("/trace_id"), row.trace_id.clone()),
        ("client_id", text("/client_id"), row.client_id.clone()),
        ("subject_kind", text("/subject_entity/kind"), row.subject_kind.clone()),
        ("subject_id", text("/subject_entity/id"), row.subject_id.clone()),
        ("outcome", text("/outcome"), row.outcome.clone()),
        ("reason", text("/reason"), row.reason.clone()),
        ("policy", text("/policy"), row.policy.clone()),
        ("prev_hash", text("/prev_hash"), Some(row.prev_hash.clone())),
        ("v", number("/v"), Some("1".to_owned())),
        ("pruned_by", None, row.pruned_by.clone()),
    ];
    pairs
        .into_iter()
        .filter(|(_, expected, found)| expected != found)
        .map(|(column, expected, found)| (column, expected.unwrap_or_default(), found.unwrap_or_default()))
        .collect()
}

/// The check at start: the last 1,024 records and the head. Returns what is damaged, if anything, and the last `at`.
pub(crate) async fn check_tail(
    reader: &LedgerReader,
    stream: &Stream,
) -> sqlx::Result<(Option<String>, Millis)> {
    let from = (stream.head_seq - TAIL + 1).max(1);
    let mut link = Link::before(reader, stream, from).await?;
    let rows = reader.page(&stream.stream, link.cursor, TAIL + 1).await?;
    let mut findings = Vec::new();
    let mut gone = Gone::new(reader);
    for row in &rows {
        findings.extend(link.check(row).findings);
        if row.record.is_none() {
            findings.extend(gone.stub(row).await?);
        }
    }
    findings.extend(link.check_head(stream));
    findings.extend(reader.orphan_streams().await?.into_iter().map(orphan));
    let damage = findings.first().map(|f| format!("{} at {} seq {}", f.check, f.stream, f.seq));
    Ok((damage, link.at))
}
