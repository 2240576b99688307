//! Clients over HTTP on both engines: registration (RFC 7591, RFC 7592), management, and the client of the demo.

use crate::client_documents::word;
use crate::http::{Answer, Client, FORM};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

const REGISTER: &str = "/api/v1/core/oauth/register";
const CLIENTS: &str = "/api/v1/core/oauth/clients";
const CALLBACK: &str = "https://app.example/cb";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn send(http: &Client, method: Method, path: &str, token: &str, body: Option<&Value>) -> Answer {
    http.send(method, path, &[("authorization", &bearer(token))], body).await.unwrap()
}

async fn register(http: &Client, body: &Value) -> Answer {
    http.post(REGISTER, &[], body).await
}

/// The path of the management address that an answer names.
fn managed(answer: &Value) -> String {
    let uri = answer["registration_client_uri"].as_str().unwrap();
    uri[uri.find("/api/").unwrap()..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_18_to_20_a_client_registers_and_manages_itself() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let http = Client::new(&server);
        let made =
            register(&http, &json!({"redirect_uris": [CALLBACK], "client_name": "App", "unknown": 1})).await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!((made.header("cache-control"), made.header("pragma")), ("no-store", "no-cache"));
        let made = made.json();
        assert_eq!(made["grant_types"], json!(["authorization_code"]));
        assert_eq!(made["response_types"], json!(["code"]));
        assert_eq!(made["token_endpoint_auth_method"], "client_secret_basic");
        assert_eq!(made["client_secret_expires_at"], 0);
        assert_eq!(made["scope"], "a2a email mcp offline_access openid profile user");
        let id = made["client_id"].as_str().unwrap();
        assert!(id.starts_with("client_") && id.len() == 39, "{id}");
        let secret = made["client_secret"].as_str().unwrap();
        assert_eq!(
            word(&http, &format!("client_id={id}&client_secret={secret}")).await,
            "unauthorized_client"
        );
        assert_eq!(word(&http, &format!("client_id={id}&client_secret=wrong")).await, "invalid_client");

        let (path, token) = (managed(&made), made["registration_access_token"].as_str().unwrap());
        let shown = send(&http, Method::GET, &path, token, None).await;
        assert_eq!((shown.status, shown.json()["client_secret"].clone()), (200, Value::Null));
        // Whatever is wrong, the answer is the same, but for its trace.
        let other = register(&http, &json!({"redirect_uris": [CALLBACK]})).await.json();
        let foreign = other["registration_access_token"].as_str().unwrap().to_owned();
        let mut bodies = Vec::new();
        for (path, token) in [
            (path.clone(), foreign.clone()),
            (path.clone(), server.admin_token().to_owned()),
            (path.clone(), "x".to_owned()),
            (format!("{REGISTER}/client_00000000000000000000000000000000"), token.to_owned()),
            (format!("{REGISTER}/sp_cli"), token.to_owned()),
        ] {
            let refused = send(&http, Method::GET, &path, &token, None).await;
            assert_eq!(refused.status, 401);
            assert_eq!(refused.header("www-authenticate"), "Bearer error=\"invalid_token\"");
            let mut body = refused.json();
            body["trace_id"] = Value::Null;
            bodies.push(body);
        }
        assert_eq!(http.get(&path, &[]).await.status, 401);
        let cookie = format!("access_token={}", server.admin_token());
        assert_eq!(http.get(&path, &[("cookie", &cookie)]).await.status, 401);
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");

        let change = json!({"client_id": id, "redirect_uris": [CALLBACK, "https://app.example/2"], "client_name": "App 2",
            "client_secret": secret});
        let changed = send(&http, Method::PUT, &path, token, Some(&change)).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
        let changed = changed.json();
        assert_eq!(
            (&changed["client_name"], changed["redirect_uris"].as_array().unwrap().len()),
            (&json!("App 2"), 2)
        );
        let rotated = changed["registration_access_token"].as_str().unwrap();
        assert_ne!(rotated, token);
        assert_eq!(send(&http, Method::GET, &path, token, None).await.status, 200, "for a minute");
        for (name, value) in [
            ("client_id", json!("other")),
            ("client_secret", json!("wrong")),
            ("registration_access_token", json!(rotated)),
            ("grant_types", json!(["client_credentials"])),
            ("redirect_uris", json!(["http://evil.example/"])),
        ] {
            let mut wrong = change.clone();
            wrong[name] = value;
            assert_eq!(send(&http, Method::PUT, &path, rotated, Some(&wrong)).await.status, 400, "{name}");
        }
        assert_eq!(send(&http, Method::DELETE, &path, rotated, None).await.status, 204);
        assert_eq!(send(&http, Method::GET, &path, rotated, None).await.status, 401);
        assert_eq!(word(&http, &format!("client_id={id}&client_secret={secret}")).await, "invalid_client");

        let db = stores::open(&server).await;
        let rows = "SELECT COALESCE(registration_digest, '') FROM oauth_clients
            UNION SELECT secret_digest FROM oauth_client_secrets UNION SELECT CAST(record AS TEXT) FROM ledger_entries";
        let kept = stores::texts(&db, rows).await;
        for value in [secret, token, rotated] {
            assert!(!kept.iter().any(|text| text.contains(value)) && !server.log().contains(value));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_18_and_19_what_is_asked_for_is_refused_by_name_and_a_bearer_widens_it() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let http = Client::new(&server);
    let machine = json!({"grant_types": ["client_credentials"], "scope": "user admin"});
    for (body, error, member) in [
        (machine.clone(), "invalid_client_metadata", "grant_types"),
        (json!({}), "invalid_redirect_uri", "redirect_uris"),
        (json!({"redirect_uris": ["http://app.example/"]}), "invalid_redirect_uri", "redirect_uris"),
        (json!({"redirect_uris": [CALLBACK], "scope": "admin"}), "invalid_client_metadata", "scope"),
        (
            json!({"redirect_uris": [CALLBACK], "client_name": "a\u{202e}b"}),
            "invalid_client_metadata",
            "client_name",
        ),
        (
            json!({"redirect_uris": [CALLBACK], "software_statement": "x"}),
            "invalid_software_statement",
            "software_statement",
        ),
        (json!({"redirect_uris": [CALLBACK], "client_name": "\0"}), "invalid_client_metadata", "NUL"),
        (json!([CALLBACK]), "invalid_client_metadata", "object"),
    ] {
        let refused = register(&http, &body).await;
        assert_eq!((refused.status, refused.json()["error"].as_str()), (400, Some(error)), "{body}");
        let text = refused.json()["error_description"].as_str().unwrap().to_owned();
        assert!(text.contains(member) && text.is_ascii(), "{text}");
    }
    let form = http.raw(REGISTER, &[FORM], "redirect_uris=x".into()).await.unwrap();
    assert_eq!((form.status, form.json()["error"].as_str()), (415, Some("invalid_client_metadata")));
    let cookie = format!("access_token={}", server.admin_token());
    assert_eq!(http.post(REGISTER, &[("cookie", &cookie)], &machine).await.status, 400, "no cookie is read");
    assert_eq!(
        send(&http, Method::POST, REGISTER, "wrong-token-wrong-token", Some(&machine)).await.status,
        401
    );
    let wide = send(&http, Method::POST, REGISTER, server.admin_token(), Some(&machine)).await;
    assert_eq!(
        (wide.status, wide.json()["scope"].as_str().map(str::to_owned)),
        (201, Some("admin user".into()))
    );
    let owned =
        send(&http, Method::POST, REGISTER, server.user_token(), Some(&json!({"redirect_uris": [CALLBACK]})))
            .await;
    assert_eq!(owned.status, 201);
    let mine = send(&http, Method::GET, CLIENTS, server.user_token(), None).await.json();
    assert_eq!(mine["items"][0]["client_id"], owned.json()["client_id"]);
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn id_18_and_21_the_door_is_open_closed_or_for_users_and_always_bounded() {
    let body = json!({"redirect_uris": [CALLBACK]});
    let start = |name: &str, value: &str| {
        let name = format!("SYSTEMPROMPT__SECURITY__IDENTITY__{name}");
        stores::sqlite().without_limits().env(&name, value).start().unwrap()
    };
    let closed = start("REGISTRATION", "closed");
    let http = Client::new(&closed);
    let refused = register(&http, &body).await;
    assert_eq!((refused.status, refused.json()["error"].as_str()), (403, Some("access_denied")));
    assert_eq!(send(&http, Method::POST, REGISTER, closed.admin_token(), Some(&body)).await.status, 403);
    let document = http.get("/.well-known/oauth-authorization-server", &[]).await.json();
    assert!(document.get("registration_endpoint").is_none());
    drop(closed);

    let users = start("REGISTRATION", "authenticated");
    let http = Client::new(&users);
    let refused = register(&http, &body).await;
    assert_eq!((refused.status, refused.json()["error"].as_str()), (401, Some("invalid_token")));
    assert_eq!(send(&http, Method::POST, REGISTER, users.user_token(), Some(&body)).await.status, 201);
    drop(users);

    let full = start("REGISTRATION_MAX_CLIENTS", "2");
    let http = Client::new(&full);
    for _ in 0..2 {
        assert_eq!(register(&http, &body).await.status, 201);
    }
    let refused = register(&http, &body).await;
    assert_eq!((refused.status, refused.json()["error"].as_str()), (503, Some("temporarily_unavailable")));
    for _ in 0..17 {
        assert_ne!(register(&http, &body).await.status, 429);
    }
    let throttled = register(&http, &body).await;
    assert_eq!(throttled.status, 429, "20 an hour from a network");
    assert!(throttled.header("retry-after").parse::<u32>().unwrap() <= 3601);
}

#[tokio::test(flavor = "multi_thread")]
async fn id_16_clients_are_managed_over_http_and_on_the_command_line() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let http = Client::new(&server);
        let admin = server.admin_token().to_owned();
        let body = json!({"client_id": "ci-1", "client_name": "CI", "grant_types": ["client_credentials"], "scope": "user"});
        for path in [CLIENTS, "/api/v1/admin/clients"] {
            assert_eq!(http.get(path, &[]).await.status, 401);
        }
        assert_eq!(
            send(&http, Method::GET, "/api/v1/admin/clients", server.user_token(), None).await.status,
            403
        );
        let made = send(&http, Method::POST, "/api/v1/admin/clients", &admin, Some(&body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let secret = made.json()["client_secret"].as_str().unwrap().to_owned();
        assert_eq!(send(&http, Method::POST, CLIENTS, &admin, Some(&body)).await.status, 409);
        let path = format!("{CLIENTS}/ci-1");
        let shown = send(&http, Method::GET, &path, &admin, None).await;
        assert_eq!((shown.header("etag"), shown.json()["client_secret"].clone()), ("\"v1\"", Value::Null));
        assert_eq!(send(&http, Method::GET, &path, server.user_token(), None).await.status, 404);
        assert_eq!(token_status(&http, "ci-1", &secret, "user").await, 200);

        let put = async |etag: Option<&str>, body: &Value| {
            let token = bearer(&admin);
            let mut headers = vec![("authorization", token.as_str())];
            headers.extend(etag.map(|etag| ("if-match", etag)));
            http.send(Method::PUT, &path, &headers, Some(body)).await.unwrap()
        };
        let mut change = body.clone();
        change["scope"] = "user mcp".into();
        assert_eq!(put(None, &change).await.status, 428);
        assert_eq!(put(Some("\"v9\""), &change).await.status, 412);
        let mut wrong = change.clone();
        wrong["scopes"] = "x".into();
        assert_eq!(put(Some("\"v1\""), &wrong).await.status, 422, "a misspelt member");
        let changed = put(Some("\"v1\""), &change).await;
        assert_eq!((changed.status, changed.header("etag")), (200, "\"v2\""));
        assert_eq!(token_status(&http, "ci-1", &secret, "mcp").await, 200);

        let made = server
            .succeed(&[
                "admin",
                "clients",
                "create",
                "Line",
                "--id",
                "line",
                "--grant",
                "client_credentials",
                "--scope",
                "user",
            ])
            .unwrap();
        let line = made.trim().to_owned();
        assert!(line.starts_with("sps_") && !line.contains('\n'), "{line}");
        assert_eq!(token_status(&http, "line", &line, "user").await, 200);
        let next = server.succeed(&["admin", "clients", "rotate-secret", "line", "--overlap", "0"]).unwrap();
        assert_eq!(token_status(&http, "line", &line, "user").await, 401);
        assert_eq!(token_status(&http, "line", next.trim(), "user").await, 200);
        assert!(server.succeed(&["admin", "clients", "list"]).unwrap().contains("line"));
        server.succeed(&["admin", "clients", "update", "line", "--status", "disabled"]).unwrap();
        assert_eq!(token_status(&http, "line", next.trim(), "user").await, 401);
        assert!(server.succeed(&["admin", "clients", "get", "line"]).unwrap().contains("disabled"));
        server.succeed(&["admin", "clients", "delete", "line", "--yes"]).unwrap();
        assert!(!server.run(&["admin", "clients", "get", "line"]).unwrap().status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_has_a_client_that_gets_tokens() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let http = Client::new(&server);
    let demo = server.ready()["demo"].clone();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let (id, secret) = (text(&demo, "client_id"), text(&demo, "client_secret"));
    assert_eq!(token_status(&http, &id, &secret, "service user mcp").await, 200);
    let again = server.restart().unwrap();
    let http = Client::new(&again);
    let next = text(&again.ready()["demo"], "client_secret");
    assert_eq!(token_status(&http, &id, &next, "user").await, 200);
    assert_eq!(token_status(&http, &id, &secret, "user").await, 401);
}

async fn token_status(http: &Client, id: &str, secret: &str, scope: &str) -> u16 {
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let form = format!("grant_type=client_credentials&scope={}", scope.replace(' ', "+"));
    http.raw("/api/v1/core/oauth/token", &[FORM, ("authorization", &basic)], form).await.unwrap().status
}
