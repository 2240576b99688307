//! What administrators learn of tokens and end of keys: explanations over HTTP and on the command line, and reports of leaked keys.

use crate::http::{Client, FORM, claims_of};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const REPORT: &str = "/api/v1/admin/keys/report";

#[tokio::test(flavor = "multi_thread")]
async fn id_137_explain_tells_what_a_clients_token_rests_on_and_by_what_it_was_cut() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let http = Client::new(&server);
        let admin = format!("Bearer {}", server.admin_token());
        let body = json!({
            "client_id": "cut", "client_name": "cut", "grant_types": ["client_credentials"],
            "scope": "user admin", "owner_user_id": "bob",
        });
        let made = http.post("/api/v1/core/oauth/clients", &[("authorization", &admin)], &body).await.json();
        let basic = format!("cut:{}", made["client_secret"].as_str().unwrap());
        let basic = format!("Basic {}", STANDARD.encode(basic));
        let form = "grant_type=client_credentials&scope=user+admin+mcp".to_owned();
        let path = "/api/v1/core/oauth/token";
        let token = http.raw(path, &[FORM, ("authorization", &basic)], form).await.unwrap().json();
        assert_eq!(token["scope"], "user", "{token}");
        let claims = claims_of(token["access_token"].as_str().unwrap());
        let jti = claims["jti"].as_str().unwrap();

        let told = http.get(&format!("/api/v1/explain/{jti}"), &[("authorization", &admin)]).await.json();
        let explained = &told["token"];
        assert_eq!(explained["jti"], jti, "{told}");
        assert_eq!(
            (&explained["scopes_asked"], &explained["scopes"]),
            (&"user admin mcp".into(), &"user".into())
        );
        assert_eq!(explained["cut"], json!({"client": "mcp", "owner": "admin"}));
        assert_eq!(explained["state"], "live");
        let entry = &explained["entry"];
        assert!(told["entries"].as_array().unwrap().iter().any(|own| own["id"] == *entry), "{told}");

        let line = server.succeed(&["explain", jti]).unwrap();
        for word in [entry.as_str().unwrap(), "client: mcp; owner: admin", "user admin mcp"] {
            assert!(line.contains(word), "{word} in {line}");
        }
        // Somebody else's token is as if it were not there.
        let other = format!("Bearer {}", server.user_token());
        let path = format!("/api/v1/explain/{jti}");
        assert_eq!(http.get(&path, &[("authorization", &other)]).await.status, 404);
        let none = "/api/v1/explain/jti_01980000000070008000000000000000";
        assert_eq!(http.get(none, &[("authorization", &admin)]).await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_141_leaked_keys_are_ended_by_a_report_and_nothing_of_them_is_repeated() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let http = Client::new(&server);
        let key = || {
            let made = ["admin", "api-keys", "create", "bob", "--name", "leaked", "--output", "json"];
            let made: Value = serde_json::from_str(&server.succeed(&made).unwrap()).unwrap();
            (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
        };
        let [(id, first), (other, second), (_, kept)] = [key(), key(), key()];
        let status = async |key: &str| {
            http.get("/v1/models", &[("authorization", &format!("Bearer {key}"))]).await.status
        };
        assert_eq!((status(&first).await, status(&second).await), (200, 200));
        let mut mistyped = kept.clone();
        mistyped.replace_range(20..21, if &kept[20..21] == "A" { "B" } else { "A" });

        let candidates = json!({"candidates": [first, mistyped, "not a key", first]});
        let admin = format!("Bearer {}", server.admin_token());
        let answer = http.post(REPORT, &[("authorization", &admin)], &candidates).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.json()["items"].clone();
        let outcomes: Vec<&str> =
            items.as_array().unwrap().iter().map(|item| item["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["revoked", "no_key", "no_key", "not_live"]);
        assert_eq!(items[0]["id"], id.as_str());
        assert!(!answer.body.contains("sp-live-"), "{}", answer.body);
        assert_eq!((status(&first).await, status(&kept).await), (401, 200));

        let shown = server.run_with_input(&["admin", "keys", "report"], &format!("{second}\n\n")).unwrap();
        assert!(shown.contains("revoked") && shown.contains(&other), "{shown}");
        assert_eq!(status(&second).await, 401);
        let told = server
            .succeed(&["audit", "query", "--kind", "oauth.api_key.revoked", "--output", "json"])
            .unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        let reasons = told["items"].as_array().unwrap().iter().map(|item| &item["reason"]);
        assert_eq!(reasons.collect::<Vec<_>>(), ["leaked", "leaked"], "an entry each");

        let many = json!({"candidates": vec!["x"; 101]});
        assert_eq!(http.post(REPORT, &[("authorization", &admin)], &many).await.status, 422);
        let user = format!("Bearer {}", server.user_token());
        assert_eq!(http.post(REPORT, &[("authorization", &user)], &candidates).await.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_136_doctor_identity_tries_the_rules_on_a_live_server_and_changes_nothing() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let db = crate::stores::open(&server).await;
        let entries = async || crate::stores::count(&db, "SELECT COUNT(*) FROM ledger_entries").await;
        let before = entries().await;
        let found: Value =
            serde_json::from_str(&server.succeed(&["doctor", "identity", "--json"]).unwrap()).unwrap();
        assert_eq!(entries().await, before, "nothing is recorded of it");
        let checks = found["checks"].as_array().unwrap();
        assert!(checks.len() >= 14 && checks.iter().all(|check| check["state"] == "PASS"), "{found:#}");
        let rules: Vec<&str> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
        for rule in ["ID-113", "ID-114", "ID-119", "ID-121", "ID-122", "ID-125", "ID-127", "ID-128", "ID-133"]
        {
            assert!(rules.iter().any(|name| name.starts_with(rule)), "{rule}: {rules:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_30_the_key_that_clients_ask_for_is_not_retired_and_one_that_is_gone_is_named() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let http = Client::without_redirects(&server);
        let admin = format!("Bearer {}", server.admin_token());
        let made = server.succeed(&["admin", "keys", "generate", "--algorithm", "ES256", "--output", "json"]);
        let made: Value = serde_json::from_str(&made.unwrap()).unwrap();
        let kid = made["kid"].as_str().unwrap();
        server.succeed(&["admin", "keys", "rotate", "--algorithm", "ES256"]).unwrap();
        let body = json!({
            "client_id": "es-app", "client_name": "es", "scope": "openid user", "redirect_uris": ["https://es.example/cb"],
            "token_endpoint_auth_method": "none", "id_token_signed_response_alg": "ES256",
        });
        let clients = "/api/v1/core/oauth/clients";
        assert_eq!(http.post(clients, &[("authorization", &admin)], &body).await.status, 201);
        let refused = server.run(&["admin", "keys", "retire", kid]).unwrap();
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(6), "{why}");
        assert!(why.contains("1 client(s)") && why.contains("ES256"), "{why}");

        // On another node, or by another hand.
        let db = crate::stores::open(&server).await;
        crate::stores::change(&db, "UPDATE oauth_clients SET status = 'disabled' WHERE client_id = 'es-app'")
            .await;
        server.succeed(&["admin", "keys", "retire", kid]).unwrap();
        crate::stores::change(&db, "UPDATE oauth_clients SET status = 'active' WHERE client_id = 'es-app'")
            .await;
        let shown = server.run(&["doctor", "identity", "--json"]).unwrap();
        assert_eq!(shown.status.code(), Some(1));
        let found: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let failed: Vec<&Value> =
            found["checks"].as_array().unwrap().iter().filter(|check| check["state"] == "FAIL").collect();
        assert!(
            failed.len() == 1 && failed[0]["detail"].as_str().unwrap().contains("es-app (ES256)"),
            "{found:#}"
        );
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let path = format!(
            "/api/v1/core/oauth/authorize?client_id=es-app&response_type=code&scope=openid&code_challenge={challenge}&code_challenge_method=S256"
        );
        let host = server.url().strip_prefix("http://").unwrap().replace("127.0.0.1", "localhost");
        let told = http.get(&path, &[("host", &host)]).await;
        let back = told.header("location");
        assert!(
            told.status == 303 && back.contains("error=temporarily_unavailable"),
            "{} {back}",
            told.status
        );
    }
}

/// A server that answers everything with one document, as a proxy that rewrites what it should not.
async fn careless(metadata: Value) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let body = metadata.to_string();
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0; 8192];
            let _ = socket.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nlocation: https://evil.example\r\naccess-control-allow-origin: *\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn id_136_what_a_proxy_breaks_is_named_with_its_fix() {
    let url = careless(json!({
        "issuer": "http://agents.example", "grant_types_supported": ["password"],
        "response_types_supported": ["code", "token"], "code_challenge_methods_supported": ["plain", "S256"],
        "keys": [{"kid": "a", "use": "sig", "alg": "ES256", "d": "secret"}],
    }))
    .await;
    let server = crate::stores::sqlite().without_limits().start().unwrap();
    let shown = server.run(&["--url", &url, "doctor", "identity", "--json"]).unwrap();
    assert_eq!(shown.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let failed: Vec<&str> = found["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["state"] == "FAIL" && check["fix"].is_string())
        .map(|check| check["check"].as_str().unwrap().split(' ').next().unwrap())
        .collect();
    for rule in [
        "ID-8", "ID-28", "ID-29", "ID-30", "ID-113", "ID-114", "ID-119", "ID-121", "ID-122", "ID-125",
        "ID-127", "ID-133",
    ] {
        assert!(failed.contains(&rule), "{rule}: {found:#}");
    }
}
