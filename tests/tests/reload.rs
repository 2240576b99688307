//! The configuration changes under a running server: the answer tells the outcome, a bad one leaves the old one in force, and
//! what it declares is known to the rules at once.

use crate::http::{Answer, Client};
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt_tests::Server;

const RELOAD: &str = "/api/v1/admin/config/reload";

struct Node {
    server: Server,
    client: Client,
    ada: String,
}

fn node(server: Server) -> Node {
    Node { client: Client::new(&server), ada: format!("Bearer {}", server.admin_token()), server }
}

impl Node {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.client.send(method, path, &[("authorization", &self.ada)], body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await.json()
    }

    async fn reload(&self) -> Answer {
        self.ask(Method::POST, RELOAD, None).await
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.server.data_dir().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// The latest record of a reload with this outcome.
    async fn record(&self, outcome: &str) -> Value {
        let path = format!("/api/v1/admin/audit?kind=config.reload&outcome={outcome}&limit=1");
        self.get(&path).await["items"][0]["record"].clone()
    }

    async fn reloads(&self, result: &str) -> u64 {
        let text = self.client.get("/metrics", &[]).await.body;
        let name = format!("systemprompt_config_reload_total{{result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    async fn can(&self, principal: &str, entity: &str) -> Value {
        let body = json!({"principal": principal, "entity": entity});
        self.ask(Method::POST, "/api/v1/admin/rules/can", Some(&body)).await.json()
    }
}

#[tokio::test]
async fn a_reload_answers_when_it_is_in_force_and_is_on_record() {
    let node = node(stores::sqlite().start().unwrap());
    let idle = node.reload().await;
    assert_eq!((idle.status, &idle.json()["result"]), (200, &json!("unchanged")), "{}", idle.body);

    node.write(
        "services/governance/config.yaml",
        "governance:\n  policies:\n    - {id: tool_blocklist, enabled: false}\n",
    );
    let done = node.reload().await;
    let answer = done.json();
    assert_eq!((done.status, &answer["result"]), (200, &json!("applied")), "{}", done.body);
    assert_eq!(answer["changed"], json!(["services/governance"]));
    assert_eq!(answer["pending_restart"], json!([]));
    let record = node.record("ok").await;
    assert_eq!(record["detail"]["after"], answer["hash"]);
    assert_eq!(record["detail"]["before"], answer["previous_hash"]);
    assert_eq!(record["detail"]["changed"], json!(["services/governance"]));
    let ada = node.get("/api/v1/admin/users/ada").await;
    assert_eq!(record["actor"]["id"], ada["id"], "the record names who asked");

    let path = "profiles/default/profile.yaml";
    let profile = std::fs::read_to_string(node.server.data_dir().join(path)).unwrap();
    node.write(path, &profile.replace("server:\n", "server:\n  instance_id: other\n"));
    let later = node.reload().await.json();
    assert_eq!(later["pending_restart"], json!(["server.instance_id"]), "{later}");
    assert_eq!(node.get("/health").await["instance_id"], "default");
    assert_eq!(node.reloads("applied").await, 2);
    assert!(node.reloads("unchanged").await >= 1);
    assert_eq!(node.reloads("refused").await, 0);
}

#[tokio::test]
async fn a_bad_reload_is_refused_with_its_place_and_every_health_route_says_so() {
    let node = node(stores::sqlite().start().unwrap());
    let status = async |path: &str| node.get(path).await["status"].clone();
    assert_eq!(status("/health").await, "ok");
    assert_eq!(status("/api/v1/health/detail").await, "ok");

    node.write("services/governance/config.yaml", "governance:\n  policies:\n    - id: tool_blocklst\n");
    let refused = node.reload().await;
    let problem = refused.json();
    assert_eq!((refused.status, &problem["code"]), (422, &json!("invalid_configuration")), "{problem}");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let finding = &problem["findings"][0];
    assert!(finding["file"].as_str().unwrap().ends_with("services/governance/config.yaml"), "{finding}");
    assert_eq!((&finding["line"], &finding["column"]), (&json!(3), &json!(11)), "{finding}");
    assert_eq!(finding["suggestion"], "tool_blocklist");
    assert!(problem["validation_errors"][0]["message"].as_str().unwrap().contains("tool_blocklst"));

    assert_eq!(status("/health").await, "degraded");
    assert_eq!(status("/api/v1/health/detail").await, "degraded");
    assert_eq!(node.get("/api/v1/health/detail").await["degraded"], json!(["config_refused"]));
    assert_eq!(node.client.get("/health/ready", &[]).await.status, 200, "it still answers requests");
    assert!(node.reloads("refused").await >= 1);
    let record = node.record("refused").await;
    assert_eq!(record["reason"], "invalid_configuration");
    assert_eq!((&record["detail"]["line"], &record["detail"]["column"]), (&json!(3), &json!(11)));
    assert!(record["detail"]["file"].as_str().unwrap().ends_with("governance/config.yaml"), "{record}");

    node.write("services/governance/config.yaml", "governance:\n  policies:\n    - id: tool_blocklist\n");
    assert_eq!(node.reload().await.status, 200);
    assert_eq!(status("/health").await, "ok");
    assert_eq!(status("/api/v1/health/detail").await, "ok");
}

#[tokio::test]
async fn what_the_configuration_declares_is_registered_by_itself() {
    const SERVER: &str = "mcp_servers:\n  tools:\n    type: internal\n    binary: demo\n    display_name: Tools\n    secrets: [demo_crm_token]\n";
    const ACCESS: &str = "entities:\n  - {type: skill, id: report}\nrules:\n  - {entity_type: skill, entity_id: report, roles: [user]}\n";
    for options in stores::engines().await {
        let node = node(options.file("services/access-control/access.yaml", ACCESS).start().unwrap());
        assert_eq!(node.can("role:user", "skill:report").await["decision"], "allow", "read at the start");
        assert_eq!(node.can("user:bob", "mcp_server:tools").await["known"], false);

        node.write("services/mcp/tools.yaml", SERVER);
        let done = node.reload().await;
        assert_eq!((done.status, &done.json()["changed"]), (200, &json!(["services/mcp"])), "{}", done.body);
        let record = node.record("ok").await;
        assert_eq!(record["detail"]["registered"], json!(["mcp_server:tools"]), "{record}");
        let entities = node.get("/api/v1/admin/entities?type=mcp_server").await;
        let tools = entities["items"].as_array().unwrap().iter().find(|item| item["id"] == "tools").unwrap();
        assert_eq!((&tools["source"], &tools["display_name"]), (&json!("yaml"), &json!("Tools")));

        // Registered is not yet allowed; the server's rule then holds for a tool that no rule names.
        let unruled = node.can("user:bob", "mcp_tool:tools/crm_lookup").await;
        assert_eq!((&unruled["known"], &unruled["decision"]), (&json!(true), &json!("deny")), "{unruled}");
        let rule = json!({"entity_type": "mcp_server", "entity_id": "tools", "rule_type": "role",
            "rule_value": "user", "access": "allow"});
        assert_eq!(node.ask(Method::POST, "/api/v1/admin/rules", Some(&rule)).await.status, 201);
        let allowed = node.can("user:bob", "mcp_tool:tools/crm_lookup").await;
        assert_eq!(
            (&allowed["decision"], &allowed["decided_on"], &allowed["entity"]),
            (&json!("allow"), &json!("mcp_server:tools"), &json!("mcp_tool:tools/crm_lookup")),
            "{allowed}"
        );
        let narrowed = json!({"entity_type": "mcp_tool", "entity_id": "tools/crm_*", "rule_type": "role",
            "rule_value": "user", "access": "deny"});
        assert_eq!(node.ask(Method::POST, "/api/v1/admin/rules", Some(&narrowed)).await.status, 201);
        let denied = node.can("user:bob", "mcp_tool:tools/crm_lookup").await;
        assert_eq!(
            (&denied["decision"], &denied["decided_on"]),
            (&json!("deny"), &json!("mcp_tool:tools/crm_lookup"))
        );

        let path = "/api/v1/admin/entities/mcp_server/tools";
        let etag = node.ask(Method::GET, path, None).await.header("etag").to_owned();
        let headers = [("authorization", node.ada.as_str()), ("if-match", &*etag)];
        let kept = node.client.send(Method::DELETE, path, &headers, None).await.unwrap();
        assert_eq!((kept.status, &kept.json()["code"]), (409, &json!("conflict")), "{}", kept.body);
        std::fs::remove_file(node.server.data_dir().join("services/mcp/tools.yaml")).unwrap();
        node.write("services/access-control/access.yaml", &ACCESS.replace("roles:", "access: deny, roles:"));
        assert_eq!(node.reload().await.status, 200);
        assert_eq!(node.can("user:bob", "mcp_server:tools").await["known"], false);
        assert_eq!(node.can("role:user", "skill:report").await["matched_by"], "role_deny");
        assert_eq!(node.client.get("/health", &[]).await.json()["status"], "ok");
    }
}
