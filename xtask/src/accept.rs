//! `cargo xtask accept NAME`: what is too heavy for every test run: stock clients from PyPI and npm against the real server,
//! and long campaigns. A client that cannot be installed fails the run, as a failed step does.

mod audit;
mod crash;
mod detection;
mod edge;
mod fuzz;
mod identity;
mod main_job;
mod security;

use anyhow::{Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use xtask::clients;
use xtask::process::root;

pub(crate) fn accept(args: &[String]) -> Result<ExitCode> {
    let tally = match args {
        [name] if name == "main-job" => main_job::main_job()?,
        [name] if name == "audit" => audit::audit()?,
        [name, rest @ ..] if name == "crash" => crash::crash(rest)?,
        [name] if name == "edge" => edge::edge()?,
        [name, rest @ ..] if name == "fuzz" => fuzz::fuzz(rest)?,
        [name, rest @ ..] if name == "detection" => detection::detection(rest)?,
        [name] if name == "identity" => identity::identity()?,
        [name] if name == "security" => security::security()?,
        _ => bail!("cargo xtask accept main-job|security|audit|edge|identity|detection|crash|fuzz"),
    };
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Steps that came out as they must, and those that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One step.
    fn count(&mut self, is_as_it_must_be: bool) {
        if is_as_it_must_be {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// One step by its name.
    fn step(&mut self, name: &str, is_as_it_must_be: bool) {
        println!("{} {name}", if is_as_it_must_be { "ok   " } else { "FAIL " });
        self.count(is_as_it_must_be);
    }

    /// Runs a script of `xtask/accept` with what it is given, and adds up its steps.
    fn script(&mut self, python: &Path, name: &str, given: &Value) -> Result<()> {
        self.program(
            Command::new(python)
                .arg(root().join("xtask/accept").join(name))
                .env("ACCEPT", given.to_string())
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env_remove("ANTHROPIC_API_KEY")
                .env_remove("ANTHROPIC_AUTH_TOKEN")
                .env_remove("ANTHROPIC_BASE_URL"),
        )
    }

    /// Runs a program that ends with a summary line, and adds up its steps.
    fn program(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut summary = None;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                summary = Self::parse(&line).or(summary);
                println!("{line}");
            }
        }
        let status = child.wait()?;
        match summary {
            Some(own) if status.success() == (own.failed == 0) => {
                self.passed += own.passed;
                self.failed += own.failed;
            }
            // What breaks down without its last line counts as one failed step.
            _ => self.failed += 1,
        }
        Ok(())
    }

    /// `12 passed, 0 failed`.
    fn parse(line: &str) -> Option<Self> {
        let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
        Some(Self { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_summary_line_is_read_as_one() {
        assert_eq!(Tally::parse("12 passed, 3 failed"), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(Tally::parse("ok    sdk: 2 passed, some failed"), None);
    }
}
