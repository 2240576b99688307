//! Every setting in force with where it came from, for `config show --origin`.

use crate::diagnostic::Origin;
use crate::document::{Content, Document, Node, Place};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One line of `config show`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingLine {
    /// `server.port`. Lists are shown whole.
    pub key: String,
    pub value: Value,
    pub origin: Origin,
}

/// Where the values of a profile came from, by dotted key.
#[derive(Clone, Debug, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    pub(crate) fn of(document: &Document) -> Self {
        let mut origins = BTreeMap::new();
        collect(document, &document.root, String::new(), &mut origins);
        Self(origins)
    }

    pub fn of_key(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// The settings of an effective profile (as JSON), sorted by key.
    pub fn lines(&self, effective: &Value) -> Vec<SettingLine> {
        let mut lines = Vec::new();
        self.flatten(effective, String::new(), &mut lines);
        lines
    }

    fn flatten(&self, value: &Value, key: String, lines: &mut Vec<SettingLine>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (name, child) in map {
                    self.flatten(child, join(&key, name), lines);
                }
            }
            leaf => lines.push(SettingLine { value: leaf.clone(), origin: self.of_key(&key), key }),
        }
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn collect(document: &Document, node: &Node, key: String, origins: &mut BTreeMap<String, Origin>) {
    if let Content::Map(entries) = &node.content {
        for entry in entries {
            collect(document, &entry.node, join(&key, &entry.key), origins);
        }
    }
    let origin = match &node.place {
        Place::Elsewhere(origin) => origin.clone(),
        Place::File(position) => Origin::File { file: document.file().to_owned(), line: position.line },
    };
    origins.insert(key, origin);
}
