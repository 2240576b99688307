//! The statements of retention: who applies it, what is due, and the change of entries to stubs.

use crate::repository::{companions, payloads};
use crate::retention::RetentionReport;
use crate::unit::Table;
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

/// The row of the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct RetentionState {
    pub holder: Option<String>,
    pub epoch: i64,
    pub held_until: Millis,
    pub started_at: Option<Millis>,
    pub finished_at: Option<Millis>,
    pub(crate) pending: Option<String>,
    pub(crate) progress: Option<String>,
    pub result: Option<String>,
}

impl RetentionState {
    /// What the last run did, if one ended.
    pub fn last(&self) -> Option<RetentionReport> {
        self.result.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }
}

pub(crate) async fn state(db: &Db) -> sqlx::Result<RetentionState> {
    let found: Option<RetentionState> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT holder, epoch, held_until, started_at, finished_at, pending, progress, result
         FROM ledger_retention WHERE one = 1"
    )).fetch_optional(pool).await)?;
    Ok(found.unwrap_or_default())
}

/// Takes the job until `until`, if nobody has it and it was not begun since `due`.
pub(crate) async fn claim(
    db: &Db,
    holder: &str,
    now: Millis,
    until: Millis,
    due: Millis,
) -> sqlx::Result<Option<RetentionState>> {
    let mut tx = db.write_tx().await?;
    let claimed = on_tx!(tx, conn => sqlx::query_as(sql!(
        "UPDATE ledger_retention SET holder = $1, epoch = epoch + 1, held_until = $2, started_at = $3
         WHERE one = 1 AND held_until <= $3 AND (started_at IS NULL OR started_at < $4)
         RETURNING holder, epoch, held_until, started_at, finished_at, pending, progress, result"
    )).bind(holder).bind(until).bind(now).bind(due).fetch_optional(&mut *conn).await)?;
    tx.commit().await?;
    Ok(claimed)
}

/// Keeps the job until `until`, and notes what is about to be changed; false when another holds it meanwhile.
pub(crate) async fn renew(db: &Db, epoch: i64, until: Millis, pending: Option<&str>) -> sqlx::Result<bool> {
    let mut tx = db.write_tx().await?;
    let kept = on_tx!(tx, conn => sqlx::query(sql!(
        "UPDATE ledger_retention SET held_until = $1, pending = $2 WHERE one = 1 AND epoch = $3"
    )).bind(until).bind(pending).bind(epoch).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(kept == 1)
}

/// Gives the job back. Without a result it failed, and what it had noted stays.
pub(crate) async fn finish(
    db: &Db,
    epoch: i64,
    now: Millis,
    progress: Option<&str>,
    result: &str,
) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "UPDATE ledger_retention
         SET held_until = 0, finished_at = $1, progress = COALESCE($2, progress), result = $3
         WHERE one = 1 AND epoch = $4"
    )).bind(now).bind(progress).bind(result).bind(epoch).execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}

/// An entry as the list of a retention record has it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Member {
    pub seq: i64,
    pub id: String,
    pub kind: String,
    pub at: Millis,
    pub hash: String,
    pub pruned_by: Option<String>,
    /// 1 of a stub.
    pub is_stub: i64,
}

/// At most `limit` entries of a stream behind `after`, in order.
pub(crate) async fn members(db: &Db, stream: &str, after: i64, limit: i64) -> sqlx::Result<Vec<Member>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT seq, id, kind, at, hash, pruned_by, CAST(CASE WHEN record IS NULL THEN 1 ELSE 0 END AS BIGINT) AS is_stub
         FROM ledger_entries WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3"
    )).bind(stream).bind(after).bind(limit).fetch_all(pool).await)
}

/// The oldest entry of a stream that is not older than `at`; behind the head when there is none. Time never falls along a stream, so
/// halving finds it with a few reads by the primary key.
pub(crate) async fn first_since(db: &Db, stream: &str, head: i64, at: Millis) -> sqlx::Result<i64> {
    let (mut first, mut behind) = (1, head + 1);
    while at > 0 && first < behind {
        let middle = first + (behind - first) / 2;
        let found: Option<(i64, Millis)> = on!(db, pool => sqlx::query_as(sql!(
            "SELECT seq, at FROM ledger_entries WHERE stream = $1 AND seq >= $2 ORDER BY seq LIMIT 1"
        )).bind(stream).bind(middle).fetch_optional(pool).await)?;
        match found {
            Some((seq, older)) if older < at => first = seq + 1,
            _ => behind = middle,
        }
    }
    Ok(first)
}

/// A retention record with its place.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct RecordRow {
    pub id: String,
    pub at: Millis,
    pub hash: String,
    pub record: Option<String>,
}

/// All retention records, which are never pruned themselves.
pub(crate) async fn records(db: &Db) -> sqlx::Result<Vec<RecordRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT id, at, hash, record FROM ledger_entries WHERE kind = 'system.retention' ORDER BY at, stream, seq"
    )).fetch_all(pool).await)
}

/// A part of a stream that is to become stubs.
pub(crate) struct Part<'a> {
    pub stream: &'a str,
    pub from: i64,
    pub to: i64,
    /// Smallest and largest id of an entry in it.
    pub ids: (&'a str, &'a str),
    /// Id of the retention record.
    pub by: &'a str,
}

/// Makes stubs of the entries of these kinds that are older than their cutoff, with all that hangs on them. Returns how many
/// entries and rows beside them went.
pub(crate) async fn prune(
    db: &Db,
    tables: &[&'static Table],
    part: &Part<'_>,
    cutoffs: &[(String, Millis)],
) -> sqlx::Result<(u64, u64)> {
    let tables: Vec<&'static Table> =
        tables.iter().copied().filter(|table| table.opened_by.is_some()).collect();
    let mut prefixes = Vec::with_capacity(tables.len());
    for table in &tables {
        prefixes.push(companions::key_prefix(db, table).await?);
    }
    let mut tx = db.write_tx().await?;
    payloads::overwrite(&mut tx).await?;
    let mut pruned = 0;
    for (kind, cutoff) in cutoffs {
        let (kind, cutoff) = (kind.as_str(), *cutoff);
        pruned += on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE ledger_entries
             SET record = NULL, actor_kind = NULL, actor_id = NULL, act_chain = NULL, session_id = NULL, context_id = NULL,
                 task_id = NULL, trace_id = NULL, client_id = NULL, subject_kind = NULL, subject_id = NULL, outcome = NULL,
                 reason = NULL, policy = NULL, pruned_by = $1
             WHERE stream = $2 AND seq >= $3 AND seq <= $4 AND kind = $5 AND at < $6 AND record IS NOT NULL"
        )).bind(part.by).bind(part.stream).bind(part.from).bind(part.to).bind(kind).bind(cutoff)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    }
    payloads::delete_of_stubs(&mut tx, part.stream, (part.from, part.to), part.by).await?;
    let mut rows = 0;
    for (at, prefix) in prefixes.iter().enumerate() {
        if let (Some(table), Some(prefix)) = (tables.get(at), prefix) {
            rows += companions::delete_of_stubs(&mut tx, table, prefix, part).await?;
        }
    }
    tx.commit().await?;
    Ok((pruned, rows))
}
