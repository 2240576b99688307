//! `audit tail|query|verify`: the ledger.

mod query;
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
    /// Verifies chain and rows; 7 when something was altered. Without a server it reads the database
    Verify(verify::Args),
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let out = Output::new(globals);
    match args.command {
        Command::Verify(command) => verify::run(globals, out, args.offline, command).await,
        Command::Tail(command) => {
            Client::with(globals, args.offline, async |client| tail::run(client, out, command).await).await
        }
        Command::Query(command) => {
            Client::with(globals, args.offline, async |client| query::run(client, out, command).await).await
        }
    }
}
