//! `ledger_payloads` and `ledger_bodies`. Rows come with their records, from the writer; here they are read, erased and deleted.

use crate::payload::{Class, PayloadRow, Role};
use crate::unit::Guard;
use bytes::Bytes;
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::uuid_v7;

/// Rows that one write transaction erases or deletes, and how many of them may have a body of their own.
const AT_ONCE: usize = 200;
const LARGE_AT_ONCE: usize = 8;

/// A payload with what is stored of it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct StoredRow {
    #[sqlx(flatten)]
    pub row: PayloadRow,
    pub salt: Option<Vec<u8>>,
    pub body: Option<Vec<u8>>,
}

/// Behind which row a page begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behind {
    pub seq: i64,
    pub role: String,
}

impl Behind {
    pub(crate) fn of(row: &PayloadRow) -> Self {
        Self { seq: row.seq, role: row.role.clone() }
    }
}

pub(crate) fn body_id() -> String {
    format!("body_{}", uuid_v7().simple())
}

/// Name of the guard that a body is there.
pub(crate) const BODY_GUARD: &str = "payload_body";

/// Names a body that was written before, in the transaction of its record; one that was swept meanwhile refuses the unit.
pub(crate) fn named(id: &str) -> Guard {
    Guard {
        name: BODY_GUARD,
        sql: sql!("UPDATE ledger_bodies SET named = 1 WHERE id = $1 AND named = 0"),
        cells: vec![id.into()],
    }
}

/// Writes bodies that no record names yet.
pub(crate) async fn write_bodies(db: &Db, bodies: Vec<(String, Bytes)>, now: Millis) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    for (id, body) in bodies {
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO ledger_bodies (id, at, named, body) VALUES ($1, $2, 0, $3)"
        )).bind(id).bind(now).bind(&body[..]).execute(&mut *conn).await.map(drop))?;
    }
    tx.commit().await
}

/// Deletes bodies that were written before `before` and that no record names. Returns how many.
pub(crate) async fn sweep_bodies(db: &Db, before: Millis) -> sqlx::Result<u64> {
    let left: Option<(i64,)> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT at FROM ledger_bodies WHERE named = 0 AND at < $1 LIMIT 1"
    )).bind(before).fetch_optional(pool).await)?;
    if left.is_none() {
        return Ok(0);
    }
    let mut tx = db.write_tx().await?;
    let swept = on_tx!(tx, conn => sqlx::query(sql!(
        "DELETE FROM ledger_bodies WHERE named = 0 AND at < $1"
    )).bind(before).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(swept)
}

/// The row of one payload.
pub(crate) async fn row(db: &Db, role: Role, stream: &str, seq: i64) -> sqlx::Result<Option<PayloadRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT class, stream, seq, role, at, subject_user, commitment, size, media_type, encoding, erased_at, erased_by,
                body_ref
         FROM ledger_payloads WHERE class = $1 AND stream = $2 AND seq = $3 AND role = $4"
    )).bind(role.class().as_str()).bind(stream).bind(seq).bind(role.as_str()).fetch_optional(pool).await)
}

/// Salt and stored body of a payload.
type SaltAndBody = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What is stored of a payload.
pub(crate) async fn body(db: &Db, row: &PayloadRow) -> sqlx::Result<SaltAndBody> {
    let found: Option<SaltAndBody> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT salt, body FROM ledger_payloads WHERE class = $1 AND stream = $2 AND seq = $3 AND role = $4"
    )).bind(row.class.as_str()).bind(row.stream.as_str()).bind(row.seq).bind(row.role.as_str())
        .fetch_optional(pool).await)?;
    let (salt, body) = found.unwrap_or_default();
    match &row.body_ref {
        Some(id) => Ok((salt, large_body(db, id).await?)),
        None => Ok((salt, body)),
    }
}

/// A body that was written before its record.
pub(crate) async fn large_body(db: &Db, id: &str) -> sqlx::Result<Option<Vec<u8>>> {
    let found: Option<(Vec<u8>,)> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT body FROM ledger_bodies WHERE id = $1"
    )).bind(id).fetch_optional(pool).await)?;
    Ok(found.map(|(body,)| body))
}

/// Everything of a class that the records behind `after`, up to `to`, have.
pub(crate) async fn stored(
    db: &Db,
    class: Class,
    stream: &str,
    after: i64,
    to: i64,
) -> sqlx::Result<Vec<StoredRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT class, stream, seq, role, at, subject_user, commitment, size, media_type, encoding, erased_at, erased_by,
                body_ref, salt, body
         FROM ledger_payloads WHERE class = $1 AND stream = $2 AND seq > $3 AND seq <= $4 ORDER BY seq, role"
    )).bind(class.as_str()).bind(stream).bind(after).bind(to).fetch_all(pool).await)
}

/// Where a row lies.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Stray {
    pub class: String,
    pub stream: String,
    pub seq: i64,
    pub role: String,
}

/// Rows of a class that there is not, and rows behind the end of their stream or of no stream. What lies at an entry that is
/// there is found with the entry. One statement, so that a server that goes on writing is not damaged for that.
pub(crate) async fn strays(db: &Db, limit: i64) -> sqlx::Result<Vec<Stray>> {
    let [inference, tool, change, client, note] = Class::ALL.map(Class::as_str);
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT p.class, p.stream, p.seq, p.role FROM ledger_payloads p
         WHERE p.class NOT IN ($1, $2, $3, $4, $5)
            OR (NOT EXISTS (SELECT 1 FROM ledger_streams s
                            WHERE s.stream = p.stream AND p.seq >= 1 AND p.seq <= s.head_seq)
                AND NOT EXISTS (SELECT 1 FROM ledger_entries e WHERE e.stream = p.stream AND e.seq = p.seq))
         ORDER BY p.class, p.stream, p.seq, p.role LIMIT $6"
    )).bind(inference).bind(tool).bind(change).bind(client).bind(note).bind(limit).fetch_all(pool).await)
}

/// Whether there is a row of this person, erased or not.
pub(crate) async fn is_there_any(db: &Db, subject_user: &str) -> sqlx::Result<bool> {
    let found: Option<(i64,)> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT seq FROM ledger_payloads WHERE subject_user = $1 LIMIT 1"
    )).bind(subject_user).fetch_optional(pool).await)?;
    Ok(found.is_some())
}

/// A page of a class without bodies, in order.
pub(crate) async fn page(
    db: &Db,
    class: Class,
    stream: &str,
    behind: &Behind,
    limit: i64,
) -> sqlx::Result<Vec<PayloadRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT class, stream, seq, role, at, subject_user, commitment, size, media_type, encoding, erased_at, erased_by,
                body_ref
         FROM ledger_payloads
         WHERE class = $1 AND stream = $2 AND seq >= $3 AND (seq > $3 OR role > $4) ORDER BY seq, role LIMIT $5"
    )).bind(class.as_str()).bind(stream).bind(behind.seq).bind(behind.role.as_str()).bind(limit).fetch_all(pool).await)
}

/// Parts of `rows` that fit one write transaction each.
pub(crate) fn portions(rows: &[PayloadRow]) -> Vec<&[PayloadRow]> {
    let mut parts = Vec::new();
    let (mut rest, mut taken, mut large) = (rows, 0, 0);
    while let Some(row) = rest.get(taken) {
        large += usize::from(row.body_ref.is_some());
        if taken == AT_ONCE || large > LARGE_AT_ONCE {
            let (part, behind) = rest.split_at(taken.max(1));
            parts.push(part);
            (rest, taken, large) = (behind, 0, 0);
        } else {
            taken += 1;
        }
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// Erases bodies and salts; `by` is the record that says so. Returns how many payloads lost theirs.
pub(crate) async fn erase(db: &Db, rows: &[PayloadRow], by: &str, now: Millis) -> sqlx::Result<u64> {
    let mut tx = db.write_tx().await?;
    overwrite(&mut tx).await?;
    let mut erased = 0;
    for row in rows {
        erased += on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE ledger_payloads SET salt = NULL, body = NULL, body_ref = NULL, erased_at = $1, erased_by = $2
             WHERE class = $3 AND stream = $4 AND seq = $5 AND role = $6 AND erased_at IS NULL"
        )).bind(now).bind(by).bind(row.class.as_str()).bind(row.stream.as_str()).bind(row.seq).bind(row.role.as_str())
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        drop_body(&mut tx, row).await?;
    }
    tx.commit().await?;
    Ok(erased)
}

/// Deletes payloads. Returns how many there were.
pub(crate) async fn delete(db: &Db, rows: &[PayloadRow]) -> sqlx::Result<u64> {
    let mut tx = db.write_tx().await?;
    overwrite(&mut tx).await?;
    let mut deleted = 0;
    for row in rows {
        deleted += on_tx!(tx, conn => sqlx::query(sql!(
            "DELETE FROM ledger_payloads WHERE class = $1 AND stream = $2 AND seq = $3 AND role = $4"
        )).bind(row.class.as_str()).bind(row.stream.as_str()).bind(row.seq).bind(row.role.as_str())
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        drop_body(&mut tx, row).await?;
    }
    tx.commit().await?;
    Ok(deleted)
}

async fn drop_body(tx: &mut WriteTx, row: &PayloadRow) -> sqlx::Result<()> {
    let Some(id) = &row.body_ref else { return Ok(()) };
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM ledger_bodies WHERE id = $1"))
        .bind(id.as_str()).execute(&mut *conn).await.map(drop))
}

/// Deletes the payloads of the stubs that the retention record `by` made in a part of a stream, whatever their class's own time.
pub(crate) async fn delete_of_stubs(
    tx: &mut WriteTx,
    stream: &str,
    (from, to): (i64, i64),
    by: &str,
) -> sqlx::Result<()> {
    for class in Class::ALL {
        on_tx!(*tx, conn => sqlx::query(sql!(
            "DELETE FROM ledger_bodies WHERE id IN (
                 SELECT p.body_ref FROM ledger_payloads p
                 WHERE p.class = $1 AND p.stream = $2 AND p.seq >= $3 AND p.seq <= $4 AND p.body_ref IS NOT NULL
                   AND p.seq IN (SELECT e.seq FROM ledger_entries e
                                 WHERE e.stream = $2 AND e.seq >= $3 AND e.seq <= $4 AND e.pruned_by = $5))"
        )).bind(class.as_str()).bind(stream).bind(from).bind(to).bind(by).execute(&mut *conn).await.map(drop))?;
        on_tx!(*tx, conn => sqlx::query(sql!(
            "DELETE FROM ledger_payloads
             WHERE class = $1 AND stream = $2 AND seq >= $3 AND seq <= $4
               AND seq IN (SELECT e.seq FROM ledger_entries e
                           WHERE e.stream = $2 AND e.seq >= $3 AND e.seq <= $4 AND e.pruned_by = $5)"
        )).bind(class.as_str()).bind(stream).bind(from).bind(to).bind(by).execute(&mut *conn).await.map(drop))?;
    }
    Ok(())
}

/// SQLite overwrites what this connection deletes, instead of leaving it in free pages.
pub(crate) async fn overwrite(tx: &mut WriteTx) -> sqlx::Result<()> {
    if let WriteTx::Sqlite(tx) = tx {
        sqlx::query("PRAGMA secure_delete = ON").execute(tx.conn()).await?;
    }
    Ok(())
}
