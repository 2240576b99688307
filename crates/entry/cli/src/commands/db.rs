//! `db migrate|status`: the schema, on the database itself; a server may run meanwhile.

use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Column, Output, column, note};
use clap::Subcommand;
use serde_json::{Value, json};
use systemprompt_database::migrate::Status;
use systemprompt_database::{MigrationError, migrate, status};
use systemprompt_runtime::rooms::migrations;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Applies the steps of the schema that are missing
    Migrate,
    /// Steps of the schema; exits 7 when some are missing
    Status,
}

const COLUMNS: &[Column] =
    &[column("version", "/version"), column("name", "/name"), column("applied", "/applied")];

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let loaded = database::load(globals)?;
    let db = database::open(&loaded).await?;
    let done = match args.command {
        Command::Migrate => apply(&db).await,
        Command::Status => show(globals, &db).await,
    };
    db.close().await;
    done
}

async fn apply(db: &systemprompt_database::Db) -> Result<Exit, CliError> {
    let missing = pending(&read(db).await?).len();
    migrate(db, &migrations()).await.map_err(|e| failed("the schema was not brought up to date", &e))?;
    note(&match missing {
        0 => "the schema is current".to_owned(),
        1 => "applied 1 step".to_owned(),
        n => format!("applied {n} steps"),
    })?;
    Ok(Exit::Ok)
}

async fn show(globals: &Globals, db: &systemprompt_database::Db) -> Result<Exit, CliError> {
    let steps = read(db).await?;
    let items: Vec<Value> = steps
        .iter()
        .map(|step| json!({"version": step.version, "name": step.name, "applied": step.applied}))
        .collect();
    Output::new(globals).list(&json!({"items": items, "next": null}), COLUMNS)?;
    match pending(&steps).len() {
        0 => Ok(Exit::Ok),
        missing => {
            note(&format!("{missing} missing: `systemprompt db migrate` applies them"))?;
            Ok(Exit::Invalid)
        }
    }
}

async fn read(db: &systemprompt_database::Db) -> Result<Vec<Status>, CliError> {
    status(db, &migrations()).await.map_err(|e| failed("the schema cannot be read", &e))
}

/// Steps that are not applied.
fn pending(steps: &[Status]) -> Vec<&Status> {
    steps.iter().filter(|step| !step.applied).collect()
}

fn failed(what: &str, error: &MigrationError) -> CliError {
    let failed = CliError::new(Exit::Failure, what);
    match std::error::Error::source(error) {
        Some(cause) => failed.why(format!("{error}: {cause}")),
        None => failed.why(error),
    }
}
