//! Personal data in presidio's own test cases (case 28): what they expect is found, and nothing is refused for in the others.

use super::{detect, step};
use crate::accept::Tally;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use xtask::process::{output, root};

/// Least part of what presidio expects that is found, in percent.
const LEAST: u64 = 95;

pub(super) fn presidio(tally: &mut Tally, python: &Path, tests: &Path) -> Result<()> {
    let script = root().join("xtask/accept/presidio_cases.py");
    let cases: Vec<Value> = serde_json::from_str(&output(Command::new(python).arg(script).arg(tests))?)?;
    let text = |case: &Value, key: &str| case.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let texts: Vec<String> = cases.iter().map(|case| text(case, "text")).collect();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), json!(texts).to_string())?;
    let judged = detect(&["pii", &file.path().to_string_lossy()])?;
    let judged = judged.as_array().context("no findings")?;

    let (mut kinds, mut blocked, mut negatives): (BTreeMap<String, (u64, u64)>, u64, u64) =
        Default::default();
    for (case, judged) in cases.iter().zip(judged) {
        let wanted = case.get("count").and_then(Value::as_u64).unwrap_or_default();
        if wanted == 0 {
            negatives += 1;
            let blocks = judged.get("blocks").filter(|blocks| **blocks != json!({}));
            blocked += u64::from(blocks.is_some());
            if let Some(blocks) = blocks {
                println!("      {:?} would be refused: {blocks}", text(case, "text"));
            }
            continue;
        }
        let of = |kind: &Value| judged.get("found")?.get(kind.as_str()?)?.as_u64();
        let found: u64 =
            case.get("kinds").and_then(Value::as_array).into_iter().flatten().filter_map(of).sum();
        let sums = kinds.entry(text(case, "name")).or_default();
        *sums = (sums.0 + found.min(wanted), sums.1 + wanted);
        if found < wanted {
            println!("      {found} of {wanted} found in {:?}", text(case, "text"));
        }
    }
    for (name, (found, wanted)) in &kinds {
        println!("      {name}: {found} of {wanted}");
    }
    let (found, wanted) = kinds.values().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    let met = wanted > 0 && found * 100 >= wanted * LEAST && judged.len() == cases.len();
    step(tally, met, &format!("presidio: {found} of {wanted} found, at least {LEAST} % are wanted"));
    step(
        tally,
        blocked == 0 && negatives > 0,
        &format!("presidio: {blocked} of {negatives} negatives refused"),
    );
    Ok(())
}
