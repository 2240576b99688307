//! Replaces values in use by `[redacted:NAME]`, in text and in JSON. JSON stays valid: its strings are edited, not its bytes.

use crate::index::Index;
use crate::scanner::{Hit, Scanner};
use serde_json::Value;

impl Scanner {
    /// `text` without the values in use, and what was found; none if there was nothing.
    pub fn redact_text(&self, text: &str) -> Option<(String, Vec<Hit>)> {
        redact(&self.index(), text)
    }

    /// Redacts every string of `value` in place, member names included. A number whose digits are a value becomes a string.
    pub fn redact_json(&self, value: &mut Value) -> Vec<Hit> {
        let mut hits = Vec::new();
        let index = self.index();
        if !index.is_empty() {
            redact_into(&index, value, &mut hits);
        }
        hits
    }
}

fn redact(index: &Index, text: &str) -> Option<(String, Vec<Hit>)> {
    let regions = index.regions(text.as_bytes());
    if regions.is_empty() {
        return None;
    }
    let (mut out, mut hits, mut done) = (String::with_capacity(text.len()), Vec::new(), 0);
    for region in regions {
        let name = index.name(&region);
        // A window of a long value may begin or end inside a character: the whole character goes.
        let start = text.floor_char_boundary(region.start).max(done);
        out.push_str(text.get(done..start).unwrap_or_default());
        out.push_str(&marker(&name));
        done = text.ceil_char_boundary(region.end);
        hits.push(Hit { name, form: region.form, offset: region.start });
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Some((out, hits))
}

/// What stands for a value that was taken out.
pub(crate) fn marker(name: &str) -> String {
    format!("[redacted:{name}]")
}

pub(crate) fn redact_into(index: &Index, value: &mut Value, hits: &mut Vec<Hit>) {
    match value {
        Value::String(text) => {
            if let Some((clean, found)) = redact(index, text) {
                hits.extend(found);
                *text = clean;
            }
        }
        Value::Number(number) => {
            // Numbers of fewer digits than the shortest value need no look.
            if number.as_i64().is_some_and(|n| n.unsigned_abs() < 1_000_000) {
                return;
            }
            if let Some((clean, found)) = redact(index, &number.to_string()) {
                hits.extend(found);
                *value = Value::String(clean);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact_into(index, item, hits)),
        Value::Object(map) => {
            let mut names = Vec::new();
            for (name, item) in map.iter_mut() {
                redact_into(index, item, hits);
                if let Some((clean, found)) = redact(index, name) {
                    hits.extend(found);
                    names.push((name.clone(), clean));
                }
            }
            for (name, clean) in names {
                if let Some(item) = map.remove(&name) {
                    map.insert(clean, item);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}
