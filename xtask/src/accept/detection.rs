//! `accept detection` (cases 26 to 28): the figures of the secret scan on labelled examples and on sources in which there is nothing
//! to find, the same examples through detect-secrets and CredSweeper of PyPI, and the policy on personal data on presidio's cases.
//!
//! The examples of the rule set are in the tree; the others come from where `examples` says. A folder that was copied by hand takes
//! the place of a repository: `--noseyparker FOLDER`, `--kingfisher FOLDER`, `--presidio FOLDER`.

mod compare;
mod examples;
mod personal;

use super::Tally;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
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

/// A labelled text.
#[derive(Clone, Debug)]
struct Example {
    file: String,
    rule: String,
    is_secret: bool,
    text: String,
}

pub(super) fn detection(args: &[String]) -> Result<Tally> {
    let mut named: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let mut args = args.iter();
    while let Some(name) = args.next() {
        if !["--noseyparker", "--kingfisher", "--presidio"].contains(&name.as_str()) {
            bail!("accept detection [--noseyparker FOLDER] [--kingfisher FOLDER] [--presidio FOLDER]");
        }
        let folder = args.next().with_context(|| format!("{name} takes a folder"))?;
        named.insert(name, PathBuf::from(folder));
    }
    let named = |name: &str| named.get(name).map(PathBuf::as_path);
    run(&mut cargo(["build", "--package", "xtask", "--features", "detect", "--bin", "detect"]))?;
    let others = compare::Others::install()?;
    let mut tally = Tally::default();
    println!("{} rules", detect(&["count"])?);

    own_examples(&mut tally)?;
    let (name, folder) = examples::kingfisher(others.python())?;
    common(&mut tally, &name, &read(&folder)?, &others)?;
    if let Some(folder) = examples::KINGFISHER_2025.get(named("--kingfisher"))? {
        common(&mut tally, examples::KINGFISHER_2025.name, &read(&folder)?, &others)?;
    }
    if let Some(folder) = examples::NOSEYPARKER.get(named("--noseyparker"))? {
        figures(examples::NOSEYPARKER.name, &read(&folder)?)?;
    }
    if let Some(folder) = examples::PRESIDIO.get(named("--presidio"))? {
        personal::presidio(&mut tally, others.python(), &folder)?;
    }
    false_findings(&mut tally)?;
    Ok(tally)
}

/// The common providers' examples among those of kingfisher: how many are found, and what other scanners find beside.
fn common(tally: &mut Tally, name: &str, all: &[Example], others: &compare::Others) -> Result<()> {
    figures(name, all)?;
    let is_common = |example: &&Example| example.is_secret && COMMON.contains(&example.file.as_str());
    let examples: Vec<Example> = all.iter().filter(is_common).cloned().collect();
    let (found, secrets) = figures(&format!("{name}, common providers"), &examples)?;
    let met = secrets > 0 && found * 100 >= secrets * LEAST;
    step(
        tally,
        met,
        &format!("{name}: {found} of {secrets} of common providers, at least {LEAST} % are wanted"),
    );
    others.compare(tally, name, &examples)
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
