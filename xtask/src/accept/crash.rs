//! `accept crash`: the crash tests of `tests/tests/crash.rs` as a campaign, 200 kills under 64 callers on each engine, with a
//! PostgreSQL that waits for the disk.

use super::Tally;
use anyhow::Result;
use xtask::postgres::{Durability, Postgres, VARIABLE};
use xtask::process::{cargo, run, status};

const ROUNDS: &str = "200";
const CALLERS: &str = "64";
const TESTS: [&str; 2] = [
    "crash::no_acknowledged_decision_is_lost_by_a_kill_on_sqlite",
    "crash::no_acknowledged_decision_is_lost_by_a_kill_on_postgres",
];

pub(super) fn crash() -> Result<Tally> {
    let postgres = Postgres::start(Durability::Disk)?;
    let packages = ["--package", "systemprompt-cli", "--package", "systemprompt-tests"];
    run(cargo(["build", "--bins", "--tests"]).args(packages))?;
    let mut tally = Tally::default();
    // One after the other: each gets the machine for itself.
    for test in TESTS {
        let mut command = cargo(["test", "--package", "systemprompt-tests", "--test", "it"]);
        command.args(["--", "--exact", "--nocapture", test]).env(VARIABLE, postgres.url());
        command.env("SYSTEMPROMPT_TEST_CRASH_ROUNDS", ROUNDS).env("SYSTEMPROMPT_TEST_CRASH_CALLERS", CALLERS);
        if status(&mut command)?.success() {
            tally.passed += 1;
        } else {
            tally.failed += 1;
        }
    }
    Ok(tally)
}
