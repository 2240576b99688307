//! `accept fuzz`: the fuzz targets of `/fuzz`, each for a while; a finding fails the run and names the file that shows it.
//!
//! They are built by the toolchain that the project is pinned to, so that a fresh machine needs no second one: the sanitizer
//! is a flag that rustc calls unstable, which `RUSTC_BOOTSTRAP` lets it take, for these builds alone.

use super::Tally;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::process::{cargo, find, output, root, run, status, target};

/// The version that this is written for.
const CARGO_FUZZ: &str = "cargo-fuzz@0.13.2";
/// How long each target runs, in seconds, unless told otherwise.
const SECONDS: u64 = 600;
/// Longest that one input may take, in seconds, and most memory of a target, in MiB.
const INPUT_SECONDS: u32 = 10;
const MEMORY: u32 = 2048;

/// What is asked for: which targets, and for how long.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    seconds: u64,
    /// None means all.
    targets: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { seconds: SECONDS, targets: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => {
                    let value = args.next().context("--seconds needs a number")?;
                    options.seconds =
                        value.parse().with_context(|| format!("--seconds: `{value}` is no number"))?;
                }
                flag if flag.starts_with('-') => bail!("cargo xtask accept fuzz [TARGET…] [--seconds N]"),
                name => options.targets.push(name.to_owned()),
            }
        }
        Ok(options)
    }
}

pub(super) fn fuzz(args: &[String]) -> Result<Tally> {
    let options = Options::parse(args)?;
    let known = known()?;
    let unknown = options.targets.iter().find(|name| !known.contains(name));
    if let Some(name) = unknown {
        bail!("there is no fuzz target `{name}`; there are {}", known.join(", "));
    }
    let wanted = if options.targets.is_empty() { known } else { options.targets };
    let binaries = build()?;
    let mut tally = Tally::default();
    for name in &wanted {
        if run_target(&binaries.join(name), name, options.seconds)? {
            println!("ok    {name}: nothing found in {} s", options.seconds);
            tally.passed += 1;
        } else {
            println!("FAIL  {name}: see the input in fuzz/artifacts/{name}");
            tally.failed += 1;
        }
    }
    Ok(tally)
}

/// The targets: one file each.
fn known() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        if let (Some(stem), Some("rs")) = (path.file_stem(), path.extension().and_then(|e| e.to_str())) {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "{} holds no target", folder.display());
    Ok(names)
}

/// Builds all targets and returns the folder of the programs.
fn build() -> Result<PathBuf> {
    let tool = tool()?;
    let folder = target().join("fuzz");
    run(Command::new(tool)
        .args(["build", "--sanitizer", "address", "--target-dir"])
        .arg(&folder)
        .current_dir(root().join("fuzz"))
        .env("RUSTC_BOOTSTRAP", "1"))?;
    let rustc = output(Command::new("rustc").args(["--version", "--verbose"]).current_dir(root()))?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    Ok(folder.join(host).join("release"))
}

/// The machine's cargo-fuzz, or one of our own below `target/accept`.
fn tool() -> Result<PathBuf> {
    if let Some(tool) = find("cargo-fuzz") {
        return Ok(tool);
    }
    let home = target().join("accept/cargo-fuzz");
    let tool = home.join("bin/cargo-fuzz");
    if !tool.is_file() {
        run(cargo(["install", "--locked", CARGO_FUZZ, "--root"]).arg(&home))?;
    }
    Ok(tool)
}

/// Runs one target; whether nothing was found. It begins with the corpus of the tree and with what earlier runs have found
/// interesting, which is kept below `target` only.
fn run_target(program: &Path, name: &str, seconds: u64) -> Result<bool> {
    let fuzz = root().join("fuzz");
    let grown = target().join("fuzz/corpus").join(name);
    let artifacts = fuzz.join("artifacts").join(name);
    std::fs::create_dir_all(&grown)?;
    std::fs::create_dir_all(&artifacts)?;
    let status = status(
        Command::new(program)
            .arg(&grown)
            .arg(fuzz.join("corpus").join(name))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .args(["-print_final_stats=1", "-verbosity=0"])
            .current_dir(&fuzz)
            .env("ASAN_OPTIONS", "detect_odr_violation=0"),
    )?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_and_the_targets_are_read_and_other_flags_refused() {
        let parse = |args: &[&str]| Options::parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap(), Options { seconds: 600, targets: vec![] });
        let both = Options { seconds: 30, targets: vec!["cookie".to_owned()] };
        assert_eq!(parse(&["cookie", "--seconds", "30"]).unwrap(), both);
        for bad in [&["--seconds"][..], &["--seconds", "soon"], &["--jobs", "2"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_target_is_declared_and_has_a_corpus() {
        let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        for name in known().unwrap() {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is no [[bin]]");
            let corpus = root().join("fuzz/corpus").join(&name);
            assert!(std::fs::read_dir(corpus).unwrap().next().is_some(), "{name} has no corpus");
        }
    }
}
