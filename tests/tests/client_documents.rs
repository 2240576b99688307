//! Clients that are named by the address of their metadata document, which a TLS server of the test serves in every wrong way.

use crate::http::{Client, FORM};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
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

const CALLBACK: &str = "https://app.example/cb";

/// How the token endpoint refuses a refresh of a client that has nothing to refresh.
pub async fn word(http: &Client, client: &str) -> String {
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

    /// A server that trusts the root and has asked for nothing yet.
    fn trusted_by(&self, options: Options) -> Server {
        self.asked.lock().unwrap().clear();
        options.env("SSL_CERT_FILE", self.root.to_str().unwrap()).start().unwrap()
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
        "/signs" => {
            document["token_endpoint_auth_method"] = "private_key_jwt".into();
            document["jwks_uri"] = url("/keys").into();
        }
        // RFC 8037 appendix A.2.
        "/keys" => {
            let key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            document = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "known", "x": key}]});
        }
        "/redirect" => (status, more) = ("302 Found", format!("location: {}\r\n", url("/ok"))),
        "/created" => status = "201 Created",
        "/other" => document["client_id"] = url("/ok").into(),
        "/gzip" => more = "content-encoding: gzip\r\n".into(),
        "/secret" => document["client_secret"] = "s".into(),
        "/basic" => document["token_endpoint_auth_method"] = "client_secret_basic".into(),
        "/unsignable" => document["id_token_signed_response_alg"] = "ES256".into(),
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
    for options in stores::unlimited().await {
        let server = documents.trusted_by(options);
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
            ("/unsignable", "member_invalid"),
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
        assert_eq!((shown.status, shown.header("content-type")), (200, "image/png"), "{}", server.log());
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
    let public = ("SYSTEMPROMPT__SERVER__API_EXTERNAL_URL", "https://agents.example");
    let server = documents.trusted_by(stores::sqlite().without_limits().env(public.0, public.1));
    let http = Client::new(&server);
    assert_eq!(word(&http, &format!("client_id={}", documents.client("/ok"))).await, "invalid_client");
    assert_eq!(documents.asked("/ok"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn id_131_a_thousand_unknown_kids_cause_one_fetch_of_the_keys() {
    let documents = Documents::start().await;
    for options in stores::unlimited().await {
        let server = documents.trusted_by(options);
        let http = Client::new(&server);
        let client = documents.client("/signs");
        let issuer = http.get("/.well-known/openid-configuration", &[]).await.json()["issuer"].clone();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for n in 0..1000 {
            let header = part(&json!({"alg": "EdDSA", "kid": format!("unknown-{n}")}));
            let claims = part(&json!({
                "iss": client, "sub": client, "aud": issuer, "exp": 4_000_000_000_i64, "jti": format!("j{n}"),
            }));
            let assertion = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            let form = format!(
                "grant_type=refresh_token&refresh_token=x&client_assertion_type={kind}&client_assertion={assertion}"
            );
            let answer = http.raw("/api/v1/core/oauth/token", &[FORM], form).await.unwrap();
            assert_eq!(answer.json()["error"], "invalid_client", "{n}: {}", answer.body);
        }
        assert_eq!((documents.asked("/signs"), documents.asked("/keys")), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_111_fetches_sessions_and_endpoints_are_in_the_metrics_and_no_client_is() {
    let documents = Documents::start().await;
    let server = documents.trusted_by(stores::sqlite().without_limits());
    let http = Client::new(&server);
    for path in ["/ok", "/created"] {
        word(&http, &format!("client_id={}", documents.client(path))).await;
    }
    let text = http.get("/metrics", &[]).await.body;
    for line in [
        "systemprompt_oauth_cimd_fetch_total{outcome=\"ok\"} 1",
        "systemprompt_oauth_cimd_fetch_total{outcome=\"status\"} 1",
        "systemprompt_oauth_request_duration_seconds_count{endpoint=\"token\"} 2",
        "systemprompt_oauth_refused_total{endpoint=\"token\",error=\"invalid_client\"} 1",
        "systemprompt_oauth_sessions_active ",
        "systemprompt_oauth_clients_registered_max ",
        "systemprompt_oauth_argon2_queue 0",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} in {text}");
    }
    assert!(!text.contains("localhost"), "no label names a client");
}
