//! `audit export`: the ledger as a file, by the server or from the database.

use super::query::Filter;
use crate::client::{Ask, Client};
use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::note;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use systemprompt_audit::LedgerReader;
use systemprompt_audit::export::{ExportFault, ExportRequest, Exporter, Format};
use systemprompt_audit::lookup::Lookup;
use systemprompt_database::{Db, Engine};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// jsonl (records byte for byte, with what `audit verify --export` needs), ocsf (1.6.0, an event a line), or csv
    #[arg(long, default_value = "jsonl", value_name = "FORMAT")]
    format: Format,
    /// First sequence number; with --stream
    #[arg(long, value_name = "SEQ", requires = "stream")]
    from: Option<i64>,
    /// Last sequence number; with --stream
    #[arg(long, value_name = "SEQ", requires = "stream")]
    to: Option<i64>,
    #[command(flatten)]
    filter: Filter,
    /// The file to write; standard output if absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const WHAT: &str = "nothing was exported";
const TIMEOUT: Duration = Duration::from_hours(6);

pub async fn run(globals: &Globals, offline: bool, args: Args) -> Result<Exit, CliError> {
    let mut sink = Sink::open(args.out.as_deref())?;
    let answered = if offline { None } else { Some(by_server(globals, &args, &mut sink).await) };
    match answered {
        None => on_database(globals, &args, &mut sink).await?,
        Some(Err(error)) if error.exit == Exit::Unreachable && globals.url.is_none() && sink.written == 0 => {
            note("no server answers: reading the database directly")?;
            on_database(globals, &args, &mut sink).await?;
        }
        Some(done) => done?,
    }
    sink.close()?;
    Ok(Exit::Ok)
}

async fn by_server(globals: &Globals, args: &Args, sink: &mut Sink) -> Result<(), CliError> {
    let client = Client::connect(globals)?;
    let filter = args.filter.clone().resolved(&client).await?;
    let body = filter.export(args.format, args.from, args.to);
    let ask = Ask::post("/api/v1/admin/audit/exports", &body).timeout(TIMEOUT);
    client.save(WHAT, ask, &mut |piece| sink.write(piece)).await
}

async fn on_database(globals: &Globals, args: &Args, sink: &mut Sink) -> Result<(), CliError> {
    let loaded = database::load(globals)?;
    let db = database::open(&loaded).await?;
    let done = read(&db, loaded.paths.data_dir(), args, sink).await;
    db.close().await;
    done
}

async fn read(db: &Db, data_dir: &Path, args: &Args, sink: &mut Sink) -> Result<(), CliError> {
    let failed = |error: ExportFault| {
        let exit = match error {
            ExportFault::NoSuchStream(_) => Exit::NotFound,
            ExportFault::EmptyRange | ExportFault::StreamNeeded | ExportFault::BehindEnd { .. } => {
                Exit::Usage
            }
            _ => Exit::Failure,
        };
        CliError::new(exit, WHAT).why(error)
    };
    let reader = LedgerReader::new(db.clone());
    let lookup = match db.engine() {
        Engine::Sqlite => Some(Lookup::attach(data_dir, reader.clone()).map_err(|e| failed(e.into()))?),
        Engine::Postgres => None,
    };
    let request =
        ExportRequest { format: args.format, from: args.from, to: args.to, filter: args.filter.read() };
    let mut exporter = Exporter::open(reader, lookup, request).await.map_err(failed)?;
    while let Some(piece) = exporter.next().await.map_err(failed)? {
        sink.write(piece.as_bytes())?;
    }
    Ok(())
}

/// Where an export goes. A file bears its name only when it is whole.
struct Sink {
    out: BufWriter<Box<dyn Write + Send>>,
    temporary: Option<(PathBuf, PathBuf)>,
    written: u64,
}

impl Sink {
    fn open(file: Option<&Path>) -> Result<Self, CliError> {
        let Some(file) = file else {
            return Ok(Self {
                out: BufWriter::new(Box::new(std::io::stdout())),
                temporary: None,
                written: 0,
            });
        };
        let mut name = file.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let opened = File::create(&part).map_err(|error| {
            CliError::new(Exit::Failure, format!("{} cannot be written", part.display())).why(error)
        })?;
        Ok(Self {
            out: BufWriter::new(Box::new(opened)),
            temporary: Some((part, file.to_owned())),
            written: 0,
        })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), CliError> {
        self.written += piece.len() as u64;
        Ok(self.out.write_all(piece)?)
    }

    fn close(mut self) -> Result<(), CliError> {
        self.out.flush()?;
        if let Some((part, file)) = &self.temporary {
            std::fs::rename(part, file)?;
        }
        Ok(())
    }
}
