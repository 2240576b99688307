//! The endpoints that clients call without a browser, over HTTP: what they answer byte for byte, and that no token stays where it
//! was not meant to be.

use crate::http::{Answer, Client, FORM, OAUTH, UNSTORED, claims_of};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use systemprompt_database::{Db, on, on_tx};
use systemprompt_models::Secret;
use systemprompt_oauth::at_rest::{AtRest, Label};
use systemprompt_tests::{Options, Server};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Plane {
    server: Server,
    http: Client,
    db: Db,
    at_rest: AtRest,
}

async fn start(options: Options) -> Plane {
    let server = options.without_limits().start().unwrap();
    let pepper = Secret::from(server.secret("oauth_at_rest_pepper").unwrap());
    let (http, db) = (Client::new(&server), stores::open(&server).await);
    let plane = Plane { server, http, db, at_rest: AtRest::new(&pepper, None).unwrap() };
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    plane.client("ci", "client_secret_basic", "client_credentials", "service user hook:track").await;
    plane
        .client("app", "none", &format!("authorization_code refresh_token {device}"), "openid user mcp")
        .await;
    plane
}

impl Plane {
    /// A client whose secret is `sps_` and its id.
    async fn client(&self, id: &str, method: &str, grants: &str, scopes: &str) {
        let digest = self.at_rest.digest(Label::ClientSecret, &format!("sps_{id}")).hex;
        let mut tx = self.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_clients (client_id, name, kind, auth_method, application_type, status, user_id,
                 metadata_digest, created_at, updated_at, version)
             VALUES ($1, $1, 'managed', $2, 'web', 'active', $3, '', 1, 1, 1)"
        ).bind(id).bind(method).bind(format!("user-of-{id}")).execute(&mut *conn).await.map(drop))
        .unwrap();
        for (statement, words) in [
            ("INSERT INTO oauth_client_grant_types (client_id, value) VALUES ($1, $2)", grants),
            ("INSERT INTO oauth_client_scopes (client_id, value) VALUES ($1, $2)", scopes),
        ] {
            for word in words.split(' ') {
                on_tx!(tx, conn => sqlx::query(statement).bind(id).bind(word).execute(&mut *conn).await.map(drop))
                    .unwrap();
            }
        }
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_client_secrets (client_id, secret_digest, pepper_id, created_at) VALUES ($1, $2, 'p', 1)"
        ).bind(id).bind(&digest).execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
    }

    /// A code of bob's for `app`, as the authorization endpoint leaves it.
    async fn code(&self, scopes: &str) -> String {
        let (bob,): (String,) =
            on!(&self.db, pool => sqlx::query_as("SELECT id FROM users WHERE username = 'bob'")
            .fetch_one(pool).await)
            .unwrap();
        let code = systemprompt_security::opaque::generate("ac_").unwrap().expose().clone();
        let digest = self.at_rest.digest(Label::AuthCode, &code).hex;
        let grant = systemprompt_models::ids::GrantId::generate();
        let now = 1_000 * self.seconds().await;
        let mut tx = self.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_grants (grant_id, user_id, client_id, kind, scopes, resources, offline, created_at,
                 family_expires_at)
             VALUES ($1, $2, 'app', 'code', $3, '', 1, $4, $5)"
        )
            .bind(grant.as_str()).bind(&bob).bind(scopes).bind(now).bind(now + 3_600_000)
            .execute(&mut *conn).await.map(drop))
        .unwrap();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_auth_codes (code_digest, client_id, user_id, session_id, grant_id, redirect_uri,
                 redirect_uri_given, code_challenge, scopes, resources, auth_time, pepper_id, created_at, expires_at)
             VALUES ($1, 'app', $2, '', $3, 'https://app.example/cb', 1, $4, $5, '', 7, 'p', $6, $7)"
        )
            .bind(&digest).bind(&bob).bind(grant.as_str()).bind(CHALLENGE).bind(scopes).bind(now)
            .bind(now + 600_000).execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        code
    }

    /// The server's clock, from a token that it signs.
    async fn seconds(&self) -> i64 {
        let tokens = self.post("/token", Some("ci"), "grant_type=client_credentials&scope=user").await.json();
        claims_of(tokens["access_token"].as_str().unwrap())["iat"].as_i64().unwrap()
    }

    async fn post(&self, path: &str, client: Option<&str>, form: &str) -> Answer {
        let authorization = client.map(|id| format!("Basic {}", STANDARD.encode(format!("{id}:sps_{id}"))));
        let mut headers = vec![FORM];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        self.http.raw(&format!("{OAUTH}{path}"), &headers, form.to_owned()).await.unwrap()
    }

    async fn exchange(&self, code: &str) -> Answer {
        exchange(&self.http, code).await
    }
}

async fn exchange(http: &Client, code: &str) -> Answer {
    let form = format!(
        "grant_type=authorization_code&client_id=app&code={code}&redirect_uri=https://app.example/cb&code_verifier={VERIFIER}"
    );
    http.raw(&format!("{OAUTH}/token"), &[FORM], form).await.unwrap()
}

fn is_unstored(answer: &Answer) {
    for (name, value) in UNSTORED {
        assert_eq!(answer.header(name), value, "{name} of {}", answer.body);
    }
}

#[tokio::test]
async fn a24_client_credentials_over_http_make_a_token_that_counts() {
    for options in stores::engines().await {
        let plane = start(options.env("SYSTEMPROMPT__SECURITY__JWT_ACCESS_TOKEN_EXPIRATION", "90")).await;
        let answer =
            plane.post("/token", Some("ci"), "grant_type=client_credentials&scope=user+service").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        is_unstored(&answer);
        let body = answer.json();
        let token = body["access_token"].as_str().unwrap();
        let names: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["access_token", "expires_in", "scope", "token_type"]);
        assert_eq!((&body["scope"], &body["expires_in"]), (&"user service".into(), &90.into()));
        let said = claims_of(token);
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 90);

        // It is verified like any other, and its end is known at once.
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        assert_eq!(plane.http.get("/api/v1/health/detail", &headers).await.status, 200);
        let seen = plane.post("/introspect", Some("ci"), &format!("token={token}")).await.json();
        assert_eq!((&seen["active"], &seen["sub"]), (&true.into(), &"user-of-ci".into()));
        let ended =
            plane.post("/revoke", Some("ci"), &format!("token={token}&token_type_hint=access_token")).await;
        assert_eq!((ended.status, ended.body.as_str()), (200, ""));
        is_unstored(&ended);
        assert_eq!(plane.http.get("/api/v1/health/detail", &headers).await.status, 401);
        let seen = plane.post("/introspect", Some("ci"), &format!("token={token}")).await;
        assert_eq!(seen.body, r#"{"active":false}"#);
    }
}

#[tokio::test]
async fn a3_a_code_is_exchanged_once_of_32_and_then_its_token_is_dead() {
    for options in stores::engines().await {
        let plane = start(options).await;
        let good = plane.exchange(&plane.code("openid user").await).await;
        assert_eq!(good.status, 200, "{}", good.body);
        let refreshed = |token: &Value| {
            format!("grant_type=refresh_token&client_id=app&refresh_token={}", token.as_str().unwrap())
        };
        let next = plane.post("/token", None, &refreshed(&good.json()["refresh_token"])).await;
        assert_eq!(next.status, 200, "{}", next.body);
        assert!(next.json()["id_token"].is_string());

        let code = plane.code("openid user").await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let (http, code) = (plane.http.clone(), code.clone());
            tasks.spawn(async move { exchange(&http, &code).await });
        }
        let answers = tasks.join_all().await;
        let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(won.len(), 1);
        assert!(answers.iter().filter(|a| a.status != 200).all(|a| a.json()["error"] == "invalid_grant"));
        let token = won[0].json()["access_token"].as_str().unwrap().to_owned();
        let bearer = format!("Bearer {}", plane.server.admin_token());
        let headers = [FORM, ("authorization", bearer.as_str())];
        let path = format!("{OAUTH}/introspect");
        let seen = plane.http.raw(&path, &headers, format!("token={token}")).await.unwrap();
        assert_eq!((seen.status, seen.body.as_str()), (200, r#"{"active":false}"#));
    }
}

/// Endpoint, credentials, form, status, error and description.
type Row<'a> = (&'a str, Option<&'a str>, &'a str, u16, &'a str, &'a str);

#[tokio::test]
async fn id_132_each_error_has_its_status_and_its_body() {
    let plane = start(stores::sqlite()).await;
    let code = plane.code("user").await;
    let no_verifier = format!(
        "grant_type=authorization_code&client_id=app&code={code}&redirect_uri=https://app.example/cb"
    );
    let rows: [Row<'_>; 12] = [
        ("/token", Some("ci"), "scope=user", 400, "invalid_request", "grant_type is missing"),
        (
            "/token",
            Some("ci"),
            "grant_type=a&grant_type=b",
            400,
            "invalid_request",
            "a parameter is repeated",
        ),
        (
            "/token",
            Some("ci"),
            "grant_type=password",
            400,
            "unsupported_grant_type",
            "grant_type is none of those that are served",
        ),
        (
            "/token",
            Some("no"),
            "grant_type=client_credentials",
            401,
            "invalid_client",
            "client authentication failed",
        ),
        (
            "/token",
            Some("ci"),
            "grant_type=refresh_token",
            400,
            "unauthorized_client",
            "grant_type is not allowed for this client",
        ),
        (
            "/token",
            Some("ci"),
            "grant_type=client_credentials",
            400,
            "invalid_scope",
            "Scope is required for client credentials grant",
        ),
        (
            "/token",
            Some("ci"),
            "grant_type=client_credentials&scope=hook:track",
            400,
            "invalid_target",
            "Hook scopes require audience=hook on the token request",
        ),
        ("/token", None, &no_verifier, 400, "invalid_grant", "code_verifier is not valid"),
        ("/introspect", None, "token=x&client_id=app", 401, "invalid_client", "client authentication failed"),
        ("/introspect", Some("ci"), "a=b", 400, "invalid_request", "token is missing"),
        ("/revoke", None, "token=x", 400, "invalid_request", "client_id is missing"),
        (
            "/device_authorization",
            None,
            "client_id=app&scope=service",
            400,
            "invalid_scope",
            "nothing of scope is allowed for this client",
        ),
    ];
    for (path, client, form, status, error, description) in rows {
        let answer = plane.post(path, client, form).await;
        let trace = answer.json()["trace_id"].clone();
        let body = json!({"error": error, "error_description": description, "trace_id": trace});
        assert_eq!((answer.status, answer.json()), (status, body), "{path} {form}");
        is_unstored(&answer);
        let challenge = if status == 401 && client.is_some() { "Basic realm=\"oauth\"" } else { "" };
        assert_eq!(answer.header("www-authenticate"), challenge, "{path} {form}");
    }
    let path = format!("{OAUTH}/token");
    let json = plane.http.post(&path, &[], &json!({"grant_type": "client_credentials"})).await;
    assert_eq!((json.status, &json.json()["error"]), (415, &"invalid_request".into()));
    let query = plane
        .http
        .raw(&format!("{path}?grant_type=client_credentials"), &[FORM], String::new())
        .await
        .unwrap();
    assert_eq!((query.status, &query.json()["error"]), (400, &"invalid_request".into()));
    let large = plane.http.raw(&path, &[FORM], format!("grant_type={}", "a".repeat(8200))).await.unwrap();
    assert_eq!(large.status, 413, "{}", large.body);
    let bob = format!("Bearer {}", plane.server.user_token());
    let headers = [FORM, ("authorization", bob.as_str())];
    let asked = plane.http.raw(&format!("{OAUTH}/introspect"), &headers, "token=x".into()).await.unwrap();
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, "Bearer error=\"invalid_token\""));
}

#[tokio::test]
async fn id_64_a_device_is_answered_with_the_members_of_the_standard_and_waits() {
    for options in stores::engines().await {
        let plane = start(options).await;
        let device = plane.post("/device_authorization", None, "client_id=app&scope=user").await;
        is_unstored(&device);
        let device = device.json();
        let names: Vec<&str> = device.as_object().unwrap().keys().map(String::as_str).collect();
        let want = [
            "device_code",
            "expires_in",
            "interval",
            "user_code",
            "verification_uri",
            "verification_uri_complete",
        ];
        assert_eq!(names, want);
        let grant = "urn:ietf:params:oauth:grant-type:device_code";
        let device_code = device["device_code"].as_str().unwrap();
        let form = format!("grant_type={grant}&client_id=app&device_code={device_code}");
        let early = plane.post("/token", None, &form).await;
        assert_eq!(early.json()["error"], "authorization_pending");
    }
}

/// A second node of the deployment that `first` is of, with its keys, behind its address.
pub(crate) fn second(first: &Server) -> Server {
    let keys = std::fs::read_to_string(first.data_dir().join("keys/signing.json")).unwrap();
    Options::demo()
        .unwrap()
        .without_limits()
        .postgres(&first.database_url())
        .secret("jwt_secret", &first.secret("jwt_secret").unwrap())
        .secret("oauth_at_rest_pepper", &first.secret("oauth_at_rest_pepper").unwrap())
        .file("keys/signing.json", &keys)
        .env("SYSTEMPROMPT__SERVER__API_EXTERNAL_URL", first.url())
        .env("SYSTEMPROMPT__SERVER__INSTANCE_ID", "second")
        .start()
        .unwrap()
}

/// Sends one form 32 times at once, half of them to each of two nodes.
async fn to_both(nodes: [&Client; 2], form: &str) -> Vec<Answer> {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..32 {
        let (http, form) = (nodes[n % 2].clone(), form.to_owned());
        tasks.spawn(async move { http.raw(&format!("{OAUTH}/token"), &[FORM], form).await.unwrap() });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn a27_two_nodes_give_one_winner_of_a_code_and_one_child_of_a_refresh_token() {
    let plane = start(stores::postgres().await).await;
    let other = second(&plane.server);
    let there = Client::new(&other);
    let nodes = [&plane.http, &there];

    let first = plane.exchange(&plane.code("user").await).await.json();
    let parent = first["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&client_id=app&refresh_token={parent}");
    let answers = to_both(nodes, &form).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{:?}", answers.iter().map(|a| &a.body).max());
    let children: std::collections::BTreeSet<String> =
        answers.iter().map(|answer| answer.json()["refresh_token"].as_str().unwrap().to_owned()).collect();
    assert_eq!(children.len(), 1);

    let code = plane.code("user").await;
    let form = format!(
        "grant_type=authorization_code&client_id=app&code={code}&redirect_uri=https://app.example/cb&code_verifier={VERIFIER}"
    );
    let answers = to_both(nodes, &form).await;
    let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(won.len(), 1, "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
    let token = won[0].json()["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let ended = std::time::Instant::now();
    for http in nodes {
        while http.get("/api/v1/health/detail", &[("authorization", &bearer)]).await.status != 401 {
            assert!(ended.elapsed() < std::time::Duration::from_secs(2), "it lives on");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// What a person lent a client, or keeps as an API key, makes itself nothing more of their account.
#[tokio::test]
async fn id_86_an_account_is_changed_by_a_session_of_its_person_and_by_nothing_that_they_lent() {
    let plane = start(stores::sqlite()).await;
    let lent = plane.exchange(&plane.code("openid user").await).await.json();
    let session = plane.server.user_token();
    let narrow = json!({"name": "narrow", "scope": "user"});
    let keys = "/api/v1/core/users/me/api-keys";
    let made = plane.http.post(keys, &[("authorization", &format!("Bearer {session}"))], &narrow).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = made.json()["key"].as_str().unwrap().to_owned();
    let me = "/api/v1/core/users/me";
    let client = json!({"name": "c", "grant_types": ["client_credentials"], "scope": "user"});
    for credential in [lent["access_token"].as_str().unwrap(), &key] {
        let bearer = format!("Bearer {credential}");
        let headers = [("authorization", bearer.as_str())];
        assert_eq!(plane.http.get(me, &headers).await.status, 200, "it may read who it is of");
        for path in ["sessions", "grants", "passkeys", "api-keys"] {
            let answer = plane.http.get(&format!("{me}/{path}"), &headers).await;
            assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("denied")), "{path}");
        }
        for (path, body) in [
            (keys, &narrow),
            ("/api/v1/core/users/me/recovery-codes", &json!({})),
            ("/api/v1/core/users/me/bridge-codes", &json!({})),
            ("/api/v1/core/users/me/sessions/revoke_all", &json!({"keep_current": true})),
            ("/api/v1/core/oauth/clients", &client),
        ] {
            let answer = plane.http.post(path, &headers, body).await;
            assert_eq!(answer.status, 403, "{path} {}", answer.body);
        }
        let register = "/api/v1/core/oauth/register";
        let machine = json!({"grant_types": ["client_credentials"], "scope": "user"});
        assert_eq!(plane.http.post(register, &headers, &machine).await.status, 401);
    }

    // A session that may less than its person makes no key that may more.
    let bearer = format!("Bearer {}", plane.server.admin_token());
    let admin = [("authorization", bearer.as_str())];
    let asked = json!({"user": "ada", "ttl_s": 600, "scope": "user"});
    let minted = plane.http.post("/api/v1/admin/tokens", &admin, &asked).await;
    assert_eq!(minted.status, 201, "{}", minted.body);
    let bearer = format!("Bearer {}", minted.json()["token"].as_str().unwrap());
    // Nor is it renewed into more, or for longer.
    let half = json!({"user": "ada", "ttl_s": 60, "scope": "user"});
    let short = plane.http.post("/api/v1/admin/tokens", &admin, &half).await.json();
    let shown = format!("Bearer {}", short["token"].as_str().unwrap());
    tokio::time::sleep(std::time::Duration::from_secs(32)).await;
    let headers = [("authorization", shown.as_str()), ("accept", "application/json")];
    let renewed = plane.http.post("/api/v1/core/oauth/session", &headers, &json!({})).await;
    assert_eq!((renewed.status, &renewed.json()["access_token"]), (200, &Value::Null), "{}", renewed.body);

    let wide = json!({"name": "wide", "scope": "admin"});
    let refused = plane.http.post(keys, &[("authorization", bearer.as_str())], &wide).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
}

#[tokio::test]
async fn a27_two_nodes_give_the_tokens_of_a_device_once() {
    let plane = start(stores::postgres().await).await;
    let other = second(&plane.server);
    let there = Client::new(&other);
    let begun = plane.post("/device_authorization", None, "client_id=app&scope=openid+user").await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let code = begun.json()["device_code"].as_str().unwrap().to_owned();
    // As bob leaves it when he has approved on either node.
    let now = 1_000 * plane.seconds().await;
    let mut tx = plane.db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query(
        "INSERT INTO oauth_grants (grant_id, user_id, client_id, kind, scopes, resources, offline, created_at, family_expires_at)
         SELECT 'grt_00000000000070008000000000000001', id, 'app', 'device', 'openid user', '', 1, $1, $2
         FROM users WHERE username = 'bob'"
    ).bind(now).bind(now + 3_600_000).execute(&mut *conn).await.map(drop))
    .unwrap();
    on_tx!(tx, conn => sqlx::query(
        "UPDATE oauth_device_codes SET status = 'approved', grant_id = 'grt_00000000000070008000000000000001', auth_time = 7,
             user_id = (SELECT id FROM users WHERE username = 'bob')"
    ).execute(&mut *conn).await.map(drop))
    .unwrap();
    tx.commit().await.unwrap();
    let form =
        format!("grant_type=urn:ietf:params:oauth:grant-type:device_code&client_id=app&device_code={code}");
    let answers = to_both([&plane.http, &there], &form).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    let words: std::collections::BTreeSet<String> = answers
        .iter()
        .filter(|answer| answer.status != 200)
        .map(|answer| answer.json()["error"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((won, words.into_iter().collect::<Vec<_>>()), (1, vec!["invalid_grant".to_owned()]));
}
