//! What commands print: data on standard output in the form that was asked for, everything else on standard error. Tables are
//! aligned by display width and cut to the terminal only on a terminal; a reader that closes the pipe ends the command
//! without a word (PL-75, PL-77).

use crate::exit::CliError;
use crate::globals::{Globals, OutputFormat};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use systemprompt_models::clock::iso8601;

/// How the value of a column is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Plain,
    /// Epoch milliseconds as ISO 8601.
    Time,
}

/// A column of a table, or a line of a sheet.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    pointer: &'static str,
    show: Show,
}

/// A column that shows what stands at a JSON pointer.
pub const fn column(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, show: Show::Plain }
}

/// A column of epoch milliseconds.
pub const fn time(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, show: Show::Time }
}

impl Column {
    fn cell(&self, item: &Value) -> String {
        match (self.show, item.pointer(self.pointer)) {
            (_, None) => String::new(),
            (Show::Time, Some(Value::Number(at))) => at.as_i64().map(iso8601).unwrap_or_default(),
            (_, Some(value)) => cell(value),
        }
    }
}

/// A value as one line for people.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => plain(&other.to_string()),
    }
}

/// Text that somebody else chose, without what would steer a terminal.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: OutputFormat,
}

impl Output {
    pub fn new(globals: &Globals) -> Self {
        Self { format: globals.format() }
    }

    /// JSON, if a command's own flag asks for it.
    pub fn as_json(self, wanted: bool) -> Self {
        if wanted && self.is_text() { Self { format: OutputFormat::Json } } else { self }
    }

    pub fn is_text(self) -> bool {
        self.format == OutputFormat::Text
    }

    /// Whether each item is printed by itself, so that it can be printed as it comes.
    pub fn is_by_line(self) -> bool {
        matches!(self.format, OutputFormat::Text | OutputFormat::Ndjson)
    }

    /// A list of the API, `{items, next}`: a table, one document, or a line per item.
    pub fn list(self, page: &Value, columns: &[Column]) -> Result<(), CliError> {
        let items = page.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match self.format {
            OutputFormat::Text if items.is_empty() => note("there are none"),
            OutputFormat::Text => line(&table(items, columns)),
            OutputFormat::Ndjson => items.iter().try_for_each(|item| line(&item.to_string())),
            OutputFormat::Json | OutputFormat::Yaml => self.value(page),
        }
    }

    /// One item: a line per field for people, else the document.
    pub fn item(self, value: &Value, fields: &[Column]) -> Result<(), CliError> {
        if self.is_text() { line(&sheet(value, fields)) } else { self.value(value) }
    }

    /// One document, `text` for people.
    pub fn document(self, value: &Value, text: &str) -> Result<(), CliError> {
        if self.is_text() { line(text) } else { self.value(value) }
    }

    /// One item of a list that is printed as it comes.
    pub fn step(self, value: &Value, text: &str) -> Result<(), CliError> {
        match self.format {
            OutputFormat::Text => line(text),
            OutputFormat::Ndjson => line(&value.to_string()),
            OutputFormat::Json | OutputFormat::Yaml => Ok(()),
        }
    }

    fn value(self, value: &Value) -> Result<(), CliError> {
        line(&render(self.format, value)?)
    }
}

/// A document in a form for machines.
fn render(format: OutputFormat, value: &Value) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| {
        CliError::new(crate::exit::Exit::Failure, "the answer cannot be printed").why(error)
    };
    match format {
        OutputFormat::Ndjson => Ok(value.to_string()),
        OutputFormat::Yaml => {
            serde_saphyr::to_string(value).map(|text| text.trim_end().to_owned()).map_err(|e| failed(&e))
        }
        OutputFormat::Json | OutputFormat::Text => {
            serde_json::to_string_pretty(value).map_err(|e| failed(&e))
        }
    }
}

fn table(items: &[Value], columns: &[Column]) -> String {
    let mut table = bare();
    table.set_header(columns.iter().map(|c| c.title.to_uppercase()));
    for item in items {
        let mut row = Row::from(columns.iter().map(|c| c.cell(item)).collect::<Vec<_>>());
        row.max_height(1);
        table.add_row(row);
    }
    // The first column is the one that people copy.
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    laid_out(table)
}

fn sheet(value: &Value, fields: &[Column]) -> String {
    let mut table = bare();
    for field in fields {
        table.add_row([field.title.to_owned(), field.cell(value)]);
    }
    laid_out(table)
}

/// Rows of cells without a header.
pub fn rows(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = bare();
    for row in rows {
        table.add_row(row);
    }
    laid_out(table)
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
    }
    table
}

fn laid_out(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Data: one text on standard output, with a line end.
pub fn line(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Anything that is no data, on standard error.
#[expect(clippy::unnecessary_wraps, reason = "stands where data may be printed instead")]
pub fn note(text: &str) -> Result<(), CliError> {
    let _ = writeln!(anstream::stderr(), "{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned_by_display_width() {
        let items = [json!({"name": "語彙", "n": 1}), json!({"name": "ab", "n": 22})];
        let text = table(&items, &[column("name", "/name"), column("n", "/n")]);
        assert_eq!(text, "NAME  N\n語彙  1\nab    22");
    }

    #[test]
    fn cells_are_lines_of_plain_text() {
        for (value, shown) in [
            (json!(null), ""),
            (json!("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\nc"),
            (json!(["a", "b"]), "a, b"),
            (json!(true), "true"),
            (json!({"a": 1}), "{\"a\":1}"),
        ] {
            assert_eq!(cell(&value), shown);
        }
        assert_eq!(time("at", "/at").cell(&json!({"at": 0})), "1970-01-01T00:00:00.000Z");
        assert_eq!(column("at", "/x").cell(&json!({})), "");
    }

    #[test]
    fn documents_have_a_form_for_each_reader() {
        let value = json!({"a": [1, "x"]});
        let rendered = |format| render(format, &value).unwrap();
        assert_eq!(rendered(OutputFormat::Ndjson), r#"{"a":[1,"x"]}"#);
        assert_eq!(serde_json::from_str::<Value>(&rendered(OutputFormat::Json)).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<Value>(&rendered(OutputFormat::Yaml)).unwrap(), value);
    }
}
