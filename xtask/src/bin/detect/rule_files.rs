//! The labelled examples that stand in the YAML rule files of noseyparker and kingfisher.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    id: String,
    /// Whether what it finds is a secret by itself.
    #[serde(default = "yes")]
    visible: bool,
    #[serde(default)]
    examples: Vec<String>,
    #[serde(default)]
    negative_examples: Vec<String>,
}

fn yes() -> bool {
    true
}

/// Our own rule files.
#[derive(Deserialize)]
struct Own {
    rules: Vec<Examples>,
}

#[derive(Deserialize)]
struct Examples {
    #[serde(default)]
    positive: Vec<String>,
}

/// The positive examples of our own rules.
pub fn own(folder: &Path) -> Result<Value> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let own: Own = serde_saphyr::from_str(&read("secrets.yaml")?)?;
    let published: Vec<Examples> = serde_saphyr::from_str(&read("examples.yaml")?)?;
    Ok(own.rules.into_iter().chain(published).flat_map(|rule| rule.positive).map(Value::from).collect())
}

/// Every example: `{file, rule, positive, visible, text}`.
pub fn examples(folder: &Path) -> Result<Value> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        // Other YAML beside the rules is no rule file.
        let Ok(file) = serde_saphyr::from_str::<File>(&text) else { continue };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for rule in file.rules {
            let one = |positive: bool, text: &String| json!({"file": name, "rule": rule.id, "positive": positive, "visible": rule.visible, "text": text});
            all.extend(rule.examples.iter().map(|text| one(true, text)));
            all.extend(rule.negative_examples.iter().map(|text| one(false, text)));
        }
    }
    Ok(all.into())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}
