//! The writer's store on SQLite: its own connection on its own thread, prepared statements, WAL with `synchronous=FULL`.

use super::wal::WalMover;
use super::{Statements, table_of};
use crate::chain::{Chain, Entry};
use crate::tree::Tile;
use crate::unit::{Cell, Guard, RowWrite};
use crate::writer::{Store, StoreError};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Statement, ToSql};
use std::path::PathBuf;
use systemprompt_database::pool::{BUSY_TIMEOUT, WAL_BOUND_PAGES};
use systemprompt_database::write::Turn;
use systemprompt_database::{SqliteDb, WriteGate, sql};

pub(super) struct SqliteStore {
    path: PathBuf,
    conn: Connection,
    gate: WriteGate,
    turn: Option<Turn>,
    statements: Statements,
    wal: WalMover,
    /// Bytes of records in the transaction under way.
    written: usize,
}

impl SqliteStore {
    pub(super) fn open(db: &SqliteDb, statements: Statements) -> Result<Self, String> {
        let path = db.path().to_path_buf();
        let conn = connect(&path).map_err(|e| e.to_string())?;
        let beside = connect(&path).map_err(|e| e.to_string())?;
        let gate = db.gate().clone();
        let wal = WalMover::start(beside, gate.clone()).map_err(|e| e.to_string())?;
        let store = Self { path, conn, gate, turn: None, statements, wal, written: 0 };
        store.prepare_all().map_err(|e| e.to_string())?;
        Ok(store)
    }

    /// Prepares every statement once, so that a table that does not fit its definition stops the start.
    fn prepare_all(&self) -> rusqlite::Result<()> {
        self.conn.prepare_cached(&self.statements.entries)?;
        self.conn.prepare_cached(&self.statements.tiles)?;
        self.conn.prepare_cached(&self.statements.payloads)?;
        for sql in self.statements.tables.values() {
            self.conn.prepare_cached(&sql.open)?;
            if let Some(close) = &sql.close {
                self.conn.prepare_cached(close)?;
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.conn.prepare_cached(sql).and_then(|mut s| s.execute([])).map(drop).map_err(store_error)
    }

    fn insert_entry(&self, stream: &str, entry: &Entry<'_>) -> rusqlite::Result<()> {
        let draft = &entry.rendered.draft;
        let act_chain = (!draft.act_chain.is_empty()).then(|| draft.act_chain.join(" "));
        let subject = draft.subject.as_ref();
        self.conn
            .prepare_cached(&self.statements.entries)?
            .execute(rusqlite::params![
                stream,
                entry.seq,
                entry.id().as_str(),
                entry.at,
                draft.kind.as_str(),
                draft.actor_kind.as_str(),
                &*draft.actor_id,
                act_chain,
                draft.session_id.as_ref().map(AsRef::as_ref),
                draft.context_id.as_ref().map(AsRef::as_ref),
                draft.task_id.as_ref().map(AsRef::as_ref),
                draft.trace_id.as_ref().map(AsRef::as_ref),
                draft.client_id.as_ref().map(AsRef::as_ref),
                subject.map(|(kind, _)| &**kind),
                subject.map(|(_, id)| &**id),
                &*draft.outcome,
                draft.reason.as_deref(),
                draft.policy.as_deref(),
                entry.text,
                entry.prev_hash,
                entry.hash,
            ])
            .map(drop)
    }

    fn insert_payloads(&mut self, stream: &str, entry: &Entry<'_>) -> rusqlite::Result<()> {
        let rows = entry.rendered.draft.sealed.iter().filter(|sealed| sealed.has_row());
        for sealed in rows {
            self.written += sealed.inline_bytes();
            self.conn.prepare_cached(&self.statements.payloads)?.execute(rusqlite::params![
                sealed.class.as_str(),
                stream,
                entry.seq,
                sealed.role.as_str(),
                entry.at,
                sealed.subject.as_deref(),
                sealed.commitment,
                sealed.size,
                sealed.media_type,
                sealed.encoding,
                sealed.body_ref,
                sealed.salt,
                sealed.body.as_deref(),
            ])?;
        }
        Ok(())
    }

    fn write_row(&self, row: &RowWrite) -> Result<(), StoreError> {
        let table = table_of(row);
        let failed = |cause: String| StoreError::Row { table: table.name, cause };
        let Some(sql) = self.statements.of(table) else {
            return Err(failed("the table is not registered".into()));
        };
        let result = match row {
            RowWrite::Open { cells, .. } => {
                self.conn.prepare_cached(&sql.open).and_then(|mut s| execute_cells(&mut s, cells, None))
            }
            RowWrite::Close { key, cells, .. } => {
                let close = sql.close.as_ref().ok_or_else(|| failed("the table is never closed".into()))?;
                self.conn.prepare_cached(close).and_then(|mut s| execute_cells(&mut s, cells, Some(key)))
            }
        };
        match result {
            Ok(1) => Ok(()),
            Ok(n) => Err(failed(format!("{n} rows were touched instead of one"))),
            Err(error) => Err(match store_error(error) {
                StoreError::Failed(cause) => failed(cause),
                other => other,
            }),
        }
    }
}

/// Bytes that a row brings into the log, about.
fn bytes_of(row: &RowWrite) -> usize {
    let (RowWrite::Open { cells, .. } | RowWrite::Close { cells, .. }) = row;
    let texts = cells.iter().map(|cell| match cell {
        Cell::Text(text) | Cell::Json(text) => text.len(),
        Cell::Blob(bytes) => bytes.len(),
        Cell::Null | Cell::Int(_) => 0,
    });
    texts.sum()
}

fn connect(path: &PathBuf) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "fullfsync", "ON")?;
    conn.pragma_update(None, "foreign_keys", "ON")?;
    conn.pragma_update(None, "wal_autocheckpoint", WAL_BOUND_PAGES)?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}

/// Binds by position: the built statements number their marks (`?1`).
fn execute_cells(
    statement: &mut Statement<'_>,
    cells: &[Cell],
    key: Option<&str>,
) -> rusqlite::Result<usize> {
    for (i, cell) in cells.iter().enumerate() {
        statement.raw_bind_parameter(i + 1, CellRef(cell))?;
    }
    if let Some(key) = key {
        statement.raw_bind_parameter(cells.len() + 1, key)?;
    }
    statement.raw_execute()
}

struct CellRef<'a>(&'a Cell);

impl ToSql for CellRef<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Cell::Null => ToSqlOutput::Owned(Value::Null),
            Cell::Int(value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Cell::Text(text) | Cell::Json(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Cell::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

fn store_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.turn = Some(self.gate.ledger_blocking());
        self.written = 0;
        self.execute("BEGIN IMMEDIATE")
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.execute("SAVEPOINT unit")
    }

    fn rollback_to_savepoint(&mut self) -> Result<(), StoreError> {
        self.execute("ROLLBACK TO unit")
    }

    fn release_savepoint(&mut self) -> Result<(), StoreError> {
        self.execute("RELEASE unit")
    }

    fn guard(&mut self, guard: &Guard) -> Result<u64, StoreError> {
        let mut statement = self.conn.prepare_cached(guard.sql).map_err(store_error)?;
        // `$2 … $1` numbers by first appearance in SQLite, so parameters are bound by name.
        for (i, cell) in guard.cells.iter().enumerate() {
            let index = statement.parameter_index(&format!("${}", i + 1)).map_err(store_error)?;
            if let Some(index) = index {
                statement.raw_bind_parameter(index, CellRef(cell)).map_err(store_error)?;
            }
        }
        statement.raw_execute().map(|n| n as u64).map_err(store_error)
    }

    fn insert(&mut self, stream: &str, entries: &[Entry<'_>], rows: &[&RowWrite]) -> Result<(), StoreError> {
        for entry in entries {
            self.insert_entry(stream, entry).map_err(store_error)?;
            self.insert_payloads(stream, entry).map_err(store_error)?;
            self.written += entry.text.len();
        }
        self.written += rows.iter().map(|row| bytes_of(row)).sum::<usize>();
        rows.iter().try_for_each(|row| self.write_row(row))
    }

    fn insert_tiles(&mut self, stream: &str, tiles: &[Tile]) -> Result<(), StoreError> {
        let mut insert = self.conn.prepare_cached(&self.statements.tiles).map_err(store_error)?;
        for tile in tiles {
            let hashes = tile.hashes.as_flattened();
            insert
                .execute(rusqlite::params![stream, tile.level, tile.index as i64, tile.root, hashes])
                .map_err(store_error)?;
            self.written += hashes.len();
        }
        Ok(())
    }

    fn move_head(&mut self, old: &Chain, new: &Chain) -> Result<bool, StoreError> {
        self.conn
            .prepare_cached(sql!(
                "UPDATE ledger_streams SET head_seq = $1, head_hash = $2, frontier = $3
                 WHERE stream = $4 AND epoch = $5 AND head_seq = $6 AND closed_at IS NULL"
            ))
            .and_then(|mut s| {
                s.execute(rusqlite::params![
                    new.head_seq,
                    new.head_hash,
                    new.tree.frontier().to_bytes(),
                    &*old.stream,
                    old.epoch,
                    old.head_seq
                ])
            })
            .map(|rows| rows == 1)
            .map_err(store_error)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let result = self.execute("COMMIT");
        if result.is_ok() {
            self.turn = None;
            self.wal.committed(self.written);
        }
        result
    }

    fn rollback(&mut self) {
        if !self.conn.is_autocommit() && self.execute("ROLLBACK").is_err() {
            // A transaction that cannot be ended ends with its connection.
            if let Ok(conn) = connect(&self.path) {
                self.conn = conn;
            }
        }
        self.turn = None;
    }

    fn head(&mut self, stream: &str) -> Result<(i64, String), StoreError> {
        let row = self
            .conn
            .prepare_cached(sql!("SELECT head_seq, head_hash FROM ledger_streams WHERE stream = $1"))
            .and_then(|mut s| s.query_row([stream], |row| Ok((row.get(0)?, row.get(1)?))).optional());
        match row {
            Ok(Some(head)) => Ok(head),
            Ok(None) => Err(StoreError::Failed("the stream is not in the store".into())),
            Err(error) => {
                if let Ok(conn) = connect(&self.path) {
                    self.conn = conn;
                }
                Err(store_error(error))
            }
        }
    }
}
