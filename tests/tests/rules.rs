//! Rules, entities and departments over the API and the command line: what is seen is what is changed, a repeated request makes
//! nothing twice, and whoever has seen a version of the rules is served by it.

use crate::http::{Answer, Client};
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt_tests::Server;

const RULES: &str = "/api/v1/admin/rules";
const CRM: &str = "/api/v1/admin/entities/mcp_server/crm";

struct Node {
    client: Client,
    ada: String,
    server: Server,
}

impl Node {
    fn new(server: Server) -> Self {
        Self { client: Client::new(&server), ada: format!("Bearer {}", server.admin_token()), server }
    }

    async fn ask(&self, method: Method, path: &str, more: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let mut headers = vec![("authorization", self.ada.as_str())];
        headers.extend(more);
        self.client.send(method, path, &headers, body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], None).await
    }
}

fn rule(entity: &str, role: &str) -> Value {
    json!({"entity_type": "mcp_server", "entity_id": entity, "rule_type": "role", "rule_value": role,
        "access": "allow", "justification": "because"})
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn rules_and_entities_are_changed_on_the_version_that_was_seen() {
    for options in stores::engines().await {
        let node = Node::new(options.start().unwrap());
        let made =
            node.ask(Method::POST, RULES, &[("idempotency-key", "k1")], Some(&rule("crm", "dev"))).await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert!(made.json()["warnings"][0].as_str().unwrap().contains("not registered"), "{}", made.body);
        let again =
            node.ask(Method::POST, RULES, &[("idempotency-key", "k1")], Some(&rule("crm", "dev"))).await;
        assert_eq!((again.status, &again.json()["id"]), (201, &made.json()["id"]), "{}", again.body);
        let other =
            node.ask(Method::POST, RULES, &[("idempotency-key", "k1")], Some(&rule("crm", "ops"))).await;
        assert_eq!(code(&other), is(422, "idempotency_mismatch"));
        let bad =
            node.ask(Method::POST, RULES, &[("idempotency-key", "a b")], Some(&rule("crm", "ops"))).await;
        assert_eq!(code(&bad), is(400, "bad_request"));
        let twin = node.ask(Method::POST, RULES, &[], Some(&rule("crm", "dev"))).await;
        assert_eq!(code(&twin), is(409, "rule_exists"));
        let wrong = node
            .ask(
                Method::POST,
                RULES,
                &[],
                Some(&json!({"entity_type": "mcp_tool", "entity_id": "x",
            "rule_type": "role", "rule_value": "dev", "access": "allow"})),
            )
            .await;
        assert_eq!(code(&wrong), is(422, "unprocessable"), "{}", wrong.body);

        // The entity: made without a version, changed and forgotten only with the one that is there.
        let body = json!({"display_name": "Customers"});
        let entity = node.ask(Method::PUT, CRM, &[], Some(&body)).await;
        assert_eq!((entity.status, entity.header("etag")), (201, "\"v1\""), "{}", entity.body);
        assert_eq!(
            code(&node.ask(Method::PUT, CRM, &[], Some(&body)).await),
            is(428, "precondition_required")
        );
        let changed = node.ask(Method::PUT, CRM, &[("if-match", "\"v1\"")], Some(&body)).await;
        assert_eq!((changed.status, changed.header("etag")), (200, "\"v2\""));
        let stale = node.ask(Method::PUT, CRM, &[("if-match", "\"v1\"")], Some(&body)).await;
        assert_eq!(code(&stale), is(412, "precondition_failed"));
        assert_eq!(code(&node.ask(Method::DELETE, CRM, &[], None).await), is(428, "precondition_required"));
        assert_eq!(node.get(CRM).await.header("etag"), "\"v2\"");

        let path = format!("{RULES}/{}", made.json()["id"].as_str().unwrap());
        let deny = json!({"access": "deny"});
        let denied = node.ask(Method::PATCH, &path, &[("if-match", made.header("etag"))], Some(&deny)).await;
        assert_eq!((denied.status, &denied.json()["justification"]), (200, &json!("because")));
        let late = node.ask(Method::PATCH, &path, &[("if-match", made.header("etag"))], Some(&deny)).await;
        assert_eq!(code(&late), is(412, "precondition_failed"));

        // Pages go through all entities, each once.
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = node.get(&format!("/api/v1/admin/entities?limit=2{cursor}")).await.json();
            let items = page["items"].as_array().unwrap().clone();
            assert!(items.len() <= 2 && !items.is_empty());
            seen.extend(items.iter().map(|item| format!("{}:{}", item["type"], item["id"])));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert!(all == seen.len() && seen.iter().any(|name| name.contains("crm")), "{seen:?}");

        // The records have before and after.
        let records = node.get("/api/v1/admin/audit?kind=admin.rule.changed&limit=1").await.json();
        let detail = &records["items"][0]["record"]["detail"];
        assert_eq!((&detail["before"], &detail["after"]), (&json!("allow"), &json!("deny")), "{records}");
    }
}

#[tokio::test]
async fn whoever_has_seen_a_version_of_the_rules_is_served_by_it() {
    let node = Node::new(stores::sqlite().start().unwrap());
    let made = node.ask(Method::POST, RULES, &[], Some(&rule("crm", "dev"))).await;
    let version: i64 = made.header("x-policy-version").parse().unwrap();
    let put = node.ask(Method::PUT, CRM, &[], Some(&json!({}))).await;
    assert_eq!(put.header("x-policy-version").parse::<i64>().unwrap(), version + 1);
    let seen = (version + 1).to_string();
    let models = node.ask(Method::GET, "/v1/models", &[("x-policy-version", &seen)], None).await;
    assert_eq!((models.status, models.header("x-policy-version")), (200, &*seen));
    let unknown = (version + 100).to_string();
    let refused = node.ask(Method::GET, RULES, &[("x-policy-version", &unknown)], None).await;
    assert_eq!(code(&refused), is(503, "policy_version_unavailable"));
    assert_eq!(refused.header("retry-after"), "1");
    for nonsense in ["x", "-1", "1.5", ""] {
        let refused = node.ask(Method::GET, RULES, &[("x-policy-version", nonsense)], None).await;
        assert_eq!(code(&refused), is(400, "bad_request"), "{nonsense}");
    }
    assert_eq!(node.client.get("/health", &[]).await.header("x-policy-version"), "", "no rule decides that");
}

#[tokio::test]
async fn departments_are_kept_over_the_api_and_the_command_line() {
    let node = Node::new(stores::sqlite().start().unwrap());
    let run = |words: &[&str]| node.server.succeed(&[&["admin"], words].concat()).unwrap();
    run(&["departments", "put", "Sales & Co", "--description", "sells"]);
    run(&[
        "departments",
        "put",
        "Sales & Co",
        "--description",
        "sells more",
        "--manager-email",
        "s@x.example",
    ]);
    let listed = run(&["departments", "list", "--output", "json"]);
    assert!(listed.contains("sells more") && listed.contains("s@x.example"), "{listed}");
    let path = "/api/v1/admin/departments/Sales%20%26%20Co";
    assert_eq!(node.get(path).await.header("etag"), "\"v2\"");
    let blind = node.ask(Method::PUT, path, &[], Some(&json!({}))).await;
    assert_eq!(code(&blind), is(428, "precondition_required"));

    // A rule for an entity that nobody registered is made, and the command says that it decides nothing.
    let words = ["admin", "rules", "create", "mcp_server:ghost", "department:Sales & Co", "allow"];
    let made = node.server.run(&words).unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success() && said.contains("mcp_server:ghost is not registered"), "{said}");
    let used = node.ask(Method::DELETE, path, &[("if-match", "\"v2\"")], None).await;
    assert_eq!(code(&used), is(409, "conflict"), "{}", used.body);
    run(&["entities", "put", "mcp_server:ghost"]);
    run(&["entities", "put", "mcp_server:ghost", "--default-included"]);
    let can = node.server.run(&["can", "department:Sales & Co", "mcp_server:ghost"]).unwrap();
    assert!(can.status.success(), "{}", String::from_utf8_lossy(&can.stdout));
    run(&["entities", "delete", "mcp_server:ghost", "--yes"]);
    let unknown = node.server.run(&["can", "department:Sales & Co", "mcp_server:ghost"]).unwrap();
    assert_eq!(unknown.status.code(), Some(5));
}
