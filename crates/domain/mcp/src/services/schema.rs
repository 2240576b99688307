//! Arguments against `inputSchema` (MCP-67). A schema is a stranger's text: nothing outside it is resolved, its size and
//! depth are bounded, and its patterns run in linear time.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Bounds of a schema.
const MAX_DEPTH: usize = 32;
const MAX_SUBSCHEMAS: usize = 2000;
/// Violations that are told.
const MAX_VIOLATIONS: usize = 10;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema(Validator);

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("it is not an object")]
    NotAnObject,
    #[error("it is deeper than {MAX_DEPTH} levels or has more than {MAX_SUBSCHEMAS} parts")]
    TooLarge,
    #[error("`{0}` points outside the document")]
    Reference(String),
    #[error("it is no valid JSON Schema")]
    Invalid,
}

/// One way in which arguments differ from the schema. Values are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer into the arguments.
    pub pointer: String,
    pub message: String,
}

impl Schema {
    /// # Errors
    /// [`SchemaError`]; the tool is then withheld.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        if !schema.is_object() {
            return Err(SchemaError::NotAnObject);
        }
        let mut parts = 0;
        inspect(schema, 0, &mut parts)?;
        let validator = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema)
            .map_err(|_| SchemaError::Invalid)?;
        Ok(Self(validator))
    }

    /// What is wrong with `arguments`, at most ten things.
    pub fn violations(&self, arguments: &Value) -> Vec<Violation> {
        let told = self.0.iter_errors(arguments).take(MAX_VIOLATIONS);
        told.map(|error| Violation {
            pointer: error.instance_path().to_string(),
            message: error.masked().to_string().chars().take(200).collect(),
        })
        .collect()
    }
}

/// Counts objects, and refuses references that leave the document.
fn inspect(value: &Value, depth: usize, parts: &mut usize) -> Result<(), SchemaError> {
    match value {
        Value::Object(map) => {
            *parts += 1;
            if depth > MAX_DEPTH || *parts > MAX_SUBSCHEMAS {
                return Err(SchemaError::TooLarge);
            }
            for (name, item) in map {
                let reference = matches!(name.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef");
                if let Some(target) = item.as_str().filter(|t| reference && !t.starts_with('#')) {
                    return Err(SchemaError::Reference(target.chars().take(64).collect()));
                }
                inspect(item, depth + 1, parts)?;
            }
            Ok(())
        }
        Value::Array(items) if depth > MAX_DEPTH || items.len() > 10 * MAX_SUBSCHEMAS => {
            Err(SchemaError::TooLarge)
        }
        Value::Array(items) => items.iter().try_for_each(|item| inspect(item, depth + 1, parts)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn violations_name_the_place_and_not_the_value() {
        let schema = Schema::compile(&json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": {"id": {"type": "string", "maxLength": 4}, "n": {"type": "integer"}},
        }))
        .unwrap();
        assert_eq!(schema.violations(&json!({"id": "abc", "n": 1})), []);
        let found = schema.violations(&json!({"id": "s3cr3t-value", "n": "s3cr3t-value"}));
        assert_eq!(found.iter().map(|v| v.pointer.as_str()).collect::<Vec<_>>(), ["/id", "/n"]);
        assert!(!format!("{found:?}").contains("s3cr3t"), "{found:?}");
        assert_eq!(schema.violations(&json!({})).len(), 1);
    }

    #[test]
    fn hostile_schemas_are_refused() {
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({"items": deep});
        }
        let wide: Vec<Value> = (0..3000).map(|i| json!({"const": i})).collect();
        for schema in [
            json!(null),
            json!("string"),
            json!({"$ref": "http://127.0.0.1:9/schema.json"}),
            json!({"properties": {"a": {"$ref": "file:///etc/passwd"}}}),
            json!({"$schema": "https://example.com/dialect"}),
            json!({"type": 7}),
            json!({"anyOf": wide}),
            deep,
        ] {
            assert!(Schema::compile(&schema).is_err(), "{schema:.60}");
        }
    }

    #[test]
    fn references_inside_the_document_work() {
        let schema =
            json!({"$defs": {"id": {"type": "string"}}, "properties": {"id": {"$ref": "#/$defs/id"}}});
        assert_eq!(Schema::compile(&schema).unwrap().violations(&json!({"id": 1})).len(), 1);
    }
}
