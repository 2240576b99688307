use super::*;
use serde_json::json;

fn config(value: serde_json::Value) -> GatewayConfig {
    serde_json::from_value(value).unwrap()
}

fn registry(value: serde_json::Value) -> Result<Registry, RegistryError> {
    Registry::build(&config(value), &Secrets::default(), &Catalog::built_in().unwrap(), &HostRules::default())
}

fn demo_routes(routes: serde_json::Value) -> serde_json::Value {
    json!({"providers": [
        {"name": "demo", "type": "demo"},
        {"name": "claude", "type": "anthropic", "base_url": "http://127.0.0.1:9/v1/"},
    ], "routes": routes})
}

fn route(name: &str, model: &str, provider: &str) -> serde_json::Value {
    json!({"name": name, "model": model, "targets": [{"provider": provider}]})
}

#[test]
fn the_first_fitting_route_is_taken() {
    let mut value = demo_routes(json!([
        route("exact", "claude-demo", "demo"),
        route("prefix", "claude-*", "claude"),
        route("suffix", "*-mini", "demo"),
    ]));
    let name =
        |registry: &Registry, model: &str| registry.route_for(model).map(|route| route.name.to_string());
    let closed = registry(value.clone()).unwrap();
    for (model, expected) in [
        ("claude-demo", Some("exact")),
        ("claude-demo-large", Some("prefix")),
        ("claude-mini", Some("prefix")),
        ("x-mini", Some("suffix")),
        ("x", None),
    ] {
        assert_eq!(name(&closed, model).as_deref(), expected, "{model}");
    }
    value["default_route"] = "exact".into();
    assert_eq!(name(&registry(value.clone()).unwrap(), "x"), None);
    value["allow_unlisted_models"] = true.into();
    assert_eq!(name(&registry(value).unwrap(), "x").as_deref(), Some("exact"));
}

#[test]
fn faulty_configurations_are_refused() {
    let table = [
        (
            demo_routes(json!([route("a", "x", "demo"), route("a", "y", "demo")])),
            "gateway.routes: `a` is given twice",
        ),
        (
            demo_routes(json!([route("a", "x", "none")])),
            "gateway.routes: `a` names the provider `none`, which does not exist",
        ),
        (
            demo_routes(json!([{"name": "a", "model": "x", "targets": []}])),
            "gateway.routes: `a` has 0 targets; it needs exactly one",
        ),
        (
            demo_routes(
                json!([{"name": "a", "model": "x", "targets": [{"provider": "demo"}, {"provider": "claude"}]}]),
            ),
            "gateway.routes: `a` has 2 targets; it needs exactly one",
        ),
        (json!({"default_route": "a"}), "gateway.default_route: there is no route `a`"),
        (
            json!({"providers": [{"name": "p", "type": "demo"}, {"name": "p", "type": "demo"}]}),
            "gateway.providers: `p` is given twice",
        ),
        (
            json!({"providers": [{"name": "p", "type": "anthropic", "headers": {"x-api-key": "k"}}]}),
            "gateway.providers: `p`: `x-api-key` cannot be a fixed header: it is reserved, or its name or value is malformed",
        ),
    ];
    for (value, message) in table {
        assert_eq!(registry(value).unwrap_err().to_string(), message);
    }
    for url in ["http://example.com", "ftp://127.0.0.1", "nonsense"] {
        let value = json!({"providers": [{"name": "p", "type": "anthropic", "base_url": url}]});
        assert!(matches!(registry(value), Err(RegistryError::Provider { .. })), "{url}");
    }
}

#[test]
fn a_missing_secret_is_named() {
    let registry = registry(demo_routes(json!([
        route("a", "x", "claude"),
        route("b", "y", "claude"),
        route("c", "z", "demo")
    ])))
    .unwrap();
    assert_eq!(registry.missing_secrets(), [("claude".into(), "anthropic".into())]);
}

#[test]
fn timeouts_of_route_and_provider_come_before_the_gateways() {
    let mut value = demo_routes(json!([route("a", "x", "demo"), route("b", "y", "demo")]));
    value["timeouts"] = json!({"stream_idle_ms": 10, "total_ms": 20});
    value["providers"][0]["timeouts"] = json!({"stream_idle_ms": 30, "first_byte_ms": 40});
    value["routes"][0]["timeouts"] = json!({"stream_idle_ms": 50});
    let registry = registry(value).unwrap();
    let of = |model| registry.route_for(model).unwrap().target.timeouts;
    assert_eq!(of("x").stream_idle, Duration::from_millis(50));
    assert_eq!(of("y").stream_idle, Duration::from_millis(30));
    assert_eq!((of("x").first_byte, of("x").total), (Duration::from_millis(40), Duration::from_millis(20)));
}

fn listed() -> Registry {
    registry(demo_routes(json!([
        route("alias", "fast", "demo"),
        route("closed", "claude-demo-large", "demo"),
        route("demo", "claude-demo*", "demo"),
        route("claude", "*", "claude"),
    ])))
    .unwrap()
}

fn ids(page: &ModelPage) -> Vec<&str> {
    page.data.iter().map(|info| &*info.id).collect()
}

#[test]
fn models_are_those_whose_route_may_be_used() {
    let registry = listed();
    let page = registry.models(&PageQuery::default(), |_| true).unwrap();
    assert_eq!(ids(&page)[..4], ["fast", "claude-demo-large", "claude-demo", "claude-opus-4-5"]);
    assert!(!page.has_more && page.data.len() > 10);
    let closed = registry.models(&PageQuery::default(), |route| &*route.name == "demo").unwrap();
    assert_eq!(ids(&closed), ["claude-demo"]);
    assert_eq!(
        serde_json::to_value(&closed).unwrap(),
        json!({
            "data": [{"type": "model", "id": "claude-demo", "display_name": "Claude Demo", "created_at": "2026-01-01T00:00:00Z"}],
            "has_more": false, "first_id": "claude-demo", "last_id": "claude-demo",
        })
    );
    assert!(registry.model("claude-demo", |_| true).is_some());
    assert!(registry.model("claude-demo", |_| false).is_none());
    assert!(registry.model("other", |_| true).is_none());
    let none = registry.models(&PageQuery::default(), |_| false).unwrap();
    assert_eq!((none.first_id, none.last_id, none.has_more), (None, None, false));
}

#[test]
fn pages_follow_one_another_in_both_directions() {
    let registry = listed();
    let page = |limit, after: Option<&str>, before: Option<&str>| {
        let query = PageQuery {
            limit: Some(limit),
            after_id: after.map(Into::into),
            before_id: before.map(Into::into),
        };
        registry.models(&query, |_| true)
    };
    let first = page(2, None, None).unwrap();
    assert_eq!((ids(&first), first.has_more), (vec!["fast", "claude-demo-large"], true));
    let second = page(2, first.last_id.as_deref(), None).unwrap();
    assert_eq!(ids(&second), ["claude-demo", "claude-opus-4-5"]);
    let back = page(2, None, second.first_id.as_deref()).unwrap();
    assert_eq!((ids(&back), back.has_more), (vec!["fast", "claude-demo-large"], false));
    assert_eq!(page(0, None, None), Err(PageError::Limit));
    assert_eq!(page(1001, None, None), Err(PageError::Limit));
    assert_eq!(page(1, Some("x"), None), Err(PageError::Unknown));
    assert_eq!(page(1, Some("fast"), Some("fast")), Err(PageError::Both));
}
