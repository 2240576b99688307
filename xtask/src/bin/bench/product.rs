//! The product under load: the release binary on a temporary folder and, where asked for, a PostgreSQL of its own that
//! waits for the disk.

use crate::machine;
use crate::options::Engine;
use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, Row};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use systemprompt_database::{Db, on, on_tx};
use systemprompt_tests::{Options, Server};
use xtask::postgres::Postgres;

/// A running product. The server ends before its database.
#[derive(Debug)]
pub struct Product {
    pub server: Server,
    postgres: Option<Postgres>,
}

impl Product {
    /// `up --demo` without limits and with `settings` of the profile.
    pub fn start(engine: Engine, settings: &[(&str, &str)]) -> Result<Self> {
        let postgres = engine.server()?;
        let mut options = Options::demo_with(binary()?).without_limits();
        for (name, value) in settings {
            options = options.env(name, value);
        }
        if let Some(postgres) = &postgres {
            options = options.postgres(&postgres.url());
        }
        Ok(Self { server: options.start()?, postgres })
    }

    /// Stops the server and starts it again on what it left.
    pub fn restart(self) -> Result<Self> {
        let Self { mut server, postgres } = self;
        server.terminate()?;
        Ok(Self { server: server.restart()?, postgres })
    }

    /// Stops the server, changes rows of its database as nobody but a benchmark does, and starts it again.
    pub fn seeded(self, statements: &[&str]) -> Result<Self> {
        let Self { mut server, postgres } = self;
        server.terminate()?;
        let url = server.database_url();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let db = Db::connect(&url, 2).await?;
            let mut tx = db.write_tx().await?;
            for statement in statements {
                let text = AssertSqlSafe((*statement).to_owned());
                on_tx!(tx, conn => sqlx::query(text).execute(&mut *conn).await.map(drop))?;
            }
            tx.commit().await?;
            db.close().await;
            anyhow::Ok(())
        })?;
        Ok(Self { server: server.restart()?, postgres })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        let url = self.server.url();
        let (_, port) = url.rsplit_once(':').with_context(|| format!("{url} has no port"))?;
        Ok(SocketAddr::from(([127, 0, 0, 1], port.parse()?)))
    }

    /// Reads the CPU time of the server with its children, and of the database server.
    pub fn cpu_reader(&self) -> impl Fn() -> (Duration, Duration) + Clone + use<> {
        let (server, database) = (self.server.pid(), self.postgres.as_ref().map(Postgres::pid));
        let cpu = |pid| machine::cpu(pid).unwrap_or_default();
        move || (cpu(server), database.map(cpu).unwrap_or_default())
    }

    /// Rows of a table; a condition may follow its name.
    pub fn count(&self, table: &str) -> Result<u64> {
        self.number(format!("SELECT COUNT(*) FROM {table}"))
    }

    /// Bytes of the database, and of the ledger's look-up copy beside it, without the logs in front of them.
    pub fn stored(&self) -> Result<(u64, u64)> {
        const SQLITE: &str = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let lookup = format!("sqlite:{}", self.server.data_dir().join("lookup.db").display());
        match self.postgres {
            None => Ok((self.number(SQLITE.to_owned())?, number(&lookup, SQLITE.to_owned())?)),
            Some(_) => Ok((self.number("SELECT pg_database_size(current_database())".to_owned())?, 0)),
        }
    }

    fn number(&self, query: String) -> Result<u64> {
        number(&self.server.database_url(), query)
    }

    /// Stops the server and verifies the whole ledger.
    pub fn verify(mut self) -> Result<()> {
        self.server.terminate()?;
        self.server.succeed(&["audit", "verify"])?;
        Ok(())
    }
}

/// The one number that a query gives.
fn number(url: &str, query: String) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = Db::connect(url, 2).await?;
        let text = AssertSqlSafe(query);
        let number: i64 = on!(&db, pool => sqlx::query(text).fetch_one(pool).await?.try_get(0)?);
        db.close().await;
        Ok(number.cast_unsigned())
    })
}

/// The product's binary, built beside this one.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let binary = own.with_file_name("systemprompt");
    if !binary.is_file() {
        bail!("no `systemprompt` beside {}; start with `cargo xtask bench`", own.display());
    }
    Ok(binary)
}
