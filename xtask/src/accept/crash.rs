//! `accept crash`: the crash tests of `tests/tests/crash.rs` as a campaign, 200 kills under 64 callers on each engine, with a
//! PostgreSQL that waits for the disk; then that PostgreSQL itself crashes again and again under load.

use super::Tally;
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Duration;
use xtask::postgres::{Durability, Postgres, VARIABLE};
use xtask::process::{cargo, run, status};

/// Kills on each engine, unless `--rounds` says otherwise.
const ROUNDS: u64 = 200;
const CALLERS: &str = "64";
const TESTS: [&str; 2] = [
    "crash::no_acknowledged_decision_is_lost_by_a_kill_on_sqlite",
    "crash::no_acknowledged_decision_is_lost_by_a_kill_on_postgres",
];

/// How long the load lasts while PostgreSQL comes and goes, and how often it goes.
const OUTAGE_SECONDS: u64 = 90;
const OUTAGES: u64 = 12;
const OUTAGE: &str = "lost_commits::case_8_postgres_that_comes_and_goes_allows_nothing_without_its_record";

pub(super) fn crash(args: &[String]) -> Result<Tally> {
    let rounds: u64 = match args {
        [] => ROUNDS,
        [name, rounds] if name == "--rounds" => rounds.parse().context("--rounds takes a number")?,
        _ => bail!("cargo xtask accept crash [--rounds N]"),
    };
    let mut postgres = Postgres::start(Durability::Disk)?;
    let packages = ["--package", "systemprompt-cli", "--package", "systemprompt-tests"];
    run(cargo(["build", "--bins", "--tests"]).args(packages))?;
    let mut tally = Tally::default();
    // One after the other: each gets the machine for itself.
    for name in TESTS {
        let mut command = test(name, &postgres);
        command
            .env("SYSTEMPROMPT_TEST_CRASH_ROUNDS", rounds.to_string())
            .env("SYSTEMPROMPT_TEST_CRASH_CALLERS", CALLERS);
        tally.count(status(&mut command)?.success());
    }
    let mut command = test(OUTAGE, &postgres);
    command.arg("--ignored").env("SYSTEMPROMPT_TEST_OUTAGE_SECONDS", OUTAGE_SECONDS.to_string());
    let mut child = command.spawn()?;
    // The server starts first.
    std::thread::sleep(Duration::from_secs(10));
    for _ in 0..OUTAGES {
        if child.try_wait()?.is_some() {
            break;
        }
        postgres.crash(Duration::from_secs(1))?;
        std::thread::sleep(Duration::from_secs((OUTAGE_SECONDS - 20) / OUTAGES - 1));
    }
    tally.count(child.wait()?.success());
    Ok(tally)
}

/// One test of the integration tests, which says what it counted.
fn test(name: &str, postgres: &Postgres) -> Command {
    let mut command = cargo(["test", "--package", "systemprompt-tests", "--test", "it"]);
    command.args(["--", "--exact", "--nocapture", name]).env(VARIABLE, postgres.url());
    command
}
