//! Throw-away databases: one SQLite file and one PostgreSQL database for each test. `cargo xtask test` starts the server
//! and names it in `SYSTEMPROMPT_TEST_POSTGRES`.

use crate::Db;
use crate::migrate::{Migration, migrate};
use std::ops::Deref;
use tempfile::TempDir;

/// Names the PostgreSQL server that tests may make databases on.
pub const POSTGRES_VARIABLE: &str = "SYSTEMPROMPT_TEST_POSTGRES";

/// A database that ends with the test.
#[derive(Debug)]
pub struct TestDb {
    db: Db,
    url: String,
    _folder: Option<TempDir>,
}

impl Deref for TestDb {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

impl TestDb {
    /// A fresh SQLite file.
    #[expect(clippy::expect_used, reason = "a test without a database must fail")]
    pub async fn sqlite(migrations: &[Migration]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}", folder.path().join("test.db").display());
        let db = Db::connect(&url, 4).await.expect("an SQLite file");
        migrate(&db, migrations).await.expect("migrations on SQLite");
        Self { db, url, _folder: Some(folder) }
    }

    /// A fresh database on the test server.
    #[expect(clippy::expect_used, clippy::disallowed_methods, reason = "a test without a database must fail")]
    pub async fn postgres(migrations: &[Migration]) -> Self {
        let server = std::env::var(POSTGRES_VARIABLE).expect(
            "SYSTEMPROMPT_TEST_POSTGRES names the test server; run the tests with `cargo xtask test`",
        );
        let name = format!("t_{}", systemprompt_models::ids::uuid_v4().simple());
        let (base, _) = server.rsplit_once('/').expect("a URL with a database name");
        let admin = sqlx::PgPool::connect(&server).await.expect("the test server");
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&admin)
            .await
            .expect("a new database");
        admin.close().await;
        let url = format!("{base}/{name}");
        let db = Db::connect(&url, 4).await.expect("a PostgreSQL database");
        migrate(&db, migrations).await.expect("migrations on PostgreSQL");
        Self { db, url, _folder: None }
    }

    /// The URL, to open the same database a second time.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// One database of each engine, with `migrations` applied.
pub async fn databases(migrations: &[Migration]) -> [TestDb; 2] {
    [TestDb::sqlite(migrations).await, TestDb::postgres(migrations).await]
}
