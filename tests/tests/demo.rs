//! `up --demo` as a newcomer meets it, on both engines.

use crate::http::Client;
use crate::stores;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use systemprompt_tests::{Options, Server};

/// A server on each engine.
async fn servers() -> [Server; 2] {
    [stores::sqlite().start().unwrap(), stores::postgres().await.start().unwrap()]
}

#[tokio::test]
async fn ready_line_has_the_fields_of_the_contract() {
    for server in servers().await {
        let ready = server.ready();
        for pointer in ["/api_url", "/data_dir", "/demo/admin_token", "/demo/user_token"] {
            assert!(ready.pointer(pointer).is_some_and(Value::is_string), "{pointer} in {ready}");
        }
        for pointer in ["/console_url", "/setup_url", "/demo/client_id", "/demo/client_secret"] {
            assert!(ready.pointer(pointer).is_some(), "{pointer} in {ready}");
        }
        assert!(server.url().starts_with("http://localhost:"), "{}", server.url());
    }
}

#[tokio::test]
async fn tokens_count_as_bearer_and_as_api_key_and_across_a_restart() {
    for mut server in servers().await {
        let tokens = [server.admin_token().to_owned(), server.user_token().to_owned()];
        assert_ne!(tokens[0], tokens[1]);
        greet(&server, &tokens).await;
        assert!(server.terminate().unwrap().success(), "{}", server.log());
        greet(&server.restart().unwrap(), &tokens).await;
    }
}

async fn greet(server: &Server, tokens: &[String]) {
    let client = Client::new(server);
    let hello = json!({ "model": "claude-demo", "max_tokens": 16, "messages": [{ "role": "user", "content": "Hello" }] });
    for token in tokens {
        let bearer = format!("Bearer {token}");
        for header in [("authorization", bearer.as_str()), ("x-api-key", token)] {
            let answer = client.post("/v1/messages", &[header], &hello).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
    let answer = client.post("/v1/messages", &[("x-api-key", "nobody")], &hello).await;
    assert_eq!(answer.status, 401, "{}", answer.body);
}

#[tokio::test]
async fn every_step_of_the_demo_comes_out_and_the_ledger_verifies() {
    for mut server in servers().await {
        let text = server.succeed(&["demo", "--url", server.url()]).unwrap();
        let canary = server.secret("demo_crm_token").unwrap();
        assert!(!text.contains(&canary));
        assert!(server.terminate().unwrap().success());
        server.succeed(&["audit", "verify"]).unwrap();
    }
}

#[tokio::test]
async fn secret_of_the_tool_server_stands_in_no_file_but_the_secrets_file() {
    let mut server = stores::sqlite().start().unwrap();
    server.succeed(&["demo", "--url", server.url()]).unwrap();
    server.terminate().unwrap();
    let canary = server.secret("demo_crm_token").unwrap();
    let forms = [canary.clone(), hex::encode(&canary), hex::encode_upper(&canary)];
    let mut searched = 0;
    for file in files(server.data_dir()) {
        if file.ends_with("secrets.json") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        for form in &forms {
            let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "{} holds the secret", file.display());
        }
        searched += 1;
    }
    assert!(searched > 2, "database, log and profile were searched");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn rules_of_the_configuration_leave_the_demo_its_own() {
    let rules = json!({"rules": [
        {"entity_type": "plugin", "entity_id": "demo", "roles": ["ops"]},
        {"entity_type": "mcp_server", "entity_id": "demo", "access": "deny", "roles": ["user"]},
    ]});
    let server =
        stores::sqlite().file("services/access-control/mine.yaml", &rules.to_string()).start().unwrap();
    let client = Client::new(&server);
    let bearer = format!("Bearer {}", server.user_token());
    let event = json!({"hook_event_name": "PreToolUse", "tool_name": "Read", "tool_input": {}});
    let headers = [("authorization", bearer.as_str())];
    let answer = client.post("/api/v1/hooks/govern?plugin_id=demo", &headers, &event).await;
    assert_eq!(answer.header("x-systemprompt-decision"), "allow", "{}", answer.body);
    // What the configuration says of the same people stands.
    let through =
        json!({"hook_event_name": "PreToolUse", "tool_name": "mcp__demo__crm_lookup", "tool_input": {}});
    let answer = client.post("/api/v1/hooks/govern", &headers, &through).await;
    assert!(answer.body.contains("role_deny"), "{}", answer.body);
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let first = stores::sqlite().start().unwrap();
    let second = Options::demo().unwrap().data_dir(first.data_dir()).start();
    let refusal = second.map(drop).unwrap_err().to_string();
    assert!(refusal.contains("exit status: 6"), "{refusal}");
    let health = Client::new(&first).get("/health", &[]).await.json();
    assert!(health.is_object(), "the first one goes on: {health}");
}

#[tokio::test]
async fn probes_of_scanners_are_refused_and_routes_are_not() {
    let server = stores::sqlite().start().unwrap();
    let client = Client::new(&server);
    let bearer = format!("Bearer {}", server.admin_token());
    for headers in [&[][..], &[("authorization", bearer.as_str())][..]] {
        for path in ["/.env", "/.git", "/wp-admin/x", "/eval-stdin.php"] {
            let answer = client.get(path, headers).await;
            assert_eq!((answer.status, answer.header("x-blocked-reason")), (403, "scanner-path"), "{path}");
        }
        for path in
            ["/health", "/health/live", "/health/ready", "/.well-known/jwks.json", "/api/v1/openapi.json"]
        {
            assert_eq!(client.get(path, headers).await.status, 200, "{path}");
        }
    }
}
