//! `cargo xtask test`: the product's binary, doc tests, then every test on SQLite and on a PostgreSQL of this run's own.

use anyhow::Result;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use xtask::postgres::{Durability, Postgres, VARIABLE};
use xtask::process::{cargo, is_installed, run, status, variable};

/// Runs everything, or what `args` select. The runner's summary is the last thing printed.
pub(crate) fn test(args: &[String]) -> Result<ExitCode> {
    let own = if variable(VARIABLE).is_some() { None } else { Some(Postgres::start(Durability::Process)?) };
    let url = own.as_ref().map(Postgres::url).or_else(|| variable(VARIABLE)).unwrap_or_default();
    let packages = packages(args);
    if packages.iter().all(|package| package == "systemprompt-tests") {
        build_binary(packages.is_empty())?;
    }
    if args.is_empty() {
        let doc = status(cargo(["test", "--quiet", "--doc", "--workspace"]).env(VARIABLE, &url))?;
        if !doc.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let scope: &[&str] = if packages.is_empty() { &["--workspace"] } else { &[] };
    if is_installed("cargo-nextest") { nextest(scope, args, &url) } else { libtest(scope, args, &url) }
}

/// The packages that `-p` or `--package` name.
fn packages(args: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "-p" || arg == "--package" {
            found.extend(args.next().cloned());
        } else if let Some(package) = arg.strip_prefix("--package=").or_else(|| arg.strip_prefix("-p")) {
            found.push(package.to_owned());
        }
    }
    found
}

/// The integration tests start the real binary, which a test run alone does not build. Built together with the tests,
/// the dependencies get one set of features and are compiled once.
fn build_binary(whole_workspace: bool) -> Result<()> {
    let scope: &[&str] = if whole_workspace {
        &["--workspace"]
    } else {
        &["--package", "systemprompt-cli", "--package", "systemprompt-tests"]
    };
    run(cargo(["build", "--bins", "--tests"]).args(scope))
}

fn nextest(scope: &[&str], args: &[String], url: &str) -> Result<ExitCode> {
    let mut command = cargo(["nextest", "run", "--config-file", "tests/nextest.toml", "--no-fail-fast"]);
    Ok(exit(status(command.args(scope).args(args).env(VARIABLE, url))?))
}

/// Without nextest: libtest's summaries, one a binary, are added up to one line.
fn libtest(scope: &[&str], args: &[String], url: &str) -> Result<ExitCode> {
    let mut command = cargo(["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    command.args(scope).args(args).env(VARIABLE, url).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let (mut passed, mut failed) = (0, 0);
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            if line.starts_with("test result:") {
                passed += count(&line, " passed");
                failed += count(&line, " failed");
            }
        }
    }
    let status = child.wait()?;
    println!("\n{passed} passed, {failed} failed");
    Ok(exit(status))
}

/// The number before `word` in libtest's summary.
fn count(line: &str, word: &str) -> u64 {
    let before = line.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn exit(status: std::process::ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_options_are_found_in_each_spelling() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(packages(&args("-p one --package two some_test")), ["one", "two"]);
        assert_eq!(packages(&args("--package=three -pfour")), ["three", "four"]);
        assert!(packages(&args("some_test")).is_empty());
    }

    #[test]
    fn libtest_summaries_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out";
        assert_eq!((count(line, " passed"), count(line, " failed")), (12, 3));
    }
}
