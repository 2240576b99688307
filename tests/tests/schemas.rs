//! Migrations: two folders with the same file names, and both engines end with the same tables, views and columns.

use crate::sources::root;
use sqlx::Row;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{Db, Migration};

/// Type, and whether the column may be null.
type Columns = BTreeMap<String, (&'static str, bool)>;

/// Every migration in the tree, as the files say.
pub fn migrations() -> Vec<Migration> {
    let mut found: Vec<Migration> = folders().iter().flat_map(|folder| read(folder)).collect();
    found.sort_by_key(|migration| migration.version);
    assert!(!found.is_empty(), "the tree has migrations");
    found
}

/// `crates/*/*/migrations`.
fn folders() -> Vec<PathBuf> {
    let below = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect()
    };
    let crates = below(&root().join("crates")).into_iter().flat_map(|layer| below(&layer));
    crates.map(|room| room.join("migrations")).filter(|folder| folder.is_dir()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn read(folder: &Path) -> Vec<Migration> {
    let (sqlite, postgres) = (folder.join("sqlite"), folder.join("postgres"));
    assert_eq!(names(&sqlite), names(&postgres), "{}: both engines have the same steps", folder.display());
    let text = |path: PathBuf| -> &'static str { std::fs::read_to_string(path).unwrap().leak() };
    let migration = |name: String| {
        let (version, rest) = name.split_once('_').unwrap_or_else(|| panic!("{name}: <version>_<name>.sql"));
        Migration {
            version: version.parse().unwrap_or_else(|_| panic!("{name} begins with its version")),
            name: rest.trim_end_matches(".sql").to_owned().leak(),
            sqlite: text(sqlite.join(&name)),
            postgres: text(postgres.join(&name)),
        }
    };
    names(&sqlite).into_iter().map(migration).collect()
}

#[tokio::test]
async fn both_engines_end_with_the_same_tables_and_columns() {
    let [sqlite, postgres] = databases(&migrations()).await;
    let (sqlite, postgres) = (schema(&sqlite).await, schema(&postgres).await);
    let tables = |schema: &BTreeMap<String, Columns>| schema.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        tables(&sqlite),
        tables(&postgres),
        "tables and views of SQLite (left) and PostgreSQL (right)"
    );
    for (table, columns) in &sqlite {
        assert_eq!(columns, &postgres[table], "columns of {table} on SQLite (left) and PostgreSQL (right)");
    }
}

async fn schema(db: &TestDb) -> BTreeMap<String, Columns> {
    match &**db {
        Db::Sqlite(sqlite) => sqlite_schema(sqlite.reader()).await,
        Db::Postgres(pool) => postgres_schema(pool).await,
    }
}

async fn sqlite_schema(pool: &sqlx::SqlitePool) -> BTreeMap<String, Columns> {
    let rows = sqlx::query(
        "SELECT m.name AS t, m.type AS kind, c.name AS c, c.type AS ty, c.\"notnull\" OR c.pk > 0 AS required
         FROM sqlite_schema m JOIN pragma_table_info(m.name) c
         WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%'",
    );
    let mut schema = BTreeMap::<String, Columns>::new();
    for row in rows.fetch_all(pool).await.unwrap() {
        let is_view = row.get::<String, _>("kind") == "view";
        let class = if is_view { "view column" } else { sqlite_class(&row.get::<String, _>("ty")) };
        let nullable = is_view || !row.get::<bool, _>("required");
        schema.entry(row.get("t")).or_default().insert(row.get("c"), (class, nullable));
    }
    schema
}

async fn postgres_schema(pool: &sqlx::PgPool) -> BTreeMap<String, Columns> {
    let rows = sqlx::query(
        "SELECT c.table_name::text AS t, t.table_type::text AS kind, c.column_name::text AS c, c.data_type::text AS ty,
                c.is_nullable = 'YES' AS nullable
         FROM information_schema.columns c
         JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
         WHERE c.table_schema = 'public' AND c.table_name NOT LIKE '\\_sqlx%'",
    );
    let mut schema = BTreeMap::<String, Columns>::new();
    for row in rows.fetch_all(pool).await.unwrap() {
        let is_view = row.get::<String, _>("kind") == "VIEW";
        let class = if is_view { "view column" } else { postgres_class(&row.get::<String, _>("ty")) };
        let nullable = is_view || row.get::<bool, _>("nullable");
        schema.entry(row.get("t")).or_default().insert(row.get("c"), (class, nullable));
    }
    schema
}

/// What a column holds, so that `TEXT` with JSON in it compares equal to `JSONB`.
fn sqlite_class(name: &str) -> &'static str {
    match name {
        "INTEGER" | "INT" => "integer",
        "TEXT" => "text or json",
        "BLOB" => "bytes",
        "REAL" => "float",
        other => panic!("a column of type {other:?}: tables are STRICT and hold INTEGER, TEXT, BLOB or REAL"),
    }
}

fn postgres_class(name: &str) -> &'static str {
    match name {
        "bigint" | "integer" | "smallint" | "boolean" => "integer",
        "text" | "jsonb" => "text or json",
        "bytea" => "bytes",
        "double precision" => "float",
        other => panic!(
            "a column of type {other:?}: tables hold BIGINT, BOOLEAN, TEXT, JSONB, BYTEA or DOUBLE PRECISION"
        ),
    }
}

#[test]
fn every_room_numbers_its_steps_in_its_own_thousand() {
    let mut owners = BTreeMap::<i64, PathBuf>::new();
    for folder in folders() {
        for migration in read(&folder) {
            let owner = owners.entry(migration.version / 1000).or_insert_with(|| folder.clone());
            assert_eq!(
                *owner, folder,
                "the thousand of migration {} belongs to another room",
                migration.version
            );
        }
    }
}

#[tokio::test]
async fn sqlite_tables_are_strict() {
    let db = TestDb::sqlite(&migrations()).await;
    let Db::Sqlite(sqlite) = &*db else { unreachable!() };
    let loose: Vec<(String,)> = sqlx::query_as(
        "SELECT name FROM pragma_table_list
         WHERE schema = 'main' AND type = 'table' AND strict = 0 AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx%'",
    )
    .fetch_all(sqlite.reader())
    .await
    .unwrap();
    assert_eq!(loose, [], "every table of SQLite is STRICT");
}

#[test]
fn every_step_in_the_tree_is_run_by_a_room() {
    let text =
        |migration: &Migration| (migration.version, migration.name, migration.sqlite, migration.postgres);
    let mut registered = systemprompt_runtime::rooms::migrations();
    registered.sort_by_key(|migration| migration.version);
    let registered: Vec<_> = registered.iter().map(text).collect();
    let in_tree = migrations();
    let in_tree: Vec<_> = in_tree.iter().map(text).collect();
    let names = |steps: &[(i64, &'static str, &str, &str)]| -> Vec<_> {
        steps.iter().map(|(version, name, ..)| format!("{version}_{name}")).collect()
    };
    assert_eq!(names(&registered), names(&in_tree), "registered (left) and in the tree (right)");
    assert!(registered == in_tree, "a room runs another text than its file's");
}

#[tokio::test]
async fn rows_of_the_ledgers_units_fit_their_tables() {
    for db in databases(&migrations()).await {
        let schema = schema(&db).await;
        for table in systemprompt_runtime::extensions().iter().flat_map(|room| room.tables()) {
            let columns = &schema[table.name];
            let used = table.open.iter().chain(table.close).map(|column| column.name).chain([table.key]);
            let missing: Vec<_> = used.filter(|column| !columns.contains_key(*column)).collect();
            assert!(missing.is_empty(), "{} on {} has no {missing:?}", table.name, db.engine().as_str());
            assert_eq!(
                columns.contains_key("ledger_opened"),
                table.opened_by.is_some(),
                "{} names the entry that opened a row, if the ledger vouches for it",
                table.name
            );
        }
    }
}
