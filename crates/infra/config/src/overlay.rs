//! Settings from flags and from variables `SYSTEMPROMPT__SECTION__KEY`, laid over the profile. They are read by the type that
//! the schema gives the key: a list is `a,b` or `[a, b]`, text needs no quotes.

use crate::diagnostic::{Diagnostic, Origin};
use crate::document::{Content, Document, Entry, Node, Place, Step};
use crate::env::Environment;
use crate::interpolate::Columns;
use crate::schema;
use serde_json::Value;
use std::path::Path;

pub(crate) const PREFIX: &str = "SYSTEMPROMPT__";

/// One setting from outside the profile.
pub(crate) struct Setting {
    keys: Vec<String>,
    value: String,
    origin: Origin,
}

/// The settings of the environment, then those of flags (`server.port=9000`), which win.
pub(crate) fn settings(env: &dyn Environment, flags: &[(String, String)]) -> Vec<Setting> {
    let from_env = env.with_prefix(PREFIX).into_iter().map(|(name, value)| Setting {
        keys: name.get(PREFIX.len()..).unwrap_or_default().split("__").map(str::to_ascii_lowercase).collect(),
        value,
        origin: Origin::Environment { name },
    });
    let from_flags = flags.iter().map(|(path, value)| Setting {
        keys: path.split('.').map(str::to_owned).collect(),
        value: value.clone(),
        origin: Origin::Flag { name: path.clone() },
    });
    from_env.chain(from_flags).collect()
}

/// Lays settings over a document; returns what could not be laid.
pub(crate) fn lay(document: &mut Document, schema: &Value, settings: &[Setting]) -> Vec<Diagnostic> {
    settings
        .iter()
        .filter_map(|setting| lay_one(&mut document.root, schema, setting).err())
        .map(|finding| *finding)
        .collect()
}

fn lay_one(root: &mut Node, schema: &Value, setting: &Setting) -> Result<(), Box<Diagnostic>> {
    let keys: Vec<&str> = setting.keys.iter().map(String::as_str).collect();
    let Some(target) = schema::at(schema, &keys) else { return Err(unknown(schema, &keys, setting).into()) };
    let node = typed(schema, target, &setting.value, &setting.origin)
        .map_err(|finding| finding.for_key(keys.join(".")).set_by(setting.origin.clone()))?;
    set(root, &setting.keys, node, &setting.origin);
    Ok(())
}

fn unknown(schema: &Value, keys: &[&str], setting: &Setting) -> Diagnostic {
    let known =
        (0..keys.len()).find(|n| schema::at(schema, keys.get(..=*n).unwrap_or(keys)).is_none()).unwrap_or(0);
    let (parents, rest) = keys.split_at(known);
    let wrong = rest.first().copied().unwrap_or_default();
    let allowed = schema::at(schema, parents).map_or_else(Vec::new, |s| schema::keys(schema, s));
    Diagnostic::error("unknown_key", format!("there is no setting `{}`", keys.join(".")))
        .set_by(setting.origin.clone())
        .suggesting(wrong, allowed.iter().copied())
        .with_allowed(allowed)
}

fn typed(root: &Value, schema: &Value, text: &str, origin: &Origin) -> Result<Node, Box<Diagnostic>> {
    let types = schema::types(root, schema);
    let is = |name: &str| types.contains(&name);
    let text = text.trim();
    let leaf = |value: Value| Node { place: Place::Elsewhere(origin.clone()), content: Content::Leaf(value) };
    if is("array") && !text.starts_with('[') {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| leaf(item.into()))
            .collect();
        return Ok(Node { place: Place::Elsewhere(origin.clone()), content: Content::List(items) });
    }
    if is("array") || is("object") {
        return flow(text, origin);
    }
    if is("boolean")
        && let Ok(value) = text.parse::<bool>()
    {
        return Ok(leaf(value.into()));
    }
    if is("integer")
        && let Ok(value) = text.parse::<u64>()
    {
        return Ok(leaf(value.into()));
    }
    if is("number")
        && let Ok(value) = text.parse::<f64>()
    {
        return Ok(leaf(value.into()));
    }
    Ok(leaf(text.into()))
}

/// A list or mapping in YAML's flow form.
fn flow(text: &str, origin: &Origin) -> Result<Node, Box<Diagnostic>> {
    let wrapped = format!("value: {text}\n");
    let document = Document::parse(Path::new("environment"), &wrapped, &wrapped, &Columns::default())
        .map_err(|finding| Diagnostic::error("yaml_syntax", finding.message))?;
    let mut node = document.root.get(&[Step::from("value")]).cloned().unwrap_or_else(Node::empty);
    replant(&mut node, origin);
    Ok(node)
}

/// Gives a whole tree one origin.
fn replant(node: &mut Node, origin: &Origin) {
    node.place = Place::Elsewhere(origin.clone());
    match &mut node.content {
        Content::Leaf(_) => {}
        Content::List(items) => items.iter_mut().for_each(|item| replant(item, origin)),
        Content::Map(entries) => {
            for entry in entries {
                entry.key_place = Place::Elsewhere(origin.clone());
                replant(&mut entry.node, origin);
            }
        }
    }
}

fn set(node: &mut Node, keys: &[String], value: Node, origin: &Origin) {
    let Some((key, rest)) = keys.split_first() else {
        *node = value;
        return;
    };
    if !matches!(node.content, Content::Map(_)) {
        *node = Node { place: Place::Elsewhere(origin.clone()), content: Content::Map(Vec::new()) };
    }
    let Content::Map(entries) = &mut node.content else { return };
    if let Some(entry) = entries.iter_mut().find(|e| e.key == *key) {
        return set(&mut entry.node, rest, value, origin);
    }
    let mut fresh = Node { place: Place::Elsewhere(origin.clone()), content: Content::Map(Vec::new()) };
    set(&mut fresh, rest, value, origin);
    entries.push(Entry { key: key.clone(), key_place: Place::Elsewhere(origin.clone()), node: fresh });
}
