//! Everything that a server leaves behind, by the name of the place. What is no text is read as if it were: secrets are ASCII.

use crate::stores;
use sqlx::AssertSqlSafe;
use std::path::Path;
use systemprompt_database::{Db, Engine, on};
use systemprompt_tests::Server;

/// Files whose purpose is to hold secrets.
const KEEPERS: [&str; 2] = ["secrets.json", "signing.json"];

/// All places of one server.
pub async fn places(server: &Server) -> Vec<(String, String)> {
    let away = tempfile::tempdir().unwrap();
    let export = away.path().join("export");
    server.succeed(&["audit", "export", "--out", export.to_str().unwrap()]).unwrap();
    let mut exported = Vec::new();
    files(&export, &mut |_, bytes| exported.extend(bytes));
    let db = stores::open(server).await;
    let mut places = vec![
        ("log".to_owned(), server.log()),
        ("database".to_owned(), text(&rows(&db).await)),
        ("export".to_owned(), text(&exported)),
    ];
    files(server.data_dir(), &mut |path, bytes| {
        let name = path.strip_prefix(server.data_dir()).unwrap_or(path).display().to_string();
        places.push((name, text(&bytes)));
    });
    places
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file under a folder, or the one file that it is.
fn files(path: &Path, found: &mut impl FnMut(&Path, Vec<u8>)) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if !KEEPERS.iter().any(|name| path.ends_with(name))
        && let Ok(bytes) = std::fs::read(path)
    {
        // A socket cannot be read.
        found(path, bytes);
    }
}

/// Every column of every table.
async fn rows(db: &Db) -> Vec<u8> {
    let columns: Vec<(String, String, String)> = match db.engine() {
        Engine::Sqlite => {
            on!(db, pool => sqlx::query_as(
                "SELECT m.name, p.name, 'CAST(' || p.name || ' AS BLOB)' FROM sqlite_master m, pragma_table_info(m.name) p
                 WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
            ).fetch_all(pool).await)
        }
        Engine::Postgres => {
            on!(db, pool => sqlx::query_as(
                "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT),
                        CASE WHEN data_type = 'bytea' THEN column_name
                             ELSE 'convert_to(CAST(' || column_name || ' AS TEXT), ''UTF8'')' END
                 FROM information_schema.columns WHERE table_schema = 'public'"
            ).fetch_all(pool).await)
        }
    }
    .unwrap();
    let mut all = Vec::new();
    for (table, column, bytes) in columns {
        let query = format!("SELECT {bytes} FROM {table} WHERE {column} IS NOT NULL");
        let rows: Vec<(Vec<u8>,)> =
            on!(db, pool => sqlx::query_as(AssertSqlSafe(query.as_str())).fetch_all(pool).await).unwrap();
        for (value,) in rows {
            all.extend(value);
            all.push(b'\n');
        }
    }
    all
}
