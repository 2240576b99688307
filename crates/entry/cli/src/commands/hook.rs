//! `hook govern` and `hook track`: the endpoints of hooks as programs, for clients that run hooks as commands. Of `govern`, exit
//! code 0 lets the call go on and 2 blocks it; a failure of any kind blocks, since such clients go on at every other code. `track`
//! never blocks.

use crate::client::{Ask, Client};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{line, note};
use clap::Subcommand;
use serde_json::Value;
use std::io::Read;
use std::time::Duration;
use systemprompt_models::hook::{self, EventName};

/// Largest event that is sent.
const MAX_EVENT: u64 = 4 << 20;
/// The server decides within two seconds; a client of hooks does not wait for ever either.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads a hook event on standard input and prints the decision; exits 2 on a denial and on any failure
    Govern {
        /// Plugin on whose behalf the event comes
        #[arg(long, value_name = "ID")]
        plugin_id: Option<String>,
    },
    /// Reads a hook event on standard input and has it stored without its secrets; never blocks
    Track {
        /// Plugin on whose behalf the event comes
        #[arg(long, value_name = "ID")]
        plugin_id: Option<String>,
    },
}

impl Args {
    /// Whether a failure of the command must block.
    pub fn blocks(&self) -> bool {
        matches!(self.command, Command::Govern { .. })
    }
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let plugin_id = match args.command {
        Command::Govern { plugin_id } => plugin_id,
        Command::Track { plugin_id } => {
            let told = track(globals, plugin_id.as_deref()).await;
            return told.map(|()| Exit::Ok).map_err(|error| CliError { exit: Exit::Failure, ..error });
        }
    };
    let mut event = Vec::new();
    let read = std::io::stdin().take(MAX_EVENT + 1).read_to_end(&mut event);
    let name = EventName::of(&event);
    let decided = match read {
        Ok(_) => govern(globals, plugin_id.as_deref(), event).await,
        Err(error) => Err(error.into()),
    };
    match decided {
        Ok(true) => Ok(Exit::Ok),
        Ok(false) => Ok(BLOCK),
        Err(error) => {
            let reason = format!(
                "{}{}",
                error.what,
                error.why.as_ref().map_or_else(String::new, |why| format!(": {why}"))
            );
            let _ = line(&hook::denial(name.as_deref(), &reason).to_string());
            Err(blocking(error))
        }
    }
}

/// The code at which such clients block.
const BLOCK: Exit = Exit::Usage;

/// Whatever went wrong, it blocks.
pub fn blocking(error: CliError) -> CliError {
    let what =
        if error.what.is_empty() { "the decision could not be printed".to_owned() } else { error.what };
    CliError { exit: BLOCK, what, ..error }
}

/// Has an event stored; that it is not is a failure, which the client shows and goes on.
async fn track(globals: &Globals, plugin_id: Option<&str>) -> Result<(), CliError> {
    let mut event = Vec::new();
    std::io::stdin().take(MAX_EVENT + 1).read_to_end(&mut event)?;
    if event.len() as u64 > MAX_EVENT {
        return Err(CliError::new(Exit::Failure, "the event is larger than 4 MiB"));
    }
    let client = Client::connect(globals)?;
    let ask = Ask::post("/api/v1/hooks/track", &Value::Null).bytes(event).query("plugin_id", plugin_id);
    let answer = client.send(ask.timeout(TIMEOUT)).await?;
    if !answer.is_success() {
        return Err(answer.refusal("the event was not recorded"));
    }
    match answer.header("x-systemprompt-recorded") {
        Some("true") => Ok(()),
        _ => Err(CliError::new(Exit::Failure, "the event was not recorded; the server's log says why")),
    }
}

/// Whether the call may go on; the decision is printed.
async fn govern(globals: &Globals, plugin_id: Option<&str>, event: Vec<u8>) -> Result<bool, CliError> {
    if event.len() as u64 > MAX_EVENT {
        return Err(CliError::new(BLOCK, "the event is larger than 4 MiB"));
    }
    let client = Client::connect(globals)?;
    let ask = Ask::post("/api/v1/hooks/govern", &Value::Null).bytes(event).query("plugin_id", plugin_id);
    let answer = client.send(ask.timeout(TIMEOUT)).await?;
    if !answer.is_success() {
        return Err(answer.refusal("the event was not decided"));
    }
    line(&answer.text())?;
    if answer.header("x-systemprompt-decision") == Some("allow") {
        return Ok(true);
    }
    let body = answer.json();
    let reason = ["/hookSpecificOutput/permissionDecisionReason", "/reason"]
        .into_iter()
        .find_map(|pointer| body.pointer(pointer)?.as_str())
        .unwrap_or("denied");
    // Clients show standard error to the model.
    note(&crate::output::plain(reason))?;
    Ok(false)
}
