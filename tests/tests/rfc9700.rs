//! Rows of the RFC 9700 checklist (ID-112 to ID-133) that only a running server with a browser before it can show. The others stand
//! beside what they try: `id_112_…` in the crate of the authorization server, and so on.

use crate::http::{Answer, Client, FORM, OAUTH};
use crate::people::{SoftAuthenticator, ceremony, cookie, setup, value};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use systemprompt_tests::{Options, Server};

pub(crate) const CALLBACK: &str = "https://app.example/cb";
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const PROOF: &str = "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256&response_type=code";

/// A browser of the first administrator, and a client of theirs.
pub(crate) struct Browser {
    pub server: Server,
    pub http: Client,
    pub origin: String,
    host: String,
    pub cookies: BTreeMap<String, String>,
    pub device: SoftAuthenticator,
    pub client: String,
}

/// One form of a page: where it goes, and its hidden fields.
pub(crate) fn hidden(page: &str) -> Vec<(String, String)> {
    let fields = page.split("<input type=\"hidden\" name=\"").skip(1);
    let field = |text: &str| {
        let (name, rest) = text.split_once("\" value=\"")?;
        let (value, _) = rest.split_once('"')?;
        Some((name.to_owned(), value.replace("&#38;", "&").replace("&amp;", "&")))
    };
    fields.filter_map(field).collect()
}

/// The form of a page as it is sent with everything ticked.
pub(crate) fn filled(page: &Answer, decision: &str) -> String {
    let mut fields = hidden(&page.body);
    for part in page.body.split("name=\"scope_").skip(1) {
        let (name, _) = part.split_once('"').unwrap();
        fields.push((format!("scope_{name}"), "1".into()));
    }
    fields.push(("decision".into(), decision.into()));
    encoded(&fields)
}

pub(crate) fn encoded(fields: &[(String, String)]) -> String {
    let pairs = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

pub(crate) fn parameter(address: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(address).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

impl Browser {
    /// Follows the set-up link; the client is public and takes its answers at [`CALLBACK`].
    pub async fn signed_in(options: Options) -> Self {
        let server = options.without_limits().start().unwrap();
        let http = Client::without_redirects(&server);
        let (origin, token) = setup(&server);
        let host = origin.strip_prefix("http://").unwrap().to_owned();
        let mut device = SoftAuthenticator::new(&origin);
        let start = json!({"username": "root", "email": "root@example.com", "token": token});
        let extra = json!({"token": token});
        let done = ceremony(&http, (&origin, "register"), start, |o| device.create(o), extra).await;
        assert_eq!(done.status, 200, "{}", done.body);
        let about = json!({
            "client_name": "app", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
            "post_logout_redirect_uris": ["https://app.example/bye"],
        });
        let made = http.post(&format!("{OAUTH}/register"), &[], &about).await.json();
        let client = made["client_id"].as_str().unwrap().to_owned();
        let mut browser = Self { server, http, origin, host, cookies: BTreeMap::new(), device, client };
        browser.keep(&done);
        browser
    }

    pub fn keep(&mut self, answer: &Answer) {
        for name in ["access_token", "sp_flow"] {
            if let Some(set) = cookie(answer, name) {
                let (_, text) = value(&set).split_once('=').unwrap();
                self.cookies.insert(name.to_owned(), text.to_owned());
            }
        }
        self.cookies.retain(|_, text| !text.is_empty());
    }

    pub fn cookies(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, text)| format!("{name}={text}")).collect();
        pairs.join("; ")
    }

    pub async fn get(&mut self, address: &str) -> Answer {
        let path = address.strip_prefix(&self.origin).unwrap_or(address).to_owned();
        let cookies = self.cookies();
        let headers = [("host", self.host.as_str()), ("cookie", &cookies), ("accept-language", "en")];
        let answer = self.http.get(&path, &headers).await;
        self.keep(&answer);
        answer
    }

    pub async fn submit(&mut self, path: &str, form: String) -> Answer {
        let cookies = self.cookies();
        let headers =
            [FORM, ("host", self.host.as_str()), ("cookie", &cookies), ("origin", self.origin.as_str())];
        let answer = self.http.raw(path, &headers, form).await.unwrap();
        self.keep(&answer);
        answer
    }

    pub(crate) fn authorize(&self, more: &str) -> String {
        format!("{OAUTH}/authorize?{PROOF}&client_id={}&redirect_uri={CALLBACK}&{more}", self.client)
    }

    /// The consent page of a request.
    pub(crate) async fn consent(&mut self, more: &str) -> Answer {
        let answer = self.get(&self.authorize(more)).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        let page = self.get(answer.header("location")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        page
    }

    pub async fn decide(&mut self, page: &Answer, decision: &str) -> Answer {
        self.submit(&format!("{OAUTH}/consent"), filled(page, decision)).await
    }

    /// Where an allowed request ends: the address at the client.
    pub(crate) async fn back(&mut self, more: &str) -> String {
        let mut answer = self.get(&self.authorize(more)).await;
        for _ in 0..6 {
            let location = answer.header("location").to_owned();
            if location.starts_with(CALLBACK) {
                return location;
            }
            answer = match answer.status {
                303 => self.get(&location).await,
                200 => self.decide(&answer, "allow").await,
                status => panic!("{status} {}", answer.body),
            };
        }
        panic!("the request went round in circles")
    }

    pub async fn token(&self, form: &str) -> Answer {
        let form = format!("client_id={}&{form}", self.client);
        self.http.raw(&format!("{OAUTH}/token"), &[FORM], form).await.unwrap()
    }

    pub async fn tokens(&mut self, more: &str) -> Value {
        let code = parameter(&self.back(more).await, "code").unwrap();
        let form = format!(
            "grant_type=authorization_code&code={code}&redirect_uri={CALLBACK}&code_verifier={VERIFIER}"
        );
        let answer = self.token(&form).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    pub async fn refresh(&self, token: &str) -> (u16, Value) {
        let answer = self.token(&format!("grant_type=refresh_token&refresh_token={token}")).await;
        (answer.status, answer.json())
    }

    /// A device that waits for somebody, by its code.
    async fn device_code(&self) -> String {
        let form = format!("client_id={}&scope=user", self.client);
        let begun = self.http.raw(&format!("{OAUTH}/device_authorization"), &[FORM], form).await.unwrap();
        begun.json()["user_code"].as_str().unwrap().to_owned()
    }

    /// Every page that a person can come to, each by a name.
    pub async fn pages(&mut self) -> Vec<(&'static str, Answer)> {
        let mut pages = Vec::new();
        for (name, path) in [
            ("sign-in", "/login".to_owned()),
            ("recovery", "/login?recovery".into()),
            ("done", "/login?done".into()),
            ("link", "/webauthn/link".into()),
            ("device", "/device".into()),
            ("device-confirm", format!("/device?user_code={}", self.device_code().await)),
            ("logout", format!("{OAUTH}/logout")),
            ("error", format!("{OAUTH}/authorize?client_id=nobody")),
        ] {
            pages.push((name, self.get(&path).await));
        }
        pages.push(("consent", self.consent("scope=openid%20user&state=s").await));
        let asked = self.consent("scope=openid%20user&state=s&response_mode=form_post&prompt=consent").await;
        let answer = self.decide(&asked, "allow").await;
        let posted = match answer.status {
            303 => self.get(answer.header("location")).await,
            _ => answer,
        };
        assert!(posted.body.contains(CALLBACK), "{} {}", posted.status, posted.body);
        pages.push(("form_post", posted));
        pages
    }
}

#[tokio::test]
async fn id_118_signing_out_ends_what_was_not_offline_and_a_password_change_ends_everything() {
    for options in stores::engines().await {
        let options = options.env("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true");
        let mut browser = Browser::signed_in(options).await;
        let bound = browser.tokens("scope=openid%20user").await;
        let offline = browser.tokens("scope=openid%20offline_access%20user&prompt=consent").await;
        let page = browser.get(&format!("{OAUTH}/logout")).await;
        assert_eq!(browser.submit(&format!("{OAUTH}/logout"), filled(&page, "logout")).await.status, 303);
        let refused = (400, json!("invalid_grant"));
        let (status, body) = browser.refresh(bound["refresh_token"].as_str().unwrap()).await;
        assert_eq!((status, body["error"].clone()), refused);
        let (status, next) = browser.refresh(offline["refresh_token"].as_str().unwrap()).await;
        assert_eq!(status, 200, "{next}");

        let origin = browser.origin.clone();
        let device = &mut browser.device;
        let done = ceremony(&browser.http, (&origin, "auth"), json!({}), |o| device.get(o), json!({})).await;
        browser.keep(&done);
        let cookies = browser.cookies();
        let headers = [("cookie", cookies.as_str()), ("origin", &origin)];
        let words = json!({"new": "purple-otter-sings"});
        let path = "/api/v1/core/users/me/password";
        let changed = browser.http.send(Method::PUT, path, &headers, Some(&words)).await.unwrap();
        assert_eq!(changed.status, 204, "{}", changed.body);
        let (status, body) = browser.refresh(next["refresh_token"].as_str().unwrap()).await;
        assert_eq!((status, body["error"].clone()), refused);
    }
}

#[tokio::test]
async fn id_120_every_form_is_answered_with_303() {
    let mut browser = Browser::signed_in(stores::sqlite()).await;
    let form = format!("{PROOF}&client_id={}&redirect_uri={CALLBACK}&scope=user", browser.client);
    let mut answers = vec![("authorize", browser.submit(&format!("{OAUTH}/authorize"), form).await)];
    for decision in ["deny", "allow"] {
        let page = browser.consent("scope=user&state=s").await;
        answers.push(("consent", browser.decide(&page, decision).await));
    }
    for decision in ["deny", "allow"] {
        let path = format!("/device?user_code={}", browser.device_code().await);
        let page = browser.get(&path).await;
        answers.push(("device", browser.submit("/device", filled(&page, decision)).await));
    }
    let cookies = browser.cookies();
    let headers = [("cookie", cookies.as_str()), ("origin", browser.origin.as_str())];
    let path = "/api/v1/core/users/me/recovery-codes";
    let codes = browser.http.send(Method::POST, path, &headers, None).await.unwrap().json();
    let mut fields = hidden(&browser.get("/login?recovery").await.body);
    fields.push(("code".into(), codes["codes"][0].as_str().unwrap().to_owned()));
    answers.push(("recovery", browser.submit("/login", encoded(&fields)).await));
    let page = browser.get(&format!("{OAUTH}/logout")).await;
    answers.push(("logout", browser.submit(&format!("{OAUTH}/logout"), filled(&page, "logout")).await));
    let left = browser.get(&format!("{OAUTH}/logout")).await;
    assert!(
        left.status == 200 && hidden(&left.body).is_empty(),
        "signed out, and asked again: {}",
        left.body
    );
    for (name, answer) in &answers {
        assert_eq!(answer.status, 303, "{name}: {}", answer.body);
        assert!(!answer.header("location").is_empty(), "{name}");
    }
}

#[tokio::test]
async fn id_121_no_page_is_framed() {
    let mut browser = Browser::signed_in(stores::sqlite()).await;
    for (name, page) in browser.pages().await {
        assert_eq!(page.header("x-frame-options"), "DENY", "{name} {}", page.status);
        let policy = page.header("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'"), "{name}: {policy}");
    }
}

#[tokio::test]
async fn id_122_pages_of_other_origins_read_what_takes_no_cookie_and_nothing_else() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::without_redirects(&server);
    let well_known = [
        "/.well-known/openid-configuration".to_owned(),
        "/.well-known/oauth-authorization-server".to_owned(),
        "/.well-known/jwks.json".to_owned(),
    ];
    let open = ["token", "register", "revoke", "introspect", "userinfo", "par", "device_authorization"];
    let open = well_known.into_iter().chain(open.map(|name| format!("{OAUTH}/{name}")));
    let closed = [
        "authorize",
        "consent",
        "logout",
        "session",
        "callback",
        "webauthn/auth/start",
        "webauthn/register/finish",
        "webauthn/complete",
    ];
    let pages = ["/login", "/device", "/webauthn/link"].map(str::to_owned);
    let closed = closed.map(|name| format!("{OAUTH}/{name}")).into_iter().chain(pages);
    let rows = open.map(|path| (path, "*")).chain(closed.map(|path| (path, "")));
    for (path, want) in rows {
        let origin = ("origin", "https://elsewhere.example");
        let asked = [
            origin,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization, content-type"),
        ];
        let preflight = client.send(Method::OPTIONS, &path, &asked, None).await.unwrap();
        let plain = client.get(&path, &[origin]).await;
        for answer in [&preflight, &plain] {
            assert_eq!(answer.header("access-control-allow-origin"), want, "{path} {}", answer.status);
            assert_eq!(answer.header("access-control-allow-credentials"), "", "{path}");
        }
        if want == "*" {
            let exposed = plain.header("access-control-expose-headers");
            for name in ["www-authenticate", "retry-after", "dpop-nonce", "x-trace-id"] {
                assert!(exposed.to_ascii_lowercase().contains(name), "{path}: {exposed}");
            }
        }
    }
}

/// A hook is told so in its own words, under 200; the header is the same everywhere.
fn is_let_in(answer: &Answer) -> bool {
    answer.status != 401 && answer.header("www-authenticate").is_empty()
}

#[tokio::test]
async fn id_123_an_access_token_opens_the_doors_of_its_audience_alone() {
    for options in stores::engines().await {
        let server = options.without_limits().start().unwrap();
        let client = Client::new(&server);
        let demo = &server.ready()["demo"];
        let (id, secret) = (demo["client_id"].as_str().unwrap(), demo["client_secret"].as_str().unwrap());
        let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let doors = [
            ("api", Method::GET, "/api/v1/core/users/me".to_owned()),
            ("api", Method::GET, "/v1/models".to_owned()),
            ("mcp", Method::POST, "/api/v1/mcp/demo/mcp".to_owned()),
            ("bridge", Method::GET, "/v1/bridge/whoami".to_owned()),
            ("hook", Method::POST, "/api/v1/hooks/govern?plugin_id=demo".to_owned()),
        ];
        for audience in ["web", "api", "mcp", "a2a", "bridge", "hook"] {
            let scope = if audience == "hook" { "hook:govern" } else { "user mcp" };
            let form =
                format!("grant_type=client_credentials&scope={scope}&audience={audience}&plugin_id=demo");
            let headers = [FORM, ("authorization", basic.as_str())];
            let answer = client.raw(&format!("{OAUTH}/token"), &headers, form).await.unwrap();
            assert_eq!(answer.status, 200, "{audience}: {}", answer.body);
            let token = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
            for (door, method, path) in &doors {
                let body = (*method == Method::POST).then(|| json!({}));
                let headers = [("authorization", token.as_str())];
                let answer = client.send(method.clone(), path, &headers, body.as_ref()).await.unwrap();
                assert_eq!(is_let_in(&answer), *door == audience, "{audience} at {path}: {}", answer.body);
            }
        }
    }
}

#[tokio::test]
async fn id_126_nobody_is_served_before_signing_in_and_prompt_none_reaches_registered_targets_alone() {
    let mut browser = Browser::signed_in(stores::sqlite()).await;
    let kept = std::mem::take(&mut browser.cookies);
    let asked = browser.get(&browser.authorize("scope=user&state=s")).await;
    assert_eq!(asked.status, 303);
    let next = asked.header("location").to_owned();
    assert!(next.starts_with("/login?request=ar_"), "{next}");
    let silent = browser.get(&browser.authorize("scope=user&state=s&prompt=none")).await;
    let back = silent.header("location").to_owned();
    assert!(back.starts_with(CALLBACK), "{back}");
    assert_eq!(parameter(&back, "error").as_deref(), Some("login_required"));
    browser.cookies = kept;
    let silent = browser.get(&browser.authorize("scope=user&state=s&prompt=none")).await;
    assert_eq!(parameter(silent.header("location"), "error").as_deref(), Some("consent_required"));
    for target in
        ["https://evil.example/cb", "https://app.example/cb/", "https://app.example.evil.example/cb"]
    {
        let path = format!(
            "{OAUTH}/authorize?{PROOF}&client_id={}&redirect_uri={target}&scope=user&prompt=none",
            browser.client
        );
        let answer = browser.get(&path).await;
        assert_eq!((answer.status, answer.header("location")), (400, ""), "{target}");
        assert!(!answer.body.contains(target), "{target} is on the page");
    }
}

#[tokio::test]
async fn id_127_a_token_in_a_query_opens_nothing_and_is_not_kept() {
    let mut browser =
        Browser::signed_in(stores::sqlite().env("SYSTEMPROMPT__RUNTIME__LOG_LEVEL", "trace")).await;
    let tokens = browser.tokens("scope=openid%20user%20mcp").await;
    let token = tokens["access_token"].as_str().unwrap().to_owned();
    for (method, path) in [
        (Method::GET, format!("{OAUTH}/userinfo")),
        (Method::POST, format!("{OAUTH}/userinfo")),
        (Method::GET, "/api/v1/core/users/me".into()),
        (Method::GET, "/v1/models".into()),
        (Method::POST, "/api/v1/mcp/demo/mcp".into()),
        (Method::GET, "/v1/bridge/whoami".into()),
        (Method::POST, "/api/v1/hooks/govern?plugin_id=demo".into()),
    ] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}access_token={token}");
        let body = (method == Method::POST).then(|| json!({}));
        let answer = browser.http.send(method, &path, &[], body.as_ref()).await.unwrap();
        let is_denied = answer.header("x-systemprompt-decision") == "deny";
        let is_refused = matches!(answer.status, 400 | 401 | 415) || is_denied;
        assert!(is_refused, "{path:.40} {} {}", answer.status, answer.body);
        assert!(!answer.body.contains(&token), "the token comes back");
    }
    let allowed = format!("Bearer {token}");
    let info = browser.http.get(&format!("{OAUTH}/userinfo"), &[("authorization", &allowed)]).await;
    assert_eq!(info.status, 200, "the token counts: {}", info.body);
    let (_, signature) = token.rsplit_once('.').unwrap();
    assert!(!browser.server.log().contains(signature), "the token is in the log");
}

#[tokio::test]
async fn id_128_what_a_stranger_says_of_itself_or_of_a_proxy_changes_nothing() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::without_redirects(&server);
    let bob = format!("Bearer {}", server.user_token());
    let forged = [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9;host=evil.example;proto=https"),
        ("x-user-id", "ada"),
        ("x-proxy-verified", "true"),
    ];
    let plain = client.get("/.well-known/openid-configuration", &[]).await.body;
    for header in forged {
        let document = client.get("/.well-known/openid-configuration", &[header]).await;
        assert_eq!(document.body, plain, "{header:?}");
        let me = client.get("/api/v1/core/users/me", &[header]).await;
        assert_eq!(me.status, 401, "{header:?}");
        let me = client.get("/api/v1/core/users/me", &[header, ("authorization", &bob)]).await.json();
        assert_eq!(me["username"], "bob", "{header:?}");
        let kept = client.get("/login", &[header]).await;
        assert!(!cookie(&kept, "sp_flow").unwrap_or_default().contains("Secure"), "{header:?}");
    }
    // Another address in each request is the same network still.
    let about = json!({"client_name": "many", "redirect_uris": [CALLBACK]});
    let mut statuses = Vec::new();
    for n in 0..21 {
        let address = format!("203.0.113.{n}");
        let forwarded = format!("for={address}");
        let headers = [("x-forwarded-for", address.as_str()), ("forwarded", &forwarded)];
        statuses.push(client.post(&format!("{OAUTH}/register"), &headers, &about).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 20, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
}

#[tokio::test]
async fn id_133_code_state_and_token_stay_between_server_and_client() {
    let mut browser =
        Browser::signed_in(stores::sqlite().env("SYSTEMPROMPT__RUNTIME__LOG_LEVEL", "trace")).await;
    for (name, page) in browser.pages().await {
        assert_eq!(page.header("referrer-policy"), "no-referrer", "{name}");
        for part in page.body.split(['<', '>']).filter(|part| !part.starts_with('/')) {
            for attribute in ["src=\"", "href=\"", "action=\"", "srcset=\"", "url("] {
                let Some((_, rest)) = part.split_once(attribute) else { continue };
                let target = rest.split('"').next().unwrap();
                let is_answer = name == "form_post" && target == CALLBACK;
                let target = target.strip_prefix(&browser.origin).unwrap_or(target);
                let is_own = target.starts_with('/') && !target.starts_with("//");
                assert!(is_own || is_answer, "{name} loads or leads to {target}");
            }
        }
    }
    let state = "a-state-that-only-the-client-knows";
    let back = browser.back(&format!("scope=openid%20user&state={state}&prompt=consent")).await;
    assert_eq!(parameter(&back, "state").as_deref(), Some(state));
    let code = parameter(&back, "code").unwrap();
    let form =
        format!("grant_type=authorization_code&code={code}&redirect_uri={CALLBACK}&code_verifier={VERIFIER}");
    let tokens = browser.token(&form).await.json();
    let log = browser.server.log();
    let minted = ["access_token", "refresh_token", "id_token"].map(|name| tokens[name].as_str().unwrap());
    for text in minted.into_iter().chain([code.as_str(), state, VERIFIER, CHALLENGE]) {
        assert!(!log.contains(text), "in the log: {text:.12}");
    }
}
