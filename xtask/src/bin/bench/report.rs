//! `docs/benchmarks.md`: each bench owns the section between its two marks and rewrites it.

use crate::options::Options;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use xtask::process::root;

/// A table of figures with what a reader needs to judge them.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    text: String,
}

impl Report {
    /// `reach` says what the figures are held against.
    pub fn new(name: &'static str, title: &str, machine: &str, method: &str, reach: &str) -> Self {
        let text = format!("## {title}\n\n{method}\n\nTo reach: {reach}\n\nMachine: {machine}\n");
        Self { name, text }
    }

    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
        let _ = write!(self.text, "\n{}{}", line(head), line(&vec!["---"; head.len()]));
        for row in rows {
            self.text.push_str(&line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
        }
    }

    pub fn note(&mut self, text: &str) {
        let _ = write!(self.text, "\n{text}\n");
    }

    /// Prints the section and, unless this is a dry run, puts it into the document.
    pub fn publish(&self, options: &Options) -> Result<()> {
        println!("\n{}", self.text);
        if options.dry {
            return Ok(());
        }
        let path = root().join("docs/benchmarks.md");
        let document =
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        std::fs::write(&path, replaced(&document, self.name, &self.text))?;
        Ok(())
    }
}

/// The document with the section of `name` replaced, or appended.
fn replaced(document: &str, name: &str, text: &str) -> String {
    let (open, close) = (format!("<!-- bench {name} -->\n"), format!("<!-- end {name} -->\n"));
    let section = format!("{open}{text}{close}");
    match (document.split_once(&open), document.split_once(&close)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{section}{after}"),
        _ => format!("{}\n\n{section}", document.trim_end()),
    }
}

/// Shows a finished row at once: a whole bench takes many minutes.
pub fn finished(row: Vec<String>) -> Vec<String> {
    eprintln!("{}", row.join(" | "));
    row
}

/// The median of a figure over the runs.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_its_neighbours_stay() {
        let one = replaced("# Title\n", "a", "first\n");
        let two = replaced(&one, "b", "second\n");
        let three = replaced(&two, "a", "third\n");
        assert!(three.starts_with("# Title\n"));
        assert!(three.contains("third") && three.contains("second") && !three.contains("first"));
        assert_eq!(replaced(&three, "a", "third\n"), three);
    }
}
