//! The edge of a whole server (security.md, chapter 2 and its acceptance cases). The client is made to look like one from
//! outside by a trusted proxy: the test itself, on loopback.

mod agents;
mod faults;

use crate::http::{Answer, Client};
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use systemprompt_tests::{Options, Server};

const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/";

/// A server that takes the test for its proxy.
fn behind_proxy(options: Options) -> Options {
    options.env("SYSTEMPROMPT__SERVER__TRUSTED_PROXIES", "127.0.0.1/32")
}

/// A request from an address, with a browser's agent unless another one is given.
async fn from(client: &Client, address: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("x-forwarded-for", address)];
    all.extend_from_slice(headers);
    client.get(path, &all).await
}

async fn ban(client: &Client, token: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    client.post("/api/v1/admin/bans", &[("authorization", &bearer)], body).await
}

#[tokio::test]
async fn case_9_probes_are_refused_before_any_handler_with_and_without_a_token() {
    let mut server = behind_proxy(stores::sqlite())
        .env("SYSTEMPROMPT__SECURITY__SCANNER__AUTO_BAN__ENABLED", "false")
        .without_limits()
        .start()
        .unwrap();
    let client = Client::new(&server);
    let bearer = format!("Bearer {}", server.admin_token());
    let extensions = ["php", "env", "git", "sql", "bak", "old", "zip", "gz", "db", "config", "cgi", "htm"];
    let mut paths: Vec<String> = extensions.iter().map(|extension| format!("/x.{extension}")).collect();
    paths.extend(
        [
            "/.env",
            "/.git",
            "/wp-admin/x",
            "/eval-stdin.php",
            "/admin",
            "/uploads/a",
            "/%2eenv",
            "/api/v1/x.php",
        ]
        .map(str::to_owned),
    );
    let agent = ("user-agent", "curl/7.88.1");
    for path in &paths {
        for headers in [&[agent][..], &[agent, ("authorization", bearer.as_str())]] {
            let answer = from(&client, "203.0.113.9", path, headers).await;
            assert_eq!((answer.status, answer.header("x-blocked-reason")), (403, "scanner-path"), "{path}");
            assert_eq!(answer.json()["code"], "scanner_blocked");
            assert_eq!(answer.header("set-cookie"), "");
        }
    }
    let metrics = client.get("/metrics", &[]).await.body;
    assert!(
        metrics.contains("systemprompt_edge_refusals_total{reason=\"scanner-path\",group=\"(none)\"} 40")
    );
    // No handler ran: every one of them was answered without a route.
    assert!(!metrics.lines().any(|line| line.contains("status_class=\"4xx\"") && !line.contains("(none)")));
    // One record for all of them, written at the latest when the node ends.
    assert!(server.terminate().unwrap().success());
    let db = stores::open(&server).await;
    let records =
        stores::texts(&db, "SELECT record FROM ledger_entries WHERE kind = 'system.refusals'").await;
    let records: Vec<Value> = records.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let counted: i64 = records.iter().filter_map(|record| record["detail"]["scanner-path"].as_i64()).sum();
    assert_eq!(counted, 40, "{records:?}");
}

#[tokio::test]
async fn case_10_programs_are_never_blocked_by_agent_or_speed() {
    let server = behind_proxy(stores::sqlite()).without_limits().start().unwrap();
    let client = Client::new(&server);
    let bearer = format!("Bearer {}", server.admin_token());
    for agent in ["curl/7.88.1", "kube-probe/1.31", "node", "Mozilla/5.0", "x"] {
        let headers = [("user-agent", agent), ("authorization", bearer.as_str())];
        for path in ["/api/v1/admin/users", "/health", "/.well-known/jwks.json", "/v1/models"] {
            for _ in 0..10 {
                assert_eq!(from(&client, "203.0.113.10", path, &headers).await.status, 200, "{path} {agent}");
            }
        }
        // A path that is registered with other methods is no probe, however it is called.
        let wrong = [("x-forwarded-for", "203.0.113.10"), headers[0], headers[1]];
        let answer = client.send(Method::PATCH, "/api/v1/admin/users", &wrong, None).await.unwrap();
        assert_eq!(answer.status, 405);
        assert_eq!(from(&client, "203.0.113.10", "/api/v1/unknown", &headers).await.status, 404);
    }
}

#[tokio::test]
async fn case_11_agents_of_scanners_and_old_browsers_get_no_page() {
    let server = behind_proxy(stores::sqlite()).without_limits().start().unwrap();
    let client = Client::new(&server);
    let bearer = format!("Bearer {}", server.user_token());
    for (agent, want) in [
        ("Mozilla/5.0", 403),
        ("curl/7.88.1", 403),
        ("sqlmap/1.8#stable (https://sqlmap.org)", 403),
        (&format!("{CHROME}119.0.0.0 Safari/537.36"), 403),
        (&format!("{CHROME}120.0.0.0 Safari/537.36"), 404),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:119.0) Gecko/20100101 Firefox/119.0", 403),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", 404),
    ] {
        let answer = from(&client, "203.0.113.11", "/docs/start", &[("user-agent", agent)]).await;
        assert_eq!(answer.status, want, "{agent}: {}", answer.body);
        assert_eq!(answer.header("x-blocked-reason"), if want == 403 { "scanner-agent" } else { "" });
        // Who shows a valid credential, and who is on loopback, is not judged; an invalid credential is as good as none.
        let signed = [("user-agent", agent), ("authorization", bearer.as_str())];
        assert_eq!(from(&client, "203.0.113.11", "/docs/start", &signed).await.status, 404);
        let forged = [("user-agent", agent), ("authorization", "Bearer not.a.token-of-ours")];
        assert_eq!(from(&client, "203.0.113.11", "/docs/start", &forged).await.status, want);
        assert_eq!(client.get("/docs/start", &[("user-agent", agent)]).await.status, 404);
    }
    let old = format!("{CHROME}100.0.0.0 Safari/537.36");
    let headers = [("user-agent", old.as_str()), ("accept", "text/html,*/*;q=0.8")];
    let page = from(&client, "203.0.113.11", "/docs/start", &headers).await;
    assert!(page.header("content-type").starts_with("text/html") && page.body.contains("outdated"));

    let fresh = format!("{CHROME}130.0.0.0 Safari/537.36");
    let mut seen = Vec::new();
    for _ in 0..32 {
        seen.push(from(&client, "203.0.113.12", "/docs/start", &[("user-agent", &fresh)]).await);
    }
    let last = seen.pop().unwrap();
    assert_eq!((last.status, last.header("x-blocked-reason")), (429, "scanner-velocity"));
    assert!((1..=60).contains(&last.header("retry-after").parse::<u32>().unwrap()));
    assert!(seen.iter().take(30).all(|answer| answer.status == 404));
}

#[tokio::test]
async fn case_12_what_an_untrusted_peer_says_of_itself_has_no_effect() {
    let server = stores::sqlite().start().unwrap();
    let client = Client::new(&server);
    let made = ban(&client, server.admin_token(), &json!({"network": "203.0.113.0/24"})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    for name in ["x-forwarded-for", "x_forwarded_for", "forwarded"] {
        let value = if name == "forwarded" { "for=203.0.113.7" } else { "203.0.113.7" };
        assert_eq!(client.get("/v1/models", &[(name, value)]).await.status, 401, "{name}");
    }
    for name in
        ["x-user-id", "x_user_id", "x-user-type", "x-proxy-verified", "x-mcp-proxy-auth", "X_Proxy_Verified"]
    {
        assert_eq!(client.get("/api/v1/admin/users", &[(name, "admin")]).await.status, 401, "{name}");
    }
    // Whoever came through a proxy is not on loopback, even if nobody told us of the proxy.
    assert_eq!(client.get("/metrics", &[]).await.status, 200);
    assert_eq!(client.get("/metrics", &[("x-forwarded-for", "203.0.113.7")]).await.status, 403);
}

#[tokio::test]
async fn a_banned_address_gets_nothing_but_the_refusal_and_can_be_let_in_again() {
    for options in stores::engines().await {
        let server = behind_proxy(options).start().unwrap();
        let client = Client::new(&server);
        let out = server.succeed(&[
            "admin",
            "bans",
            "add",
            "203.0.113.0/24",
            "--for",
            "1h",
            "--reason",
            "test",
            "--output",
            "json",
        ]);
        let made: Value = serde_json::from_str(&out.unwrap()).unwrap();
        let bearer = format!("Bearer {}", server.admin_token());
        for path in ["/v1/models", "/health", "/.env", "/nowhere"] {
            let answer = from(&client, "203.0.113.77", path, &[("authorization", &bearer)]).await;
            assert_eq!((answer.status, answer.header("x-blocked-reason")), (403, "ip-banned"), "{path}");
            let left: u32 = answer.header("retry-after").parse().unwrap();
            assert!((3500..=3600).contains(&left));
        }
        // Hook clients take any other status than 200 for consent.
        let hook = [("x-forwarded-for", "203.0.113.77"), ("authorization", bearer.as_str())];
        let denied = client.post("/api/v1/hooks/govern", &hook, &json!({})).await;
        assert_eq!((denied.status, denied.header("x-systemprompt-decision")), (200, "deny"));
        assert_eq!(
            from(&client, "203.0.114.1", "/v1/models", &[("authorization", &bearer)]).await.status,
            200
        );

        for (body, status, code) in [
            (json!({"network": "203.0.113.9/24"}), 409, "ban_exists"),
            (json!({"network": "127.0.0.1"}), 409, "would_lock_out"),
            (json!({"network": "0.0.0.0/0"}), 422, "unprocessable"),
            (json!({"network": "192.0.2.1", "expires_in_s": 0}), 422, "unprocessable"),
        ] {
            let refused = ban(&client, server.admin_token(), &body).await;
            assert_eq!((refused.status, &refused.json()["code"]), (status, &json!(code)), "{body}");
        }
        assert_eq!(ban(&client, server.user_token(), &json!({"network": "192.0.2.1"})).await.status, 403);
        assert!(server.healthy().unwrap().contains("1 networks are banned"));
        let listed = server.succeed(&["admin", "bans", "list"]).unwrap();
        assert!(listed.contains("203.0.113.0/24"), "{listed}");
        server.succeed(&["admin", "bans", "remove", made["id"].as_str().unwrap(), "--yes"]).unwrap();
        assert_eq!(
            from(&client, "203.0.113.77", "/v1/models", &[("authorization", &bearer)]).await.status,
            200
        );
        for kind in ["admin.ban.added", "admin.ban.removed"] {
            let found = server.succeed(&["audit", "query", "--kind", kind, "--output", "json"]).unwrap();
            assert!(found.contains(made["id"].as_str().unwrap()), "{kind}");
            assert!(!found.contains("203.0.113"), "the network stays out of the chain");
        }
    }
}

#[tokio::test]
async fn repeated_probes_earn_a_ban_that_is_recorded() {
    let server = behind_proxy(stores::sqlite())
        .env("SYSTEMPROMPT__SECURITY__SCANNER__AUTO_BAN__HITS", "3")
        .start()
        .unwrap();
    let client = Client::new(&server);
    for _ in 0..3 {
        assert_eq!(
            from(&client, "203.0.113.9", "/.env", &[]).await.header("x-blocked-reason"),
            "scanner-path"
        );
    }
    let end = Instant::now() + Duration::from_secs(10);
    while from(&client, "203.0.113.9", "/health", &[]).await.status != 403 {
        assert!(Instant::now() < end, "no ban came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bans = server.succeed(&["admin", "bans", "list", "--output", "json"]).unwrap();
    let bans: Value = serde_json::from_str(&bans).unwrap();
    assert_eq!(bans["items"][0]["source"], "scanner");
    assert_eq!(bans["items"][0]["created_by"], "system");
    // The test's own address is a trusted proxy, and loopback: probes from there earn none.
    for _ in 0..5 {
        client.get("/.env", &[]).await;
    }
    assert_eq!(client.get("/health", &[]).await.status, 200);
}

#[tokio::test]
async fn a_ban_reaches_the_other_node_within_the_stated_bound() {
    let options = behind_proxy(stores::postgres().await);
    let a = options.clone().start().unwrap();
    let b = options.env("SYSTEMPROMPT__SERVER__INSTANCE_ID", "second").start().unwrap();
    let (on_a, on_b) = (Client::new(&a), Client::new(&b));
    assert_eq!(from(&on_b, "203.0.113.7", "/health", &[]).await.status, 200);
    assert_eq!(ban(&on_a, a.admin_token(), &json!({"network": "203.0.113.7"})).await.status, 201);
    assert_eq!(from(&on_a, "203.0.113.7", "/health", &[]).await.status, 403);
    let began = Instant::now();
    while from(&on_b, "203.0.113.7", "/health", &[]).await.status != 403 {
        assert!(began.elapsed() < Duration::from_secs(5), "the ban did not reach the other node");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn case_14_each_tier_has_its_share_and_who_waits_passes() {
    let server = stores::sqlite().env("SYSTEMPROMPT__RATE_LIMITS__GATEWAY_PER_SECOND", "2").start().unwrap();
    let client = Client::new(&server);
    for (token, burst) in [(server.user_token(), 6), (server.admin_token(), 60)] {
        let bearer = format!("Bearer {token}");
        let mut passed = 0;
        let refused = loop {
            let answer = client.get("/v1/models", &[("authorization", &bearer)]).await;
            assert_eq!(answer.header("ratelimit-policy"), format!("\"gateway\";q={burst};w=3"));
            if answer.status == 429 {
                break answer;
            }
            passed += 1;
        };
        assert!(passed >= burst, "{passed} of {burst}");
        assert_eq!(refused.header("ratelimit"), "\"gateway\";r=0;t=1");
        tokio::time::sleep(Duration::from_secs(refused.header("retry-after").parse().unwrap())).await;
        assert_eq!(client.get("/v1/models", &[("authorization", &bearer)]).await.status, 200);
    }
}

#[tokio::test]
async fn an_address_that_is_refused_again_and_again_is_throttled_and_a_verified_credential_is_not() {
    let server = behind_proxy(stores::sqlite()).start().unwrap();
    let client = Client::new(&server);
    let bearer = format!("Bearer {}", server.user_token());
    let signed = [("authorization", bearer.as_str())];
    assert_eq!(from(&client, "203.0.113.9", "/v1/models", &signed).await.status, 200);
    for (after, level) in [(10, "1"), (50, "2"), (100, "3")] {
        let mut sent = if after == 10 {
            0
        } else if after == 50 {
            11
        } else {
            51
        };
        while sent < after {
            from(&client, "203.0.113.9", "/v1/models", &[]).await;
            sent += 1;
        }
        let answer = from(&client, "203.0.113.9", "/v1/models", &[]).await;
        assert_eq!(answer.header("x-throttle-level"), level, "{}", answer.body);
        assert_eq!(answer.status, if after == 100 { 429 } else { 401 });
    }
    let public = from(&client, "203.0.113.9", "/.well-known/jwks.json", &[]).await;
    assert_eq!((public.status, public.header("retry-after")), (429, "60"));
    let verified = from(&client, "203.0.113.9", "/v1/models", &signed).await;
    assert_eq!((verified.status, verified.header("x-throttle-level")), (200, ""));
    assert_eq!(from(&client, "203.0.113.10", "/.well-known/jwks.json", &[]).await.status, 200);
}

#[tokio::test]
async fn pages_of_other_origins_read_only_what_they_may() {
    let server = stores::sqlite()
        .env("SYSTEMPROMPT__SERVER__CORS_ALLOWED_ORIGINS", "https://app.example")
        .start()
        .unwrap();
    let client = Client::new(&server);
    let ask = async |path: &'static str, origin: &'static str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        client.send(Method::OPTIONS, path, &headers, None).await.unwrap()
    };
    let listed = ask("/api/v1/admin/bans", "https://app.example").await;
    assert_eq!((listed.status, listed.header("access-control-allow-origin")), (204, "https://app.example"));
    assert_eq!(listed.header("access-control-allow-credentials"), "true");
    let other = ask("/api/v1/admin/bans", "https://evil.example").await;
    assert_eq!((other.status, other.header("access-control-allow-origin")), (403, ""));
    let public = client.get("/.well-known/jwks.json", &[("origin", "https://evil.example")]).await;
    assert_eq!(public.header("access-control-allow-origin"), "*");
    // On a loopback bind a foreign page may change nothing, whatever credential it finds (DNS rebinding).
    let bearer = format!("Bearer {}", server.admin_token());
    let post = async |origin: &str| {
        let headers = [("origin", origin), ("authorization", bearer.as_str())];
        client.post("/api/v1/admin/bans", &headers, &json!({"network": "x"})).await
    };
    let refused = post("https://evil.example").await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("origin_not_allowed")));
    assert_eq!(post("https://app.example").await.status, 422);
    assert_eq!(post(server.url()).await.status, 422);
}

#[tokio::test]
async fn a_reload_changes_limits_and_headers_of_a_running_node() {
    let server: Server = stores::sqlite().start().unwrap();
    let client = Client::new(&server);
    assert_eq!(client.get("/health", &[]).await.header("referrer-policy"), "strict-origin-when-cross-origin");
    let file = server.data_dir().join("profiles/default/profile.yaml");
    let profile: String = std::fs::read_to_string(&file).unwrap();
    assert!(profile.contains("\nserver:"), "{profile}");
    let header = "\nserver:\n  security_headers: { referrer-policy: no-referrer }";
    std::fs::write(&file, profile.replacen("\nserver:", header, 1)).unwrap();
    let bearer = format!("Bearer {}", server.admin_token());
    let reloaded =
        client.post("/api/v1/admin/config/reload", &[("authorization", &bearer)], &json!({})).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    assert_eq!(client.get("/health", &[]).await.header("referrer-policy"), "no-referrer");
}
