//! Hooks of coding agents and of a model provider on a whole server (security.md, SEC-84 and SEC-93 to SEC-95).

use crate::http::{Answer, Client};
use crate::stores;
use aws_lc_rs::{hkdf, hmac};
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use systemprompt_api::services::server::builder;
use systemprompt_api::services::server::metrics::Metrics;
use systemprompt_api::services::server::route::Route;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_config::{ProcessEnvironment, ProfileLocation};
use systemprompt_models::envelope::Envelope;
use systemprompt_runtime::AppContext;
use systemprompt_runtime::boot::BootOptions;
use systemprompt_tests::{Options, Server};
use tower::ServiceExt;

const GOVERN: &str = "/api/v1/hooks/govern?plugin_id=demo";
const TRACK: &str = "/api/v1/hooks/track?plugin_id=demo";
const INFERENCE: &str = "/api/v1/hooks/inference";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn event(id: &str) -> Value {
    json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_use_id": id, "tool_name": "Read",
        "tool_input": {"file_path": "README.md"}})
}

async fn govern(client: &Client, token: &str, event: &Value) -> Answer {
    client.post(GOVERN, &[("authorization", &bearer(token))], event).await
}

/// The decision of an answer, which is 200 in any case and says the same in body and header.
fn decision(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let said =
        answer.json()["hookSpecificOutput"]["permissionDecision"].as_str().unwrap_or("none").to_owned();
    assert_eq!(answer.header("x-systemprompt-decision"), said, "{}", answer.body);
    said
}

/// A limit of calls that refills once in some minutes, so that a count is exact however long the test takes.
fn calls(options: Options, limit: u32) -> Options {
    let policies = format!(
        "governance:\n  policies:\n    - id: rate_limit\n      params: {{ limit: {limit}, window_s: 86400 }}\n"
    );
    options
        .env("SYSTEMPROMPT__RATE_LIMITS__DISABLED", "true")
        .file("services/governance/config.yaml", &policies)
}

/// Events that are under way at once: enough that calls wait for each other, and few enough that a busy machine decides in time.
const TOGETHER: usize = 32;

/// How many of `count` events that are sent together to the nodes in turn are allowed.
async fn burst(nodes: &[(&Client, &str)], count: usize) -> usize {
    let mut asked = tokio::task::JoinSet::new();
    let places = Arc::new(tokio::sync::Semaphore::new(TOGETHER));
    for n in 0..count {
        let (client, token) = nodes[n % nodes.len()];
        let (client, token) = (client.clone(), token.to_owned());
        let places = Arc::clone(&places);
        asked.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let answer = govern(&client, &token, &event(&format!("toolu_{n}"))).await;
            let is_allowed = decision(&answer) == "allow";
            assert!(is_allowed || answer.body.contains("try again in"), "{}", answer.body);
            is_allowed
        });
    }
    asked.join_all().await.into_iter().filter(|is_allowed| *is_allowed).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn case_25_of_301_calls_in_one_burst_exactly_300_are_admitted() {
    for options in stores::engines().await {
        let server = calls(options, 300).start().unwrap();
        let client = Client::new(&server);
        assert_eq!(burst(&[(&client, server.user_token())], 301).await, 300);
        let refused = govern(&client, server.user_token(), &event("toolu_more")).await;
        assert!(refused.body.contains("rate_limit"), "{}", refused.body);
        // A restart gives nobody a fresh burst.
        let token = server.user_token().to_owned();
        let server = server.restart().unwrap();
        assert_eq!(burst(&[(&Client::new(&server), &token)], 5).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_25_two_nodes_admit_together_exactly_the_limit_and_a_call_is_charged_once() {
    let options = calls(stores::postgres().await, 300)
        .env("SYSTEMPROMPT__SECURITY__JWT_ISSUER", "https://governance.example");
    let a = options.clone().start().unwrap();
    let token = a.user_token().to_owned();
    let b = second_node(&a, options);
    let (on_a, on_b) = (Client::new(&a), Client::new(&b));
    assert_eq!(burst(&[(&on_a, &token), (&on_b, &token)], 400).await, 300);

    // One call by hook at one node and by MCP at the other: the admin has a limit of her own.
    let admin = a.admin_token().to_owned();
    let headers = [
        ("authorization", bearer(&admin)),
        ("accept", "application/json, text/event-stream".to_owned()),
        ("mcp-protocol-version", "2025-11-25".to_owned()),
    ];
    let tool = |id: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "crm_lookup", "arguments": {"customer_id": "cus_1"}, "_meta": {"claudecode/toolUseId": id}}})
    };
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(burst(&[(&on_a, &admin)], 299).await, 299);
    let twice = json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_use_id": "toolu_twice",
        "tool_name": "mcp__demo__crm_lookup", "tool_input": {"customer_id": "cus_1"}});
    assert_eq!(decision(&govern(&on_a, &admin, &twice).await), "allow");
    let answer = on_b.post("/api/v1/mcp/demo/mcp", &headers, &tool("toolu_twice")).await;
    assert!(answer.json()["result"].is_object(), "{}", answer.body);
    let answer = on_b.post("/api/v1/mcp/demo/mcp", &headers, &tool("toolu_once_more")).await;
    assert!(answer.body.contains("rate_limit"), "{}", answer.body);
    // What tells of a call that was made costs nothing and is judged.
    let told = json!({"hook_event_name": "PostToolUse", "session_id": "s-1", "tool_use_id": "toolu_twice",
        "tool_name": "Read", "tool_response": "fine"});
    assert_eq!(govern(&on_a, &admin, &told).await.json(), json!({}));
}

/// Another node of the same database and the same secrets.
fn second_node(first: &Server, options: Options) -> Server {
    let mut second = options.env("SYSTEMPROMPT__SERVER__INSTANCE_ID", "second");
    for name in ["jwt_secret", "oauth_at_rest_pepper", "manifest_signing_secret_seed", "demo_crm_token"] {
        second = second.secret(name, &first.secret(name).unwrap());
    }
    second.start().unwrap()
}

/// A token that was good, signed as the server signs, and has ended.
fn expired(server: &Server) -> String {
    let token = server.user_token();
    let [header, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let read =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let mut claims = read(claims);
    for (name, ago) in [("iat", 7200), ("nbf", 7200), ("exp", 3600)] {
        claims[name] = (now() - ago).into();
    }
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let kid = read(header)["kid"].as_str().unwrap().to_owned();
    let secret = server.secret("jwt_secret").unwrap();
    let mut key = [0; 32];
    let info = format!("systemprompt token {kid}");
    let source = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret.as_bytes());
    source.expand(&[info.as_bytes()], hkdf::HKDF_SHA256).unwrap().fill(&mut key).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the test signs as somebody outside does")]
    let now = SystemTime::now();
    i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[tokio::test]
async fn case_23_whatever_is_wrong_the_hook_answers_200_and_deny() {
    let mut denials = 0;
    let mut deny = |what: &str, answer: &Answer, says: &str| {
        assert_eq!(decision(answer), "deny", "{what}");
        assert!(answer.body.contains(says), "{what}: {}", answer.body);
        denials += 1;
    };
    let mut server = stores::sqlite()
        .env("SYSTEMPROMPT__SERVER__TRUSTED_PROXIES", "127.0.0.1/32")
        .env("SYSTEMPROMPT__RATE_LIMITS__HOOKS_PER_SECOND", "1")
        .start()
        .unwrap();
    let client = Client::new(&server);
    let user = server.user_token().to_owned();
    deny("expired token", &govern(&client, &expired(&server), &event("t1")).await, "expired");
    let raw =
        async |body: String| client.raw(GOVERN, &[("authorization", &bearer(&user))], body).await.unwrap();
    deny("broken JSON", &raw(r#"{"hook_event_name":"PreToolUse","tool"#.to_owned()).await, "bad_request");
    let large = event("t2").to_string().replace("README.md", &"x".repeat(5 << 20));
    deny("5 MiB", &raw(large).await, "body_too_large");
    let flooded = loop {
        let answer = govern(&client, &user, &event("t3")).await;
        if !answer.header("retry-after").is_empty() {
            break answer;
        }
    };
    deny("flooded limit", &flooded, "rate_limited");
    let admin = bearer(server.admin_token());
    let ban = json!({"network": "203.0.113.77"});
    assert_eq!(client.post("/api/v1/admin/bans", &[("authorization", &admin)], &ban).await.status, 201);
    let banned = [("authorization", admin.as_str()), ("x-forwarded-for", "203.0.113.77")];
    deny("banned address", &client.post(GOVERN, &banned, &event("t4")).await, "ip_banned");

    // A ledger that takes no record, from a start on what somebody has tampered with.
    assert!(server.terminate().unwrap().success());
    deny("panic", &panicking(&server).await, "internal");
    let db = stores::open(&server).await;
    let tail = "DELETE FROM ledger_entries WHERE seq > (SELECT MAX(seq) - 3 FROM ledger_entries)";
    stores::change(&db, tail).await;
    db.close().await;
    let server = server.restart().unwrap();
    deny("ledger down", &govern(&Client::new(&server), &user, &event("t5")).await, "ledger_damaged");
    assert_eq!(denials, 7);
}

async fn panics() -> String {
    panic!("injected")
}

/// The answer of a node of our own, on the server's folder, whose hook endpoint panics.
async fn panicking(server: &Server) -> Answer {
    let here = server.data_dir();
    let location = ProfileLocation::discover(Some(here), None, here, &ProcessEnvironment).unwrap();
    let context = AppContext::boot(BootOptions { watch: false, ..BootOptions::new(location) }).await.unwrap();
    let route = Route::post("/api/v1/hooks/govern", panics).public(RateGroup::Hooks).envelope(Envelope::Hook);
    let router = builder::build(&context, vec![route], Arc::new(Metrics::default())).unwrap();
    let request = axum::http::Request::post(GOVERN).body(Body::from(event("t6").to_string())).unwrap();
    let answer = router.oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    context.close().await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

#[tokio::test]
async fn an_allowed_tool_is_left_to_the_agents_own_question_where_that_is_wanted() {
    let server = stores::sqlite().env("SYSTEMPROMPT__GOVERNANCE__HOOKS__ON_ALLOW", "none").start().unwrap();
    let client = Client::new(&server);
    let allowed = govern(&client, server.user_token(), &event("t1")).await;
    assert_eq!((allowed.status, allowed.json()), (200, json!({})));
    assert_eq!(allowed.header("x-systemprompt-decision"), "allow");
    let mut drop = event("t2");
    drop["tool_name"] = "drop_table".into();
    assert_eq!(decision(&govern(&client, server.user_token(), &drop).await), "deny");
}

/// A server that replaces what a specific rule knows.
fn redacting(options: Options) -> Options {
    let policies =
        "governance:\n  policies:\n    - id: secret_scan\n      params: { actions: { specific: redact } }\n";
    options.file("services/governance/config.yaml", policies)
}

#[tokio::test]
async fn an_agent_that_takes_a_changed_input_runs_the_tool_with_marks_in_place_of_secrets() {
    let key = ["AKIA", "QYLPMN5HHHFPZAM2"].concat();
    let bash = |id: &str| {
        format!(
            r#"{{"hook_event_name":"PreToolUse","session_id":"s-1","tool_use_id":"{id}","tool_name":"Bash",
            "tool_input":{{"command":"aws configure {key}","timeout":1.50,"z":1,"a":12345678901234567890123}}}}"#
        )
    };
    for options in stores::engines().await {
        let options = options.env("SYSTEMPROMPT__GOVERNANCE__HOOKS__ON_REDACT", "rewrite");
        let server = redacting(options).start().unwrap();
        let client = Client::new(&server);
        let bearer = bearer(server.user_token());
        let headers = [("authorization", bearer.as_str())];
        let answer = client.raw(GOVERN, &headers, bash("t1")).await.unwrap();
        assert_eq!(decision(&answer), "allow");
        assert!(!answer.body.contains(&key));
        let command =
            answer.json()["hookSpecificOutput"]["updatedInput"]["command"].as_str().unwrap().to_owned();
        let mark = command.strip_prefix("aws configure ").unwrap();
        assert!(mark.starts_with("[secret:aws-access-key-id:") && mark.ends_with(']'), "{command}");
        let input = format!(r#"{{"command":"{command}","timeout":1.50,"z":1,"a":12345678901234567890123}}"#);
        assert!(answer.body.contains(&format!(r#""updatedInput":{input}"#)), "{}", answer.body);
        // The mark is the same wherever the secret turns up.
        let again = client.raw(GOVERN, &headers, bash("t2")).await.unwrap();
        assert!(again.body.contains(mark), "{}", again.body);
        client.raw(TRACK, &headers, bash("t3")).await.unwrap();
        let db = stores::open(&server).await;
        let stored = stores::texts(&db, "SELECT payload FROM hook_events").await;
        assert!(stored.iter().all(|payload| payload.contains(mark)), "{stored:?}");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &canonical(&input));
        let rows =
            stores::texts(&db, "SELECT decision || ' ' || args_sha256 FROM governance_decisions").await;
        assert!(rows.contains(&format!("allow {}", hex::encode(digest))), "{rows:?}");

        // What no client takes changed is refused.
        let mut beside = event("t4");
        beside["cwd"] = key.clone().into();
        let answer = govern(&client, server.user_token(), &beside).await;
        assert_eq!(decision(&answer), "deny");
        assert!(answer.body.contains("nothing but the tool's input"), "{}", answer.body);
        for event in [
            json!({"hook_event_name": "UserPromptSubmit", "session_id": "s-1", "prompt": key}),
            json!({"hook_event_name": "PostToolUse", "session_id": "s-1", "tool_name": "Bash", "tool_response": key}),
        ] {
            let answer = govern(&client, server.user_token(), &event).await;
            assert_eq!(answer.json()["decision"], "block", "{}", answer.body);
            assert!(answer.body.contains("cannot change what this event tells of"), "{}", answer.body);
        }
    }
}

/// As RFC 8785 writes it.
fn canonical(json: &str) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(&serde_json::from_str::<Value>(json).unwrap()).unwrap()
}

#[tokio::test]
async fn a_call_to_be_redacted_is_refused_unless_the_operator_says_that_agents_take_a_changed_input() {
    let key = ["AKIA", "QYLPMN5HHHFPZAM2"].concat();
    let mut leaky = event("t1");
    leaky["tool_input"]["file_path"] = key.into();
    let server = redacting(stores::sqlite()).start().unwrap();
    let answer = govern(&Client::new(&server), server.user_token(), &leaky).await;
    assert_eq!(decision(&answer), "deny");
    assert!(answer.body.contains("governance.hooks.on_redact"), "{}", answer.body);

    // Where the agent is to ask its user, it asks about the changed input.
    let asking = redacting(stores::sqlite())
        .env("SYSTEMPROMPT__GOVERNANCE__HOOKS__ON_REDACT", "rewrite")
        .env("SYSTEMPROMPT__GOVERNANCE__HOOKS__ON_ALLOW", "none");
    let server = asking.start().unwrap();
    let answer = govern(&Client::new(&server), server.user_token(), &leaky).await;
    let output = &answer.json()["hookSpecificOutput"];
    assert_eq!((answer.status, &output["permissionDecision"]), (200, &json!("ask")));
    assert!(output["updatedInput"]["file_path"].as_str().unwrap().starts_with("[secret:"), "{output}");
    assert_eq!(answer.header("x-systemprompt-decision"), "allow");
}

#[tokio::test]
async fn what_a_hook_tells_is_stored_once_without_its_secrets_and_the_answer_is_always_empty() {
    let key = ["AKIA", "QYLPMN5HHHFPZAM2"].concat();
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let client = Client::new(&server);
        let user = bearer(server.user_token());
        let told = json!({"hook_event_name": "PostToolUse", "session_id": "s-1", "tool_use_id": "toolu_1",
            "tool_name": "Bash", "tool_input": {"command": format!("aws configure {key}")}, "odd": [1, null]});
        for token in [&user, &user] {
            let answer = client.post(TRACK, &[("authorization", token)], &told).await;
            assert_eq!((answer.status, answer.json()), (200, json!({})));
            assert_eq!(answer.header("x-systemprompt-recorded"), "true");
        }
        let large = "x".repeat(5 << 20);
        for (token, body) in [
            ("Bearer not-a-token-of-ours", told.to_string()),
            (&user, "[]".to_owned()),
            (&user, "{\"hook_event_name\":".to_owned()),
            (&user, "{}".to_owned()),
            (&user, large),
        ] {
            let answer = client.raw(TRACK, &[("authorization", token)], body).await.unwrap();
            assert_eq!((answer.status, answer.json()), (200, json!({})));
            assert_eq!(answer.header("x-systemprompt-recorded"), "false");
        }
        let db = stores::open(&server).await;
        assert_eq!(stores::count(&db, "SELECT COUNT(*) FROM hook_events").await, 1);
        let stored = stores::texts(&db, "SELECT payload FROM hook_events").await;
        assert!(
            stored.iter().all(|p| !p.contains(&key) && p.contains("[secret:aws-access-key-id:")),
            "{stored:?}"
        );
    }
}

#[tokio::test]
async fn a_model_provider_is_answered_by_its_signature_alone() {
    let key = b"0123456789abcdef0123456789abcdef";
    let secret = format!("whsec_{}", STANDARD.encode(key));
    let leaked = ["ghp_", "0123456789abcdefABCDEF0123456789abcd"].concat();
    for options in stores::engines().await {
        let server = options.secret("inference_hook_secret", &secret).start().unwrap();
        let client = Client::new(&server);
        let ask = async |id: &str, time: i64, signed: &str, sent: &str| {
            let tag = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, key),
                format!("{id}.{time}.{signed}").as_bytes(),
            );
            let (time, signature) = (time.to_string(), format!("v1,{}", STANDARD.encode(tag)));
            let headers =
                [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
            client.raw(INFERENCE, &headers, sent.to_owned()).await.unwrap()
        };
        let body = |text: &str| {
            json!({"event": "prompt", "user_id": "u-1", "conversation_id": "c-1",
                "messages": [{"role": "user", "content": text}]})
            .to_string()
        };
        let fine = body("hello");
        let allowed = ask("msg_1", now(), &fine, &fine).await;
        assert_eq!((allowed.status, &allowed.json()["action"]), (200, &json!("allow")), "{}", allowed.body);
        let reference = allowed.json()["reference_id"].as_str().unwrap().to_owned();
        assert!(reference.starts_with("led_") && reference.len() <= 50);

        let secret = body(&format!("push with {leaked}"));
        let denied = ask("msg_2", now(), &secret, &secret).await.json();
        assert_eq!(denied["action"], "deny");
        assert!(
            denied["deny_reason"].as_str().unwrap().contains("secret_scan")
                && !denied.to_string().contains(&leaked)
        );
        let db = stores::open(&server).await;
        let rows = stores::texts(
            &db,
            "SELECT user_id || ' ' || decision FROM governance_decisions WHERE origin = 'inference_hook'",
        )
        .await;
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert!(
            rows.iter().all(|row| row.starts_with("inference_hook:") && !row.contains("u-1")),
            "{rows:?}"
        );

        for (what, answer) in [
            ("replayed", ask("msg_1", now(), &fine, &fine).await),
            ("altered", ask("msg_3", now(), &fine, &secret).await),
            ("stale", ask("msg_4", now() - 301, &fine, &fine).await),
            ("unsigned", client.raw(INFERENCE, &[], fine.clone()).await.unwrap()),
        ] {
            assert_eq!((answer.status, &answer.json()["action"]), (401, &json!("deny")), "{what}");
        }
        // Whatever else is wrong is an explicit verdict.
        let broken = ask("msg_5", now(), "[1]", "[1]").await;
        assert_eq!((broken.status, &broken.json()["action"]), (200, &json!("deny")), "{}", broken.body);
        let large = "x".repeat(11 << 20);
        let large = ask("msg_6", now(), &large, &large).await;
        assert_eq!((large.status, &large.json()["action"]), (200, &json!("deny")));
        let long = body(&"a long conversation ".repeat(10_000));
        assert_eq!(ask("msg_7", now(), &long, &long).await.json()["action"], "allow");
    }
}
