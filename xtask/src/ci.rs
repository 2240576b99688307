//! `cargo xtask ci`: what a change must pass. Cheap checks first; the tests are last, so that their summary ends the run.

use anyhow::Result;
use std::process::ExitCode;
use xtask::process::{cargo, is_installed, run};

/// The version whose settings `deny.toml` is written for.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// What the tools of `bench` and `accept` are built with.
const TOOLS: &str = "xtask/bench,xtask/detect,xtask/party,xtask/sign,xtask/softpasskey";

pub(crate) fn ci() -> Result<ExitCode> {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    run(&mut cargo(["fetch", "--locked"]))?;
    dependencies()?;
    run(&mut cargo(["clippy", "--workspace", "--all-targets", "--features", TOOLS, "--", "-D", "warnings"]))?;
    run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    crate::test::test(&[])
}

/// Licences, bans and sources. The advisory list is not asked: it is fetched from elsewhere and would fail a change that
/// did nothing wrong.
fn dependencies() -> Result<()> {
    if !is_installed("cargo-deny") {
        run(&mut cargo(["install", "--locked", CARGO_DENY]))?;
    }
    run(&mut cargo(["deny", "--offline", "check", "bans", "licenses", "sources"]))
}
