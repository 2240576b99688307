//! Values in use and secrets that a call brings along, at every door and in every string that is stored of it, on both engines.

use crate::http::{Answer, Client};
use crate::stores;
use serde_json::{Value, json};
use systemprompt_tests::Server;

const ROWS: &str = "SELECT COALESCE(call_id, '') || ' ' || COALESCE(tool_name, '') || ' ' || COALESCE(plugin_id, '') || ' ' || \
    COALESCE(agent_id, '') || ' ' || COALESCE(agent_scope, '') || ' ' || COALESCE(entity_id, '') || ' ' || COALESCE(trace_id, '') \
    || ' ' || COALESCE(task_id, '') || ' ' || COALESCE(context_id, '') FROM governance_decisions";

/// A key of the published form that belongs to nobody, put together here so that no file holds one.
fn aws_key() -> String {
    ["AKIA", "QYLPMN5HM7PZXA2R"].concat()
}

struct Doors {
    client: Client,
    bob: String,
}

impl Doors {
    fn of(server: &Server) -> Self {
        Self { client: Client::new(server), bob: format!("Bearer {}", server.user_token()) }
    }

    async fn hook(&self, plugin: &str, more: &[(&str, &str)], changes: Value) -> Answer {
        let mut event = json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": "Bash",
            "tool_input": {"command": "ls"}, "tool_use_id": "toolu_1"});
        for (name, value) in changes.as_object().unwrap() {
            event[name] = value.clone();
        }
        let mut headers = vec![("authorization", self.bob.as_str())];
        headers.extend(more);
        self.client.post(&format!("/api/v1/hooks/govern?plugin_id={plugin}"), &headers, &event).await
    }

    async fn model(&self, query: &str, text: &str) -> Answer {
        let body = json!({"model": "claude-demo", "max_tokens": 64, "messages": [{"role": "user", "content": text}]});
        let headers = [("authorization", self.bob.as_str())];
        self.client.post(&format!("/v1/messages{query}"), &headers, &body).await
    }

    async fn tool(&self, arguments: Value) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "crm_lookup", "arguments": arguments}});
        let headers = [
            ("authorization", self.bob.as_str()),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        self.client.post("/api/v1/mcp/demo/mcp", &headers, &body).await
    }
}

fn decision(answer: &Answer) -> (String, String) {
    let said = answer.json()["hookSpecificOutput"].clone();
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    (text("permissionDecision"), text("permissionDecisionReason"))
}

#[tokio::test]
async fn a_value_in_use_passes_no_door() {
    for options in stores::engines().await {
        let mut server = options.start().unwrap();
        let value = server.secret("demo_crm_token").unwrap();
        let doors = Doors::of(&server);
        assert_eq!(decision(&doors.hook("demo", &[], json!({})).await).0, "allow");

        for changes in [
            json!({"tool_input": {"command": format!("curl -H 'x-token: {value}'")}}),
            json!({"tool_input": {"command": value.chars().rev().collect::<String>()}}),
            json!({"agent_id": value}),
            json!({"tool_use_id": value}),
        ] {
            let (outcome, reason) = decision(&doors.hook("demo", &[], changes.clone()).await);
            assert_eq!(outcome, "deny", "{changes}: {reason}");
            assert!(reason.contains("secret_leak") && reason.contains("demo_crm_token"), "{reason}");
            assert!(!reason.contains(&value));
        }
        for (query, text) in [("", value.as_str()), ("?note=", "hello")] {
            let query = if query.is_empty() { String::new() } else { format!("{query}{value}") };
            let refused = doors.model(&query, text).await;
            assert_eq!(refused.status, 400, "{}", refused.body);
            let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("secret_leak") && message.contains("demo_crm_token"), "{message}");
        }
        let refused = doors.tool(json!({"customer_id": value})).await.json();
        let code = &refused["result"]["_meta"]["io.systemprompt/decision"]["code"];
        assert_eq!(
            (code, &refused["result"]["isError"]),
            (&json!("secret_in_arguments"), &json!(true)),
            "{refused}"
        );

        server.terminate().unwrap();
        let db = stores::open(&server).await;
        let records =
            stores::texts(&db, "SELECT record FROM ledger_entries WHERE kind = 'secret.leak'").await;
        assert_eq!(records.len(), 7, "{records:?}");
        let rows = stores::texts(&db, ROWS).await;
        let records = stores::texts(&db, "SELECT record FROM ledger_entries").await;
        assert!(rows.iter().chain(&records).all(|text| !text.contains(&value)));
        db.close().await;
        assert!(!server.log().contains(&value));
        server.succeed(&["audit", "verify"]).unwrap();
    }
}

#[tokio::test]
async fn a_secret_in_the_ids_of_a_hook_call_denies_it_and_is_not_stored() {
    for options in stores::engines().await {
        let mut server = options.start().unwrap();
        let (key, doors) = (aws_key(), Doors::of(&server));
        for changes in [
            json!({"tool_use_id": key}),
            json!({"agent_id": format!("agent {key}")}),
            json!({"agent_scope": key}),
            json!({"tool_name": key}),
            json!({"tool_name": format!("mcp__demo__{key}")}),
        ] {
            let answer = doors.hook("demo", &[], changes.clone()).await;
            assert_eq!(decision(&answer).0, "deny", "{changes}: {}", answer.body);
            assert!(!answer.body.contains(&key), "{}", answer.body);
        }
        assert_eq!(decision(&doors.hook(&key, &[], json!({})).await).0, "deny");
        let answer = doors.hook("demo", &[("x-trace-id", &key)], json!({})).await;
        assert_eq!(decision(&answer).0, "deny", "{}", answer.body);
        let (outcome, _) =
            decision(&doors.hook("demo", &[], json!({"tool_use_id": "toolu_01A09q90qw90lq917835lq9"})).await);
        assert_eq!(outcome, "allow", "an id looks random and is no secret");

        server.terminate().unwrap();
        let db = stores::open(&server).await;
        let rows = stores::texts(&db, ROWS).await;
        let records = stores::texts(&db, "SELECT record FROM ledger_entries").await;
        let holding: Vec<&String> = rows.iter().chain(&records).filter(|text| text.contains(&key)).collect();
        assert!(holding.is_empty(), "{holding:?}");
        assert!(rows.iter().any(|row| row.contains("[secret:")), "{rows:?}");
        db.close().await;
        assert!(!server.log().contains(&key));
        server.succeed(&["audit", "verify"]).unwrap();
    }
}

#[tokio::test]
async fn the_digest_of_a_finding_is_the_same_after_a_restart_and_another_elsewhere() {
    let mut digests = Vec::new();
    for options in stores::engines().await {
        let mut server = options.start().unwrap();
        for _ in 0..2 {
            let doors = Doors::of(&server);
            let refused = doors.hook("demo", &[], json!({"tool_input": {"command": aws_key()}})).await;
            assert_eq!(decision(&refused).0, "deny");
            server.terminate().unwrap();
            server = server.restart().unwrap();
        }
        let db = stores::open(&server).await;
        let found = stores::texts(
            &db,
            "SELECT CAST(findings AS TEXT) FROM governance_decisions WHERE decision = 'deny'",
        )
        .await;
        assert_eq!(found.len(), 1, "one text for both findings: {found:?}");
        db.close().await;
        let found: Value = serde_json::from_str(found.first().unwrap()).unwrap();
        digests.push(found[0]["hmac"].as_str().unwrap().to_owned());
    }
    assert_ne!(digests[0], digests[1], "each deployment has its own key");
}
