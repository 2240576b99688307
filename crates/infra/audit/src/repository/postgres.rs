//! The writer's store on PostgreSQL: one connection, one `INSERT … SELECT FROM UNNEST` a table and batch.
//!
//! The writer is a thread of its own with a small runtime of its own: on the server's, an answer of the database would wait
//! until the workers have no request left to look at, five times a batch.

use super::guards::bound;
use super::{Statements, table_of};
use crate::chain::{Chain, Entry};
use crate::payload::seal::Sealed;
use crate::record::Draft;
use crate::tree::Tile;
use crate::unit::{Cell, Col, ColType, Guard, RowWrite, Table};
use crate::writer::{Store, StoreError};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Postgres};
use std::time::Duration;
use systemprompt_database::{is_contended, sql};
use tokio::runtime::{Builder, Handle, Runtime};

/// Longest wait for one answer of the server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct PostgresStore {
    options: PgConnectOptions,
    conn: Option<PgConnection>,
    /// Absent only while it is dropped.
    runtime: Option<Runtime>,
    statements: Statements,
}

impl PostgresStore {
    pub(super) async fn open(pool: &PgPool, statements: Statements) -> Result<Self, String> {
        let options = (*pool.connect_options()).clone();
        tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            let mut store = Self { options, conn: None, runtime: Some(runtime), statements };
            store.reconnect().map_err(|e| e.to_string())?;
            store.prepare_all().map_err(|e| e.to_string())?;
            Ok(store)
        })
        .await
        .map_err(|e| e.to_string())?
    }

    /// Waits for an answer of the server, for a bounded time.
    fn wait<T>(
        runtime: Option<&Runtime>,
        answer: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, WaitError> {
        let runtime = runtime.ok_or(WaitError::Late)?;
        runtime
            .block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, answer).await })
            .map_err(|_| WaitError::Late)?
            .map_err(WaitError::Sql)
    }

    fn reconnect(&mut self) -> Result<(), WaitError> {
        self.conn = Some(Self::wait(self.runtime.as_ref(), connect(&self.options))?);
        Ok(())
    }

    /// Prepares every statement once, so that a table that does not fit its definition stops the start.
    fn prepare_all(&mut self) -> Result<(), WaitError> {
        let texts = self.statements.tables.values().flat_map(|t| [Some(&t.open), t.close.as_ref()]);
        let own = [&self.statements.entries, &self.statements.tiles, &self.statements.payloads];
        let texts: Vec<String> = texts.flatten().chain(own).cloned().collect();
        if let Some(conn) = &mut self.conn {
            for text in texts {
                let text = sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text));
                Self::wait(self.runtime.as_ref(), conn.prepare(text))?;
            }
        }
        Ok(())
    }

    fn run(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, StoreError> {
        let Some(conn) = self.conn.as_mut() else {
            return Err(StoreError::Failed("no connection".into()));
        };
        match Self::wait(self.runtime.as_ref(), query.execute(conn)) {
            Ok(done) => Ok(done.rows_affected()),
            Err(WaitError::Sql(error)) => Err(store_error(&error)),
            Err(late @ WaitError::Late) => {
                // The answer may still come; the connection cannot be used for anything else.
                self.conn = None;
                Err(StoreError::Failed(late.to_string()))
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

/// Why an answer did not come.
#[derive(Debug, thiserror::Error)]
enum WaitError {
    #[error("the server did not answer in time")]
    Late,
    #[error(transparent)]
    Sql(sqlx::Error),
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut conn = options.connect().await?;
    // The plans are the same for every batch; to plan anew would copy all of its values into the plan first.
    conn.execute("SET plan_cache_mode = force_generic_plan").await?;
    // Whatever the server's default is; for the session, which spares every batch a round trip.
    conn.execute("SET synchronous_commit = on").await?;
    // Less than the server takes to find a deadlock (a second by default): whoever ends what guards ask for goes first, and the
    // batch, which nobody notices, is tried again.
    conn.execute("SET lock_timeout = 800").await?;
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

/// Binds the columns of `ledger_payloads`, in the order of `PAYLOAD_COLUMNS`.
fn bind_payloads<'q>(query: PgQuery<'q>, stream: &str, rows: &[(&Entry<'_>, &Sealed)]) -> PgQuery<'q> {
    let texts = |query: PgQuery<'q>, column: fn(&Sealed) -> Option<&str>| {
        query.bind(rows.iter().map(|(_, sealed)| column(sealed)).collect::<Vec<_>>())
    };
    let query = texts(query, |sealed| Some(sealed.class.as_str()));
    let query = query.bind(vec![stream; rows.len()]);
    let query = query.bind(rows.iter().map(|(entry, _)| entry.seq).collect::<Vec<_>>());
    let query = texts(query, |sealed| Some(sealed.role.as_str()));
    let query = query.bind(rows.iter().map(|(entry, _)| entry.at).collect::<Vec<_>>());
    let query = texts(query, |sealed| sealed.subject.as_deref());
    let query = texts(query, |sealed| Some(&sealed.commitment));
    let query = query.bind(rows.iter().map(|(_, sealed)| sealed.size).collect::<Vec<_>>());
    let query = texts(query, |sealed| Some(sealed.media_type));
    let query = texts(query, |sealed| sealed.encoding);
    let query = texts(query, |sealed| sealed.body_ref.as_deref());
    let query = query.bind(rows.iter().map(|(_, sealed)| &sealed.salt[..]).collect::<Vec<_>>());
    query.bind(rows.iter().map(|(_, sealed)| sealed.body.as_deref()).collect::<Vec<_>>())
}

/// Integrity violations and bad values are the row's fault; class 53 is a full store; a lock that did not come, a deadlock or a
/// failed serialization is nobody's; the rest is the connection's.
fn store_error(error: &sqlx::Error) -> StoreError {
    let cause = error.to_string();
    let code = error.as_database_error().and_then(|e| e.code().map(std::borrow::Cow::into_owned));
    match code.as_deref() {
        _ if is_contended(error) => StoreError::Contended(cause),
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
        self.run(bound(guard))
    }

    fn insert(&mut self, stream: &str, entries: &[Entry<'_>], rows: &[&RowWrite]) -> Result<(), StoreError> {
        if !entries.is_empty() {
            let query = sqlx::query(AssertSqlSafe(self.statements.entries.clone()));
            self.run(bind_entries(query, stream, entries))?;
        }
        let payloads: Vec<(&Entry<'_>, &Sealed)> = entries
            .iter()
            .flat_map(|entry| entry.rendered.draft.sealed.iter().map(move |sealed| (entry, sealed)))
            .filter(|(_, sealed)| sealed.has_row())
            .collect();
        if !payloads.is_empty() {
            let query = sqlx::query(AssertSqlSafe(self.statements.payloads.clone()));
            self.run(bind_payloads(query, stream, &payloads))?;
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

    fn insert_tiles(&mut self, stream: &str, tiles: &[Tile]) -> Result<(), StoreError> {
        let query = sqlx::query(AssertSqlSafe(self.statements.tiles.clone()))
            .bind(vec![stream; tiles.len()])
            .bind(tiles.iter().map(|tile| i64::from(tile.level)).collect::<Vec<_>>())
            .bind(tiles.iter().map(|tile| tile.index as i64).collect::<Vec<_>>())
            .bind(tiles.iter().map(|tile| tile.root.to_vec()).collect::<Vec<_>>())
            .bind(tiles.iter().map(|tile| tile.hashes.concat()).collect::<Vec<_>>());
        self.run(query).map(drop)
    }

    fn move_head(&mut self, old: &Chain, new: &Chain) -> Result<bool, StoreError> {
        let query = sqlx::query(sql!(
            "UPDATE ledger_streams SET head_seq = $1, head_hash = $2, frontier = $3
             WHERE stream = $4 AND epoch = $5 AND head_seq = $6 AND closed_at IS NULL"
        ));
        let query = query
            .bind(new.head_seq)
            .bind(new.head_hash.clone())
            .bind(new.tree.frontier().to_bytes())
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
            self.reconnect().map_err(|e| StoreError::Failed(e.to_string()))?;
        }
        let Some(conn) = self.conn.as_mut() else {
            return Err(StoreError::Failed("no connection".into()));
        };
        let query = sqlx::query_as(sql!("SELECT head_seq, head_hash FROM ledger_streams WHERE stream = $1"))
            .bind(stream);
        Self::wait(self.runtime.as_ref(), query.fetch_one(conn)).map_err(|error| {
            self.conn = None;
            StoreError::Failed(error.to_string())
        })
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // A store that was never given to its thread is dropped among async tasks, where nothing may wait.
        if let (Some(conn), Err(_)) = (self.conn.take(), Handle::try_current()) {
            let _ = Self::wait(Some(&runtime), conn.close());
        }
        runtime.shutdown_background();
    }
}
