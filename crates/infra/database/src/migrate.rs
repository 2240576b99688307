//! Migrations: two texts per version with the same name, one for each engine, applied in order of version by one node at a
//! time. Each room owns a range of a thousand versions (audit 1000, security 2000, identity 3000, gateway 4000, mcp 5000,
//! events 6000).

use crate::Db;
use crate::pool::Engine;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, MigrationType, Migrator};
use std::borrow::Cow;

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    pub version: i64,
    pub name: &'static str,
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(
        "schema_newer: the database has migration {found}, this binary knows up to {known}; use a newer binary"
    )]
    SchemaNewer { found: i64, known: i64 },
    #[error("migration {0} was changed after it had been applied")]
    Changed(i64),
    #[error("two migrations have version {0}")]
    Duplicate(i64),
    #[error("a migration failed")]
    Failed(#[source] MigrateError),
    #[error("the write transaction could not be begun")]
    Connection(#[source] sqlx::Error),
}

/// A migration as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub version: i64,
    pub name: &'static str,
    pub applied: bool,
}

fn migrator(engine: Engine, migrations: &[Migration]) -> Result<Migrator, MigrationError> {
    let mut versions: Vec<i64> = migrations.iter().map(|m| m.version).collect();
    versions.sort_unstable();
    if let Some(version) = versions.windows(2).find_map(|w| match w {
        [a, b] if a == b => Some(*a),
        _ => None,
    }) {
        return Err(MigrationError::Duplicate(version));
    }
    let steps = migrations.iter().map(|m| {
        let text = match engine {
            Engine::Sqlite => m.sqlite,
            Engine::Postgres => m.postgres,
        };
        sqlx::migrate::Migration::new(
            m.version,
            Cow::Borrowed(m.name),
            MigrationType::Simple,
            text.into_sql_str(),
            false,
        )
    });
    Ok(Migrator::with_migrations(steps.collect()))
}

/// Applies what is missing. Safe to call on several nodes at once: PostgreSQL serialises by an advisory lock, SQLite by
/// this process's gate and the file's lock.
///
/// # Errors
/// A newer schema, a changed migration, or a step that fails (it is rolled back).
pub async fn migrate(db: &Db, migrations: &[Migration]) -> Result<(), MigrationError> {
    let migrator = migrator(db.engine(), migrations)?;
    let result = match db {
        Db::Sqlite(sqlite) => {
            let turn = sqlite.gate().writer().await;
            let result = migrator.run(sqlite.writer()).await;
            drop(turn);
            result
        }
        Db::Postgres(pool) => {
            let mut conn = pool.acquire().await.map_err(MigrationError::Connection)?;
            let result = migrator.run_direct(None, &mut *conn, false).await;
            // A step that failed leaves the advisory lock with its connection; closing it lets the next node try.
            let _ = conn.close().await;
            result
        }
    };
    let known = migrations.iter().map(|m| m.version).max().unwrap_or_default();
    result.map_err(|error| match error {
        MigrateError::VersionMissing(found) => MigrationError::SchemaNewer { found, known },
        MigrateError::VersionMismatch(version) => MigrationError::Changed(version),
        other => MigrationError::Failed(other),
    })
}

/// Which migrations the database has.
///
/// # Errors
/// When the database cannot be read.
pub async fn status(db: &Db, migrations: &[Migration]) -> Result<Vec<Status>, MigrationError> {
    const TABLE: &str = "_sqlx_migrations";
    let applied = match db {
        Db::Sqlite(sqlite) => {
            let mut conn = sqlite.writer().acquire().await.map_err(MigrationError::Connection)?;
            conn.ensure_migrations_table(TABLE).await.map_err(MigrationError::Failed)?;
            conn.list_applied_migrations(TABLE).await
        }
        Db::Postgres(pool) => {
            let mut conn = pool.acquire().await.map_err(MigrationError::Connection)?;
            conn.ensure_migrations_table(TABLE).await.map_err(MigrationError::Failed)?;
            conn.list_applied_migrations(TABLE).await
        }
    }
    .map_err(MigrationError::Failed)?;
    let mut list: Vec<Status> = migrations
        .iter()
        .map(|m| Status {
            version: m.version,
            name: m.name,
            applied: applied.iter().any(|a| a.version == m.version),
        })
        .collect();
    list.sort_by_key(|s| s.version);
    Ok(list)
}
