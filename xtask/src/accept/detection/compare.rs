//! The same examples through other scanners (case 27): who finds how many of which provider, and why each of those that only another
//! one finds is none of ours.

use super::{Example, ours, step};
use crate::accept::{Tally, clients};
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::process::{output, root};

const OTHERS: [(&str, &str, &str); 2] = [
    ("detect-secrets", "detect-secrets==1.5.0", "run_detect_secrets.py"),
    ("CredSweeper", "CredSweeper==1.19.5", "run_credsweeper.py"),
];

/// Why another scanner's finding is none of ours, by the rule that the example stands under. One without a reason fails the run.
const EXPLAINED: [(&str, &str); 8] = [
    ("kingfisher.artifactory.3", "a reference token begins with `cmVmdGtu`, which was altered"),
    ("kingfisher.azure.devops.2", "longer by one than these tokens are"),
    ("kingfisher.azurestorage.2", "a storage key is 64 bytes and ends in `==`, which was cut off"),
    ("kingfisher.gcp.1", "the private key within was altered and is no PEM any more"),
    ("kingfisher.gcp.3", "`ANzaSy…` is no prefix of Google's keys (`AIza`)"),
    ("kingfisher.google.3", "one letter, repeated: a placeholder"),
    ("kingfisher.privkey.1", "the key's body was cut into lines of a few letters"),
    ("kingfisher.stripe.1", "a publishable key, which is made to stand in public pages"),
];

/// Which of the examples a scanner hits.
type Column<'n> = (&'n str, Vec<bool>);

/// The other scanners, each with the interpreter of its environment.
pub(super) struct Others(Vec<(&'static str, &'static str, PathBuf)>);

impl Others {
    pub(super) fn install() -> Result<Self> {
        let install = |(name, package, script)| Ok((name, script, clients::python(name, package)?));
        Ok(Self(OTHERS.into_iter().map(install).collect::<Result<_>>()?))
    }

    /// An interpreter with pip.
    pub(super) fn python(&self) -> &Path {
        self.0.first().map_or_else(|| Path::new("python3"), |(_, _, python)| python)
    }

    /// Prints the table; a finding of another scanner that is neither ours nor explained is a failure.
    pub(super) fn compare(&self, tally: &mut Tally, name: &str, examples: &[Example]) -> Result<()> {
        let texts: Vec<&str> = examples.iter().map(|e| e.text.as_str()).collect();
        let own: Vec<bool> = ours(&texts)?.iter().map(|(specific, _)| !specific.is_empty()).collect();
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), json!(texts).to_string())?;
        let mut others = Vec::new();
        for (scanner, script, python) in &self.0 {
            let mut run = Command::new(python);
            run.arg(root().join("xtask/accept").join(script)).arg(file.path()).env("PYTHONUTF8", "1");
            let said = output(&mut run)?;
            let last = said.lines().last().with_context(|| format!("{scanner} says nothing"))?;
            let hits: Vec<bool> = serde_json::from_str(last)?;
            step(tally, hits.len() == texts.len(), &format!("{scanner} judged {} texts", hits.len()));
            others.push((*scanner, hits));
        }
        table(examples, &own, &others);
        let unexplained = missed(examples, &own, &others);
        step(
            tally,
            unexplained == 0,
            &format!("{name}: {unexplained} findings of others neither ours nor explained"),
        );
        Ok(())
    }
}

fn table(examples: &[Example], own: &[bool], others: &[Column<'_>]) {
    let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, example) in examples.iter().enumerate() {
        files.entry(&example.file).or_default().push(index);
    }
    let columns: Vec<(&str, &[bool])> = std::iter::once(("systemprompt", own))
        .chain(others.iter().map(|(name, hits)| (*name, hits.as_slice())))
        .collect();
    let line = |cells: Vec<String>| println!("| {} |", cells.join(" | "));
    let heads = ["provider", "examples"].into_iter().chain(columns.iter().map(|(name, _)| *name));
    println!();
    line(heads.map(str::to_owned).collect());
    line(vec!["---".to_owned(); columns.len() + 2]);
    for (file, indices) in &files {
        let hit = |hits: &[bool]| indices.iter().filter(|i| hits.get(**i) == Some(&true)).count().to_string();
        let cells = columns.iter().map(|(_, hits)| hit(hits));
        line([(*file).to_owned(), indices.len().to_string()].into_iter().chain(cells).collect());
    }
    let total = |hits: &[bool]| hits.iter().filter(|hit| **hit).count().to_string();
    let totals = columns.iter().map(|(_, hits)| total(hits));
    line(["all".to_owned(), examples.len().to_string()].into_iter().chain(totals).collect());
}

/// Lists what another scanner finds and this one does not, with the rule that the example stands under; how many have no reason.
fn missed(examples: &[Example], own: &[bool], others: &[Column<'_>]) -> usize {
    let mut missed = BTreeSet::new();
    for (index, example) in examples.iter().enumerate() {
        for (name, hits) in others {
            if hits.get(index) == Some(&true) && own.get(index) != Some(&true) {
                missed.insert((example.rule.as_str(), *name, shape(&example.text)));
            }
        }
    }
    println!("\nfound by others alone: {}", missed.len());
    let mut unexplained = 0;
    for (rule, name, shape) in missed {
        let why = EXPLAINED.iter().find(|(known, _)| *known == rule).map(|(_, why)| *why);
        unexplained += usize::from(why.is_none());
        println!("  {rule}, by {name}: {shape} ({})", why.unwrap_or("not explained"));
    }
    unexplained
}

/// What a text looks like, its letters and digits taken out of words longer than a name.
fn shape(text: &str) -> String {
    let words = text.split_whitespace().take(8).map(|word| if word.len() > 24 { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}
