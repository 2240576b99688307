//! Reads YAML text into a tree with places, within bounds that settings never reach.

use super::{Content, Document, Entry, Node, Place};
use crate::diagnostic::{Diagnostic, NamedText, Position};
use crate::interpolate::Columns;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Bounds of one YAML text: what settings need, far below what could hurt.
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 2_000_000;
const MAX_ALIASES: usize = 1000;
const MAX_REPLAYED: usize = 20_000;

/// Integers below this are exact as floating-point numbers.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Document {
    /// Parses `text` that was read from `file`. `original` is the text before variables were put in, which positions speak of.
    pub(crate) fn parse(
        file: &Path,
        text: &str,
        original: &str,
        columns: &Columns,
    ) -> Result<Self, Box<Diagnostic>> {
        let source = Arc::new(NamedText { file: file.to_owned(), text: original.to_owned() });
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: MAX_DEPTH,
                max_nodes: MAX_NODES,
                max_events: 3 * MAX_NODES,
                max_aliases: MAX_ALIASES,
                max_anchors: MAX_ALIASES,
                max_documents: 1,
                max_recorded_anchor_events: MAX_REPLAYED,
                flow_nesting_limit: MAX_DEPTH,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: MAX_REPLAYED,
                max_alias_expansions_per_anchor: MAX_ALIASES,
            },
            strict_booleans: true,
            emit_comments: false,
            with_snippet: false,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
        };
        let lines = Lines::of(original, columns);
        let root =
            serde_saphyr::from_str_with_options::<Option<Spanned<Raw>>>(text, options).map_err(|error| {
                let position = error.location().map(|l| lines.position(&l)).unwrap_or_default();
                Box::new(Diagnostic::error("yaml_syntax", explain(&error)).at(&source, position))
            })?;
        let root = root.map_or_else(Node::empty, |raw| lines.node(raw));
        match root.content {
            Content::Map(_) => Ok(Self { source, root }),
            Content::Leaf(Value::Null) => Ok(Self { source, root: Node::empty() }),
            _ => Err(Box::new(
                Diagnostic::error("invalid_type", "the file must be a mapping of keys to values")
                    .at(&source, Position { line: 1, column: 1, offset: 0, length: 1 }),
            )),
        }
    }
}

/// What to say of a second document.
const ONE_DOCUMENT: &str =
    "the file holds several YAML documents; one document a file (`---` begins another)";

/// Maps places of the text that was parsed to places of the text that the user sees.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    columns: &'a Columns,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str, columns: &'a Columns) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts, columns }
    }

    fn position(&self, location: &serde_saphyr::Location) -> Position {
        let line = u32::try_from(location.line()).unwrap_or(0);
        if line == 0 {
            return Position::default();
        }
        let column = self.columns.original(line, u32::try_from(location.column()).unwrap_or(1));
        let start = self.starts.get(line as usize - 1).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        let rest = rest.split('\n').next().unwrap_or_default();
        let skipped: usize = rest.chars().take(column as usize - 1).map(char::len_utf8).sum();
        let wanted = usize::try_from(location.span().len()).unwrap_or(1).max(1);
        let length: usize =
            rest.get(skipped..).unwrap_or_default().trim_end().chars().take(wanted).map(char::len_utf8).sum();
        Position { line, column, offset: start + skipped, length: length.max(1) }
    }

    fn node(&self, raw: Spanned<Raw>) -> Node {
        let place = Place::File(self.position(&raw.referenced));
        let content = match raw.value {
            Raw::Leaf(value) => Content::Leaf(value),
            Raw::List(items) => Content::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Content::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry {
                        key_place: Place::File(self.position(&key.referenced)),
                        key: key.value,
                        node: self.node(value),
                    })
                    .collect(),
            ),
        };
        Node { place, content }
    }
}

/// The parser's error without its own position text.
fn explain(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("the key `{key}` stands twice in one mapping");
        }
        serde_saphyr::Error::DuplicateMappingKey { key: None, .. } => {
            return "a key stands twice in one mapping".to_owned();
        }
        serde_saphyr::Error::MultipleDocuments { .. } => return ONE_DOCUMENT.to_owned(),
        _ => {}
    }
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    if text.contains("budget breached") && text.contains("Documents") {
        return ONE_DOCUMENT.to_owned();
    }
    if text.contains("budget breached") || text.contains("alias replay") || text.contains("alias expansion") {
        return "the file is nested too deeply, too large, or repeats its anchors too often".to_owned();
    }
    let text = text.split(" at line ").next().unwrap_or_default();
    text.trim_end_matches([',', ':', ' ']).to_owned()
}

enum Raw {
    Leaf(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Leaf(value.into()))
    }

    /// JSON Schema counts `5.0` as an integer, so it becomes one.
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        let whole = value.fract() == 0.0 && value.abs() < EXACT;
        Ok(Raw::Leaf(if whole { (value as i64).into() } else { value.into() }))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Leaf(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
