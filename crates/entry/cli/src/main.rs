//! The binary `systemprompt`: one file per command.

mod commands;
mod credentials;
mod exit;
mod globals;
mod node;

use clap::{Parser, Subcommand};
use commands::{mcp_server, serve, up};
use exit::{CliError, Exit};
use globals::Globals;
use std::process::ExitCode;

/// The control plane for AI agents that a company owns itself.
#[derive(Debug, Parser)]
#[command(name = "systemprompt", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes what is missing, then serves in the foreground
    Up(up::Args),
    /// Serves an existing profile
    Serve(serve::Args),
    #[command(name = "__mcp-server", hide = true)]
    McpServer(mcp_server::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&CliError::from(error)),
    };
    match runtime.block_on(run(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => report(&error),
    }
}

fn report(error: &CliError) -> ExitCode {
    for line in error.lines() {
        anstream::eprintln!("{line}");
    }
    error.exit.into()
}

async fn run(cli: Cli) -> Result<Exit, CliError> {
    let globals = &cli.globals;
    match cli.command {
        Command::Up(args) => up::run(globals, args).await,
        Command::Serve(args) => serve::run(globals, args).await,
        Command::McpServer(args) => mcp_server::run(args).await,
    }
}
