//! The surface from outside, on both engines: rules that change live, keys that end, hooks that never fail open, an edge that
//! reads a request in one way only, a ledger that can be read and proven.

use crate::http::{Answer, Client};
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt_tests::Server;

struct Tried {
    server: Server,
    client: Client,
    ada: String,
    bob: String,
}

async fn tried() -> [Tried; 2] {
    [stores::sqlite().start().unwrap(), stores::postgres().await.start().unwrap()].map(Tried::of)
}

impl Tried {
    fn of(server: Server) -> Self {
        let client = Client::new(&server);
        let (ada, bob) =
            (format!("Bearer {}", server.admin_token()), format!("Bearer {}", server.user_token()));
        Self { server, client, ada, bob }
    }

    async fn as_ada(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.client.send(method, path, &[("authorization", &self.ada)], body).await.unwrap()
    }

    async fn ask_model(&self, token: &str, text: &str) -> Answer {
        let body = json!({"model": "claude-demo", "max_tokens": 64, "messages": [{"role": "user", "content": text}]});
        self.client.post("/v1/messages", &[("authorization", token)], &body).await
    }

    async fn hook(&self, token: &str, event: &Value) -> Answer {
        self.client.post("/api/v1/hooks/govern?plugin_id=demo", &[("authorization", token)], event).await
    }
}

fn tool_use(tool: &str, input: &Value) -> Value {
    json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": tool, "tool_input": input})
}

/// A key of the published form that belongs to nobody, put together here so that no file holds one.
fn aws_key() -> String {
    ["AKIA", "QYLPMN5HHHFPZAM2"].concat()
}

fn github_token() -> String {
    ["ghp_", "0123456789abcdefABCDEF0123456789abcd"].concat()
}

#[tokio::test]
async fn a_rule_counts_from_its_answer_on_and_is_guarded_by_its_etag() {
    for tried in tried().await {
        assert_eq!(tried.ask_model(&tried.bob, "Hello").await.status, 200);
        let bob = tried.as_ada(Method::GET, "/api/v1/admin/users/bob", None).await.json();
        let new = json!({"entity_type": "gateway_route", "entity_id": "demo", "rule_type": "user",
            "rule_value": bob["id"], "access": "deny", "justification": "a test"});
        let made = tried.as_ada(Method::POST, "/api/v1/admin/rules", Some(&new)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let denied = tried.ask_model(&tried.bob, "Hello").await;
        assert_eq!(denied.status, 400, "{}", denied.body);
        assert_eq!(denied.header("x-should-retry"), "false");
        assert!(denied.body.contains("user_deny"), "{}", denied.body);
        let again = tried.as_ada(Method::POST, "/api/v1/admin/rules", Some(&new)).await;
        assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("rule_exists")));

        let path = format!("/api/v1/admin/rules/{}", made.json()["id"].as_str().unwrap());
        assert_eq!(tried.as_ada(Method::DELETE, &path, None).await.status, 428);
        let stale = [("authorization", tried.ada.as_str()), ("if-match", "\"v9\"")];
        assert_eq!(tried.client.send(Method::DELETE, &path, &stale, None).await.unwrap().status, 412);
        let current = [("authorization", tried.ada.as_str()), ("if-match", made.header("etag"))];
        assert_eq!(tried.client.send(Method::DELETE, &path, &current, None).await.unwrap().status, 204);
        assert_eq!(tried.ask_model(&tried.bob, "Hello").await.status, 200);

        let wrong = json!({"entity_type": "gateway", "entity_id": "demo", "rule_type": "user", "rule_value": "x", "access": "deny"});
        let refused = tried.as_ada(Method::POST, "/api/v1/admin/rules", Some(&wrong)).await;
        assert_eq!(refused.status, 422);
        assert!(refused.json()["validation_errors"][0]["message"].as_str().unwrap().contains("mcp_server"));
        let odd = json!({"entity_typ": "gateway_route"});
        let refused = tried.as_ada(Method::POST, "/api/v1/admin/rules", Some(&odd)).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(
            tried.client.get("/api/v1/admin/rules", &[("authorization", &tried.bob)]).await.status,
            403
        );
    }
}

#[tokio::test]
async fn an_api_key_is_shown_once_works_and_ends() {
    for tried in tried().await {
        let new = json!({"user": "bob", "name": "laptop", "scope": "user", "expires_in_days": 7});
        let made = tried.as_ada(Method::POST, "/api/v1/admin/api-keys", Some(&new)).await;
        assert_eq!((made.status, made.header("cache-control")), (201, "no-store"), "{}", made.body);
        let (made, key) = (made.json(), made.json()["key"].as_str().unwrap().to_owned());
        assert!(key.starts_with("sp-live-") && key.len() == 57, "{key}");
        let hello = json!({"model": "claude-demo", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]});
        assert_eq!(tried.client.post("/v1/messages", &[("x-api-key", &key)], &hello).await.status, 200);
        let list = tried.as_ada(Method::GET, "/api/v1/admin/api-keys", None).await;
        assert!(list.body.contains(made["id"].as_str().unwrap()) && !list.body.contains(&key));
        let more = json!({"user": "bob", "name": "root", "scope": "admin"});
        assert_eq!(tried.as_ada(Method::POST, "/api/v1/admin/api-keys", Some(&more)).await.status, 422);
        let path = format!("/api/v1/admin/api-keys/{}", made["id"].as_str().unwrap());
        assert_eq!(tried.as_ada(Method::DELETE, &path, None).await.status, 204);
        assert_eq!(tried.client.post("/v1/messages", &[("x-api-key", &key)], &hello).await.status, 401);
    }
}

#[tokio::test]
async fn a_suspended_user_is_out_at_once_and_the_last_administrator_stays() {
    for tried in tried().await {
        let bob = tried.as_ada(Method::GET, "/api/v1/admin/users/bob", None).await;
        let headers = [("authorization", tried.ada.as_str()), ("if-match", bob.header("etag"))];
        let path = format!("/api/v1/admin/users/{}", bob.json()["id"].as_str().unwrap());
        let suspend = json!({"status": "suspended"});
        let done = tried.client.send(Method::PATCH, &path, &headers, Some(&suspend)).await.unwrap();
        assert_eq!(done.status, 200, "{}", done.body);
        assert_eq!(tried.ask_model(&tried.bob, "Hello").await.status, 401);
        let ada = tried.as_ada(Method::GET, "/api/v1/admin/users/ada", None).await;
        let headers = [("authorization", tried.ada.as_str()), ("if-match", ada.header("etag"))];
        let path = format!("/api/v1/admin/users/{}", ada.json()["id"].as_str().unwrap());
        let demote = json!({"roles": ["user"]});
        let kept = tried.client.send(Method::PATCH, &path, &headers, Some(&demote)).await.unwrap();
        assert_eq!(kept.status, 409, "{}", kept.body);
        let clash = json!({"username": "ADA"});
        assert_eq!(tried.as_ada(Method::POST, "/api/v1/admin/users", Some(&clash)).await.status, 409);
        let wrong = json!({"username": "a b", "email": "x", "roles": ["Root"]});
        let refused = tried.as_ada(Method::POST, "/api/v1/admin/users", Some(&wrong)).await.json();
        assert_eq!(refused["validation_errors"].as_array().unwrap().len(), 3, "{refused}");
    }
}

/// SEC case 24: the six calls as user and as administrator; decisions, rows and ledger agree.
#[tokio::test]
async fn case_24_six_tool_calls_come_out_as_recorded() {
    for tried in tried().await {
        let calls = [
            tool_use("Bash", &json!({"command": "ls"})),
            tool_use("Write", &json!({"file": "deploy.sh", "text": format!("export KEY={}", aws_key())})),
            tool_use(
                "Bash",
                &json!({"command": format!("git clone https://{}@github.com/a/b", github_token())}),
            ),
            tool_use("delete_records", &json!({"table": "t"})),
            tool_use("mcp__systemprompt__list_users", &json!({})),
            tool_use("Read", &json!({"file": "README.md"})),
        ];
        let user = ["allow", "secret_scan", "secret_scan", "tool_blocklist", "scope_check", "allow"];
        let admin = ["allow", "secret_scan", "secret_scan", "tool_blocklist", "allow", "allow"];
        for (token, wanted) in [(&tried.bob, user), (&tried.ada, admin)] {
            for (call, want) in calls.iter().zip(wanted) {
                let answer = tried.hook(token, call).await;
                let body = answer.json();
                let output = &body["hookSpecificOutput"];
                let decision = if want == "allow" { "allow" } else { "deny" };
                assert_eq!(answer.status, 200);
                assert_eq!(output["permissionDecision"], decision, "{body}");
                assert_eq!(answer.header("x-systemprompt-decision"), decision);
                let reason = output["permissionDecisionReason"].as_str().unwrap();
                assert!(want == "allow" || reason.contains(want), "{reason}");
                assert!(!reason.contains(&aws_key()) && !reason.contains(&github_token()));
                let id = reason.split("decision ").nth(1).unwrap().trim_end_matches(')');
                let row =
                    tried.as_ada(Method::GET, &format!("/api/v1/admin/decisions/{id}"), None).await.json();
                assert_eq!(
                    (&row["decision"], &row["tool_name"]),
                    (&json!(decision), &call["tool_name"]),
                    "{row}"
                );
                assert!(want == "allow" || row["policy"] == want, "{row}");
            }
        }
        let verified = tried.as_ada(Method::POST, "/api/v1/admin/audit/verify", None).await.json();
        assert_eq!(verified["intact"], true, "{verified}");
    }
}

#[tokio::test]
async fn the_hook_answers_200_and_deny_whatever_is_wrong() {
    for tried in tried().await {
        let fine = tool_use("Bash", &json!({"command": "ls"}));
        let url = format!("{}/api/v1/hooks/govern?plugin_id=demo", tried.server.url());
        #[expect(clippy::disallowed_methods, reason = "the test's own client")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let raw = |body: String| http.post(&url).header("authorization", &tried.bob).body(body).send();
        let mut answers = vec![
            tried.client.post("/api/v1/hooks/govern?plugin_id=demo", &[], &fine).await.body,
            tried.hook("Bearer not-a-token-of-ours", &fine).await.body,
            tried.hook(&tried.bob, &json!({"hook_event_name": "PreToolUse"})).await.body,
            tried
                .client
                .post("/api/v1/hooks/govern?plugin_id=ghost", &[("authorization", &tried.bob)], &fine)
                .await
                .body,
        ];
        for body in ["{\"hook_event_name\":".to_owned(), String::new(), "[]".to_owned(), "x".repeat(5 << 20)]
        {
            let answer = raw(body).await.unwrap();
            assert_eq!(answer.status(), 200);
            answers.push(answer.text().await.unwrap());
        }
        for answer in answers {
            let body: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(body["hookSpecificOutput"]["permissionDecision"], "deny", "{answer}");
        }
        let prompt = json!({"hook_event_name": "UserPromptSubmit", "prompt": format!("use {}", aws_key())});
        assert_eq!(tried.hook(&tried.bob, &prompt).await.json()["decision"], "block");
        let clean = json!({"hook_event_name": "UserPromptSubmit", "prompt": "hello"});
        assert_eq!(tried.hook(&tried.bob, &clean).await.json(), json!({}));
    }
}

#[tokio::test]
async fn a_refusal_has_the_form_of_its_hook_event() {
    for tried in tried().await {
        let url = format!("{}/api/v1/hooks/govern?plugin_id=demo", tried.server.url());
        #[expect(clippy::disallowed_methods, reason = "the test's own client")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async |token: Option<&str>, body: String| -> Value {
            let mut request = http.post(&url).body(body);
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["x-systemprompt-decision"]),
                (200, &"deny".parse().unwrap())
            );
            serde_json::from_str(&answer.text().await.unwrap()).unwrap()
        };
        for event in ["UserPromptSubmit", "PostToolUse", "Stop", "PreToolUse", "SomethingNew"] {
            let body = |rest: &str| format!(r#"{{"session_id":"s","hook_event_name":"{event}"{rest}}}"#);
            for (token, body) in [
                (None, body("")),
                (Some("Bearer not-a-token-of-ours"), body("")),
                (Some(tried.bob.as_str()), body(r#","tool_name":"a","tool_name":"b""#)),
                (Some(tried.bob.as_str()), body(&format!(r#","tool_name":"{}""#, "x".repeat(257)))),
                (Some(tried.bob.as_str()), body(&format!(r#","prompt":"{}""#, "x".repeat(5 << 20)))),
                (Some(tried.bob.as_str()), body(",")),
            ] {
                let answer = ask(token, body).await;
                if event == "PreToolUse" {
                    assert_eq!(answer["hookSpecificOutput"]["permissionDecision"], "deny", "{answer}");
                    assert!(answer["decision"].is_null(), "{answer}");
                } else {
                    assert_eq!(answer["decision"], "block", "{event}: {answer}");
                    assert!(
                        answer["reason"].is_string() && answer["hookSpecificOutput"].is_null(),
                        "{answer}"
                    );
                }
            }
        }
        // Where there is no event, every form is there.
        let list =
            ask(Some(&tried.bob), r#"["PreToolUse",null,null,null,"Bash",{"command":"ls"}]"#.into()).await;
        assert_eq!(
            (&list["decision"], &list["hookSpecificOutput"]["permissionDecision"]),
            (&json!("block"), &json!("deny"))
        );
        assert!(list["reason"].as_str().unwrap().contains("must be an object"), "{list}");
        let long = tried.hook(&tried.bob, &tool_use(&"x".repeat(257), &json!({}))).await;
        assert!(long.body.contains("tool_name: is longer than 256 characters"), "{}", long.body);
        assert_eq!(
            tried
                .hook(&tried.bob, &tool_use(&"é".repeat(256), &json!({})))
                .await
                .header("x-systemprompt-decision"),
            "allow"
        );
    }
}

#[tokio::test]
async fn a_request_is_read_in_one_way_only() {
    let tried = tried().await;
    let [tried, _] = &tried;
    for (path, headers, status, code) in [
        ("/api/v1/admin/users?access_token=x", vec![], 400, "bad_request"),
        ("/api/v1/admin%2fusers", vec![], 400, "bad_request"),
        ("/health", vec![("host", "evil.example")], 421, "host_not_allowed"),
        ("/nothing/here", vec![], 404, "not_found"),
        (
            "/api/v1/admin/users",
            vec![("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.")],
            401,
            "invalid_token",
        ),
        ("/api/v1/admin/users", vec![("authorization", "Basic YWRhOmFkYQ==")], 401, "unauthenticated"),
        (
            "/api/v1/admin/users",
            vec![("x-user-id", "ada"), ("x-user-permissions", "admin")],
            401,
            "unauthenticated",
        ),
        (
            "/api/v1/admin/audit?since=yesterday",
            vec![("authorization", tried.ada.as_str())],
            400,
            "invalid_filter",
        ),
        (
            "/api/v1/admin/audit?cursor=zzz",
            vec![("authorization", tried.ada.as_str())],
            400,
            "invalid_cursor",
        ),
        ("/api/v1/admin/audit/led_x", vec![("authorization", tried.ada.as_str())], 404, "not_found"),
    ] {
        let answer = tried.client.get(path, &headers).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{path}: {}",
            answer.body
        );
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["trace_id"], answer.header("x-trace-id"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let forged = tried.ada.clone() + "x";
    let answer = tried.client.get("/api/v1/admin/users", &[("authorization", &forged)]).await;
    let challenge = format!(
        "Bearer error=\"invalid_token\", resource_metadata=\"{}/.well-known/oauth-protected-resource/api/v1\", scope=\"user admin\"",
        tried.server.url()
    );
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, challenge.as_str()));
    let odd = tried.client.send(Method::PUT, "/health", &[], None).await.unwrap();
    assert_eq!((odd.status, odd.header("allow")), (405, "GET"));
    let large = json!({"username": "x".repeat(3 << 20)});
    let refused = tried.as_ada(Method::POST, "/api/v1/admin/users", Some(&large)).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (413, Some("body_too_large")));
    let trace = "0123456789abcdef-given";
    assert_eq!(tried.client.get("/health", &[("x-trace-id", trace)]).await.header("x-trace-id"), trace);
}

#[tokio::test]
async fn id_29_a_challenge_names_the_scopes_of_the_metadata_that_it_points_to() {
    let tried = Tried::of(stores::sqlite().without_limits().start().unwrap());
    for (path, resource, scopes) in [
        ("/api/v1/admin/users", "/api/v1", "user admin"),
        ("/api/v1/core/users/me", "/api/v1", "user admin"),
        ("/v1/models", "/v1", "user admin service a2a"),
        ("/v1/bridge/whoami", "/v1/bridge", "user admin"),
        ("/api/v1/mcp/demo/mcp", "/api/v1/mcp/demo/mcp", "user mcp"),
        ("/api/v1/mcp/nobody/mcp", "/api/v1/mcp/nobody/mcp", "user mcp"),
    ] {
        let answer = if resource.ends_with("/mcp") {
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
            let headers =
                [("accept", "application/json, text/event-stream"), ("mcp-protocol-version", "2025-11-25")];
            tried.client.post(path, &headers, &body).await
        } else {
            tried.client.get(path, &[]).await
        };
        let challenge = answer.header("www-authenticate").to_owned();
        assert_eq!(answer.status, 401, "{path}: {}", answer.body);
        assert!(
            challenge.contains(&format!("/.well-known/oauth-protected-resource{resource}\"")),
            "{challenge}"
        );
        assert!(challenge.ends_with(&format!("scope=\"{scopes}\"")), "{path}: {challenge}");
        let metadata =
            tried.client.get(&format!("/.well-known/oauth-protected-resource{resource}"), &[]).await;
        let named: Vec<String> = serde_json::from_value(metadata.json()["scopes_supported"].clone()).unwrap();
        assert_eq!(named.join(" "), scopes, "{path}");
        // A token that does not count is told the same.
        let forged = [("authorization", "Bearer eyJ.x.y")];
        let bad = tried.client.send(Method::POST, path, &forged, Some(&json!({}))).await.unwrap();
        if bad.status == 401 {
            assert!(bad.header("www-authenticate").ends_with(&format!("scope=\"{scopes}\"")), "{path}");
        }
    }
    let hooks = tried.client.get("/.well-known/oauth-protected-resource/api/v1/hooks", &[]).await.json();
    assert_eq!(hooks["scopes_supported"], json!(["hook:govern", "hook:track"]));
}

#[tokio::test]
async fn the_document_lists_every_route_and_each_answers() {
    // So many refusals are too many for one address.
    let tried = Tried::of(stores::sqlite().without_limits().start().unwrap());
    let document = tried.client.get("/api/v1/openapi.json", &[]).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 25, "{}", paths.len());
    let stream = tried.as_ada(Method::GET, "/api/v1/admin/audit/streams", None).await.json();
    let stream = stream["items"][0]["stream"].as_str().unwrap().to_owned();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{method} {path}");
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path.replace("{server}", "none").replace("{kind}", "skill").replace("{id}", "none");
            let path = path.replace("{stream}", &stream);
            let answer = tried.client.send(method.clone(), &path, &[], None).await.unwrap();
            let security = operation["security"].as_array().unwrap();
            let is_open = security.is_empty() || security.contains(&json!({}));
            // Hooks answer 200, that of a model provider 401 without a signature; an MCP server says itself whether it wants a token, after the form of the message; so does who manages a client.
            let own = path.contains("/hooks/") || path.contains("/mcp/") || path.contains("/oauth/register/");
            assert!(own || is_open || answer.status == 401, "{method} {path}: {}", answer.status);
            // Endpoints of the authorization server say what is wrong with an empty request; documents and files have names.
            let is_identity =
                matches!(operation["tags"][0].as_str(), Some("identity" | "discovery" | "bridge"));
            if is_identity && is_open {
                assert!(answer.status < 500 && answer.status != 405, "{method} {path}: {}", answer.status);
                assert!(!answer.body.contains("nothing at this path"), "{method} {path}: {}", answer.body);
                continue;
            }
            assert!(!matches!(answer.status, 404 | 405), "{method} {path}: {}", answer.status);
            let is_signed = path.ends_with("/hooks/inference") && answer.status == 401;
            assert!(!is_open || is_signed || answer.status == 200, "{method} {path}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn the_ledger_is_read_by_filter_and_page_and_explained_to_whom_it_concerns() {
    for tried in tried().await {
        for n in 0..5 {
            assert_eq!(tried.ask_model(&tried.bob, &format!("Hello {n}")).await.status, 200);
        }
        let denied = tried.ask_model(&tried.bob, &format!("key {}", aws_key())).await;
        let decision = denied.header("x-systemprompt-decision-id").to_owned();
        assert!(decision.starts_with("dec_"), "{:?}", denied.headers);
        let bob = tried.as_ada(Method::GET, "/api/v1/admin/users/bob", None).await.json();
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!(
                "/api/v1/admin/audit?actor={}&kind=governance.*&limit=2{cursor}",
                bob["id"].as_str().unwrap()
            );
            let page = tried.as_ada(Method::GET, &path, None).await.json();
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["outcome"].clone()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, ["deny", "allow", "allow", "allow", "allow", "allow"]);
        let path = format!("/api/v1/explain/{decision}");
        let own = tried.client.get(&path, &[("authorization", &tried.bob)]).await.json();
        assert_eq!(
            (&own["decision"]["policy"], &own["intact"]),
            (&json!("secret_scan"), &json!(true)),
            "{own}"
        );
        let reads = tried.as_ada(Method::GET, "/api/v1/admin/audit?kind=admin.audit.read", None).await.json();
        assert!(!reads["items"].as_array().unwrap().is_empty(), "reading is recorded");
        let entry = reads["items"][0]["record"]["trace_id"].as_str().unwrap().to_owned();
        let foreign =
            tried.client.get(&format!("/api/v1/explain/{entry}"), &[("authorization", &tried.bob)]).await;
        assert_eq!(foreign.status, 404, "ada's reading is not bob's: {}", foreign.body);
    }
}

#[tokio::test]
async fn decisions_stream_and_resume_behind_the_last_id() {
    for tried in tried().await {
        let first = tried.hook(&tried.bob, &tool_use("Bash", &json!({"command": "one"}))).await;
        assert_eq!(first.status, 200);
        let streams = tried.as_ada(Method::GET, "/api/v1/admin/audit/streams", None).await.json();
        let start = format!("{}:0", streams["items"][0]["stream"].as_str().unwrap());
        #[expect(clippy::disallowed_methods, reason = "the test's own client")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/api/v1/stream/decisions", tried.server.url());
        let open = |last: String| {
            http.get(&url).header("authorization", &tried.bob).header("last-event-id", last).send()
        };
        let mut events = open(start).await.unwrap();
        assert_eq!(events.headers()["content-type"], "text/event-stream");
        let replayed = next_events(&mut events, 1).await;
        tried.hook(&tried.bob, &tool_use("Bash", &json!({"command": "two"}))).await;
        let live = next_events(&mut events, 1).await;
        drop(events);
        let mut resumed = open(replayed[0].clone()).await.unwrap();
        assert_eq!(next_events(&mut resumed, 1).await, live, "none is missing, none comes twice");
        let bad = open("nonsense".into()).await.unwrap();
        assert_eq!(bad.status(), 400);
    }
}

/// The ids of the next events.
async fn next_events(answer: &mut reqwest::Response, count: usize) -> Vec<String> {
    let mut text = String::new();
    let limit = std::time::Duration::from_secs(20);
    while text.matches("\n\n").count() < count {
        let chunk = tokio::time::timeout(limit, answer.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_bad_configuration_is_refused_and_the_old_one_stays() {
    let tried = tried().await;
    let [tried, _] = &tried;
    let file = tried.server.data_dir().join("services/governance/config.yaml");
    std::fs::write(&file, "governance:\n  policies:\n    - id: tool_blocklst\n").unwrap();
    assert_eq!(tried.as_ada(Method::POST, "/api/v1/admin/config/reload", None).await.status, 422);
    let blocked = tried.hook(&tried.bob, &tool_use("drop_table", &json!({}))).await.json();
    assert_eq!(blocked["hookSpecificOutput"]["permissionDecision"], "deny");
}

/// What a tool server gets beside its arguments is judged too, and a page of another origin gets nothing.
#[tokio::test]
async fn everything_that_a_tool_server_would_get_is_judged() {
    let tried = tried().await;
    let [tried, _] = &tried;
    let call = |params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let accept = ("accept", "application/json, text/event-stream");
    let headers = [("authorization", tried.bob.as_str()), accept];
    let fine = call(json!({"name": "crm_lookup", "arguments": {"customer_id": "c-1001"}}));
    let path = "/api/v1/mcp/demo/mcp";
    let answer = tried.client.post(path, &headers, &fine).await;
    assert!(answer.body.contains("Nordlicht"), "{}", answer.body);
    for extra in
        [json!({"_meta": {"k": github_token()}}), json!({"x": [github_token()]}), json!({github_token(): 1})]
    {
        let mut params = fine["params"].clone();
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = tried.client.post(path, &headers, &call(params)).await;
        assert!(
            answer.body.contains("secret_scan") && !answer.body.contains(&github_token()),
            "{}",
            answer.body
        );
    }
    for origin in ["http://evil.example", "null"] {
        let headers = [("authorization", tried.bob.as_str()), accept, ("origin", origin)];
        let refused = tried.client.post(path, &headers, &fine).await;
        assert_eq!(refused.status, 403, "{origin}: {}", refused.body);
    }
    let own = [("authorization", tried.bob.as_str()), accept, ("origin", tried.server.url())];
    assert_eq!(tried.client.post(path, &own, &fine).await.status, 200);
}

/// A damaged chain is found at the start; the node then serves reads and refuses what would have to be recorded.
#[tokio::test]
async fn a_damaged_ledger_starts_readable_and_refuses_guarded_calls() {
    for tried in tried().await {
        assert_eq!(tried.ask_model(&tried.bob, "Hello").await.status, 200);
        let Tried { mut server, ada, bob, .. } = tried;
        assert!(server.terminate().unwrap().success());
        let db = stores::open(&server).await;
        stores::change(
            &db,
            "DELETE FROM ledger_entries WHERE seq > (SELECT MAX(seq) - 3 FROM ledger_entries)",
        )
        .await;
        db.close().await;
        let server = server.restart().unwrap();
        let client = Client::new(&server);
        assert_eq!(client.get("/health/live", &[]).await.status, 200);
        let ready = client.get("/health/ready", &[]).await;
        assert_eq!(ready.status, 503, "{}", ready.body);
        assert!(ready.body.contains("ledger_damaged"), "{}", ready.body);
        let hello = json!({"model": "claude-demo", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]});
        let refused = client.post("/v1/messages", &[("authorization", &bob)], &hello).await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        let verified =
            client.post("/api/v1/admin/audit/verify", &[("authorization", &ada)], &json!({})).await;
        assert_eq!(verified.json()["report"]["findings"][0]["check"], "tail_missing", "{}", verified.body);
    }
}
