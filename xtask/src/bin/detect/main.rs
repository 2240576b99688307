//! What the secret scan finds in labelled examples and in source trees; `cargo xtask accept detection` builds and runs this, in a
//! process of its own, since the library below would make every other command wait for it.
//!
//! `detect examples FILE` reads a JSON array of texts and writes, for each, the rules that hit. `detect tree BYTES FOLDER…` scans
//! so many bytes of each folder's text files and writes every specific finding. `detect pii FILE` reads texts as `examples` does and
//! writes what personal data the policy finds in them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]

mod personal;
mod rule_files;
mod tree;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use systemprompt_security::governance::{FindingClass, SecretScanner};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("detect: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<Value> {
    let scanner = SecretScanner::builtin()?;
    match args {
        ["examples", file] => {
            let texts = texts(file)?;
            Ok(texts.iter().map(|text| hits(&scanner, text)).collect())
        }
        ["pii", file] => personal::judge(scanner, &texts(file)?),
        ["rules", folder] => rule_files::examples(Path::new(folder)),
        ["own", folder] => rule_files::own(Path::new(folder)),
        ["tree", bytes, folders @ ..] if !folders.is_empty() => {
            let most = bytes.parse().context("a number of bytes")?;
            let folders: Vec<&Path> = folders.iter().map(Path::new).collect();
            Ok(tree::scan(&scanner, most, &folders))
        }
        ["count"] => Ok(json!(scanner.rules().count())),
        _ => {
            bail!("detect examples FILE | pii FILE | rules FOLDER | own FOLDER | tree BYTES FOLDER… | count")
        }
    }
}

fn texts(file: &str) -> Result<Vec<String>> {
    let texts = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    Ok(serde_json::from_str(&texts)?)
}

/// Rules that hit, by class.
fn hits(scanner: &SecretScanner, text: &str) -> Value {
    let found = scanner.scan_text(text);
    let of = |class| found.iter().filter(|f| f.class == class).map(|f| &*f.rule_id).collect::<Vec<_>>();
    json!({"specific": of(FindingClass::Specific), "generic": of(FindingClass::Generic)})
}
