//! What the command line says.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;
use xtask::postgres::{Durability, Postgres};

/// A storage engine to measure on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// The server that holds its database, where there is one.
    pub fn server(self) -> Result<Option<Postgres>> {
        match self {
            Self::Sqlite => Ok(None),
            Self::Postgres => Postgres::start(Durability::Disk).map(Some),
        }
    }
}

/// The address of the database of `server`, or of a file in `folder`.
pub fn database_url(server: Option<&Postgres>, folder: &Path) -> String {
    server.map_or_else(|| format!("sqlite:{}", folder.join("ledger.db").display()), Postgres::url)
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a measured run; a tenth of it, at least one second, is warm-up before.
    pub run: Duration,
    /// The median of so many runs is reported; the bench's own choice if absent.
    runs: Option<usize>,
    /// Connections or callers; empty for the bench's own choice.
    pub connections: Vec<usize>,
    pub engines: Vec<Engine>,
    /// Print, but leave `docs/benchmarks.md` alone.
    pub dry: bool,
    /// The one part to measure, of a bench that has parts; all if absent. Such a report is not kept.
    only: Option<String>,
}

impl Options {
    pub fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            run: Duration::from_secs(30),
            runs: None,
            connections: Vec::new(),
            engines: vec![Engine::Sqlite, Engine::Postgres],
            dry: false,
            only: None,
        };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            if name == "--dry" {
                options.dry = true;
                continue;
            }
            let value = args.next().with_context(|| format!("{name} takes a value"))?;
            let number =
                || value.parse::<usize>().with_context(|| format!("{name} takes a number, not {value}"));
            match name.as_str() {
                "--seconds" => options.run = Duration::from_secs(number()?.max(1) as u64),
                "--runs" => options.runs = Some(number()?.max(1)),
                "--connections" => {
                    options.connections = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--engine" => options.engines = engines(value)?,
                "--only" => {
                    options.only = Some(value.clone());
                    options.dry = true;
                }
                _ => bail!("unknown option {name}"),
            }
        }
        Ok(options)
    }

    pub fn runs_or(&self, default: usize) -> usize {
        self.runs.unwrap_or(default)
    }

    pub fn connections_or(&self, default: &[usize]) -> Vec<usize> {
        if self.connections.is_empty() { default.to_vec() } else { self.connections.clone() }
    }

    pub fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    pub fn warm_up(&self) -> Duration {
        (self.run / 10).max(Duration::from_secs(1))
    }
}

fn engines(value: &str) -> Result<Vec<Engine>> {
    Ok(match value {
        "sqlite" => vec![Engine::Sqlite],
        "postgres" => vec![Engine::Postgres],
        "both" => vec![Engine::Sqlite, Engine::Postgres],
        other => bail!("--engine takes sqlite, postgres or both, not {other}"),
    })
}
