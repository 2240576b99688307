//! What is kept beside the records: nothing of a person stands in the chain itself, bodies are read by who may, erased for good,
//! and gone by a record's word.

use crate::http::{Answer, Client};
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use systemprompt_tests::Server;

/// Stands in every text that a person types, and in nothing else.
const MARK: &str = "zzpersonzz";
/// Where the refused and the banned come from.
const NETWORK: &str = "203.0.113.77";

struct Admin {
    client: Client,
    token: String,
    user: String,
}

impl Admin {
    fn of(server: &Server) -> Self {
        let bearer = |token: &str| format!("Bearer {token}");
        Self {
            client: Client::new(server),
            token: bearer(server.admin_token()),
            user: bearer(server.user_token()),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let headers = [("authorization", self.token.as_str()), ("user-agent", MARK)];
        self.client.send(method, path, &headers, body.as_ref()).await.unwrap()
    }

    async fn done(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.ask(method, path, Some(body)).await;
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    async fn hook(&self, tool_input: Value) -> String {
        let event = json!({"hook_event_name": "PreToolUse", "session_id": MARK, "tool_name": "Bash",
            "tool_input": tool_input});
        let headers = [("authorization", self.user.as_str()), ("user-agent", MARK)];
        let answer = self.client.post("/api/v1/hooks/govern?plugin_id=demo", &headers, &event).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    async fn model(&self, stream: bool) -> Answer {
        let body = json!({"model": "claude-demo", "max_tokens": 64, "stream": stream,
            "messages": [{"role": "user", "content": MARK}]});
        self.client.post("/v1/messages", &[("authorization", &self.user)], &body).await
    }

    async fn tool(&self) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "crm_lookup", "arguments": {"customer_id": MARK}}});
        let headers = [
            ("authorization", self.user.as_str()),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        self.client.post("/api/v1/mcp/demo/mcp", &headers, &body).await
    }

    /// The newest entry of a kind.
    async fn newest(&self, kind: &str) -> Value {
        let path = format!("/api/v1/admin/audit?kind={kind}&limit=1");
        let page = self.ask(Method::GET, &path, None).await.json();
        let id = page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("no {kind}: {page}")).to_owned();
        self.entry(&id).await
    }

    /// Outcome and role of the last reading of a body.
    async fn last_reading(&self) -> (String, String) {
        let page =
            self.ask(Method::GET, "/api/v1/admin/audit?kind=admin.audit.read&limit=20", None).await.json();
        let items = page["items"].as_array().unwrap();
        let read = items.iter().find(|item| item["record"]["detail"]["payload"].is_string());
        let read = read.unwrap_or_else(|| panic!("no body was read: {page}"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&read["outcome"]), text(&read["record"]["detail"]["payload"]))
    }

    async fn entry(&self, id: &str) -> Value {
        self.ask(Method::GET, &format!("/api/v1/admin/audit/{id}"), None).await.json()
    }

    async fn body(&self, entry: &Value, role: &str) -> Answer {
        let id = entry["id"].as_str().unwrap();
        self.ask(Method::GET, &format!("/api/v1/admin/audit/{id}?payload={role}"), None).await
    }
}

fn state(entry: &Value, role: &str) -> String {
    let payloads = entry["payloads"].as_array().unwrap_or_else(|| panic!("{entry}"));
    let found = payloads.iter().find(|payload| payload["role"] == role);
    found.unwrap_or_else(|| panic!("no {role}: {entry}"))["state"].as_str().unwrap().to_owned()
}

/// Does what leaves a record, with the mark in each text.
async fn leave_marks(server: &Server, admin: &Admin) {
    use Method as M;
    let user = json!({"username": "zz-person", "email": format!("{MARK}@example.com"), "display_name": MARK});
    admin.done(M::POST, "/api/v1/admin/users", user).await;
    server
        .succeed(&["admin", "users", "update", "zz-person", "--display-name", &format!("{MARK} again")])
        .unwrap();
    server.succeed(&["admin", "users", "delete", "zz-person", "--yes"]).unwrap();
    let rule = json!({"entity_type": "plugin", "entity_id": "demo", "rule_type": "role", "rule_value": "zz-role",
        "access": "allow", "justification": MARK});
    let rule = admin.done(M::POST, "/api/v1/admin/rules", rule).await;
    let rule = rule["id"].as_str().unwrap();
    server.succeed(&["admin", "rules", "update", rule, "deny", "--justification", MARK]).unwrap();
    server.succeed(&["admin", "rules", "delete", rule, "--yes"]).unwrap();
    server.succeed(&["admin", "entities", "put", "plugin:other", "--display-name", MARK]).unwrap();
    server.succeed(&["admin", "entities", "put", "plugin:other", "--display-name", "again"]).unwrap();
    server.succeed(&["admin", "entities", "delete", "plugin:other", "--yes"]).unwrap();
    let ban = json!({"network": NETWORK, "reason": MARK});
    let ban = admin.done(M::POST, "/api/v1/admin/bans", ban).await;
    server.succeed(&["admin", "bans", "remove", ban["id"].as_str().unwrap(), "--yes"]).unwrap();
    let created = server.succeed(&["admin", "api-keys", "create", "bob", "--name", MARK, "--output", "json"]);
    let created: Value = serde_json::from_str(&created.unwrap()).unwrap();
    let key = created["id"].as_str().or(created["key"]["id"].as_str()).unwrap_or_else(|| panic!("{created}"));
    server.succeed(&["admin", "api-keys", "revoke", key, "--yes"]).unwrap();
    server.succeed(&["admin", "keys", "generate"]).unwrap();
    let denied =
        admin.hook(json!({"command": format!("echo {MARK} {}", ["AKIA", "QYLPMN5HM7PZXA2R"].concat())}));
    assert!(denied.await.contains("deny"));
    assert_eq!((admin.model(false).await.status, admin.model(true).await.status), (200, 200));
    let answer = admin.tool().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Nobody yet: counted, and on record when the node stops.
    let stranger = [("authorization", "Bearer nonsense"), ("user-agent", MARK)];
    assert_eq!(admin.client.get("/api/v1/admin/users", &stranger).await.status, 401);
    admin.hook(json!({"command": format!("echo {MARK}")})).await;
    server.succeed(&["audit", "erase", "bob", "--reason", MARK, "--class", "note", "--yes"]).unwrap();
    server.succeed(&["audit", "retention", "run"]).unwrap();
}

#[tokio::test]
async fn aud_7_nothing_that_a_person_typed_or_came_from_stands_in_the_chain() {
    for options in stores::engines().await {
        let mut server = options.start().unwrap();
        leave_marks(&server, &Admin::of(&server)).await;
        server.terminate().unwrap();
        let server = server.restart().unwrap();
        let admin = Admin::of(&server);
        let (mut kinds, mut path) = (BTreeSet::new(), "/api/v1/admin/audit?limit=500&order=asc".to_owned());
        loop {
            let page = admin.ask(Method::GET, &path, None).await.json();
            for item in page["items"].as_array().unwrap() {
                let record = item["record"].to_string();
                for mark in [MARK, "zz-person", NETWORK, "203.0.113", "127.0.0.1"] {
                    assert!(!record.contains(mark), "{mark} in {record}");
                }
                kinds.insert(item["kind"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/api/v1/admin/audit?limit=500&order=asc&cursor={next}");
        }
        for kind in [
            "governance.decision",
            "inference.opened",
            "inference.closed",
            "tool.opened",
            "tool.closed",
            "admin.user.created",
            "admin.user.changed",
            "admin.user.deleted",
            "admin.rule.created",
            "admin.rule.changed",
            "admin.rule.deleted",
            "admin.entity.created",
            "admin.entity.changed",
            "admin.entity.deleted",
            "admin.ban.added",
            "admin.ban.removed",
            "admin.audit.read",
            "admin.audit.erase",
            "oauth.api_key.created",
            "oauth.api_key.revoked",
            "oauth.key.generated",
            "system.start",
            "system.stop",
            "system.checkpoint",
            "system.refusals",
        ] {
            assert!(kinds.contains(kind), "{kind} was not met: {kinds:?}");
        }
        // It is all there for who may see it.
        let user = admin.newest("admin.user.created").await;
        assert!(admin.body(&user, "after").await.body.contains(MARK));
        let client = admin.body(&user, "client").await.body;
        let told = ["127.0.0.1", "user_agent", MARK];
        assert!(told.iter().all(|part| client.contains(part)), "{client}");
        let refused = admin.newest("system.refusals").await;
        assert!(admin.body(&refused, "addresses").await.body.contains("127.0.0.0/24"));
        server.succeed(&["audit", "verify"]).unwrap();
    }
}

#[tokio::test]
async fn bodies_are_redacted_read_by_who_may_and_erased_for_good() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let admin = Admin::of(&server);
        let secret = ["AKIA", "QYLPMN5HM7PZXA2R"].concat();
        admin.hook(json!({"command": format!("deploy {secret} now")})).await;
        let entry = admin.newest("governance.decision").await;
        assert_eq!(state(&entry, "arguments"), "stored");
        let body = admin.body(&entry, "arguments").await.json();
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("deploy [secret:aws") && !text.contains(&secret), "{text}");

        let answer = admin.tool().await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let (opened, closed) = (admin.newest("tool.opened").await, admin.newest("tool.closed").await);
        assert_eq!(state(&closed, "result"), "stored");
        assert!(
            opened["payloads"].as_array().unwrap().is_empty(),
            "the decision has the arguments: {opened}"
        );
        assert!(
            admin.body(&admin.newest("governance.decision").await, "arguments").await.body.contains(MARK)
        );

        // Of models, by default, the commitment alone; a stream's too.
        for stream in [false, true] {
            assert_eq!(admin.model(stream).await.status, 200);
        }
        server.succeed(&["audit", "verify"]).unwrap();
        let opened = admin.newest("inference.opened").await;
        assert_eq!(state(&opened, "request"), "hash_only");
        let none = admin.body(&opened, "request").await;
        assert_eq!(none.status, 404, "{}", none.body);

        // Who may not read bodies is told so, and that is on record.
        let path = format!("/api/v1/admin/audit/{}?payload=arguments", entry["id"].as_str().unwrap());
        assert_eq!(admin.client.get(&path, &[("authorization", &admin.user)]).await.status, 403);
        assert_eq!(admin.last_reading().await, ("denied".to_owned(), "arguments".to_owned()));
        let reader = json!({"username": "reader", "roles": ["user", "auditor-content"]});
        let reader = admin.done(Method::POST, "/api/v1/admin/users", reader).await;
        let token = admin.done(Method::POST, "/api/v1/admin/tokens", json!({"user": reader["id"]})).await;
        let token = format!("Bearer {}", token["token"].as_str().unwrap());
        let read = admin.client.get(&path, &[("authorization", &token)]).await;
        assert!(read.status == 200 && read.body.contains("deploy"), "{} {}", read.status, read.body);
        assert_eq!(admin.body(&entry, "result").await.status, 404);
        assert_eq!(admin.last_reading().await, ("ok".to_owned(), "result".to_owned()));

        let told = server.succeed(&["audit", "erase", "bob", "--reason", "asked for", "--yes"]).unwrap();
        assert!(told.contains("tool"), "{told}");
        assert_eq!(state(&admin.entry(entry["id"].as_str().unwrap()).await, "arguments"), "erased");
        assert_eq!(admin.body(&entry, "arguments").await.status, 404);
        let verified = server.succeed(&["audit", "verify"]).unwrap();
        assert!(
            verified.contains("intact") && verified.contains(" erased, 0 expired, 0 records pruned"),
            "{verified}"
        );

        let bad = json!({"subject_user": "", "reason": "x"});
        assert_eq!(admin.ask(Method::POST, "/api/v1/admin/audit/erasures", Some(bad)).await.status, 422);
        let bad = json!({"subject_user": "usr_x", "reason": "x", "classes": ["mail"]});
        let refused = admin.ask(Method::POST, "/api/v1/admin/audit/erasures", Some(bad)).await;
        assert!(
            refused.status == 422 && refused.body.contains("inference, tool, change"),
            "{}",
            refused.body
        );

        let shown = server.succeed(&["audit", "retention", "show"]).unwrap();
        assert!(shown.contains("admin.* 1100 days") && shown.contains("tool 90 days"), "{shown}");
        let ran = server.succeed(&["audit", "retention", "run"]).unwrap();
        assert!(ran.contains("deleted payloads: none") && ran.contains("pruned records: none"), "{ran}");
    }
}

#[tokio::test]
async fn a_payload_that_is_changed_in_the_database_fails_verification() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let admin = Admin::of(&server);
        for text in ["one", "two"] {
            admin.hook(json!({"command": format!("echo {text}")})).await;
        }
        let db = stores::open(&server).await;
        stores::change(
            &db,
            "UPDATE ledger_payloads SET body = (SELECT q.body FROM ledger_payloads q WHERE q.class = 'tool'
                                                ORDER BY q.seq DESC LIMIT 1) WHERE class = 'tool'",
        )
        .await;
        let output = server.run(&["audit", "verify"]).unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(7), "{told}");
        assert!(told.contains("payload_altered"), "{told}");
    }
}
