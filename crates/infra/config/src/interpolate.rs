//! `${VAR}` and `${VAR:-default}` in the text of a profile, replaced before it is parsed. `$${` stands for a literal `${`. Lines
//! that are only a comment are left as they are. Services files are not treated: what they say may reach a child process.

use crate::diagnostic::{Diagnostic, NamedText, Position};
use crate::env::Environment;
use std::path::Path;
use std::sync::Arc;

/// Where replacements shifted columns, so that a finding names the column of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns(Vec<Shift>);

#[derive(Clone, Debug)]
struct Shift {
    line: u32,
    /// Column (from 1) and width of the reference in the file.
    from: (u32, u32),
    /// Column (from 1) and width of its value in the result.
    to: (u32, u32),
}

impl Columns {
    /// The column of the file that a column of the result came from.
    pub(crate) fn original(&self, line: u32, column: u32) -> u32 {
        let Some(shift) = self.0.iter().rev().find(|s| s.line == line && s.to.0 <= column) else {
            return column;
        };
        match column - shift.to.0 {
            inside if inside < shift.to.1 => shift.from.0,
            beyond => shift.from.0 + shift.from.1 + (beyond - shift.to.1),
        }
    }
}

/// Secrets of the environment are not settings: a value in the profile is shown by `config show`.
const SECRET_PREFIX: &str = "SYSTEMPROMPT_SECRET_";

/// The text with every reference replaced.
pub(crate) fn interpolate(
    file: &Path,
    text: &str,
    env: &dyn Environment,
) -> Result<(String, Columns), Vec<Diagnostic>> {
    let source = Arc::new(NamedText { file: file.to_owned(), text: text.to_owned() });
    let mut pass =
        Pass { env, source, out: String::new(), columns: Columns::default(), findings: Vec::new() };
    let mut offset = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if line.trim_start().starts_with('#') {
            pass.out.push_str(line);
        } else {
            pass.line(number, offset, line);
        }
        offset += line.len();
    }
    if pass.findings.is_empty() { Ok((pass.out, pass.columns)) } else { Err(pass.findings) }
}

struct Pass<'a> {
    env: &'a dyn Environment,
    source: Arc<NamedText>,
    out: String,
    columns: Columns,
    findings: Vec<Diagnostic>,
}

impl Pass<'_> {
    fn line(&mut self, number: u32, offset: usize, line: &str) {
        let width = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let (mut rest, mut column, mut written) = (line, 1, 1);
        while let Some(start) = rest.find("${") {
            let (before, from_here) = rest.split_at(start);
            let escaped = before.ends_with('$');
            let before = before.strip_suffix('$').filter(|_| escaped).unwrap_or(before);
            self.out.push_str(before);
            column += width(before);
            written += width(before);
            let (reference, value) = if escaped {
                ("$${".to_owned(), "${".to_owned())
            } else {
                let at = Position {
                    line: number,
                    column,
                    offset: offset + line.len() - from_here.len(),
                    length: 2,
                };
                let length = from_here.find('}').map_or(from_here.trim_end().len(), |end| end + 1);
                let reference = from_here.get(..length).unwrap_or(from_here);
                let value = self.value(reference).unwrap_or_else(|finding| {
                    self.findings.push(finding.at(&self.source, Position { length, ..at }));
                    String::new()
                });
                (reference.to_owned(), value)
            };
            self.columns.0.push(Shift {
                line: number,
                from: (column, width(&reference)),
                to: (written, width(&value)),
            });
            column += width(&reference);
            written += width(&value);
            self.out.push_str(&value);
            let consumed = before.len() + reference.len();
            rest = rest.get(consumed..).unwrap_or_default();
        }
        self.out.push_str(rest);
    }

    /// The value of `${…}`.
    fn value(&self, reference: &str) -> Result<String, Box<Diagnostic>> {
        let syntax = || {
            let finding =
                Diagnostic::error("variable_syntax", "a variable is written ${NAME} or ${NAME:-default}");
            Box::new(finding.with_remedy("write $${ for a literal ${"))
        };
        let body = reference.strip_prefix("${").and_then(|r| r.strip_suffix('}')).ok_or_else(syntax)?;
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        let mut bytes = name.bytes();
        let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts_well || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(syntax());
        }
        if name.starts_with(SECRET_PREFIX) {
            let message = format!("{name} is a secret; a profile holds none");
            let finding = Diagnostic::error("secret_in_profile", message);
            return Err(finding
                .with_remedy("name the secret where it is used, as in `api_key_secret`")
                .into());
        }
        // As in a shell, `:-` also stands in for an empty variable.
        let value = match (self.env.get(name), default) {
            (Some(value), Some(default)) if value.is_empty() => default.to_owned(),
            (Some(value), _) => value,
            (None, Some(default)) => default.to_owned(),
            (None, None) => {
                let message = format!("the environment has no variable {name}");
                let finding = Diagnostic::error("variable_unset", message);
                return Err(finding.with_remedy(format!("set {name}, or write ${{{name}:-default}}")).into());
            }
        };
        if value.contains(|c: char| c.is_control() && c != '\t') {
            let message = format!("the value of {name} holds a line break or control character");
            return Err(Diagnostic::error("variable_value", message).into());
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
