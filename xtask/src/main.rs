//! `cargo xtask`: what a developer and CI run beside cargo itself.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]

mod accept;
mod bench;
mod ci;
mod test;

use std::process::ExitCode;
use xtask::postgres::{Durability, Postgres, VARIABLE};

const USAGE: &str = "\
cargo xtask COMMAND

  test [ARGS]    everything on both engines; ARGS go to the test runner (`-p systemprompt-audit`, a name)
  ci             formatting, dependencies, lints, documentation, then `test`
  pg             keeps a PostgreSQL running for `cargo nextest run`; prints its variable
  bench NAME     measures the release build (`bench --help` names them)
  accept NAME    real clients and long campaigns: main-job, security, audit, edge, detection, crash, fuzz";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let result = match command.as_str() {
        "test" => test::test(&rest),
        "ci" => ci::ci(),
        "pg" => pg(),
        "bench" => bench::bench(&rest),
        "accept" => accept::accept(&rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask {command}: {error:#}");
        ExitCode::FAILURE
    })
}

fn pg() -> anyhow::Result<ExitCode> {
    let mut server = Postgres::start(Durability::Process)?;
    println!("export {VARIABLE}={}", server.url());
    eprintln!("PostgreSQL runs until you press Ctrl-C.");
    server.wait()?;
    Ok(ExitCode::SUCCESS)
}
