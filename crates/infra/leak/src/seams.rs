//! Values that were cut over several strings of a message, as over two text items of a tool's result: the strings are read
//! one behind the other, those under one name and then all of them, and what lies across a seam is taken out of each.

use crate::index::Index;
use crate::redact::{marker, redact_into};
use crate::scanner::{Hit, Scanner};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// How much of both ends of a string is read: many times the longest pattern.
const END: usize = 1024;
/// Stands between the two ends of a longer string; no value has it.
const GAP: u8 = 0xFF;

impl Scanner {
    /// Redacts a message as [`Scanner::redact_json`] does, and values that are cut over several of its strings.
    pub fn redact_message(&self, message: &mut Value) -> Vec<Hit> {
        let mut hits = Vec::new();
        let index = self.index();
        if index.is_empty() {
            return hits;
        }
        redact_into(&index, message, &mut hits);
        let mut leaves = Vec::new();
        gather("", message, &mut leaves);
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, leaf) in leaves.iter().enumerate() {
            groups.entry(leaf.name).or_default().push(at);
        }
        let everything: Vec<usize> = (0..leaves.len()).collect();
        let one_group = groups.len() == 1;
        let groups: Vec<Vec<usize>> = groups.into_values().collect();
        for group in &groups {
            join(&index, &mut leaves, group, &mut hits);
        }
        if !one_group {
            join(&index, &mut leaves, &everything, &mut hits);
        }
        hits
    }
}

/// A string of the message, with the name of the member that it belongs to.
struct Leaf<'a> {
    name: &'a str,
    text: &'a mut String,
}

fn gather<'a>(name: &'a str, value: &'a mut Value, leaves: &mut Vec<Leaf<'a>>) {
    match value {
        Value::String(text) if !text.is_empty() => leaves.push(Leaf { name, text }),
        Value::Array(items) => items.iter_mut().for_each(|item| gather(name, item, leaves)),
        Value::Object(map) => map.iter_mut().for_each(|(name, item)| gather(name, item, leaves)),
        _ => {}
    }
}

/// A part of a string, where it stands in the joined text.
struct Part {
    leaf: usize,
    from: usize,
    joined: Range<usize>,
}

/// Takes out what shows when the strings of `group` are joined.
fn join(index: &Index, leaves: &mut [Leaf<'_>], group: &[usize], hits: &mut Vec<Hit>) {
    if group.len() < 2 {
        return;
    }
    let (mut joined, mut parts) = (Vec::new(), Vec::with_capacity(group.len()));
    for leaf in group.iter().copied() {
        let text = leaves.get(leaf).map_or(&b""[..], |leaf| leaf.text.as_bytes());
        let mut part = |range: Range<usize>| {
            let start = joined.len();
            joined.extend_from_slice(text.get(range.clone()).unwrap_or_default());
            parts.push(Part { leaf, from: range.start, joined: start..joined.len() });
        };
        if text.len() <= 2 * END {
            part(0..text.len());
        } else {
            part(0..END);
            joined.push(GAP);
            let start = joined.len();
            joined.extend_from_slice(text.get(text.len() - END..).unwrap_or_default());
            parts.push(Part { leaf, from: text.len() - END, joined: start..joined.len() });
        }
    }
    let mut cuts: Vec<(usize, Range<usize>, String)> = Vec::new();
    for region in index.regions(&joined) {
        let name = index.name(&region);
        let first = parts.partition_point(|part| part.joined.end <= region.start);
        let touched = parts.iter().skip(first).take_while(|part| part.joined.start < region.end);
        for (at, part) in touched.enumerate() {
            let start = part.from + region.start.saturating_sub(part.joined.start);
            let end = part.from + region.end.min(part.joined.end) - part.joined.start;
            if at == 0 {
                hits.push(Hit { name: name.clone(), form: region.form, offset: start });
            }
            cuts.push((part.leaf, start..end, marker(&name)));
        }
    }
    // From behind, so that earlier places stay right.
    for (leaf, range, marker) in cuts.into_iter().rev() {
        if let Some(leaf) = leaves.get_mut(leaf) {
            let start = leaf.text.floor_char_boundary(range.start);
            let end = leaf.text.ceil_char_boundary(range.end);
            leaf.text.replace_range(start..end, &marker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use systemprompt_models::Secret;

    const VALUE: &str = "crm/T0-ken+s3cret";

    fn redacted(message: &Value) -> (Value, usize) {
        let scanner = Scanner::new();
        let _hold = scanner.hold("crm", &Secret::from(VALUE)).unwrap();
        let mut clean = message.clone();
        let hits = scanner.redact_message(&mut clean).len();
        (clean, hits)
    }

    #[test]
    fn a_value_cut_over_the_items_of_a_result_is_taken_out_of_each() {
        let text = |text: &str| json!({"type": "text", "text": text});
        for cut in 1..VALUE.len() {
            let (a, b) = VALUE.split_at(cut);
            let (clean, hits) =
                redacted(&json!({"content": [text(&format!("é {a}")), text(&format!("{b} é"))]}));
            assert_eq!(hits, 1, "cut at {cut}");
            let want = [text("é [redacted:crm]"), text("[redacted:crm] é")];
            assert_eq!(clean, json!({"content": want}), "cut at {cut}");
        }
        let letters: Vec<Value> = VALUE.chars().map(|c| text(&c.to_string())).collect();
        let (clean, hits) = redacted(&json!({"content": letters}));
        assert_eq!(hits, 1);
        assert!(clean["content"].as_array().unwrap().iter().all(|item| *item == text("[redacted:crm]")));
    }

    #[test]
    fn long_items_are_read_at_their_ends_and_other_members_in_between_do_not_help() {
        let (a, b) = VALUE.split_at(6);
        let long = "x".repeat(5000);
        let message = json!({"content": [
            {"type": "text", "text": format!("{long}\n{a}")},
            {"type": "resource", "resource": {"uri": "file:///x", "text": format!("{b}\n{long}")}},
        ]});
        let (clean, hits) = redacted(&message);
        assert_eq!(hits, 1);
        assert_eq!(clean["content"][0]["text"], format!("{long}\n[redacted:crm]"));
        assert_eq!(clean["content"][1]["resource"]["text"], format!("[redacted:crm]\n{long}"));
        let (clean, hits) = redacted(&json!({"structuredContent": {"a": a, "b": b, "n": 1}}));
        assert_eq!(hits, 1);
        let want = json!({"structuredContent": {"a": "[redacted:crm]", "b": "[redacted:crm]", "n": 1}});
        assert_eq!(clean, want);
    }

    #[test]
    fn a_message_without_a_value_stays_as_it_is() {
        let message =
            json!({"content": [{"text": "crm/T0"}, {"text": "-ke"}, {"text": "s3cret"}], "n": [1, null]});
        assert_eq!(redacted(&message), (message.clone(), 0));
    }
}
