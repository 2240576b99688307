//! What a write of the identity plane looks at: rows that an index finds. One that walked a table which grows with its users would
//! hold everybody up, longer every day: SQLite has one writer.

use crate::schemas::migrations;
use crate::sources::product;
use sqlx::{AssertSqlSafe, Executor, Row};
use systemprompt_database::Db;
use systemprompt_database::testing::databases;

/// Beginnings of the sources whose tables grow with users, clients and tokens.
const SOURCES: [&str; 5] = [
    "crates/domain/oauth/src/repository/",
    "crates/infra/security/src/repository/tokens",
    "crates/infra/security/src/repository/sessions",
    "crates/infra/security/src/repository/ends",
    "crates/infra/security/src/repository/tree",
];

/// Tables that a write may walk, by words of it, and why.
const ALLOWED: [(&str, &str, &str); 8] = [
    (
        "UPDATE setup_tokens SET used_at = $1 WHERE user_id",
        "setup_tokens",
        "rows of a day, which administrators make",
    ),
    ("DELETE FROM setup_tokens WHERE user_id", "setup_tokens", "the same"),
    (
        "DELETE FROM webauthn_challenges WHERE user_id",
        "webauthn_challenges",
        "rows of minutes; users are seldom deleted",
    ),
    ("UPDATE users SET email = $1", "user_roles", "only where an administrator stops being one"),
    ("purpose <> 'bootstrap'", "user_roles", "only for the first administrator"),
    (
        "DELETE FROM token_cutoffs",
        "token_cutoffs",
        "rows of a day, which administrators and clients that end make",
    ),
    ("DELETE FROM oauth_cimd_documents", "oauth_cimd_documents", "by an index, and a bounded table"),
    ("identity_jobs", "identity_jobs", "a row a job"),
];

#[tokio::test]
async fn a_write_of_the_identity_plane_finds_its_rows_by_an_index() {
    let is_one = |path: &str| SOURCES.iter().any(|source| path.starts_with(source));
    let mut writes = Vec::new();
    for file in product().into_iter().filter(|file| is_one(&file.path)) {
        for (line, text) in file.macro_literals("sql") {
            let text = text.unwrap();
            if ["UPDATE ", "DELETE ", "INSERT "].iter().any(|word| text.contains(word)) {
                writes.push((file.at(line), text));
            }
        }
    }
    assert!(writes.len() > 100, "{} writes", writes.len());
    let mut failures = Vec::new();
    for db in databases(&migrations()).await {
        for (place, text) in &writes {
            for table in walked(&db, text).await {
                let is_allowed = |(words, of, _): &&(&str, &str, &str)| text.contains(words) && *of == table;
                if !ALLOWED.iter().any(|allowed| is_allowed(&allowed)) {
                    failures.push(format!("{place} on {} walks {table}:\n    {text}", db.engine().as_str()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The tables that a statement walks, as its plan says.
async fn walked(db: &Db, text: &str) -> Vec<String> {
    match db {
        Db::Sqlite(sqlite) => {
            let plan = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
            let rows = sqlx::query(plan).fetch_all(sqlite.reader()).await.unwrap();
            let steps = rows.iter().map(|row| row.get::<String, _>("detail"));
            let walked = steps.filter_map(|step| {
                let rest = step.strip_prefix("SCAN ")?;
                rest.split(' ').next().map(|name| named(text, name))
            });
            walked.filter(|name| is_table(name)).collect()
        }
        Db::Postgres(pool) => {
            // Where no index serves, the planner walks the table however dear that is said to be.
            let mut conn = pool.acquire().await.unwrap();
            let count = (1..64).take_while(|n| text.contains(&format!("${n}"))).count();
            let nothing = vec!["NULL"; count].join(", ");
            let arguments = if count == 0 { String::new() } else { format!("({nothing})") };
            for step in
                ["SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan", "DEALLOCATE ALL"]
            {
                conn.execute(step).await.unwrap();
            }
            conn.execute(AssertSqlSafe(format!("PREPARE one AS {text}"))).await.unwrap();
            let plan = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN (COSTS OFF) EXECUTE one{arguments}")));
            let rows = plan.fetch_all(&mut *conn).await.unwrap();
            let steps = rows.iter().map(|row| row.get::<String, _>(0));
            let walked = steps.filter_map(|step| {
                let (_, rest) = step.split_once("Seq Scan on ")?;
                rest.split_whitespace().next().map(str::to_owned)
            });
            walked.filter(|name| is_table(name)).collect()
        }
    }
}

/// The table that a plan calls by the statement's name for it.
fn named(text: &str, name: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let found =
        words.windows(2).find(|pair| pair[1].trim_end_matches([',', ')']) == name && is_table(pair[0]));
    found.map_or(name, |pair| pair[0]).to_owned()
}

/// Not a list of the statement's own, such as `tree`.
fn is_table(name: &str) -> bool {
    name.contains('_') || name == "users"
}
