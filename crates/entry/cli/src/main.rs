//! The binary `systemprompt`: one file per command.

mod client;
mod commands;
mod confirm;
mod credentials;
mod database;
mod exit;
mod globals;
mod nearest;
mod node;
mod offline;
mod operator;
mod output;
mod paging;
mod running;

use clap::{CommandFactory, Parser, Subcommand};
use commands::{
    about, admin, audit, can, config, db, demo, doctor, explain, hook, mcp_server, policy, serve, up,
    validate, wait,
};
use exit::{CliError, Exit};
use globals::Globals;
use std::process::ExitCode;

/// A request allocates some hundred small pieces; this allocator takes about a tenth of the processor time of the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Runs the main job, allowed and refused; starts a server of its own where none runs
    Demo,
    /// Checks the installation, with the fix for each line that fails
    Doctor(doctor::Args),
    /// Checks profile, services and secrets
    Validate(validate::Args),
    /// Settings in force, and the schema of a profile
    Config(config::Args),
    /// Users, rules, entities, keys, tokens, API keys, secrets
    Admin(admin::Args),
    /// Why a request, a decision or a tool call came out as it did
    Explain(explain::Args),
    /// Whether a principal may use an entity: 0 yes, 3 no, 5 unknown
    Can(can::Args),
    /// Tries rules before they are put in force: cases, and recorded decisions
    Policy(policy::Args),
    /// The decision endpoint as a program, for clients that run hooks as commands
    Hook(hook::Args),
    /// The ledger
    Audit(audit::Args),
    /// The schema of the database
    Db(db::Args),
    /// Waits until the server is ready
    Wait(wait::Args),
    /// Whether the server is ready: 0, else 8
    Healthcheck,
    /// Prints the completion script of a shell
    Completion(about::CompletionArgs),
    /// Prints or writes manual pages
    Man(about::ManArgs),
    /// Prints the version
    Version(about::VersionArgs),
    /// The table of exit codes
    #[command(hide = true, long_about = about::EXIT_CODES, help_template = "{about}\n")]
    ExitCodes,
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
    if cli.globals.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    // A client of hooks goes on at every code but 2, so no failure of ours may have another.
    let blocks = matches!(&cli.command, Command::Hook(args) if args.blocks());
    if blocks {
        std::panic::set_hook(Box::new(|panic| {
            anstream::eprintln!("error: {panic}");
            std::process::exit(Exit::Usage as i32);
        }));
    }
    let done = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(CliError::from(error)),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) if blocks => report(&hook::blocking(error)),
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
        Command::Demo => demo::run(globals).await,
        Command::Doctor(args) => doctor::run(globals, args).await,
        Command::Validate(args) => validate::run(globals, args),
        Command::Config(args) => config::run(globals, args),
        Command::Admin(args) => admin::run(globals, args).await,
        Command::Explain(args) => explain::run(globals, args).await,
        Command::Can(args) => can::run(globals, args).await,
        Command::Policy(args) => policy::run(globals, args).await,
        Command::Hook(args) => hook::run(globals, args).await,
        Command::Audit(args) => audit::run(globals, args).await,
        Command::Db(args) => db::run(globals, args).await,
        Command::Wait(args) => wait::run(globals, args).await,
        Command::Healthcheck => wait::healthcheck(globals).await,
        Command::Completion(args) => about::completion(args, Cli::command()),
        Command::Man(args) => about::man(args, Cli::command()),
        Command::Version(args) => about::version(globals, args),
        Command::ExitCodes => output::line(about::EXIT_CODES).map(|()| Exit::Ok),
        Command::McpServer(args) => mcp_server::run(args).await,
    }
}
