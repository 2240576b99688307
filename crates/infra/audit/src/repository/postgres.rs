//! The writer's store on PostgreSQL: one connection, one `INSERT … SELECT FROM UNNEST` a table and batch.
//!
//! The writer is a thread of its own and waits for each answer on the runtime's handle.

use super::{Statements, table_of};
use crate::chain::{Chain, Entry};
use crate::record::Draft;
use crate::unit::{Cell, Col, ColType, Guard, RowWrite, Table};
use crate::writer::{Store, StoreError};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Postgres};
use std::time::Duration;
use systemprompt_database::sql;
use tokio::runtime::Handle;

/// Longest wait for one answer of the server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct PostgresStore {
    options: PgConnectOptions,
    conn: Option<PgConnection>,
    runtime: Handle,
    statements: Statements,
}

impl PostgresStore {
    pub(super) async fn open(pool: &PgPool, statements: Statements) -> Result<Self, String> {
        let options = (*pool.connect_options()).clone();
        let conn = connect(&options).await.map_err(|e| e.to_string())?;
        let mut store = Self { options, conn: Some(conn), runtime: Handle::current(), statements };
        store.prepare_all().await.map_err(|e| e.to_string())?;
        Ok(store)
    }

    /// Prepares every statement once, so that a table that does not fit its definition stops the start.
    async fn prepare_all(&mut self) -> sqlx::Result<()> {
        let texts = self.statements.tables.values().flat_map(|t| [Some(&t.open), t.close.as_ref()]);
        let texts: Vec<String> = texts.flatten().chain([&self.statements.entries]).cloned().collect();
        if let Some(conn) = &mut self.conn {
            for text in texts {
                conn.prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text))).await?;
            }
        }
        Ok(())
    }

    fn run(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, StoreError> {
        let Some(conn) = self.conn.as_mut() else {
            return Err(StoreError::Failed("no connection".into()));
        };
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, query.execute(conn)).await });
        match answer {
            Ok(Ok(done)) => Ok(done.rows_affected()),
            Ok(Err(error)) => Err(store_error(&error)),
            Err(_) => {
                // The answer may still come; the connection cannot be used for anything else.
                self.conn = None;
                Err(StoreError::Failed("the server did not answer in time".into()))
            }
        }
    }

    fn run_text(&mut self, text: &'static str) -> Result<(), StoreError> {
        self.run(sqlx::query(text)).map(drop)
    }

    fn write_rows(&mut self, table: &'static Table, rows: &[&RowWrite]) -> Result<(), StoreError> {
        let opens: Vec<&[Cell]> = rows
            .iter()
            .filter_map(|row| match row {
                RowWrite::Open { cells, .. } => Some(&**cells),
                RowWrite::Close { .. } => None,
            })
            .collect();
        let closes: Vec<Vec<Cell>> = rows
            .iter()
            .filter_map(|row| match row {
                RowWrite::Open { .. } => None,
                RowWrite::Close { key, cells, .. } => {
                    let key = Cell::Text(key.clone());
                    Some(cells.iter().cloned().chain([key]).collect())
                }
            })
            .collect();
        let Some(sql) = self.statements.of(table) else {
            return Err(StoreError::Row { table: table.name, cause: "the table is not registered".into() });
        };
        let (open_sql, close_sql) = (sql.open.clone(), sql.close.clone());
        self.write_cells(table, open_sql, table.open, &opens)?;
        if closes.is_empty() {
            return Ok(());
        }
        let Some(close_sql) = close_sql else {
            return Err(StoreError::Row { table: table.name, cause: "the table is never closed".into() });
        };
        let close_cols: Vec<Col> = table.close.iter().copied().chain([Col::text("row_key")]).collect();
        let closes: Vec<&[Cell]> = closes.iter().map(Vec::as_slice).collect();
        self.write_cells(table, close_sql, &close_cols, &closes)
    }

    fn write_cells(
        &mut self,
        table: &'static Table,
        sql: String,
        cols: &[Col],
        rows: &[&[Cell]],
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (i, col) in cols.iter().enumerate() {
            query = bind_column(query, col.ty, rows.iter().map(|row| row.get(i).unwrap_or(&Cell::Null)));
        }
        let failed = |cause: String| StoreError::Row { table: table.name, cause };
        match self.run(query) {
            Ok(n) if n == rows.len() as u64 => Ok(()),
            Ok(n) => Err(failed(format!("{n} rows were touched instead of {}", rows.len()))),
            Err(StoreError::Row { cause, .. }) => Err(failed(cause)),
            Err(error) => Err(error),
        }
    }
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut conn = options.connect().await?;
    conn.execute("SET plan_cache_mode = force_custom_plan").await?;
    // Whatever the server's default is; for the session, which spares every batch a round trip.
    conn.execute("SET synchronous_commit = on").await?;
    Ok(conn)
}

type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Binds one column of many rows as an array; nothing is copied but into the message.
fn bind_column<'q, 'c>(
    query: PgQuery<'q>,
    ty: ColType,
    cells: impl Iterator<Item = &'c Cell>,
) -> PgQuery<'q> {
    match ty {
        ColType::Int => query.bind(cells.map(as_int).collect::<Vec<_>>()),
        ColType::Text | ColType::Json => query.bind(cells.map(as_text).collect::<Vec<_>>()),
        ColType::Blob => query.bind(cells.map(as_blob).collect::<Vec<_>>()),
    }
}

fn as_int(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(value) => Some(*value),
        _ => None,
    }
}

fn as_text(cell: &Cell) -> Option<&str> {
    match cell {
        Cell::Text(text) | Cell::Json(text) => Some(text),
        _ => None,
    }
}

fn as_blob(cell: &Cell) -> Option<&[u8]> {
    match cell {
        Cell::Blob(bytes) => Some(bytes),
        _ => None,
    }
}

/// Binds the columns of `ledger_entries`, in the order of `ENTRY_COLUMNS`.
fn bind_entries<'q>(query: PgQuery<'q>, stream: &str, entries: &[Entry<'_>]) -> PgQuery<'q> {
    let text = |query: PgQuery<'q>, column: fn(&Draft) -> Option<&str>| {
        query.bind(entries.iter().map(|entry| column(&entry.rendered.draft)).collect::<Vec<_>>())
    };
    let chains = |entry: &Entry<'_>| match &*entry.rendered.draft.act_chain {
        [] => None,
        chain => Some(chain.join(" ")),
    };
    let query = query.bind(vec![stream; entries.len()]);
    let query = query.bind(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>());
    let query = query.bind(entries.iter().map(|entry| entry.id().as_str()).collect::<Vec<_>>());
    let query = query.bind(entries.iter().map(|entry| entry.at).collect::<Vec<_>>());
    let query = text(query, |draft| Some(draft.kind.as_str()));
    let query = text(query, |draft| Some(draft.actor_kind.as_str()));
    let query = text(query, |draft| Some(&draft.actor_id));
    let query = query.bind(entries.iter().map(chains).collect::<Vec<_>>());
    let query = text(query, |draft| draft.session_id.as_ref().map(AsRef::as_ref));
    let query = text(query, |draft| draft.context_id.as_ref().map(AsRef::as_ref));
    let query = text(query, |draft| draft.task_id.as_ref().map(AsRef::as_ref));
    let query = text(query, |draft| draft.trace_id.as_ref().map(AsRef::as_ref));
    let query = text(query, |draft| draft.client_id.as_ref().map(AsRef::as_ref));
    let query = text(query, |draft| draft.subject.as_ref().map(|(kind, _)| &**kind));
    let query = text(query, |draft| draft.subject.as_ref().map(|(_, id)| &**id));
    let query = text(query, |draft| Some(&draft.outcome));
    let query = text(query, |draft| draft.reason.as_deref());
    let query = text(query, |draft| draft.policy.as_deref());
    let query = query.bind(entries.iter().map(|entry| entry.text.as_str()).collect::<Vec<_>>());
    let query = query.bind(entries.iter().map(|entry| entry.prev_hash.as_str()).collect::<Vec<_>>());
    query.bind(entries.iter().map(|entry| entry.hash.as_str()).collect::<Vec<_>>())
}

/// Integrity violations and bad values are the row's fault; class 53 is a full store; the rest is the connection's.
fn store_error(error: &sqlx::Error) -> StoreError {
    let cause = error.to_string();
    let code = error.as_database_error().and_then(|e| e.code().map(std::borrow::Cow::into_owned));
    match code.as_deref() {
        Some(code) if code.starts_with("53") => StoreError::Full(cause),
        Some(code) if code.starts_with("23") || code.starts_with("22") => {
            StoreError::Row { table: "", cause }
        }
        _ => StoreError::Failed(cause),
    }
}

impl Store for PostgresStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.conn.is_none() {
            return Err(StoreError::Failed("no connection".into()));
        }
        self.run_text("BEGIN")
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.run_text("SAVEPOINT unit")
    }

    fn rollback_to_savepoint(&mut self) -> Result<(), StoreError> {
        self.run_text("ROLLBACK TO SAVEPOINT unit")
    }

    fn release_savepoint(&mut self) -> Result<(), StoreError> {
        self.run_text("RELEASE SAVEPOINT unit")
    }

    fn guard(&mut self, guard: &Guard) -> Result<u64, StoreError> {
        let mut query = sqlx::query(guard.sql);
        for cell in &guard.cells {
            query = match cell {
                Cell::Null => query.bind(None::<String>),
                Cell::Int(value) => query.bind(*value),
                Cell::Text(text) | Cell::Json(text) => query.bind(&**text),
                Cell::Blob(bytes) => query.bind(&**bytes),
            };
        }
        self.run(query)
    }

    fn insert(&mut self, stream: &str, entries: &[Entry<'_>], rows: &[&RowWrite]) -> Result<(), StoreError> {
        if !entries.is_empty() {
            let query = sqlx::query(AssertSqlSafe(self.statements.entries.clone()));
            self.run(bind_entries(query, stream, entries))?;
        }
        let mut tables: Vec<&'static Table> = Vec::new();
        for row in rows {
            let table = table_of(row);
            if !tables.iter().any(|known| known.name == table.name) {
                tables.push(table);
            }
        }
        for table in tables {
            let of_table: Vec<&RowWrite> =
                rows.iter().copied().filter(|row| table_of(row).name == table.name).collect();
            self.write_rows(table, &of_table)?;
        }
        Ok(())
    }

    fn move_head(&mut self, old: &Chain, new: &Chain) -> Result<bool, StoreError> {
        let query = sqlx::query(sql!(
            "UPDATE ledger_streams SET head_seq = $1, head_hash = $2
             WHERE stream = $3 AND epoch = $4 AND head_seq = $5 AND closed_at IS NULL"
        ));
        let query = query
            .bind(new.head_seq)
            .bind(new.head_hash.clone())
            .bind(old.stream.to_string())
            .bind(old.epoch)
            .bind(old.head_seq);
        self.run(query).map(|rows| rows == 1)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.run_text("COMMIT")
    }

    fn rollback(&mut self) {
        if self.conn.is_some() && self.run_text("ROLLBACK").is_err() {
            self.conn = None;
        }
    }

    fn head(&mut self, stream: &str) -> Result<(i64, String), StoreError> {
        if self.conn.is_none() {
            let options = self.options.clone();
            let connected = self
                .runtime
                .block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, connect(&options)).await });
            match connected {
                Ok(Ok(conn)) => self.conn = Some(conn),
                Ok(Err(error)) => return Err(StoreError::Failed(error.to_string())),
                Err(_) => return Err(StoreError::Failed("the server did not answer in time".into())),
            }
        }
        let Some(conn) = self.conn.as_mut() else {
            return Err(StoreError::Failed("no connection".into()));
        };
        let query = sqlx::query_as(sql!("SELECT head_seq, head_hash FROM ledger_streams WHERE stream = $1"))
            .bind(stream);
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, query.fetch_one(conn)).await });
        match answer {
            Ok(Ok(head)) => Ok(head),
            Ok(Err(error)) => {
                self.conn = None;
                Err(StoreError::Failed(error.to_string()))
            }
            Err(_) => {
                self.conn = None;
                Err(StoreError::Failed("the server did not answer in time".into()))
            }
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            let _ = self.runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, conn.close()).await });
        }
    }
}
