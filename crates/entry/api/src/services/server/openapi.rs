//! The OpenAPI 3.1 document, made from the table of routes.

use super::protocol;
use super::route::{Access, RouteSpec};
use serde_json::{Map, Value, json};
use systemprompt_models::envelope::Envelope;

/// The document of `routes`.
pub fn document(routes: &[RouteSpec], server_url: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        // A path of several parts has no form of its own in the document.
        let item = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.method.as_str().to_ascii_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "systemprompt",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "client": {"type": "http", "scheme": "basic", "description": protocol::CLIENT},
                "session": {"type": "apiKey", "in": "cookie", "name": "access_token", "description": protocol::SESSION},
                "management": {"type": "http", "scheme": "bearer", "description": protocol::MANAGEMENT},
            },
            "schemas": {"Problem": problem_schema(), "OAuthError": protocol::error_schema()},
        },
    })
}

fn operation(route: &RouteSpec) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "tags": [route.tag],
        "operationId": operation_id(route),
        "responses": responses(route),
    });
    let Some(map) = operation.as_object_mut() else { return operation };
    if let Some(protocol) = route.protocol {
        protocol.describe(map, in_path(route).collect(), route.request.map(|schema| schema()));
        return operation;
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        map.insert("parameters".into(), Value::Array(parameters));
    }
    if let Some(request) = route.request {
        let body = json!({"required": true, "content": {"application/json": {"schema": request()}}});
        map.insert("requestBody".into(), body);
    }
    let security = match route.access {
        Access::Public | Access::Probe => json!([]),
        Access::Signed { in_person: true, .. } => json!([{"bearer": []}]),
        Access::Signed { .. } => json!([{"bearer": []}, {"apiKey": []}]),
    };
    map.insert("security".into(), security);
    operation
}

fn operation_id(route: &RouteSpec) -> String {
    let path: String = route.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("{}{}", route.method.as_str().to_ascii_lowercase(), path)
}

fn parameters(route: &RouteSpec) -> Vec<Value> {
    in_path(route).chain(route.query.iter().map(|name| parameter(name, "query", false))).collect()
}

fn in_path(route: &RouteSpec) -> impl Iterator<Item = Value> {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| parameter(name.trim_start_matches('*'), "path", true))
}

fn parameter(name: &str, place: &str, required: bool) -> Value {
    json!({"name": name, "in": place, "required": required, "schema": {"type": "string"}})
}

fn responses(route: &RouteSpec) -> Value {
    let schema = route.response.map_or_else(|| json!({}), |schema| schema());
    let mut responses = json!({
        "200": {"description": "the answer", "content": {"application/json": {"schema": schema}}},
    });
    let refusals: &[(&str, &str)] = match (route.envelope, route.access) {
        // Hook clients go on at any other status, so a refusal is an answer too.
        (Envelope::Hook | Envelope::HookTrack, _) => &[],
        (Envelope::InferenceHook, _) => &[("401", "the signature does not fit, or the message came before")],
        (_, Access::Public | Access::Probe) => &[("503", "not ready")],
        (Envelope::Anthropic, _) => &[
            ("400", "a bad request, or a denial"),
            ("401", "no credential, or one that does not count here"),
            ("429", "too many requests"),
            ("503", "the audit record could not be written"),
        ],
        (_, _) => &[
            ("401", "no credential, or one that does not count here"),
            ("403", "the permission is missing, or the call is denied"),
            ("429", "too many requests"),
            ("503", "the audit record could not be written"),
        ],
    };
    if let Some(map) = responses.as_object_mut() {
        for (status, description) in refusals {
            let content = match route.envelope {
                Envelope::Problem => {
                    json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}})
                }
                _ => json!({"application/json": {"schema": {}}}),
            };
            map.insert((*status).to_owned(), json!({"description": description, "content": content}));
        }
    }
    responses
}

/// RFC 9457 with our members.
fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string"},
            "detail": {"type": "string"},
            "policy": {"type": "string"},
            "rule_id": {"type": "string"},
            "decision_id": {"type": "string"},
            "retry_after": {"type": "integer"},
            "trace_id": {"type": "string"},
            "validation_errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                },
            },
        },
    })
}
