//! Keys and tokens on a running server, on both engines: how a key is replaced, how tokens end before their time, what an assertion
//! between nodes is worth, and that no credential stays anywhere it was refused.

use crate::http::{Client, claims_of};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use systemprompt_database::Engine;
use systemprompt_security::keys::{PrivateKey, file};
use systemprompt_tests::{Options, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const MCP: &str = "/api/v1/mcp/demo/mcp";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn status_of(client: &Client, token: &str) -> u16 {
    client.get("/v1/models", &[("authorization", &bearer(token))]).await.status
}

fn issued(server: &Server, user: &str) -> String {
    server.succeed(&["admin", "token", "issue", user]).unwrap().trim().to_owned()
}

fn listed(server: &Server, words: &[&str]) -> Vec<Value> {
    let text = server.succeed(&[words, &["--output", "json"]].concat()).unwrap();
    let page: Value = serde_json::from_str(&text).unwrap();
    page["items"].as_array().unwrap().clone()
}

fn signed(key: &PrivateKey, typ: &str, claims: &Value) -> String {
    let header = json!({"typ": typ, "alg": key.algorithm().as_str(), "kid": key.kid()});
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = key.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The private part of a key of the running server.
fn private_key(server: &Server, is_wanted: impl Fn(&Value) -> bool) -> PrivateKey {
    let kid = listed(server, &["admin", "keys", "list"]).into_iter().find(is_wanted).unwrap()["kid"].clone();
    let keys = file::load(&server.data_dir().join("keys/signing.json")).unwrap();
    keys.into_iter().find(|key| kid == key.kid()).unwrap()
}

#[tokio::test]
async fn a_key_is_published_then_signs_then_only_verifies() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let client = Client::new(&server);
        let published =
            async || client.get("/.well-known/jwks.json", &[]).await.json()["keys"].as_array().unwrap().len();
        assert_eq!(published().await, 1, "the internal key is not among them");
        let uses: Vec<Value> =
            listed(&server, &["admin", "keys", "list"]).into_iter().map(|key| key["use"].clone()).collect();
        assert_eq!(uses.len(), 2);
        assert!(uses.contains(&json!("internal")) && uses.contains(&json!("sig")));

        let none = server.run(&["admin", "keys", "rotate"]).unwrap();
        assert!(!none.status.success());
        server.succeed(&["admin", "keys", "generate"]).unwrap();
        assert_eq!(published().await, 2);
        let early = server.run(&["admin", "keys", "rotate"]).unwrap();
        let said = String::from_utf8_lossy(&early.stderr).into_owned();
        assert!(!early.status.success() && said.contains("less than ten minutes ago"), "{said}");

        // Ten minutes later.
        let db = stores::open(&server).await;
        stores::change(&db, "UPDATE signing_keys SET created_at = created_at - 600000 WHERE state = 'next'")
            .await;
        db.close().await;
        server.succeed(&["admin", "keys", "rotate"]).unwrap();
        let keys = listed(&server, &["admin", "keys", "list"]);
        let kid_in = |state: &str| {
            let found = keys.iter().find(|key| key["use"] == "sig" && key["state"] == state);
            found.unwrap()["kid"].as_str().unwrap().to_owned()
        };
        let (old, new) = (kid_in("retired"), kid_in("active"));
        assert_eq!(published().await, 2, "what the old one signed still counts");
        server.succeed(&["admin", "keys", "retire", &old]).unwrap();
        let needed = server.run(&["admin", "keys", "retire", &new]).unwrap();
        assert!(!needed.status.success());
        let told = String::from_utf8_lossy(&needed.stderr).into_owned();
        assert!(told.contains(&format!("the key {new} is the one that signs")), "{told}");
        let nobodys = "a-part-of-the-address-that-names-no-key";
        let admin = format!("Bearer {}", server.admin_token());
        let (client, path) = (Client::new(&server), format!("/api/v1/admin/keys/{nobodys}/retire"));
        let answer = client.post(&path, &[("authorization", &admin)], &json!({})).await;
        assert!(answer.status == 404 && !answer.body.contains(nobodys), "{}", answer.body);

        server.succeed(&["admin", "keys", "revoke", &old, "--yes"]).unwrap();
        assert_eq!(published().await, 1);
        let ledger: Vec<Value> =
            listed(&server, &["audit", "query", "--kind", "oauth.key.*", "--limit", "50"]);
        let kinds: Vec<&str> = ledger.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
        for kind in ["oauth.key.generated", "oauth.key.rotated", "oauth.key.retired", "oauth.key.revoked"] {
            assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
        }
    }
}

#[tokio::test]
async fn tokens_end_one_by_one_with_their_session_or_all_at_once() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let client = Client::new(&server);
        let admin = bearer(server.admin_token());
        let revoke = async |body: Value| {
            client.post("/api/v1/admin/tokens/revoke", &[("authorization", &admin)], &body).await
        };

        let token = issued(&server, "bob");
        assert_eq!(status_of(&client, &token).await, 200);
        let done = revoke(json!({"token": token})).await;
        assert_eq!((done.status, &done.json()["was_live"]), (200, &json!(true)), "{}", done.body);
        assert!(!done.body.contains(&token));
        assert_eq!(status_of(&client, &token).await, 401);
        assert_eq!(revoke(json!({"token": token})).await.json()["was_live"], false);

        let token = issued(&server, "bob");
        let jti = claims_of(&token)["jti"].as_str().unwrap().to_owned();
        assert_eq!(revoke(json!({"jti": jti})).await.json()["was_live"], Value::Null, "nobody knows of ids");
        assert_eq!(revoke(json!({"jti": jti})).await.json()["was_live"], false, "it was ended before");
        server.succeed(&["admin", "token", "revoke", "--jti", &jti]).unwrap();
        assert_eq!(status_of(&client, &token).await, 401);

        let token = issued(&server, "bob");
        let session = claims_of(&token)["session_id"].as_str().unwrap().to_owned();
        let sessions = listed(&server, &["admin", "token", "sessions", "bob"]);
        assert!(sessions.iter().any(|row| row["id"] == session.as_str() && row["revoked_at"].is_null()));
        server.succeed(&["admin", "token", "revoke", "--session", &session]).unwrap();
        assert_eq!(status_of(&client, &token).await, 401);
        let again = server.run(&["admin", "token", "revoke", "--session", &session]).unwrap();
        assert!(!again.status.success(), "it is not live any more");

        // A client's tokens end without those of others.
        server.succeed(&["admin", "token", "revoke", "--client", "cli_1", "--yes"]).unwrap();
        let token = issued(&server, "bob");
        assert_eq!(status_of(&client, &token).await, 200);
        server
            .succeed(&["admin", "token", "revoke", "--user", "bob", "--yes", "--reason", "a test"])
            .unwrap();
        assert_eq!(status_of(&client, &token).await, 401);
        assert_eq!(status_of(&client, server.user_token()).await, 401);
        assert_eq!(status_of(&client, server.admin_token()).await, 200);
        let fresh = issued(&server, "bob");
        assert_eq!(status_of(&client, &fresh).await, 200, "a token that is issued afterwards counts");
        assert_eq!(listed(&server, &["admin", "token", "cutoffs"]).len(), 2);

        for bad in
            [json!({}), json!({"token": "a.b.c"}), json!({"jti": "x", "all": true}), json!({"jti": "a b"})]
        {
            let refused = revoke(bad.clone()).await;
            assert_eq!(refused.status, 422, "{bad}: {}", refused.body);
        }
        assert_eq!(revoke(json!({"user": "nobody"})).await.status, 404);
        let as_bob = client
            .post("/api/v1/admin/tokens/revoke", &[("authorization", &bearer(&fresh))], &json!({"all": true}))
            .await;
        assert_eq!(as_bob.status, 403);
        assert_eq!(revoke(json!({"all": true})).await.status, 200);
        for token in [fresh.as_str(), server.admin_token()] {
            assert_eq!(status_of(&client, token).await, 401);
        }
    }
}

#[tokio::test]
async fn a_session_header_must_name_the_session_of_the_token() {
    let server = stores::sqlite().start().unwrap();
    let client = Client::new(&server);
    let bob = bearer(server.user_token());
    let own = claims_of(server.user_token())["session_id"].as_str().unwrap().to_owned();
    let with = async |session: &str| {
        client.get("/v1/models", &[("authorization", &bob), ("x-session-id", session)]).await
    };
    assert_eq!(with(&own).await.status, 200);
    let refused = with("ses_of_somebody_else").await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let admin = bearer(server.admin_token());
    let other = [("authorization", admin.as_str()), ("x-session-id", own.as_str())];
    let refused = client.get("/api/v1/admin/users", &other).await;
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("session_mismatch")));
    assert_eq!(with(&"x".repeat(300)).await.status, 200, "what cannot be read is ignored");
    let metrics = client.get("/metrics", &[("authorization", &bearer(server.admin_token()))]).await.body;
    assert!(metrics.contains("systemprompt_context_headers_ignored_total 1"), "{metrics}");
}

#[tokio::test]
async fn a_context_or_task_that_a_header_names_is_nobodys() {
    let server = stores::sqlite().start().unwrap();
    let client = Client::new(&server);
    let user = bearer(server.user_token());
    let headers = [
        ("authorization", user.as_str()),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
        ("x-context-id", "ctx_claimed"),
        ("x-task-id", "tsk_claimed"),
    ];
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "crm_lookup", "arguments": {"customer_id": "cus_1"}}});
    let answer = client.post(MCP, &headers, &call).await;
    assert!(answer.json()["result"].is_object(), "{}", answer.body);
    let hello =
        json!({"model": "claude-demo", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]});
    assert_eq!(client.post("/v1/messages", &headers, &hello).await.status, 200);
    let db = stores::open(&server).await;
    let named = "SELECT COALESCE(context_id, '') || ' ' || COALESCE(task_id, '') FROM governance_decisions";
    let named = stores::texts(&db, named).await;
    assert!(!named.is_empty() && named.iter().all(|names| !names.contains("claimed")), "{named:?}");
}

/// One request over the internal socket; the answer's status and what follows its head.
async fn over_socket(socket: &PathBuf, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn internal(options: Options) -> Options {
    options.env("SYSTEMPROMPT__SERVER__INTERNAL_LISTENER", "unix:run/internal.sock")
}

fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// What the server would assert of bob when he calls `server` with `body`.
fn assertion(server: &Server, of: &str, body: &str, number: u32) -> Value {
    let bob = claims_of(server.user_token());
    let bind = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    json!({
        "iss": bob["iss"], "aud": format!("mcp:{of}"), "sub": bob["sub"], "session_id": bob["session_id"],
        "scope": bob["scope"], "roles": bob["roles"], "department": bob["department"],
        "act": {"sub": format!("mcp:{of}")}, "jti": format!("jti_test_{number}"),
        "iat": now(), "exp": now() + 30, "bind": URL_SAFE_NO_PAD.encode(bind.as_ref()),
    })
}

#[tokio::test]
async fn case_32_an_assertion_counts_once_for_its_server_its_body_and_half_a_minute() {
    const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
    for options in stores::engines().await {
        let server = internal(options).start().unwrap();
        let socket = server.data_dir().join("run/internal.sock");
        let key = private_key(&server, |key| key["use"] == "internal");
        let sign = |claims: &Value| bearer(&signed(&key, "mcp-proxy+jwt", claims));
        let ask = async |assertion: &str, body: &str| {
            over_socket(&socket, MCP, &[("x-mcp-proxy-auth", assertion)], body).await
        };

        let good = sign(&assertion(&server, "demo", BODY, 1));
        let (status, body) = ask(&good, BODY).await;
        assert!(status == 200 && body.contains("crm_lookup"), "{status} {body}");
        let mut old = assertion(&server, "demo", BODY, 2);
        (old["iat"], old["exp"]) = (json!(now() - 31), json!(now() - 1));
        let other_body = BODY.replace("\"id\":1", "\"id\":2");
        for (what, assertion, body) in [
            ("replayed", good.clone(), BODY),
            ("for another server", sign(&assertion(&server, "other", BODY, 3)), BODY),
            ("older than 30 seconds", sign(&old), BODY),
            ("with another body", sign(&assertion(&server, "demo", BODY, 4)), other_body.as_str()),
            ("of another type", bearer(&signed(&key, "at+jwt", &assertion(&server, "demo", BODY, 5))), BODY),
            ("malformed", "Bearer short".to_owned(), BODY),
        ] {
            let (status, answer) = ask(&assertion, body).await;
            assert_eq!(status, 401, "{what}: {answer}");
        }
        // No other credential makes good for a bad assertion, and without any there is no way in.
        let both = [("x-mcp-proxy-auth", good.as_str()), ("authorization", &bearer(server.user_token()))];
        assert_eq!(over_socket(&socket, MCP, &both, BODY).await.0, 401);
        assert_eq!(over_socket(&socket, MCP, &[], BODY).await.0, 401);
        assert_eq!(over_socket(&socket, MCP, &both[1..], BODY).await.0, 200);
        // Names that only say who somebody is count nowhere.
        let claimed = [("x-user-id", "ada"), ("x-proxy-verified", "true"), ("x-user-permissions", "admin")];
        assert_eq!(over_socket(&socket, MCP, &claimed, BODY).await.0, 401);

        // From outside an assertion is taken off, a good one too.
        let client = Client::new(&server);
        let fresh = sign(&assertion(&server, "demo", BODY, 6));
        let headers = [
            ("x-mcp-proxy-auth", fresh.as_str()),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        let body: Value = serde_json::from_str(BODY).unwrap();
        assert_eq!(client.post(MCP, &headers, &body).await.status, 401);
        assert_eq!(ask(&fresh, BODY).await.0, 200, "and was not spent there");

        // The rule on the server is decided for who is asserted, and a session that has ended asserts nobody.
        let session = claims_of(server.user_token())["session_id"].as_str().unwrap().to_owned();
        server.succeed(&["admin", "token", "revoke", "--session", &session]).unwrap();
        assert_eq!(ask(&sign(&assertion(&server, "demo", BODY, 7)), BODY).await.0, 401);
    }
}

/// One credential of each kind, none of which may stay anywhere.
fn canaries(server: &Server) -> BTreeMap<&'static str, String> {
    let key = private_key(server, |key| key["use"] == "sig" && key["state"] == "active");
    let internal = private_key(server, |key| key["use"] == "internal");
    let claims = |audience: &str, more: Value| {
        let bob = claims_of(server.user_token());
        let mut claims = json!({
            "iss": bob["iss"], "sub": bob["sub"], "session_id": bob["session_id"], "aud": [audience],
            "iat": now(), "nbf": now(), "exp": now() + 600, "jti": format!("jti_{audience}"),
            "scope": "user", "user_type": "user", "rate_limit_tier": "user",
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let made = server
        .succeed(&["admin", "api-keys", "create", "bob", "--name", "canary", "--output", "json"])
        .unwrap();
    let api_key: Value = serde_json::from_str(&made).unwrap();
    let hook = json!({"scope": "hook:govern", "user_type": "service", "rate_limit_tier": "service", "plugin_id": "other"});
    BTreeMap::from([
        ("session token", issued(server, "bob")),
        ("admin token", issued(server, "ada")),
        ("access token", signed(&key, "at+jwt", &claims("api", json!({})))),
        ("hook token", signed(&key, "at+jwt", &claims("hook", hook))),
        ("expired token", signed(&key, "at+jwt", &claims("api", json!({"iat": 5, "nbf": 5, "exp": 9})))),
        ("assertion", signed(&internal, "mcp-proxy+jwt", &assertion(server, "demo", "{}", 90))),
        ("api key", api_key["key"].as_str().unwrap().to_owned()),
        ("unknown api key", format!("sp-live-{}", "A1b2C3d4E5".repeat(4) + "xyz000000")),
        ("provider key", ["sk-ant-", "api03-", &"Zq7".repeat(30)].concat()),
        ("jwt_secret", server.secret("jwt_secret").unwrap()),
        ("custom secret", server.secret("demo_crm_token").unwrap()),
    ])
}

#[tokio::test]
async fn case_33_no_credential_stays_where_it_was_refused() {
    for options in stores::engines().await {
        let options = internal(options).without_limits().env("SYSTEMPROMPT__RUNTIME__LOG_LEVEL", "trace");
        let mut server = options.start().unwrap();
        let client = Client::new(&server);
        let admin = bearer(server.admin_token());
        let canaries = canaries(&server);
        let mut answers = Vec::new();
        for (name, value) in &canaries {
            let spoilt = format!("{}A", &value[..value.len() - 1]);
            let (as_bearer, as_basic) = (bearer(value), format!("Basic {value}"));
            let cookie = format!("access_token={value}");
            let two = format!("access_token={value}; access_token={spoilt}");
            let headers: Vec<Vec<(&str, &str)>> = vec![
                vec![("authorization", &as_bearer)],
                vec![("authorization", &as_basic)],
                vec![("authorization", value)],
                vec![("authorization", &as_bearer), ("x-session-id", "ses_other")],
                vec![("authorization", &admin), ("x-session-id", value)],
                vec![("x-api-key", value)],
                vec![("x-api-key", &as_bearer)],
                vec![("cookie", &cookie)],
                vec![("cookie", &two)],
                vec![("x-mcp-proxy-auth", &as_bearer)],
                vec![("authorization", &as_bearer), ("x-api-key", &spoilt)],
                vec![("proxy-authorization", &as_bearer)],
                vec![("webhook-signature", value)],
            ];
            for path in
                ["/api/v1/admin/users", "/v1/models", "/api/v1/openapi.json", "/no/such/path", "/.env"]
            {
                for set in &headers {
                    answers.push(client.get(path, set).await);
                }
            }
            for path in
                ["/v1/messages", MCP, "/api/v1/hooks/govern?plugin_id=demo", "/api/v1/admin/tokens/revoke"]
            {
                for set in &headers {
                    answers.push(client.post(path, set, &json!({"model": 7})).await);
                }
            }
            let query = format!("/v1/models?access_token={value}");
            let revocation = json!({"token": spoilt});
            answers.push(client.get(&query, &[]).await);
            answers.push(client.get(&format!("/v1/models?key={value}"), &[("authorization", &admin)]).await);
            answers.push(
                client.get(&format!("/api/v1/admin/users/{value}"), &[("authorization", &admin)]).await,
            );
            let as_admin = [("authorization", admin.as_str())];
            answers.push(client.post("/api/v1/admin/tokens/revoke", &as_admin, &revocation).await);
            let unsafe_with_cookie = [("cookie", cookie.as_str()), ("origin", "https://elsewhere.test")];
            answers.push(
                client.send(Method::DELETE, "/api/v1/admin/bans/x", &unsafe_with_cookie, None).await.unwrap(),
            );
            let socket = server.data_dir().join("run/internal.sock");
            let (_, answer) = over_socket(&socket, MCP, &[("x-mcp-proxy-auth", &as_bearer)], "[]").await;
            assert!(!answer.contains(value.as_str()), "{name} in {answer}");
        }
        for answer in &answers {
            for (name, value) in &canaries {
                assert!(!answer.body.contains(value.as_str()), "{name} in an answer: {}", answer.body);
                for field in answer.headers.values() {
                    let text = String::from_utf8_lossy(field.as_bytes()).into_owned();
                    assert!(!text.contains(value.as_str()), "{name} in a header of an answer: {text}");
                }
            }
        }
        assert!(answers.iter().filter(|answer| answer.status == 401).count() > 100);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let log = server.log();
        assert!(log.contains("a credential was refused"));
        let mut stored = String::new();
        let db = stores::open(&server).await;
        if db.engine() == Engine::Postgres {
            const EVERYTHING: &str = "SELECT query_to_xml('SELECT * FROM ' || quote_ident(table_name), true, false, '')::text \
                FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
            stored = stores::texts(&db, EVERYTHING).await.into_iter().collect();
            assert!(stored.contains("oauth"));
        }
        db.close().await;
        server.terminate().unwrap();
        let files = files_below(server.data_dir());
        assert!(files.iter().any(|(path, _)| path.ends_with("server.log")));
        for (name, value) in &canaries {
            // A cut value is as good as a whole one to whoever collects them.
            let half = &value[value.len() / 2..];
            for part in [value.as_str(), half] {
                assert!(!log.contains(part), "{name} in the log");
                assert!(!stored.contains(part), "{name} in a table");
                for (path, bytes) in &files {
                    let found = bytes.windows(part.len()).any(|window| window == part.as_bytes());
                    assert!(!found, "{name} in {}", path.display());
                }
            }
        }
    }
}

/// What the server left behind: database, ledger, logs. What holds secrets by its purpose is left out.
fn files_below(folder: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let kind = std::fs::symlink_metadata(&path).unwrap();
            let is_secret = ["secrets.json", "credentials.json", "keys"].contains(&name.as_str());
            if kind.is_dir() && !is_secret {
                open.push(path);
            } else if kind.is_file() && !is_secret {
                let bytes = std::fs::read(&path).unwrap();
                files.push((path, bytes));
            }
        }
    }
    files
}
