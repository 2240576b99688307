//! Every statement of the product, found by reading its sources, prepared on both engines. What a statement may not use, so
//! that one text serves both, is refused by name.

use crate::schemas::migrations;
use crate::sources::{Place, product};
use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};
use systemprompt_database::Db;
use systemprompt_database::testing::databases;

/// Each `sql!("…")` of the product.
fn statements() -> Vec<(Place, String)> {
    let mut found = Vec::new();
    for file in product() {
        for (line, text) in file.macro_literals("sql") {
            let place = file.at(line);
            found.push((
                place.clone(),
                text.unwrap_or_else(|text| panic!("{place}: sql!({text}) is not a literal")),
            ));
        }
    }
    found
}

#[tokio::test]
async fn every_statement_prepares_on_both_engines() {
    let statements = statements();
    assert!(!statements.is_empty(), "no statement was found");
    let mut failures = Vec::new();
    for db in databases(&migrations()).await {
        for (place, text) in &statements {
            if let Err(error) = prepare(&db, text).await {
                failures.push(format!("{place} on {}: {error}\n    {text}", db.engine().as_str()));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), statements.len(), failures.join("\n"));
}

async fn prepare(db: &Db, text: &str) -> Result<(), sqlx::Error> {
    let text = AssertSqlSafe(text.to_owned()).into_sql_str();
    match db {
        Db::Sqlite(sqlite) => sqlite.reader().prepare(text).await.map(drop),
        Db::Postgres(pool) => pool.prepare(text).await.map(drop),
    }
}

#[test]
fn statements_keep_to_the_portable_subset() {
    const REFUSED: &[(&str, &str)] = &[
        ("now(", "times are passed in"),
        ("current_timestamp", "times are passed in"),
        ("datetime(", "times are passed in"),
        ("strftime(", "times are passed in"),
        ("date_trunc(", "times are passed in"),
        ("::", "write CAST(… AS …)"),
        (" ilike ", "compare lower(…)"),
        ("array[", "use JSON, or one row each"),
        ("any(", "use JSON, or one row each"),
        ("skip locked", "one guarded statement claims a row"),
        ("nextval", "ids are made by models::ids"),
        ("insert or ", "write ON CONFLICT"),
        ("random(", "randomness is made by the generators"),
    ];
    let mut failures = Vec::new();
    for (place, text) in statements() {
        let folded = text.to_lowercase();
        for (word, instead) in REFUSED.iter().filter(|(word, _)| folded.contains(word)) {
            failures.push(format!("{place}: `{}` is not portable: {instead}", word.trim()));
        }
        let first_uses = first_uses(&text);
        if first_uses.iter().enumerate().any(|(at, number)| *number != at + 1) {
            failures.push(format!(
                "{place}: parameters are first used in the order {first_uses:?}, not 1, 2, 3, …"
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The numbers of `$n`, each where it is used for the first time: SQLite binds by position of first use.
fn first_uses(text: &str) -> Vec<usize> {
    let mut uses = Vec::new();
    for part in text.split('$').skip(1) {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(number) = digits.parse()
            && !uses.contains(&number)
        {
            uses.push(number);
        }
    }
    uses
}

#[test]
fn parameters_are_numbered_by_first_use() {
    assert_eq!(first_uses("a = $1 AND b = $2 OR c = $1 AND d ->> '$.x' = $3"), [1, 2, 3]);
    assert_eq!(first_uses("SET a = $2 WHERE b = $1"), [2, 1]);
}
