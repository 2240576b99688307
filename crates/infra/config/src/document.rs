//! A YAML file as a tree that remembers where each key and value stands, so that every later finding has its line and column.

mod yaml;

use crate::diagnostic::{Diagnostic, NamedText, Origin, Position};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// One step to a value: a key of a mapping or a place in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// `server.port`, `rules[3].departments[0]`.
pub(crate) fn dotted(path: &[Step]) -> String {
    path.iter().fold(String::new(), |mut text, step| {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
        }
        text
    })
}

/// Builds a path: `steps!["rules", 3, "access"]`.
macro_rules! steps {
    ($($step:expr),* $(,)?) => { [$($crate::document::Step::from($step)),*] };
}
pub(crate) use steps;

/// A value with the place it stands at.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    File(Position),
    Elsewhere(Origin),
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Leaf(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

/// A parsed file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    source: Arc<NamedText>,
    pub(crate) root: Node,
}

impl Document {
    pub(crate) fn file(&self) -> &Path {
        &self.source.file
    }

    /// Puts the place of the value at `path` on a finding; if the value is absent, that of the nearest thing around it.
    pub(crate) fn locate(&self, finding: Diagnostic, path: &[Step]) -> Diagnostic {
        let finding = if finding.key.is_empty() { finding.for_key(dotted(path)) } else { finding };
        self.stamp(finding, self.root.place_of(path))
    }

    /// As [`Self::locate`], but points at the key rather than its value.
    pub(crate) fn locate_key(&self, finding: Diagnostic, path: &[Step]) -> Diagnostic {
        let finding = finding.for_key(dotted(path));
        let place = path.split_last().and_then(|(last, parents)| match (self.root.get(parents)?, last) {
            (Node { content: Content::Map(entries), .. }, Step::Key(key)) => {
                entries.iter().find(|e| e.key == *key).map(|e| &e.key_place)
            }
            _ => None,
        });
        match place {
            Some(place) => self.stamp(finding, place),
            None => self.locate(finding, path),
        }
    }

    fn stamp(&self, finding: Diagnostic, place: &Place) -> Diagnostic {
        match place {
            Place::File(position) if position.line == 0 => finding.in_file(self.file()),
            Place::File(position) => finding.at(&self.source, *position),
            Place::Elsewhere(origin) => finding.set_by(origin.clone()),
        }
    }

    /// `file:line` of a value, for findings that name a second place.
    pub(crate) fn spot(&self, path: &[Step]) -> String {
        match self.root.place_of(path) {
            Place::File(position) => format!("{}:{}", self.file().display(), position.line.max(1)),
            Place::Elsewhere(origin) => origin.to_string(),
        }
    }
}

impl Node {
    pub(crate) fn empty() -> Self {
        Self { place: Place::File(Position::default()), content: Content::Map(Vec::new()) }
    }

    pub(crate) fn get(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| node.child(step))
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.content, step) {
            (Content::Map(entries), Step::Key(key)) => {
                entries.iter().find(|e| e.key == *key).map(|e| &e.node)
            }
            (Content::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    fn place_of(&self, path: &[Step]) -> &Place {
        let mut node = self;
        let mut place = &self.place;
        for step in path {
            let Some(next) = node.child(step) else { break };
            // A mapping's own start says less than the key that holds it.
            place = match (&node.content, step, &next.content) {
                (Content::Map(entries), Step::Key(key), Content::Map(_) | Content::List(_)) => {
                    entries.iter().find(|e| e.key == *key).map_or(&next.place, |e| &e.key_place)
                }
                _ => &next.place,
            };
            node = next;
        }
        place
    }

    pub(crate) fn to_json(&self) -> Value {
        match &self.content {
            Content::Leaf(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
