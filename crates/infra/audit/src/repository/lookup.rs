//! Filling the look-up file of SQLite.

use rusqlite::{Connection, Result};
use std::path::Path;
use systemprompt_database::sql;

/// Indexes of the look-up file: what the ledger itself must not carry.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS ledger_entries (
    stream TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL,
    actor_kind TEXT, actor_id TEXT, act_chain TEXT, session_id TEXT, context_id TEXT, task_id TEXT, trace_id TEXT,
    client_id TEXT, subject_kind TEXT, subject_id TEXT, outcome TEXT, reason TEXT, policy TEXT, record TEXT,
    prev_hash TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (stream, seq)
) STRICT;
CREATE INDEX IF NOT EXISTS lookup_at ON ledger_entries (at);
CREATE INDEX IF NOT EXISTS lookup_actor ON ledger_entries (actor_id, at);
CREATE INDEX IF NOT EXISTS lookup_trace ON ledger_entries (trace_id);
CREATE INDEX IF NOT EXISTS lookup_session ON ledger_entries (session_id, at);
CREATE INDEX IF NOT EXISTS lookup_context ON ledger_entries (context_id, at);
CREATE INDEX IF NOT EXISTS lookup_subject ON ledger_entries (subject_id, subject_kind, at);
";

/// Opens the look-up file with the ledger attached.
pub(crate) fn open(lookup: &Path, ledger: &Path) -> Result<Connection> {
    let conn = Connection::open(lookup)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    // Disposable: what a crash loses is projected again.
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "secure_delete", "ON")?;
    conn.busy_timeout(systemprompt_database::pool::BUSY_TIMEOUT)?;
    conn.execute_batch(SCHEMA)?;
    conn.execute("ATTACH DATABASE ?1 AS ledger", [format!("file:{}?mode=ro", ledger.display())])
        .or_else(|_| conn.execute("ATTACH DATABASE ?1 AS ledger", [ledger.display().to_string()]))?;
    Ok(conn)
}

/// Copies at most `limit` entries that the look-up file lacks. Returns how many.
pub(crate) fn project(conn: &Connection, limit: i64) -> Result<usize> {
    let streams: Vec<String> = conn
        .prepare_cached("SELECT stream FROM ledger.ledger_streams")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let mut copied = 0;
    for stream in streams {
        let cursor: i64 = conn
            .prepare_cached(sql!("SELECT COALESCE(MAX(seq), 0) FROM ledger_entries WHERE stream = $1"))?
            .query_row([&stream], |row| row.get(0))?;
        copied += conn
            .prepare_cached(
                "INSERT INTO main.ledger_entries
                 SELECT stream, seq, id, at, kind, actor_kind, actor_id, act_chain, session_id, context_id, task_id,
                        trace_id, client_id, subject_kind, subject_id, outcome, reason, policy, NULL, prev_hash, hash
                 FROM ledger.ledger_entries WHERE stream = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            )?
            .execute(rusqlite::params![stream, cursor, limit])?;
    }
    Ok(copied)
}

/// Forgets what the look-up file has of entries that became stubs.
pub(crate) fn forget(conn: &Connection, stream: &str, from: i64, to: i64) -> Result<usize> {
    conn.execute(
        "UPDATE main.ledger_entries
         SET actor_kind = NULL, actor_id = NULL, act_chain = NULL, session_id = NULL, context_id = NULL, task_id = NULL,
             trace_id = NULL, client_id = NULL, subject_kind = NULL, subject_id = NULL, outcome = NULL, reason = NULL,
             policy = NULL
         WHERE stream = ?1 AND seq >= ?2 AND seq <= ?3 AND seq IN (
             SELECT e.seq FROM ledger.ledger_entries e
             WHERE e.stream = ?1 AND e.seq >= ?2 AND e.seq <= ?3 AND e.record IS NULL)",
        rusqlite::params![stream, from, to],
    )
}
