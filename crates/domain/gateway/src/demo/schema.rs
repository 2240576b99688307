//! A value that a JSON Schema allows, for the input of a tool call. It covers what tools use: types, enumerations, required
//! properties, bounds, references inside the document, alternatives. Text, so that member order is the schema's sorted one.

use serde_json::Value;

/// Deepest nesting that is followed; a schema may refer to itself.
const MAX_DEPTH: u32 = 8;

/// A valid input, as JSON; `{}` for a schema that cannot be read.
pub(super) fn example(schema: &str) -> String {
    let Ok(root) = serde_json::from_str::<Value>(schema) else { return "{}".into() };
    let text = value(&root, &root, 0);
    if text.starts_with('{') { text } else { "{}".into() }
}

fn value(root: &Value, schema: &Value, depth: u32) -> String {
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return value.to_string();
        }
    }
    for list in ["enum", "examples"] {
        if let Some(first) = schema.get(list).and_then(Value::as_array).and_then(|values| values.first()) {
            return first.to_string();
        }
    }
    if depth >= MAX_DEPTH {
        return "null".into();
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let target = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or_else(|| "null".into(), |target| value(root, target, depth + 1));
    }
    for alternatives in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(alternatives).and_then(Value::as_array).and_then(|all| all.first()) {
            return value(root, first, depth + 1);
        }
    }
    match kind(schema) {
        "object" => object(root, schema, depth),
        "array" => {
            let item =
                schema.get("items").map_or_else(|| "\"demo\"".into(), |item| value(root, item, depth + 1));
            let count = number(schema, "minItems").unwrap_or(0).clamp(0, 16);
            let items: Vec<&str> = (0..count).map(|_| item.as_str()).collect();
            format!("[{}]", items.join(","))
        }
        "integer" | "number" => integer(schema).to_string(),
        "boolean" => "true".into(),
        "null" => "null".into(),
        _ => Value::from(string(schema)).to_string(),
    }
}

/// The schema's type; what is not said follows from the other members.
fn kind(schema: &Value) -> &str {
    let named = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        Some(kind) => kind.as_str(),
        None => None,
    };
    named.unwrap_or(if schema.get("properties").is_some() { "object" } else { "string" })
}

fn object(root: &Value, schema: &Value, depth: u32) -> String {
    let required = schema.get("required").and_then(Value::as_array);
    let mut names: Vec<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let members = names.into_iter().map(|name| {
        let schema = schema.get("properties").and_then(|all| all.get(name)).unwrap_or(&Value::Null);
        format!("{}:{}", Value::from(name), value(root, schema, depth + 1))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn number(schema: &Value, name: &str) -> Option<i64> {
    schema.get(name).and_then(Value::as_i64)
}

fn integer(schema: &Value) -> i64 {
    let least = number(schema, "minimum")
        .or_else(|| number(schema, "exclusiveMinimum").map(|n| n.saturating_add(1)))
        .unwrap_or(1);
    let most = number(schema, "maximum")
        .or_else(|| number(schema, "exclusiveMaximum").map(|n| n.saturating_sub(1)))
        .unwrap_or(i64::MAX);
    let n = least.max(1.min(most)).min(most);
    match number(schema, "multipleOf") {
        Some(step @ 1..) => n.saturating_add(step - 1) / step * step,
        _ => n,
    }
}

fn string(schema: &Value) -> String {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("date") => "2026-01-01",
        Some("time") => "00:00:00Z",
        Some("email") => "demo@example.com",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => "demo",
    };
    let least = usize::try_from(number(schema, "minLength").unwrap_or(0)).unwrap_or(0).min(4096);
    let most = number(schema, "maxLength").and_then(|n| usize::try_from(n).ok()).unwrap_or(4096);
    let padded = text.chars().chain(std::iter::repeat('x'));
    padded.take(text.chars().count().max(least).min(most)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_valid_for_their_schema() {
        let table = [
            ("{}", "{}"),
            ("not json", "{}"),
            (r#"{"type":"string"}"#, "{}"),
            (
                r#"{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"integer"}},"required":["b","a"]}"#,
                r#"{"a":1,"b":"demo"}"#,
            ),
            (r#"{"properties":{"n":{"type":"number","minimum":5}},"required":["n"]}"#, r#"{"n":5}"#),
            (
                r#"{"properties":{"n":{"type":"integer","maximum":0,"multipleOf":5}},"required":["n"]}"#,
                r#"{"n":0}"#,
            ),
            (
                r#"{"properties":{"n":{"type":"integer","exclusiveMinimum":7,"multipleOf":5}},"required":["n"]}"#,
                r#"{"n":10}"#,
            ),
            (r#"{"properties":{"s":{"enum":["x","y"]}},"required":["s"]}"#, r#"{"s":"x"}"#),
            (
                r#"{"properties":{"s":{"type":["string","null"],"minLength":6,"maxLength":7}},"required":["s"]}"#,
                r#"{"s":"demoxx"}"#,
            ),
            (
                r#"{"properties":{"l":{"type":"array","items":{"type":"boolean"},"minItems":2}},"required":["l"]}"#,
                r#"{"l":[true,true]}"#,
            ),
            (
                r##"{"properties":{"r":{"$ref":"#/$defs/d"}},"required":["r"],"$defs":{"d":{"anyOf":[{"const":4}]}}}"##,
                r#"{"r":4}"#,
            ),
            (r#"{"properties":{"o":{"type":"object"}},"required":["o"]}"#, r#"{"o":{}}"#),
            (r#"{"properties":{"a":{"type":"string"}},"required":[]}"#, "{}"),
            (
                r#"{"properties":{"e":{"type":"string","format":"email"}},"required":["e"]}"#,
                r#"{"e":"demo@example.com"}"#,
            ),
        ];
        for (schema, expected) in table {
            assert_eq!(example(schema), expected, "{schema}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema = r##"{"properties":{"next":{"$ref":"#"}},"required":["next"]}"##;
        assert!(example(schema).contains("null"));
    }
}
