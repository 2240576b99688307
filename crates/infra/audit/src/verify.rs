//! Verification of the chain (AUD-51): the canonical text, its hash, the links, the sequence, the time, the columns that people
//! query, and the companion rows. Nothing here trusts a column that it can recompute.

use crate::chain::{genesis, leaf_hash};
use crate::repository::companions;
use crate::repository::entries::{LedgerReader, LedgerRow};
use crate::repository::streams::Stream;
use crate::unit::Table;
use serde::Serialize;
use serde_json::Value;
use systemprompt_models::Millis;

/// Entries that the check at start reads back.
const TAIL: i64 = 1024;
const PAGE: i64 = 1000;
/// Findings that a report lists; the rest is counted.
const MAX_FINDINGS: usize = 1000;

/// What was found to be wrong, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `record_altered`, `column_altered`, `gap`, `chain_broken`, `tail_missing`, `row_missing`, `row_differs`, `time_fell`.
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

/// Which part of the ledger to verify.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub stream: Option<String>,
    /// First `seq`, inclusive.
    pub from: Option<i64>,
    /// Last `seq`, inclusive.
    pub to: Option<i64>,
}

/// Why a verification could not be carried out; this is no finding.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("there is no stream `{0}`")]
    NoSuchStream(String),
    #[error("the ledger cannot be read")]
    Read(#[from] sqlx::Error),
}

/// Verifies streams and, when whole streams are asked for, the companion rows.
///
/// # Errors
/// An unknown stream, or a database that cannot be read.
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
    for stream in wanted {
        report.streams += 1;
        verify_stream(reader, stream, scope, &mut report).await?;
    }
    if scope.stream.is_none() && scope.from.is_none() && scope.to.is_none() {
        for table in tables {
            let (rows, findings) = companions::check(reader.db(), table).await?;
            report.rows += rows;
            report.add_all(findings);
        }
    }
    Ok(report)
}

async fn verify_stream(
    reader: &LedgerReader,
    stream: &Stream,
    scope: &Scope,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let from = scope.from.unwrap_or(1).max(1);
    // Up to the head as it was read: a server that goes on writing is not damaged for that.
    let to = scope.to.unwrap_or(stream.head_seq);
    let mut link = Link::before(reader, stream, from).await?;
    while link.cursor < to {
        let page = reader.page(&stream.stream, link.cursor, PAGE).await?;
        for row in page.iter().filter(|row| row.seq <= to) {
            report.records += 1;
            report.add_all(link.check(row));
        }
        match page.last() {
            Some(last) if last.seq < to => link.cursor = last.seq,
            _ => break,
        }
    }
    if scope.to.is_none() && from <= stream.head_seq + 1 {
        report.add_all(link.check_head(stream));
        report.add_all(behind_head(reader, stream).await?);
    }
    Ok(())
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

    fn check(&mut self, row: &LedgerRow) -> Vec<Finding> {
        let mut found = Vec::new();
        let finding = |check, expected: String, actual: String| Finding {
            check,
            stream: row.stream.clone(),
            seq: row.seq,
            expected,
            found: actual,
        };
        let text = row.record.as_deref().unwrap_or_default();
        let hash = leaf_hash(text);
        let value = serde_json::from_str::<Value>(text).unwrap_or_default();
        let canonical = serde_json_canonicalizer::to_string(&value).unwrap_or_default();
        if hash != row.hash || canonical != text {
            found.push(finding("record_altered", row.hash.clone(), hash.clone()));
        }
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
        for (column, expected, actual) in altered_columns(row, &value) {
            found.push(finding("column_altered", format!("{column} = {expected}"), actual));
        }
        *self = Self { cursor: row.seq, seq: row.seq, hash: row.hash.clone(), at: row.at };
        found
    }

    fn check_head(&self, stream: &Stream) -> Option<Finding> {
        let ends_there = stream.head_seq == self.seq && stream.head_hash == self.hash;
        (!ends_there).then(|| Finding {
            check: "tail_missing",
            stream: stream.stream.clone(),
            seq: self.seq + 1,
            expected: format!("head {} at seq {}", stream.head_hash, stream.head_seq),
            found: format!("head {} at seq {}", self.hash, self.seq),
        })
    }
}

/// Columns that differ from the record: (column, expected, found).
fn altered_columns(row: &LedgerRow, record: &Value) -> Vec<(&'static str, String, String)> {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let act_chain = record
        .get("act_chain")
        .and_then(Value::as_array)
        .map(|chain| chain.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let number = |pointer: &str| record.pointer(pointer).and_then(Value::as_i64).map(|n| n.to_string());
    let pairs: [(&'static str, Option<String>, Option<String>); 20] = [
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
    let mut findings: Vec<Finding> = rows.iter().flat_map(|row| link.check(row)).collect();
    findings.extend(link.check_head(stream));
    let damage = findings.first().map(|f| format!("{} at {} seq {}", f.check, f.stream, f.seq));
    Ok((damage, link.at))
}
