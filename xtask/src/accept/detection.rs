//! `accept detection`: the figures of the secret scan on labelled examples and on sources in which there is nothing to find, and the
//! same files through detect-secrets and CredSweeper of PyPI.
//!
//! The examples of the rule set are in the tree. Those of noseyparker and kingfisher are read from copies of their rule files, where
//! `--noseyparker FOLDER` and `--kingfisher FOLDER` name them.

use super::{Tally, clients};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::process::{cargo, output, root, run, target, variable};

/// Rule files of kingfisher that are about providers in common use.
const COMMON: [&str; 42] = [
    "anthropic",
    "artifactory",
    "aws",
    "azure",
    "azuredevops",
    "azureopenai",
    "azuresearchquery",
    "azurestorage",
    "circleci",
    "cloudflare",
    "databricks",
    "datadog",
    "digitalocean",
    "discord",
    "dockerhub",
    "doppler",
    "dropbox",
    "facebook",
    "figma",
    "gcp",
    "github",
    "gitlab",
    "google",
    "googleoauth2",
    "grafana",
    "heroku",
    "huggingface",
    "jwt",
    "mailgun",
    "mongodb",
    "npm",
    "openai",
    "pem",
    "postgres",
    "privkey",
    "pypi",
    "sendgrid",
    "shopify",
    "slack",
    "square",
    "stripe",
    "twilio",
];
/// Bytes of each source tree that are scanned.
const TREE: u64 = 20 * 1024 * 1024;
/// Least part of the common providers' secrets that is found, in percent.
const LEAST: usize = 85;
/// Most false findings in both trees.
const MOST_FALSE: usize = 1;
const OTHERS: [(&str, &str, &str); 2] = [
    ("detect-secrets", "detect-secrets==1.5.0", "run_detect_secrets.py"),
    ("CredSweeper", "CredSweeper==1.19.5", "run_credsweeper.py"),
];

/// Why another scanner's finding is none of ours, by the rule that the example stands under.
const EXPLAINED: [(&str, &str); 4] = [
    ("kingfisher.gcp.1", "the private key within was altered and is no PEM any more"),
    ("kingfisher.gcp.3", "`ANzaSy…` is no prefix of Google's keys (`AIza`)"),
    ("kingfisher.google.3", "one letter, repeated: a placeholder"),
    ("kingfisher.privkey.1", "the key's body was cut into lines of a few letters"),
];

/// A labelled text.
#[derive(Clone, Debug)]
struct Example {
    file: String,
    rule: String,
    is_secret: bool,
    text: String,
}

pub(super) fn detection(args: &[String]) -> Result<Tally> {
    let (mut noseyparker, mut kingfisher) = (None, None);
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let folder = args.next().map(PathBuf::from).with_context(|| format!("{name} takes a folder"))?;
        match name.as_str() {
            "--noseyparker" => noseyparker = Some(folder),
            "--kingfisher" => kingfisher = Some(folder),
            _ => bail!("accept detection [--noseyparker FOLDER] [--kingfisher FOLDER]"),
        }
    }
    run(&mut cargo(["build", "--package", "xtask", "--features", "detect", "--bin", "detect"]))?;
    let mut tally = Tally::default();
    println!("{} rules", detect(&["count"])?);

    own_examples(&mut tally)?;
    if let Some(folder) = noseyparker {
        let examples = read(&folder)?;
        figures("noseyparker", &examples)?;
    }
    match kingfisher {
        Some(folder) => common(&mut tally, &read(&folder)?)?,
        None => println!("kingfisher: no --kingfisher FOLDER, so the common providers' part is left out"),
    }
    false_findings(&mut tally)?;
    Ok(tally)
}

fn detect(args: &[&str]) -> Result<Value> {
    let text = output(Command::new(target().join("debug/detect")).args(args))?;
    Ok(serde_json::from_str(&text)?)
}

fn read(folder: &Path) -> Result<Vec<Example>> {
    let all = detect(&["rules", &folder.to_string_lossy()])?;
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let examples: Vec<Example> = all
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| Example {
            file: text(e, "file"),
            rule: text(e, "rule"),
            // Hosts and ids that only complete a credential are marked as not to be shown: no secret is in them.
            is_secret: e.get("positive") == Some(&Value::Bool(true))
                && e.get("visible") != Some(&Value::Bool(false)),
            text: text(e, "text"),
        })
        .collect();
    if examples.is_empty() {
        bail!("{} holds no rule files with examples", folder.display());
    }
    Ok(examples)
}

/// Specific rules that hit a text, and how many generic ones.
type Hit = (Vec<String>, usize);

/// The rules that hit each text.
fn ours(texts: &[&str]) -> Result<Vec<Hit>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), json!(texts).to_string())?;
    let hits = detect(&["examples", &file.path().to_string_lossy()])?;
    let of = |hit: &Value, class: &str| {
        let all = hit.get(class).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    Ok(hits
        .as_array()
        .into_iter()
        .flatten()
        .map(|hit| (of(hit, "specific"), of(hit, "generic").len()))
        .collect())
}

/// The rule set's own examples, which are made of its regexes: all of them must hit.
fn own_examples(tally: &mut Tally) -> Result<()> {
    let rules = root().join("crates/infra/security/rules");
    let all = detect(&["own", &rules.to_string_lossy()])?;
    let texts: Vec<String> =
        all.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found =
        ours(&texts)?.iter().filter(|(specific, generic)| !specific.is_empty() || *generic > 0).count();
    step(
        tally,
        found == texts.len() && found > 0,
        &format!("own examples: {found} of {} found", texts.len()),
    );
    Ok(())
}

fn figures(name: &str, examples: &[Example]) -> Result<(usize, usize)> {
    let texts: Vec<&str> = examples.iter().map(|e| e.text.as_str()).collect();
    let hits = ours(&texts)?;
    let count = |is_secret: bool, hit: &dyn Fn(&Hit) -> bool| {
        examples.iter().zip(&hits).filter(|(e, h)| e.is_secret == is_secret && hit(h)).count()
    };
    let all = |is_secret| count(is_secret, &|_| true);
    let (secrets, found) = (all(true), count(true, &|(specific, _)| !specific.is_empty()));
    let flagged = count(true, &|(specific, generic)| specific.is_empty() && *generic > 0);
    let false_hits = count(false, &|(specific, _)| !specific.is_empty());
    println!(
        "{name}: {found} of {secrets} positive examples found by specific rules, {flagged} more flagged; {false_hits} of {} others hit",
        all(false)
    );
    Ok((found, secrets))
}

/// The common providers' examples, ours beside the other scanners.
fn common(tally: &mut Tally, all: &[Example]) -> Result<()> {
    figures("kingfisher", all)?;
    let examples: Vec<Example> =
        all.iter().filter(|e| e.is_secret && COMMON.contains(&e.file.as_str())).cloned().collect();
    let (found, secrets) = figures("kingfisher, common providers", &examples)?;
    let met = found * 100 >= secrets * LEAST;
    step(tally, met, &format!("common providers: {found} of {secrets}, at least {LEAST} % are wanted"));

    let texts: Vec<&str> = examples.iter().map(|e| e.text.as_str()).collect();
    let mut columns =
        vec![("systemprompt", ours(&texts)?.iter().map(|(s, _)| !s.is_empty()).collect::<Vec<bool>>())];
    for (name, package, script) in OTHERS {
        let python = clients::python(name, package)?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), json!(texts).to_string())?;
        let hits =
            output(Command::new(python).arg(root().join("xtask/accept").join(script)).arg(file.path()))?;
        let hits: Vec<bool> = serde_json::from_str(hits.lines().last().unwrap_or("[]"))?;
        step(tally, hits.len() == texts.len(), &format!("{name} judged {} texts", hits.len()));
        columns.push((name, hits));
    }
    table(&examples, &columns);
    Ok(())
}

fn table(examples: &[Example], columns: &[(&str, Vec<bool>)]) {
    let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, example) in examples.iter().enumerate() {
        files.entry(&example.file).or_default().push(index);
    }
    let line = |cells: Vec<String>| println!("| {} |", cells.join(" | "));
    let heads = ["provider", "examples"].into_iter().chain(columns.iter().map(|(name, _)| *name));
    println!();
    line(heads.map(str::to_owned).collect());
    line(vec!["---".to_owned(); columns.len() + 2]);
    for (file, indices) in &files {
        let hit =
            |hits: &Vec<bool>| indices.iter().filter(|i| hits.get(**i) == Some(&true)).count().to_string();
        let cells = columns.iter().map(|(_, hits)| hit(hits));
        line([(*file).to_owned(), indices.len().to_string()].into_iter().chain(cells).collect());
    }
    let total = |hits: &Vec<bool>| hits.iter().filter(|hit| **hit).count().to_string();
    let totals = columns.iter().map(|(_, hits)| total(hits));
    line(["all".to_owned(), examples.len().to_string()].into_iter().chain(totals).collect());

    // What another scanner finds and this one does not, with the rule that the example stands under.
    let Some(((_, ours), others)) = columns.split_first() else { return };
    let mut missed = BTreeSet::new();
    for (index, example) in examples.iter().enumerate() {
        for (name, hits) in others {
            if hits.get(index) == Some(&true) && ours.get(index) != Some(&true) {
                missed.insert((example.rule.as_str(), *name, shape(&example.text)));
            }
        }
    }
    println!("\nfound by others alone: {}", missed.len());
    for (rule, name, shape) in missed {
        let why = EXPLAINED.iter().find(|(known, _)| *known == rule).map_or("not explained", |(_, why)| why);
        println!("  {rule}, by {name}: {shape} ({why})");
    }
}

/// What a text looks like, its letters and digits taken out of words longer than a name.
fn shape(text: &str) -> String {
    let words = text.split_whitespace().take(8).map(|word| if word.len() > 24 { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Sources in which there is no secret.
fn false_findings(tally: &mut Tally) -> Result<()> {
    let script = "import sysconfig; print(sysconfig.get_paths()['stdlib'])";
    let library = output(Command::new("python3").args(["-c", script]))?;
    let cargo_home = variable("CARGO_HOME").or_else(|| variable("HOME").map(|home| format!("{home}/.cargo")));
    let crates = format!("{}/registry/src", cargo_home.context("neither CARGO_HOME nor HOME is set")?);
    let found = detect(&["tree", &TREE.to_string(), &library, &crates])?;
    let specific = found.get("specific").and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |key: &str| found.get(key).and_then(Value::as_f64).unwrap_or_default();
    for finding in &specific {
        println!("  {finding}");
    }
    let text = format!(
        "{} specific findings in {:.1} MiB of {} source files (at most {MOST_FALSE}); the generic rule flags {}",
        specific.len(),
        number("bytes") / (1024.0 * 1024.0),
        number("files"),
        number("generic")
    );
    step(tally, specific.len() <= MOST_FALSE && number("bytes") > TREE as f64, &text);
    Ok(())
}

fn step(tally: &mut Tally, met: bool, text: &str) {
    println!("{} {text}", if met { "ok   " } else { "FAIL " });
    if met {
        tally.passed += 1;
    } else {
        tally.failed += 1;
    }
}
