//! Clients over HTTP on both engines: registration (RFC 7591, RFC 7592), management, metadata documents that a TLS server of the
//! test serves in every wrong way, and the client of the demo.

use crate::http::{Answer, Client};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use systemprompt_tests::{Options, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

const REGISTER: &str = "/api/v1/core/oauth/register";
const CLIENTS: &str = "/api/v1/core/oauth/clients";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const CALLBACK: &str = "https://app.example/cb";

async fn engines() -> [Options; 2] {
    [stores::sqlite().without_limits(), stores::postgres().await.without_limits()]
}

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
    for options in engines().await {
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
    for options in engines().await {
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

/// How the token endpoint refuses a refresh of a client that has nothing to refresh.
async fn word(http: &Client, client: &str) -> String {
    loop {
        let form = format!(
            "grant_type=refresh_token&refresh_token=rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA&{client}"
        );
        let answer = http.raw("/api/v1/core/oauth/token", &[FORM], form).await.unwrap();
        if answer.status != 429 {
            return answer.json()["error"].as_str().unwrap().to_owned();
        }
        // The budget of fetches: one a second from a host.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A TLS server with one document a path, and how often each was asked for.
struct Documents {
    address: SocketAddr,
    root: PathBuf,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    _folder: tempfile::TempDir,
}

impl Documents {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, root) = certificates(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let (acceptor, counted) = (TlsAcceptor::from(config), Arc::clone(&asked));
        #[expect(clippy::disallowed_methods, reason = "the test's own server")]
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
                #[expect(clippy::disallowed_methods, reason = "the test's own server")]
                tokio::spawn(async move {
                    let Ok(mut socket) = acceptor.accept(socket).await else { return };
                    let mut head = vec![0; 8192];
                    let length = socket.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    assert!(
                        head.to_ascii_lowercase().contains("accept: application/json") || path == "/logo.png"
                    );
                    let count = {
                        let mut counted = counted.lock().unwrap();
                        let count = counted.entry(path.clone()).or_insert(0);
                        *count += 1;
                        *count
                    };
                    if path == "/drip" {
                        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n").await;
                        while socket.write_all(b" ").await.is_ok() && socket.flush().await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                        return;
                    }
                    let _ = socket.write_all(&respond(address, &path, count)).await;
                    let _ = socket.shutdown().await;
                });
            }
        });
        Self { address, root, asked, _folder: folder }
    }

    fn client(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

/// The server's configuration, and the file of the root that signed its certificate.
fn certificates(folder: &Path) -> (Arc<ServerConfig>, PathBuf) {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = root.self_signed(&root_key).unwrap();
    let file = folder.join("root.pem");
    let body = STANDARD.encode(certificate.der());
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    std::fs::write(&file, pem).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = own.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    (Arc::new(config), file)
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nthe rest of a picture";

fn respond(address: SocketAddr, path: &str, count: usize) -> Vec<u8> {
    let url = |path: &str| format!("https://localhost:{}{path}", address.port());
    let mut document = json!({
        "client_id": url(path), "client_name": "App", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
    });
    let (mut status, mut more, mut media) = ("200 OK", String::new(), "application/json");
    match path {
        "/unknown" => document["future_member"] = json!({"a": [1]}),
        "/nomethod" => drop(document.as_object_mut().unwrap().remove("token_endpoint_auth_method")),
        "/plusjson" => media = "application/client-metadata+json; charset=utf-8",
        "/logo" => document["logo_uri"] = url("/logo.png").into(),
        "/logo.png" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {}\r\n\r\n",
                PNG.len()
            );
            return [head.as_bytes(), PNG].concat();
        }
        "/redirect" => (status, more) = ("302 Found", format!("location: {}\r\n", url("/ok"))),
        "/created" => status = "201 Created",
        "/other" => document["client_id"] = url("/ok").into(),
        "/gzip" => more = "content-encoding: gzip\r\n".into(),
        "/secret" => document["client_secret"] = "s".into(),
        "/basic" => document["token_endpoint_auth_method"] = "client_secret_basic".into(),
        "/html" => media = "text/html",
        "/flaky" if count == 1 => status = "500 Internal Server Error",
        _ => {}
    }
    let mut body = if path == "/array" { json!([document]).to_string() } else { document.to_string() };
    let wanted = match path {
        "/5120" => 5120,
        "/5121" | "/chunked" => 5121,
        _ => body.len(),
    };
    body.push_str(&" ".repeat(wanted - body.len()));
    let (length, body) = match path {
        "/chunked" => {
            ("transfer-encoding: chunked".to_owned(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
        }
        _ => (format!("content-length: {}", body.len()), body),
    };
    format!("HTTP/1.1 {status}\r\ncontent-type: {media}\r\n{more}{length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a23_a_metadata_document_counts_only_if_everything_about_it_is_right() {
    let documents = Documents::start().await;
    let trusting = |options: Options| options.env("SSL_CERT_FILE", documents.root.to_str().unwrap());
    let [sqlite, postgres] = engines().await;
    for options in [sqlite, postgres] {
        documents.asked.lock().unwrap().clear();
        let server = trusting(options).start().unwrap();
        let http = Client::new(&server);
        let answer = async |path: &str| word(&http, &format!("client_id={}", documents.client(path))).await;
        for (path, reason) in [
            ("/redirect", "redirect"),
            ("/created", "status"),
            ("/5121", "too_large"),
            ("/chunked", "too_large"),
            ("/drip", "timeout"),
            ("/other", "other_client_id"),
            ("/gzip", "encoded"),
            ("/array", "not_an_object"),
            ("/secret", "member_forbidden"),
            ("/basic", "member_forbidden"),
            ("/html", "media_type"),
        ] {
            assert_eq!(answer(path).await, "invalid_client", "{path}");
            assert_eq!(documents.asked(path), 1, "{path}");
            let db = stores::open(&server).await;
            let records = stores::texts(
                &db,
                "SELECT CAST(record AS TEXT) FROM ledger_entries WHERE kind = 'oauth.cimd.refused'",
            )
            .await;
            let is_told = |record: &Value| {
                record["reason"] == reason
                    && record["subject_entity"]["id"] == documents.client(path).as_str()
                    && record["detail"]["host"] == "localhost"
            };
            let told = records.iter().any(|text| is_told(&serde_json::from_str(text).unwrap()));
            assert!(told, "{path}: no record with the reason {reason} in {records:?}");
        }
        assert_eq!(documents.asked("/ok"), 0, "a redirect is not followed");
        for path in ["/ok", "/unknown", "/nomethod", "/plusjson", "/5120", "/logo"] {
            assert_eq!(answer(path).await, "invalid_grant", "{path}");
            assert_eq!(answer(path).await, "invalid_grant", "{path}");
            assert_eq!(documents.asked(path), 1, "{path} is kept");
        }
        assert_eq!(answer("/flaky").await, "invalid_client");
        assert_eq!(answer("/flaky").await, "invalid_grant", "an error is not kept");

        let picture = format!("/api/v1/core/oauth/logo?client_id={}", documents.client("/logo"));
        let shown = http.get(&picture, &[]).await;
        assert_eq!((shown.status, shown.header("content-type")), (200, "image/png"));
        assert_eq!(shown.header("x-content-type-options"), "nosniff");
        let none = format!("/api/v1/core/oauth/logo?client_id={}", documents.client("/ok"));
        assert_eq!(http.get(&none, &[]).await.status, 404);

        for address in [
            "https://127.0.0.1:1/x",
            "https://[::1]:1/x",
            "https://localhost/a/%2e%2e/b",
            "https://localhost/",
        ] {
            assert_eq!(word(&http, &format!("client_id={address}")).await, "invalid_client", "{address}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a23_a_deployment_with_a_public_address_fetches_nothing_from_this_computer() {
    let documents = Documents::start().await;
    let server: Server = stores::sqlite()
        .without_limits()
        .env("SSL_CERT_FILE", documents.root.to_str().unwrap())
        .env("SYSTEMPROMPT__SERVER__API_EXTERNAL_URL", "https://agents.example")
        .start()
        .unwrap();
    let http = Client::new(&server);
    assert_eq!(word(&http, &format!("client_id={}", documents.client("/ok"))).await, "invalid_client");
    assert_eq!(documents.asked("/ok"), 0);
}
