//! The two engines under a whole server, and what stands in its tables afterwards.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use systemprompt_database::testing::TestDb;
use systemprompt_database::{Db, on, on_tx};
use systemprompt_tests::{Options, Server};

/// `up --demo` on SQLite.
pub fn sqlite() -> Options {
    Options::demo().unwrap()
}

/// `up --demo` on a fresh PostgreSQL database of the test server.
pub async fn postgres() -> Options {
    let database = TestDb::postgres(&[]).await;
    let url = database.url().to_owned();
    database.close().await;
    Options::demo().unwrap().postgres(&url)
}

/// One of each.
pub async fn engines() -> [Options; 2] {
    [sqlite(), postgres().await]
}

/// One of each, for tests that ask more often than an outsider may.
pub async fn unlimited() -> [Options; 2] {
    engines().await.map(Options::without_limits)
}

/// The same as [`postgres`], where the server reaches its database through what `between` makes: given the database's host and port, it says
/// where it listens itself.
pub async fn postgres_through(between: impl AsyncFnOnce(String) -> SocketAddr) -> Options {
    let database = TestDb::postgres(&[]).await;
    let mut url = reqwest::Url::parse(database.url()).unwrap();
    database.close().await;
    let address = between(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432))).await;
    url.set_host(Some(&address.ip().to_string())).unwrap();
    url.set_port(Some(address.port())).unwrap();
    Options::demo().unwrap().postgres(url.as_str())
}

/// The server's database, opened beside it.
pub async fn open(server: &Server) -> Db {
    Db::connect(&server.database_url(), 2).await.unwrap()
}

/// The distinct values of a text column.
pub async fn texts(db: &Db, query: &'static str) -> BTreeSet<String> {
    let rows: Vec<(String,)> = on!(db, pool => sqlx::query_as(query).fetch_all(pool).await.unwrap());
    rows.into_iter().map(|(text,)| text).collect()
}

/// A count.
pub async fn count(db: &Db, query: &'static str) -> i64 {
    let (count,): (i64,) = on!(db, pool => sqlx::query_as(query).fetch_one(pool).await.unwrap());
    count
}

/// Changes rows as somebody with the database's password would.
pub async fn change(db: &Db, statement: &'static str) {
    let mut tx = db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query(statement).execute(&mut *conn).await.map(drop)).unwrap();
    tx.commit().await.unwrap();
}
