//! `completion`, `man`, `version` and the table of exit codes: what the binary tells about itself.

use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::Output;
use clap::Command;
use clap_complete::Shell;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// The table of `help exit-codes`.
pub const EXIT_CODES: &str = "\
Exit codes

  0    done
  1    failed
  2    usage: the command line is wrong, or a confirmation is missing; `hook govern`: blocked
  3    denied by policy
  4    sign-in needed
  5    not found
  6    conflict: it exists already, it was changed in between, or a server is running
  7    validation failed: a profile, a value, a chain
  8    the server cannot be reached, or is not ready
  130  interrupted";

#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// Shell to complete in
    shell: Shell,
}

/// Prints the completion script of a shell.
pub fn completion(args: CompletionArgs, mut command: Command) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "systemprompt", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Ok)
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Writes a page per command into this folder [default: the first page on standard output]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Writes manual pages.
pub fn man(args: ManArgs, command: Command) -> Result<Exit, CliError> {
    if let Some(dir) = args.dir {
        std::fs::create_dir_all(&dir)?;
        clap_mangen::generate_to(command, &dir)?;
        anstream::eprintln!("wrote the manual pages into {}", dir.display());
        return Ok(Exit::Ok);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    std::io::stdout().lock().write_all(&page)?;
    Ok(Exit::Ok)
}

#[derive(Debug, clap::Args)]
pub struct VersionArgs {
    /// As `--output json`
    #[arg(long)]
    json: bool,
}

/// Prints the version, and what the schema of its database ends with.
pub fn version(globals: &Globals, args: VersionArgs) -> Result<Exit, CliError> {
    let schema = systemprompt_runtime::rooms::migrations().iter().map(|m| m.version).max();
    let value = json!({
        "name": "systemprompt",
        "version": env!("CARGO_PKG_VERSION"),
        "schema": schema,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    });
    let text = format!("systemprompt {}", env!("CARGO_PKG_VERSION"));
    Output::new(globals).as_json(args.json).document(&value, &text)?;
    Ok(Exit::Ok)
}
