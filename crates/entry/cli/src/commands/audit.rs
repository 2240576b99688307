//! `audit tail|query|export|verify|checkpoint|proof|payload|erase|retention|repair`: the ledger. Where no server answers, the
//! database is read.

mod checkpoint;
mod export;
mod kept;
mod offline;
mod proof;
mod query;
mod repair;
mod tail;
mod verify;

use crate::client::Client;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::Output;
use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Works on the database directly; for when no server runs
    #[arg(long, global = true)]
    offline: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The last entries, oldest first
    Tail(tail::Args),
    /// Entries that fit a filter, newest first
    Query(query::Args),
    /// The ledger as a file: jsonl with proofs, OCSF for a SIEM, or CSV. Without a server it reads the database
    Export(Box<export::Args>),
    /// Verifies chain, tree, checkpoints and rows, with --export a file alone, or with --proof one proof; 7 when something was altered. Without a server
    /// it reads the database
    Verify(Box<verify::Args>),
    /// The newest signed checkpoint of each stream, to be kept elsewhere. Without a server it reads the database
    Checkpoint(checkpoint::Args),
    /// Proof that an entry stands in a signed checkpoint; `audit verify --proof` checks it without a server
    Proof(proof::Args),
    /// The body of a payload of an entry; its reading is recorded
    Payload(kept::PayloadArgs),
    /// Erases bodies and salts of a person's payloads; records and proofs stay
    Erase(kept::EraseArgs),
    /// For how long what is kept, what the last run did, and a run now
    #[command(subcommand)]
    Retention(kept::Retention),
    /// Closes a stream that does not verify and begins another that names its head; no server may run
    Repair(repair::Args),
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let out = Output::new(globals);
    match args.command {
        Command::Verify(command) => verify::run(globals, out, args.offline, *command).await,
        Command::Checkpoint(command) => checkpoint::run(globals, out, args.offline, command).await,
        Command::Repair(command) => repair::run(globals, out, command).await,
        Command::Proof(command) => {
            Client::with(globals, args.offline, async |client| proof::run(client, out, command).await).await
        }
        Command::Export(command) => export::run(globals, args.offline, *command).await,
        Command::Payload(command) => {
            Client::with(globals, args.offline, async |client| kept::payload(client, out, command).await)
                .await
        }
        Command::Erase(command) => {
            Client::with(globals, args.offline, async |client| kept::erase(client, out, command).await).await
        }
        Command::Retention(command) => {
            Client::with(globals, args.offline, async |client| kept::retention(client, out, command).await)
                .await
        }
        Command::Tail(command) => {
            reading(globals, args.offline, async |client| tail::run(client, out, &command).await).await
        }
        Command::Query(command) => {
            reading(globals, args.offline, async |client| query::run(client, out, &command).await).await
        }
    }
}

/// Reads from the server, or from the database where none answers and none was named.
async fn reading(
    globals: &Globals,
    offline: bool,
    work: impl AsyncFn(&Client) -> Result<Exit, CliError>,
) -> Result<Exit, CliError> {
    if !offline {
        match Client::with(globals, false, &work).await {
            Err(error) if error.exit == Exit::Unreachable && globals.url.is_none() => {}
            done => return done,
        }
    }
    Client::with(globals, true, &work).await
}
