//! Verification of companion rows: each opening record has its row, and the columns that repeat the record agree with it.
//! The statements are built from the registered tables.

use crate::record::EntryKind;
use crate::repository::retention::Part;
use crate::unit::{Cell, Col, ColType, ROW_DIGEST, Table, row_digest};
use crate::verify::Finding;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use systemprompt_database::{Db, WriteTx, on, on_tx};
use systemprompt_models::ids::EntryId;

const PAGE: i64 = 1000;

/// A companion row beside the records that it names: key, entry ids, mirrored columns as text.
struct Joined {
    key: String,
    opened: Option<String>,
    closed: Option<String>,
    open: Option<(String, i64, String)>,
    close: Option<(String, i64, String)>,
    /// The closing record was pruned before the opening one: what the row says of the end has no witness any more.
    closing_is_stub: bool,
    mirrored: Vec<Option<String>>,
    /// The lasting columns of the opening and the columns of the closing, as cells.
    opened_cells: Vec<Cell>,
    closed_cells: Vec<Cell>,
}

/// Columns as cells, from the index `from` on. Numbers come as integers, JSON as text.
macro_rules! cells {
    ($row:expr, $cols:expr, $from:expr) => {{
        let mut cells = Vec::with_capacity($cols.len());
        for (i, col) in $cols.iter().enumerate() {
            cells.push(match col.ty {
                ColType::Int => $row.try_get::<Option<i64>, _>($from + i)?.into(),
                ColType::Text | ColType::Json => $row.try_get::<Option<String>, _>($from + i)?.into(),
                ColType::Blob => match $row.try_get::<Option<Vec<u8>>, _>($from + i)? {
                    Some(bytes) => Cell::Blob(bytes.into_boxed_slice()),
                    None => Cell::Null,
                },
            });
        }
        cells
    }};
}

macro_rules! decode {
    ($row:expr, $mirrors:expr, $opens:expr, $closes:expr) => {{
        use sqlx::Row as _;
        let row = $row;
        let place = |at: usize| -> sqlx::Result<Option<(String, i64, String)>> {
            let stream: Option<String> = row.try_get(at)?;
            let seq: Option<i64> = row.try_get(at + 1)?;
            let record: Option<String> = row.try_get(at + 2)?;
            Ok(stream.zip(seq).zip(record).map(|((stream, seq), record)| (stream, seq, record)))
        };
        Joined {
            key: row.try_get(0)?,
            opened: row.try_get(1)?,
            closed: row.try_get(2)?,
            open: place(3)?,
            close: place(6)?,
            closing_is_stub: row.try_get::<Option<String>, _>(6)?.is_some()
                && row.try_get::<Option<String>, _>(8)?.is_none(),
            mirrored: (0..$mirrors).map(|i| row.try_get(9 + i)).collect::<sqlx::Result<_>>()?,
            opened_cells: cells!(row, $opens, 9 + $mirrors),
            closed_cells: cells!(row, $closes, 9 + $mirrors + $opens.len()),
        }
    }};
}

/// Rows checked, and what is wrong with them.
pub(crate) async fn check(db: &Db, table: &'static Table) -> sqlx::Result<(u64, Vec<Finding>)> {
    let Some(opened_by) = table.opened_by else { return Ok((0, Vec::new())) };
    let mut findings = missing_rows(db, table, opened_by).await?;
    let mut checked = 0;
    let mut after = String::new();
    // Keys grow with time: what a running server adds meanwhile is left to the next verification.
    let newest = newest_key(db, table).await?.unwrap_or_default();
    while after < newest {
        let page = joined_page(db, table, &after).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.key);
        checked += page.len() as u64;
        findings.extend(page.iter().flat_map(|row| differences(table, row)));
    }
    Ok((checked, findings))
}

/// Opening records without their row. A join, because `ledger_opened` has no index: each engine then makes one pass over both
/// tables, where a subquery for each record would be a scan for each record.
async fn missing_rows(db: &Db, table: &Table, opened_by: EntryKind) -> sqlx::Result<Vec<Finding>> {
    let sql = format!(
        "SELECT e.stream, e.seq, e.id FROM ledger_entries e LEFT JOIN {} t ON t.ledger_opened = e.id
         WHERE e.kind = $1 AND e.record IS NOT NULL AND t.ledger_opened IS NULL
         ORDER BY e.stream, e.seq LIMIT {PAGE}",
        table.name
    );
    let rows: Vec<(String, i64, String)> = on!(db, pool => sqlx::query_as(AssertSqlSafe(sql))
        .bind(opened_by.as_str()).fetch_all(pool).await)?;
    Ok(rows
        .into_iter()
        .map(|(stream, seq, id)| Finding {
            check: "row_missing",
            stream,
            seq,
            expected: format!("a row of {} opened by {id}", table.name),
            found: "none".into(),
        })
        .collect())
}

async fn newest_key(db: &Db, table: &Table) -> sqlx::Result<Option<String>> {
    let sql = format!("SELECT MAX({}) FROM {}", table.key, table.name);
    on!(db, pool => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await)
}

async fn joined_page(db: &Db, table: &Table, after: &str) -> sqlx::Result<Vec<Joined>> {
    let closed = if table.close.is_empty() { "NULL" } else { "t.ledger_closed" };
    let mirrors: Vec<String> = table
        .mirror
        .iter()
        .chain(table.mirror_closed)
        .map(|(column, _)| format!(", CAST(t.{column} AS TEXT)"))
        .collect();
    let opens: Vec<Col> = table.lasting().map(|(_, col)| *col).collect();
    let closes = table.close;
    let kept: Vec<String> = opens.iter().chain(closes).map(|col| format!(", {}", as_cell(*col))).collect();
    let kept = kept.concat();
    let sql = format!(
        "SELECT t.{key}, t.ledger_opened, CAST({closed} AS TEXT), o.stream, o.seq, o.record, c.stream, c.seq, c.record{columns}{kept}
         FROM {name} t LEFT JOIN ledger_entries o ON o.id = t.ledger_opened
         LEFT JOIN ledger_entries c ON c.id = CAST({closed} AS TEXT)
         WHERE t.{key} > $1 ORDER BY t.{key} LIMIT {PAGE}",
        key = table.key,
        name = table.name,
        columns = mirrors.concat(),
    );
    let count = mirrors.len();
    match db {
        Db::Sqlite(db) => {
            let rows = sqlx::query(AssertSqlSafe(sql)).bind(after).fetch_all(db.reader()).await?;
            rows.iter().map(|row| Ok(decode!(row, count, opens, closes))).collect()
        }
        Db::Postgres(pool) => {
            let rows = sqlx::query(AssertSqlSafe(sql)).bind(after).fetch_all(pool).await?;
            rows.iter().map(|row| Ok(decode!(row, count, opens, closes))).collect()
        }
    }
}

fn as_cell(col: Col) -> String {
    match col.ty {
        ColType::Json => format!("CAST(t.{} AS TEXT)", col.name),
        _ => format!("t.{}", col.name),
    }
}

/// Compares the digest that a record holds of its row with that of the row as it is.
fn compare_digest(
    table: &Table,
    row: &Joined,
    (stream, seq, record): &(String, i64, String),
    found: String,
    findings: &mut Vec<Finding>,
) {
    let record = serde_json::from_str::<Value>(record).unwrap_or_default();
    let pointer = format!("/detail/{ROW_DIGEST}");
    let expected = record.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
    if expected != found {
        findings.push(Finding {
            check: "row_differs",
            stream: stream.clone(),
            seq: *seq,
            expected: format!("the row of {} {} with digest {expected}", table.name, row.key),
            found,
        });
    }
}

fn differences(table: &Table, row: &Joined) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (open_columns, close_columns) = row.mirrored.split_at(table.mirror.len().min(row.mirrored.len()));
    match &row.open {
        Some(place) => {
            compare(table, row, place, table.mirror, open_columns, &mut findings);
            let columns = table.lasting().map(|(_, col)| *col).zip(row.opened_cells.iter().map(Some));
            compare_digest(table, row, place, row_digest(columns), &mut findings);
        }
        None => findings.push(unlinked(table, row, row.opened.as_deref())),
    }
    match (&row.closed, &row.close) {
        (Some(_), Some(place)) => {
            compare(table, row, place, table.mirror_closed, close_columns, &mut findings);
            let columns = table.close.iter().copied().zip(row.closed_cells.iter().map(Some));
            compare_digest(table, row, place, row_digest(columns), &mut findings);
        }
        (Some(_), None) if row.closing_is_stub => {}
        (Some(id), None) => findings.push(unlinked(table, row, Some(id))),
        (None, _) => {}
    }
    findings
}

/// How far the ids of a row and of its opening entry may be apart in time.
const APART_MS: u64 = 60_000;

/// What all keys of a table begin with; none of an empty table.
pub(crate) async fn key_prefix(db: &Db, table: &Table) -> sqlx::Result<Option<String>> {
    let sql = format!("SELECT MIN({}) FROM {}", table.key, table.name);
    let first: Option<String> =
        on!(db, pool => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await)?;
    Ok(first.and_then(|key| key.get(..key.len().checked_sub(32)?).map(str::to_owned)))
}

/// Deletes the rows that the stubs of a part had opened. Keys and entry ids tell their time, so only rows around it are read.
pub(crate) async fn delete_of_stubs(
    tx: &mut WriteTx,
    table: &Table,
    prefix: &str,
    part: &Part<'_>,
) -> sqlx::Result<u64> {
    let sql = format!(
        "DELETE FROM {name} WHERE {key} >= $1 AND {key} < $2 AND ledger_opened IN (
             SELECT e.id FROM ledger_entries e
             WHERE e.stream = $3 AND e.seq >= $4 AND e.seq <= $5 AND e.pruned_by = $6)",
        name = table.name,
        key = table.key,
    );
    let (first, last) = part.ids;
    let bound = |at: u64| format!("{prefix}{at:012x}");
    let from = bound(millis(first).unwrap_or_default().saturating_sub(APART_MS));
    let to = bound(millis(last).unwrap_or(u64::MAX >> 16).saturating_add(APART_MS));
    on_tx!(*tx, conn => sqlx::query(AssertSqlSafe(sql))
        .bind(from).bind(to).bind(part.stream).bind(part.from).bind(part.to).bind(part.by)
        .execute(&mut *conn).await.map(|done| done.rows_affected()))
}

/// When an entry id was made.
fn millis(id: &str) -> Option<u64> {
    let (seconds, nanos) = EntryId::new(id).uuid()?.get_timestamp()?.to_unix();
    Some(seconds.saturating_mul(1000) + u64::from(nanos / 1_000_000))
}

/// A row that names an entry which does not exist, or is a stub already.
fn unlinked(table: &Table, row: &Joined, id: Option<&str>) -> Finding {
    Finding {
        check: "row_differs",
        stream: String::new(),
        seq: 0,
        expected: format!("the entry that {}.{} = {} names", table.name, table.key, row.key),
        found: format!("no record {}", id.unwrap_or("(null)")),
    }
}

fn compare(
    table: &Table,
    row: &Joined,
    (stream, seq, record): &(String, i64, String),
    mirror: &[(&'static str, &'static str)],
    columns: &[Option<String>],
    findings: &mut Vec<Finding>,
) {
    let record = serde_json::from_str::<Value>(record).unwrap_or_default();
    for ((column, pointer), found) in mirror.iter().zip(columns) {
        let expected = record.pointer(pointer).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        if expected != *found {
            findings.push(Finding {
                check: "row_differs",
                stream: stream.clone(),
                seq: *seq,
                expected: format!(
                    "{}.{column} of {} = {}",
                    table.name,
                    row.key,
                    expected.unwrap_or_default()
                ),
                found: found.clone().unwrap_or_default(),
            });
        }
    }
}
