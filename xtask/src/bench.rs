//! `cargo xtask bench NAME`: builds the product and the load generator in release mode together and hands over to the
//! generator (`src/bin/bench`). A separate binary, because its libraries would make every other command wait for them.

use anyhow::{Result, bail};
use std::process::{Command, ExitCode};
use xtask::process::{cargo, run, status, target};

pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    let (own, rest): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.as_str() == "--dist");
    let profile = if own.is_empty() { "release" } else { "dist" };
    run(&mut cargo([
        "build",
        "--profile",
        profile,
        "--package",
        "systemprompt-cli",
        "--package",
        "xtask",
        "--features",
        "xtask/bench",
        "--bins",
    ]))?;
    let program = target().join(profile).join("bench");
    if !program.is_file() {
        bail!("cargo built no {}", program.display());
    }
    let status = status(Command::new(program).args(rest))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
