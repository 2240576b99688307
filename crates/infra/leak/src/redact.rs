//! Replaces values in use by `[redacted:NAME]`, in text and in JSON. JSON stays valid: its strings are edited, not its bytes.

use crate::scanner::{Hit, Scanner};
use serde_json::Value;

impl Scanner {
    /// `text` without the values in use, and what was found; none if there was nothing.
    pub fn redact_text(&self, text: &str) -> Option<(String, Vec<Hit>)> {
        let index = self.index();
        if index.is_empty() {
            return None;
        }
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
            out.push_str("[redacted:");
            out.push_str(&name);
            out.push(']');
            done = text.ceil_char_boundary(region.end);
            hits.push(Hit { name, form: region.form, offset: region.start });
        }
        out.push_str(text.get(done..).unwrap_or_default());
        Some((out, hits))
    }

    /// Redacts every string of `value` in place, member names included. A number whose digits are a value becomes a string.
    pub fn redact_json(&self, value: &mut Value) -> Vec<Hit> {
        let mut hits = Vec::new();
        if !self.is_empty() {
            self.redact_into(value, &mut hits);
        }
        hits
    }

    fn redact_into(&self, value: &mut Value, hits: &mut Vec<Hit>) {
        match value {
            Value::String(text) => {
                if let Some(clean) = self.redacted(text, hits) {
                    *text = clean;
                }
            }
            Value::Number(number) => {
                if let Some(clean) = self.redacted(&number.to_string(), hits) {
                    *value = Value::String(clean);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_into(item, hits)),
            Value::Object(map) => {
                for item in map.values_mut() {
                    self.redact_into(item, hits);
                }
                let names: Vec<String> =
                    map.keys().filter(|key| !self.scan(key.as_bytes()).is_empty()).cloned().collect();
                for name in names {
                    if let (Some(clean), Some(item)) = (self.redacted(&name, hits), map.remove(&name)) {
                        map.insert(clean, item);
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn redacted(&self, text: &str, hits: &mut Vec<Hit>) -> Option<String> {
        let (clean, found) = self.redact_text(text)?;
        hits.extend(found);
        Some(clean)
    }
}
