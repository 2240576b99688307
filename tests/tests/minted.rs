//! Case A28: one server does all that mints a secret, of every kind that the identity plane knows; then each of them is looked for in
//! every column of every table, in every file of the data folder, in the log at its most talkative, and in an export of the ledger.

mod search;

use crate::http::{Answer, FORM, OAUTH};
use crate::people::{SoftAuthenticator, ceremony, cookie, setup, value};
use crate::rfc9700::{Browser, CALLBACK, VERIFIER, encoded, filled, hidden, parameter};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt_tests::Options;

const ME: &str = "/api/v1/core/users/me";
const PASSWORD: &str = "purple-otter-sings";

/// How the secrets of each kind begin, as far as they have a beginning of their own: none may be missing from the run.
const PREFIXES: [(&str, &str); 12] = [
    ("client secret", "sps_"),
    ("registration token", "reg_"),
    ("authorization request", "ar_"),
    ("pushed request", "urn:ietf:params:oauth:request_uri:"),
    ("code", "ac_"),
    ("refresh token", "rt_"),
    ("device code", "dc_"),
    ("flow cookie", "fl_"),
    ("API key", "sp-live-"),
    ("set-up token", "su_"),
    ("exchange code", "bx_"),
    ("signed token", "eyJ"),
];

/// What was minted, by its kind.
#[derive(Default)]
struct Minted(Vec<(&'static str, String)>);

impl Minted {
    fn keep(&mut self, kind: &'static str, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() >= 8, "{kind}: {secret:?} is no secret");
        self.0.push((kind, secret.clone()));
        secret
    }

    /// Keeps a member of an answer.
    fn member(&mut self, kind: &'static str, answer: &Value, name: &str) -> String {
        let text = answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}"));
        self.keep(kind, text)
    }

    /// Keeps every token of an answer of the token endpoint.
    fn tokens(&mut self, answer: &Value) {
        for (name, kind) in
            [("access_token", "access token"), ("refresh_token", "refresh token"), ("id_token", "ID token")]
        {
            if let Some(token) = answer[name].as_str() {
                self.keep(kind, token);
            }
        }
    }

    /// Keeps the token of a link.
    fn link(&mut self, kind: &'static str, link: &str) -> String {
        self.keep(kind, link.trim().split_once("#token=").unwrap().1)
    }

    fn cookies(&mut self, browser: &Browser) {
        self.keep("session token", browser.cookies["access_token"].as_str());
        if let Some(flow) = browser.cookies.get("sp_flow") {
            self.keep("flow cookie", flow.as_str());
        }
    }
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

fn well(answer: &Answer) -> Value {
    assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.body);
    answer.json()
}

async fn ask(browser: &Browser, path: &str, headers: &[(&str, &str)], body: &Value) -> Value {
    well(&browser.http.post(path, headers, body).await)
}

async fn form(browser: &Browser, path: &str, authorization: &str, form: &str) -> Value {
    let headers = [FORM, ("authorization", authorization)];
    well(&browser.http.raw(&format!("{OAUTH}/{path}"), &headers, form.to_owned()).await.unwrap())
}

/// Secrets of clients: registered, managed over HTTP and on the command line, each changed once. Returns how one shows itself.
async fn clients(browser: &Browser, minted: &mut Minted) -> String {
    let about = json!({"client_name": "confidential", "redirect_uris": [CALLBACK]});
    let made = ask(browser, &format!("{OAUTH}/register"), &[], &about).await;
    minted.member("client secret", &made, "client_secret");
    let token = minted.member("registration token", &made, "registration_access_token");
    let uri = made["registration_client_uri"].as_str().unwrap();
    let path = uri[uri.find("/api/").unwrap()..].to_owned();
    let mut change = about.clone();
    change["client_id"] = made["client_id"].clone();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let changed = browser.http.send(Method::PUT, &path, &headers, Some(&change)).await.unwrap();
    minted.member("registration token", &well(&changed), "registration_access_token");

    let ada = format!("Bearer {}", browser.server.admin_token());
    let headers = [("authorization", ada.as_str()), ("idempotency-key", "client-1")];
    let about = json!({
        "client_id": "minting", "client_name": "minting", "scope": "user mcp hook:track",
        "grant_types": ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"],
    });
    let made = ask(browser, "/api/v1/admin/clients", &headers, &about).await;
    minted.member("client secret", &made, "client_secret");
    let next = ask(browser, "/api/v1/admin/clients/minting/secret", &headers[..1], &json!({})).await;
    let secret = minted.member("client secret", &next, "client_secret");
    let words = ["admin", "clients", "create", "Line", "--id", "line", "--grant", "client_credentials"];
    let words: Vec<&str> = words.into_iter().chain(["--scope", "user"]).collect();
    minted.keep("client secret", browser.server.succeed(&words).unwrap().trim());
    let words = ["admin", "clients", "rotate-secret", "line"];
    minted.keep("client secret", browser.server.succeed(&words).unwrap().trim());
    let demo = browser.server.ready()["demo"].clone();
    minted.member("client secret", &demo, "client_secret");
    minted.member("session token", &demo, "admin_token");
    minted.member("session token", &demo, "user_token");
    basic("minting", &secret)
}

/// An authorization through its pages, pushed and not; its code, its tokens, and their children. Returns the access token.
async fn authorization(browser: &mut Browser, minted: &mut Minted) -> String {
    let pushed = format!(
        "client_id={}&redirect_uri={CALLBACK}&scope=openid+user&response_type=code&state=s&prompt=consent\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
        browser.client
    );
    let pushed = browser.http.raw(&format!("{OAUTH}/par"), &[FORM], pushed).await.unwrap();
    let uri = minted.member("pushed request", &well(&pushed), "request_uri");
    minted.keep("pushed request, its random part", uri.rsplit(':').next().unwrap());
    let path = format!("{OAUTH}/authorize?client_id={}&request_uri={uri}", browser.client);
    let asked = browser.get(&path).await;
    assert_eq!(asked.status, 303, "{}", asked.body);
    let location = asked.header("location").to_owned();
    let request = location.split_once("request=").unwrap().1.split('&').next().unwrap().to_owned();
    minted.keep("authorization request", request);
    let page = browser.get(&location).await;
    for (name, text) in hidden(&page.body) {
        if name == "csrf" {
            minted.keep("CSRF token", text);
        }
    }
    minted.cookies(browser);
    let answer = browser.decide(&page, "allow").await;
    let code = minted.keep("code", parameter(answer.header("location"), "code").unwrap());
    minted.keep("code verifier", VERIFIER);
    let exchange =
        format!("grant_type=authorization_code&code={code}&redirect_uri={CALLBACK}&code_verifier={VERIFIER}");
    let tokens = well(&browser.token(&exchange).await);
    minted.tokens(&tokens);
    let parent = tokens["refresh_token"].as_str().unwrap();
    for _ in 0..2 {
        let (status, next) = browser.refresh(parent).await;
        assert_eq!(status, 200, "{next}");
        minted.tokens(&next);
    }
    tokens["access_token"].as_str().unwrap().to_owned()
}

/// Tokens without a page: of a client, exchanged, of a device, of a session.
async fn tokens(browser: &mut Browser, minted: &mut Minted, (client, person): (&str, &str)) {
    let own = "grant_type=client_credentials&scope=user";
    minted.tokens(&form(browser, "token", client, own).await);
    let types = "urn:ietf:params:oauth:token-type:access_token";
    let exchange = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={person}&subject_token_type={types}"
    );
    minted.tokens(&form(browser, "token", client, &exchange).await);

    let ask = format!("client_id={}&scope=openid+user", browser.client);
    let begun = browser.http.raw(&format!("{OAUTH}/device_authorization"), &[FORM], ask).await.unwrap();
    let begun = well(&begun);
    let device_code = minted.member("device code", &begun, "device_code");
    let user_code = minted.member("user code", &begun, "user_code");
    minted.keep("user code, as it is kept", user_code.replace('-', ""));
    let page = browser.get(&format!("/device?user_code={user_code}")).await;
    assert_eq!(browser.submit("/device", filled(&page, "allow")).await.status, 303);
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let poll = format!("grant_type={grant}&device_code={device_code}");
    minted.tokens(&well(&browser.token(&poll).await));

    let headers = [("accept", "application/json")];
    let anonymous = browser.http.send(Method::POST, &format!("{OAUTH}/session"), &headers, None).await;
    minted.member("session token", &well(&anonymous.unwrap()), "access_token");
    let ada = format!("Bearer {}", browser.server.admin_token());
    let asked = json!({"user": "ada", "ttl_s": 600, "scope": "user"});
    let headers = [("authorization", ada.as_str())];
    let issued = well(&browser.http.post("/api/v1/admin/tokens", &headers, &asked).await);
    minted.member("session token", &issued, "token");
    let words = ["admin", "token", "issue", "bob"];
    minted.keep("session token", browser.server.succeed(&words).unwrap().trim());
}

/// Links, a sign-in, recovery codes and a code that was used; the browser is signed in again at the end.
async fn people(browser: &mut Browser, minted: &mut Minted) {
    let ada = format!("Bearer {}", browser.server.admin_token());
    let ada = [("authorization", ada.as_str())];
    let invite = json!({"email": "eve@example.com", "roles": ["user"]});
    let made = ask(browser, "/api/v1/admin/setup-link", &ada, &invite).await;
    let token = minted.link("set-up token, invitation", made["setup_url"].as_str().unwrap());
    let origin = browser.origin.clone();
    let mut eve = SoftAuthenticator::new(&origin);
    let start = json!({"username": "eve", "email": "eve@example.com", "token": token});
    let mut challenge = String::new();
    let create = |options: &Value| {
        options["publicKey"]["challenge"].as_str().unwrap().clone_into(&mut challenge);
        eve.create(options)
    };
    let done = ceremony(&browser.http, (&origin, "register"), start, create, json!({"token": token})).await;
    well(&done);
    minted.keep("challenge", challenge);
    minted.keep("session token", value(&cookie(&done, "access_token").unwrap()).split_once('=').unwrap().1);
    let made = ask(browser, "/api/v1/admin/users/bob/setup-link", &ada, &json!({})).await;
    minted.link("set-up token, passkey", made["setup_url"].as_str().unwrap());
    let printed = browser.server.succeed(&["admin", "setup-link", "--user", "bob", "--output", "json"]);
    let printed: Value = serde_json::from_str(&printed.unwrap()).unwrap();
    minted.link("set-up token, command line", printed["setup_url"].as_str().unwrap());

    let cookies = browser.cookies();
    let own = [("origin", origin.as_str()), ("cookie", cookies.as_str())];
    let path = format!("{ME}/recovery-codes");
    let codes = well(&browser.http.send(Method::POST, &path, &own, None).await.unwrap());
    let codes: Vec<&str> =
        codes["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(codes.len(), 10);
    for code in &codes {
        minted.keep("recovery code", *code);
        minted.keep("recovery code, as it is kept", code.replace('-', ""));
    }
    let mut fields = hidden(&browser.get("/login?recovery").await.body);
    fields
        .iter()
        .filter(|(name, _)| name == "csrf")
        .for_each(|(_, text)| drop(minted.keep("CSRF token", text.as_str())));
    fields.push(("code".into(), codes[0].to_owned()));
    let used = browser.submit("/login", encoded(&fields)).await;
    minted.link("set-up token, recovery", used.header("location"));

    let device = &mut browser.device;
    let mut challenge = String::new();
    let get = |options: &Value| {
        options["publicKey"]["challenge"].as_str().unwrap().clone_into(&mut challenge);
        device.get(options)
    };
    let signed = ceremony(&browser.http, (&origin, "auth"), json!({}), get, json!({})).await;
    well(&signed);
    minted.keep("challenge", challenge);
    browser.keep(&signed);
    minted.cookies(browser);
}

/// API keys, and what a bridge gets for them and for a code.
async fn keys_and_bridges(browser: &Browser, minted: &mut Minted) {
    let cookies = browser.cookies();
    let own =
        [("origin", browser.origin.as_str()), ("cookie", cookies.as_str()), ("idempotency-key", "key-1")];
    let made = ask(browser, &format!("{ME}/api-keys"), &own, &json!({"name": "mine"})).await;
    let key = minted.member("API key", &made, "key");
    let words = ["admin", "api-keys", "create", "bob", "--name", "line"];
    minted.keep("API key", browser.server.succeed(&words).unwrap().trim());
    let bearer = format!("Bearer {key}");
    let pat = ask(browser, "/v1/auth/bridge/pat", &[("authorization", &bearer)], &json!({})).await;
    minted.member("bridge token", &pat, "token");

    let made = ask(browser, &format!("{ME}/bridge-codes"), &own[..2], &json!({})).await;
    let code = minted.member("exchange code", &made, "code");
    let shown = ask(browser, "/v1/auth/bridge/session", &[], &json!({"code": code})).await;
    let token = format!("Bearer {}", minted.member("bridge token", &shown, "token"));
    let made = ask(browser, "/v1/auth/bridge/oauth-client", &[("authorization", &token)], &json!({})).await;
    let secret = minted.member("client secret", &made, "client_secret");
    let client = basic(made["client_id"].as_str().unwrap(), &secret);
    let hook = "grant_type=client_credentials&scope=hook:track&audience=hook&plugin_id=demo";
    minted.tokens(&form(browser, "token", &client, hook).await);
    minted.keep("what Basic sends", client.strip_prefix("Basic ").unwrap());
}

/// Shows each secret where it does not belong: what is refused is not repeated in a log or a record either.
async fn misplaced(browser: &mut Browser, minted: &Minted) {
    let wrong = [FORM, ("authorization", "Basic bm9ib2R5Ong=")];
    for (_, secret) in &minted.0 {
        let bearer = format!("Bearer {secret}");
        let cookie = format!("access_token={secret}");
        for header in [("authorization", bearer.as_str()), ("x-api-key", secret), ("cookie", &cookie)] {
            browser.http.get(&format!("{ME}/sessions"), &[header]).await;
        }
        let escaped = encoded(&[("token".to_owned(), secret.clone())]);
        for body in [format!("grant_type=refresh_token&refresh_{escaped}"), escaped.clone()] {
            for path in ["token", "introspect", "revoke"] {
                browser.http.raw(&format!("{OAUTH}/{path}"), &wrong, body.clone()).await.unwrap();
            }
        }
        browser.http.get(&format!("/login?{escaped}"), &[]).await;
        browser.http.get(&format!("{OAUTH}/logout?id_token_hint={}", &escaped["token=".len()..]), &[]).await;
    }
}

async fn all(options: Options) -> (Browser, Minted) {
    let options = options
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true")
        .env("SYSTEMPROMPT__RUNTIME__LOG_LEVEL", "trace");
    let mut browser = Browser::signed_in(options).await;
    let mut minted = Minted::default();
    let (_, first) = setup(&browser.server);
    minted.keep("set-up token, first administrator", first);
    minted.cookies(&browser);
    let client = clients(&browser, &mut minted).await;
    let person = authorization(&mut browser, &mut minted).await;
    tokens(&mut browser, &mut minted, (&client, &person)).await;
    people(&mut browser, &mut minted).await;
    keys_and_bridges(&browser, &mut minted).await;
    let cookies = browser.cookies();
    let own = [("origin", browser.origin.as_str()), ("cookie", cookies.as_str())];
    let words = json!({"new": PASSWORD});
    let path = format!("{ME}/password");
    let set = browser.http.send(Method::PUT, &path, &own, Some(&words)).await.unwrap();
    assert_eq!(set.status, 204, "{}", set.body);
    minted.keep("password", PASSWORD);
    (browser, minted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a28_no_minted_secret_of_any_kind_stays_in_database_log_export_or_folder() {
    for options in stores::engines().await {
        let (mut browser, minted) = all(options).await;
        for (kind, prefix) in PREFIXES {
            assert!(minted.0.iter().any(|(_, secret)| secret.starts_with(prefix)), "no {kind} was minted");
        }
        misplaced(&mut browser, &minted).await;
        let places = search::places(&browser.server).await;
        for (place, what, least) in
            [("database", "oauth.token", 50_000), ("export", "oauth.token", 10_000), ("log", "TRACE", 1_000)]
        {
            let text = &places.iter().find(|(name, _)| name == place).unwrap().1;
            assert!(text.contains(what) && text.len() > least, "{place} was not read: {}", text.len());
        }
        let mut found = Vec::new();
        for (kind, secret) in &minted.0 {
            // The challenge of a ceremony is no secret, and the file of SQLite keeps what was deleted until the page is used again.
            let is_there = |(place, text): &&(String, String)| {
                text.contains(secret.as_str())
                    && !(*kind == "challenge" && place.starts_with("systemprompt.db"))
            };
            found.extend(places.iter().filter(is_there).map(|(place, _)| format!("{kind} in {place}")));
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
