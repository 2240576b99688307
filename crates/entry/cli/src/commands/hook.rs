//! `hook govern`: the decision endpoint as a program, for clients that run hooks as commands. Exit code 0 lets the call go on
//! and 2 blocks it; a failure of any kind blocks, since such clients go on at every other code.

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
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let Command::Govern { plugin_id } = args.command;
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
