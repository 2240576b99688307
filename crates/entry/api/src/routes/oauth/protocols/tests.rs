//! What a reader of the document learns of the plane.

use crate::routes;
use crate::services::server::metrics::Metrics;
use crate::services::server::openapi::document;
use crate::services::server::route::Access;
use serde_json::Value;
use std::sync::Arc;

#[test]
fn every_public_endpoint_of_the_plane_is_described() {
    let routes = routes::all(&Arc::new(Metrics::default()));
    let specs: Vec<_> = routes.into_iter().map(|route| route.spec).collect();
    let document = document(&specs, "http://localhost:8080");
    let public = specs.iter().filter(|spec| spec.tag == "identity" && matches!(spec.access, Access::Public));
    let mut seen = 0;
    for spec in public {
        let name = format!("{} {}", spec.method, spec.path);
        assert!(spec.protocol.is_some(), "{name} is not described");
        let operation = &document["paths"][spec.path][spec.method.as_str().to_ascii_lowercase()];
        let statuses: Vec<u16> =
            operation["responses"].as_object().unwrap().keys().map(|key| key.parse().unwrap()).collect();
        assert!(statuses.iter().any(|status| (200..400).contains(status)), "{name}: {statuses:?}");
        let in_path: Vec<&str> =
            spec.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for part in in_path {
            assert!(
                parameters.iter().any(|parameter| parameter["name"] == part && parameter["in"] == "path"),
                "{name}"
            );
        }
        seen += 1;
    }
    assert!(seen > 30, "{seen} endpoints");
}

#[test]
fn a_generator_learns_parameters_statuses_and_proofs() {
    let routes = routes::all(&Arc::new(Metrics::default()));
    let specs: Vec<_> = routes.into_iter().map(|route| route.spec).collect();
    let document = document(&specs, "http://localhost:8080");
    let at =
        |path: &str, method: &str| document["paths"][format!("/api/v1/core/oauth{path}")][method].clone();
    let form = |operation: &Value| {
        operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"].clone()
    };
    let token = at("/token", "post");
    assert_eq!(form(&token)["required"], serde_json::json!(["grant_type"]));
    assert_eq!(form(&token)["properties"]["resource"]["type"], "array");
    for status in ["200", "400", "401", "429", "503"] {
        assert!(token["responses"][status].is_object(), "{status}");
    }
    assert_eq!(token["security"], serde_json::json!([{"client": []}, {}]));
    let good = &token["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(good["properties"]["expires_in"]["type"], "integer");
    for path in ["/introspect", "/revoke", "/par", "/device_authorization"] {
        let operation = at(path, "post");
        assert!(form(&operation)["properties"]["client_assertion"].is_object(), "{path}");
        assert_eq!(operation["security"][0], serde_json::json!({"client": []}), "{path}");
    }
    assert!(at("/par", "post")["responses"]["201"].is_object());
    assert!(at("/register", "post")["responses"]["201"].is_object());
    let authorize = at("/authorize", "get");
    let named = |name: &str| {
        authorize["parameters"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap().clone()
    };
    assert_eq!((&named("client_id")["required"], &named("state")["required"]), (&true.into(), &false.into()));
    assert!(authorize["responses"]["303"].is_object());
    let start = at("/webauthn/auth/start", "post");
    assert!(start["requestBody"]["content"]["application/json"]["schema"]["properties"]["email"].is_object());
    for scheme in ["bearer", "apiKey", "client", "session", "management"] {
        assert!(document["components"]["securitySchemes"][scheme].is_object(), "{scheme}");
    }
}
