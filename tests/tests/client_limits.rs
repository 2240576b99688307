//! What clients may over HTTP, and how often: limits of each, the client of a bridge, and tokens for the whole deployment.

use crate::http::{Answer, Client, FORM};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use systemprompt_tests::Server;

const TOKEN: &str = "/api/v1/core/oauth/token";
/// Where a bridge gets its client.
const OWN_CLIENT: &str = "/v1/auth/bridge/oauth-client";

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// A confidential client of an administrator's: id and secret.
async fn client(server: &Server, http: &Client, id: &str, scope: &str) -> String {
    let bearer = format!("Bearer {}", server.admin_token());
    let body =
        json!({"client_id": id, "client_name": id, "grant_types": ["client_credentials"], "scope": scope});
    let made = http.post("/api/v1/core/oauth/clients", &[("authorization", &bearer)], &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    basic(id, made.json()["client_secret"].as_str().unwrap())
}

async fn ask(http: &Client, authorization: &str, form: &str) -> Answer {
    http.raw(TOKEN, &[FORM, ("authorization", authorization)], form.to_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_94_each_client_has_a_limit_of_its_own_whatever_its_address() {
    const ASK: &str = "grant_type=client_credentials&scope=user";
    let server = stores::sqlite()
        .env("SYSTEMPROMPT__RATE_LIMITS__OAUTH_TOKEN_PER_SECOND", "1")
        .env("SYSTEMPROMPT__RATE_LIMITS__UNVERIFIED_PER_SECOND", "1000")
        .start()
        .unwrap();
    let http = Client::new(&server);
    let [busy, quiet] =
        [client(&server, &http, "busy", "user").await, client(&server, &http, "quiet", "user").await];
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(ask(&http, &busy, ASK).await);
    }
    assert_eq!(answers[0].status, 200, "{}", answers[0].body);
    assert!(
        answers[0].header("ratelimit-policy").starts_with("\"oauth_token\";q=3;"),
        "{:?}",
        answers[0].headers
    );
    let refused = answers.iter().find(|answer| answer.status == 429).expect("three at once");
    assert_eq!(refused.json()["error"], "temporarily_unavailable");
    assert_eq!(
        (refused.header("retry-after"), refused.header("ratelimit")),
        ("1", "\"oauth_token\";r=0;t=1")
    );
    let other = ask(&http, &quiet, ASK).await;
    assert_eq!(other.status, 200, "another client of the same address: {}", other.body);
    let guessed = ask(&http, &basic("quiet", "sps_wrong"), ASK).await;
    assert_eq!(guessed.status, 401);
    assert!(!guessed.header("ratelimit").contains("oauth_token"), "who shows nothing uses up nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn id_94_a_call_that_is_dear_uses_up_as_many_of_its_groups_as_it_costs() {
    let server =
        stores::sqlite().env("SYSTEMPROMPT__RATE_LIMITS__OAUTH_PUBLIC_PER_SECOND", "20").start().unwrap();
    let http = Client::without_redirects(&server);
    let left = |answer: &Answer| -> i64 {
        let text = answer.header("ratelimit");
        let rest = text.split_once("\"oauth_public\";r=").unwrap_or_else(|| panic!("{text}")).1;
        rest.split(';').next().unwrap().parse().unwrap()
    };
    let session = async || http.post("/api/v1/core/oauth/session", &[], &json!({})).await;
    let first = session().await;
    let burst: i64 = first
        .header("ratelimit-policy")
        .split_once("\"oauth_public\";q=")
        .and_then(|(_, rest)| rest.split(';').next()?.parse().ok())
        .unwrap();
    assert_eq!((first.status, left(&first)), (200, burst - 10), "a session of somebody unknown is a row");
    let mut served = 1;
    let refused = loop {
        let answer = session().await;
        if answer.status == 429 {
            break answer;
        }
        served += 1;
        assert!(served <= burst / 10 + 2, "{served} of {burst}");
    };
    assert!(refused.header("retry-after").parse::<i64>().unwrap() >= 1);
    let page = http.get("/.well-known/openid-configuration", &[]).await;
    assert_eq!(page.status, 200, "another group");
}

#[tokio::test(flavor = "multi_thread")]
async fn id_101_a_bridge_gets_its_client_by_its_token_alone() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let http = Client::new(&server);
        let modes = http.get("/v1/auth/bridge/capabilities", &[]).await.json();
        assert_eq!(modes["modes"], json!(["pat", "session", "oauth-client"]));
        let bearer = |token: &str| format!("Bearer {token}");
        let code = http
            .post(
                "/api/v1/admin/users/bob/bridge-codes",
                &[("authorization", &bearer(server.admin_token()))],
                &json!({}),
            )
            .await;
        let shown =
            http.post("/v1/auth/bridge/session", &[], &json!({"code": code.json()["code"]})).await.json();
        let token = bearer(shown["token"].as_str().unwrap());

        let made = http.post(OWN_CLIENT, &[("authorization", &token)], &json!({})).await;
        assert_eq!((made.status, made.header("cache-control")), (200, "no-store"), "{}", made.body);
        let made = made.json();
        assert_eq!(made["token_endpoint"], format!("{}{TOKEN}", server.url()));
        assert_eq!(made["scope"], "hook:govern hook:track");
        let own = basic(made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
        let form = "grant_type=client_credentials&scope=hook:track&audience=hook&plugin_id=demo";
        let answer = ask(&http, &own, form).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        for (name, credential) in [
            ("a session of another surface", bearer(server.user_token())),
            ("the hook token itself", bearer(answer.json()["access_token"].as_str().unwrap())),
            ("nothing", String::new()),
        ] {
            assert_eq!(
                http.post(OWN_CLIENT, &[("authorization", &credential)], &json!({})).await.status,
                401,
                "{name}"
            );
        }
        // What the owner loses, the client loses.
        server.succeed(&["admin", "users", "update", "bob", "--status", "suspended"]).unwrap();
        assert_eq!(ask(&http, &own, form).await.json()["error"], "invalid_client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_29_a_token_for_the_whole_deployment_counts_at_the_api_and_the_gateway_and_nowhere_else() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let http = Client::new(&server);
    let client = client(&server, &http, "whole", "user mcp a2a").await;
    let status = async |resource: &str, path: &str| {
        let form =
            format!("grant_type=client_credentials&scope=user+mcp+a2a&resource={}{resource}", server.url());
        let answer = ask(&http, &client, &form).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
        http.get(path, &[("authorization", &bearer)]).await.status
    };
    for (resource, path, counts) in [
        ("", "/api/v1/health/detail", true),
        ("/", "/v1/models", true),
        ("", "/v1/bridge/whoami", false),
        ("/api/v1", "/api/v1/health/detail", true),
        ("/api/v1", "/v1/models", false),
        ("/v1", "/v1/models", true),
        ("/v1", "/api/v1/health/detail", false),
    ] {
        assert_eq!(status(resource, path).await != 401, counts, "{resource} at {path}");
    }
    let document = http.get("/.well-known/oauth-protected-resource", &[]).await.json();
    assert_eq!(document["resource"], server.url());
}

#[tokio::test(flavor = "multi_thread")]
async fn id_119_neither_password_nor_implicit_is_offered_or_served() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let http = Client::new(&server);
    let client = client(&server, &http, "old", "user").await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let document = http.get(path, &[]).await.json();
        assert_eq!(document["response_types_supported"], json!(["code"]));
        assert_eq!(document["response_modes_supported"], json!(["query", "form_post"]));
        let grants = document["grant_types_supported"].as_array().unwrap();
        assert!(!grants.iter().any(|grant| grant == "password" || grant == "implicit"), "{grants:?}");
    }
    for grant in ["password&username=bob&password=x", "implicit"] {
        let refused = ask(&http, &client, &format!("grant_type={grant}")).await;
        assert_eq!(refused.json()["error"], "unsupported_grant_type", "{grant}");
    }
}
