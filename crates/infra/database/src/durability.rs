//! What a database says of itself: the settings on which a commit's durability rests, for `doctor`. The two engines have
//! nothing in common here, so the statements are not portable ones.

use crate::pool::Db;

/// PostgreSQL: the settings `fsync`, `full_page_writes`, `synchronous_commit` and `server_version_num`. SQLite: `quick_check`
/// (`ok`, or the first fault) and `journal_mode`. As (name, value), sorted by name.
///
/// # Errors
/// When the database cannot be read.
pub async fn durability(db: &Db) -> Result<Vec<(String, String)>, sqlx::Error> {
    match db {
        Db::Sqlite(db) => {
            let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(db.reader()).await?;
            let (check,): (String,) = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(db.reader()).await?;
            Ok(vec![("journal_mode".to_owned(), mode), ("quick_check".to_owned(), check)])
        }
        Db::Postgres(pool) => {
            sqlx::query_as(
                "SELECT name, setting FROM pg_settings
                 WHERE name IN ('fsync', 'full_page_writes', 'server_version_num', 'synchronous_commit') ORDER BY name",
            )
            .fetch_all(pool)
            .await
        }
    }
}
