//! The ledger's SQL. The statements of companion tables are built once at start from their [`Table`]s; everything else is
//! written out.

pub(crate) mod checkpoints;
pub(crate) mod companions;
pub mod cursors;
pub mod decisions;
pub mod entries;
pub(crate) mod guards;
pub(crate) mod lookup;
pub(crate) mod payloads;
mod postgres;
pub(crate) mod retention;
mod sqlite;
pub mod streams;
pub(crate) mod tiles;
mod wal;

use crate::unit::{Col, ColType, RowWrite, Table};
use crate::writer::Store;
use std::collections::HashMap;
use std::fmt::Write as _;
use systemprompt_database::{Db, Engine};

/// Columns of `ledger_entries`, in the order in which both stores bind them.
pub(crate) const ENTRY_COLUMNS: [Col; 21] = [
    Col::text("stream"),
    Col::int("seq"),
    Col::text("id"),
    Col::int("at"),
    Col::text("kind"),
    Col::text("actor_kind"),
    Col::text("actor_id"),
    Col::text("act_chain"),
    Col::text("session_id"),
    Col::text("context_id"),
    Col::text("task_id"),
    Col::text("trace_id"),
    Col::text("client_id"),
    Col::text("subject_kind"),
    Col::text("subject_id"),
    Col::text("outcome"),
    Col::text("reason"),
    Col::text("policy"),
    Col::text("record"),
    Col::text("prev_hash"),
    Col::text("hash"),
];

/// Columns of `ledger_tiles`, in the order in which both stores bind them.
pub(crate) const TILE_COLUMNS: [Col; 5] =
    [Col::text("stream"), Col::int("level"), Col::int("tile"), Col::blob("root"), Col::blob("hashes")];

/// Columns of `ledger_payloads`, in the order in which both stores bind them.
pub(crate) const PAYLOAD_COLUMNS: [Col; 13] = [
    Col::text("class"),
    Col::text("stream"),
    Col::int("seq"),
    Col::text("role"),
    Col::int("at"),
    Col::text("subject_user"),
    Col::text("commitment"),
    Col::int("size"),
    Col::text("media_type"),
    Col::text("encoding"),
    Col::text("body_ref"),
    Col::blob("salt"),
    Col::blob("body"),
];

/// The insert and the closing update of a table.
#[derive(Debug)]
pub(crate) struct TableSql {
    pub open: String,
    /// Absent for a table that is never closed.
    pub close: Option<String>,
}

/// Statements of the registered tables, by table name.
#[derive(Debug)]
pub(crate) struct Statements {
    pub entries: String,
    pub tiles: String,
    pub payloads: String,
    tables: HashMap<&'static str, TableSql>,
}

impl Statements {
    pub(crate) fn for_tables(engine: Engine, tables: &[&'static Table]) -> Self {
        let build = match engine {
            Engine::Sqlite => sqlite_sql,
            Engine::Postgres => postgres_sql,
        };
        Self {
            entries: match engine {
                Engine::Sqlite => insert_one("ledger_entries", &ENTRY_COLUMNS),
                Engine::Postgres => insert_many("ledger_entries", &ENTRY_COLUMNS),
            },
            tiles: match engine {
                Engine::Sqlite => insert_one("ledger_tiles", &TILE_COLUMNS),
                Engine::Postgres => insert_many("ledger_tiles", &TILE_COLUMNS),
            },
            payloads: match engine {
                Engine::Sqlite => insert_one("ledger_payloads", &PAYLOAD_COLUMNS),
                Engine::Postgres => insert_many("ledger_payloads", &PAYLOAD_COLUMNS),
            },
            tables: tables.iter().map(|table| (table.name, build(table))).collect(),
        }
    }

    pub(crate) fn of(&self, table: &'static Table) -> Option<&TableSql> {
        self.tables.get(table.name)
    }
}

fn sqlite_sql(table: &Table) -> TableSql {
    let mut close = format!("UPDATE {} SET ", table.name);
    for (i, col) in table.close.iter().enumerate() {
        let _ = write!(close, "{}{} = ?{}", separator(i), col.name, i + 1);
    }
    let _ = write!(close, " WHERE {} = ?{} AND ledger_closed IS NULL", table.key, table.close.len() + 1);
    TableSql { open: insert_one(table.name, table.open), close: closable(table, close) }
}

fn closable(table: &Table, close: String) -> Option<String> {
    (!table.close.is_empty()).then_some(close)
}

fn postgres_sql(table: &Table) -> TableSql {
    let key = Col::text("row_key");
    let cols: Vec<Col> = table.close.iter().copied().chain([key]).collect();
    let mut close = format!("UPDATE {} AS t SET ", table.name);
    for (i, col) in table.close.iter().enumerate() {
        let _ = write!(close, "{}{} = {}", separator(i), col.name, selected(*col));
    }
    let _ = write!(
        close,
        " FROM {} WHERE t.{} = u.row_key AND t.ledger_closed IS NULL",
        unnest(&cols),
        table.key
    );
    TableSql { open: insert_many(table.name, table.open), close: closable(table, close) }
}

fn insert_one(table: &str, cols: &[Col]) -> String {
    let marks = (1..=cols.len()).map(|i| format!("?{i}")).collect::<Vec<_>>().join(", ");
    format!("INSERT INTO {table} ({}) VALUES ({marks})", names(cols))
}

fn insert_many(table: &str, cols: &[Col]) -> String {
    let selected = cols.iter().map(|col| selected(*col)).collect::<Vec<_>>().join(", ");
    format!("INSERT INTO {table} ({}) SELECT {selected} FROM {}", names(cols), unnest(cols))
}

fn unnest(cols: &[Col]) -> String {
    let arrays = cols.iter().enumerate().map(|(i, col)| {
        let ty = match col.ty {
            ColType::Int => "BIGINT",
            ColType::Text | ColType::Json => "TEXT",
            ColType::Blob => "BYTEA",
        };
        format!("CAST(${} AS {ty}[])", i + 1)
    });
    format!("UNNEST({}) AS u({})", arrays.collect::<Vec<_>>().join(", "), names(cols))
}

fn selected(col: Col) -> String {
    match col.ty {
        ColType::Json => format!("CAST(u.{} AS JSONB)", col.name),
        _ => format!("u.{}", col.name),
    }
}

fn names(cols: &[Col]) -> String {
    cols.iter().map(|col| col.name).collect::<Vec<_>>().join(", ")
}

fn separator(i: usize) -> &'static str {
    if i == 0 { "" } else { ", " }
}

/// The table of a row write.
pub(crate) fn table_of(row: &RowWrite) -> &'static Table {
    match row {
        RowWrite::Open { table, .. } | RowWrite::Close { table, .. } => table,
    }
}

/// Opens the writer's own connection to the store of `db`.
pub(crate) async fn open_store(db: &Db, statements: Statements) -> Result<Box<dyn Store>, String> {
    match db {
        Db::Sqlite(sqlite) => {
            sqlite::SqliteStore::open(sqlite, statements).map(|s| Box::new(s) as Box<dyn Store>)
        }
        Db::Postgres(pool) => {
            postgres::PostgresStore::open(pool, statements).await.map(|s| Box::new(s) as Box<dyn Store>)
        }
    }
}
