//! Accounts on a running server, on both engines: passwords, administration, keys that are bound, clients that serve somebody.

use crate::http::{Answer, Client, FORM};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt_tests::{Options, Server};

const ME: &str = "/api/v1/core/users/me";
const USERS: &str = "/api/v1/admin/users";
/// bcrypt of `U*U` (Openwall crypt_blowfish, public domain).
const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

struct Tried {
    server: Server,
    client: Client,
    ada: String,
}

async fn tried(change: impl Fn(Options) -> Options) -> Vec<Tried> {
    let mut all = Vec::new();
    for options in stores::engines().await {
        let server = change(options.without_limits()).start().unwrap();
        let client = Client::without_redirects(&server);
        let ada = format!("Bearer {}", server.admin_token());
        all.push(Tried { server, client, ada });
    }
    all
}

impl Tried {
    async fn as_ada(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.client.send(method, path, &[("authorization", &self.ada)], body).await.unwrap()
    }

    async fn made(&self, body: &Value) -> Value {
        let made = self.as_ada(Method::POST, USERS, Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.json()
    }

    /// Host and origin that the pages stand under.
    fn origin(&self) -> String {
        let link = self.server.ready()["setup_url"].as_str().unwrap();
        link.split_once("/webauthn").unwrap().0.to_owned()
    }
}

fn cookie(answer: &Answer, name: &str) -> Option<String> {
    let mut set = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let whole = set.rfind(|text| text.starts_with(&format!("{name}=")))?;
    Some(whole.split(';').next().unwrap().to_owned())
}

/// The value of a hidden field.
fn field<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
    rest.split('"').next().unwrap()
}

#[tokio::test]
async fn id_93_a_person_signs_in_with_a_password_that_was_imported_and_sets_another() {
    let on = |options: Options| options.env("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true");
    for tried in tried(on).await {
        let origin = tried.origin();
        let host = origin.strip_prefix("http://").unwrap();
        let words = ["admin", "users", "create", "eve", "--role", "user", "--email", "eve@example.com"];
        let words: Vec<&str> = words.into_iter().chain(["--password-hash", "-"]).collect();
        tried.server.run_with_input(&words, BCRYPT).unwrap();

        let page = tried.client.get("/login", &[("host", host)]).await;
        assert_eq!(page.status, 200);
        let flow = cookie(&page, "sp_flow").unwrap();
        let csrf = field(&page.body, "csrf").to_owned();
        let post = async |name: &str, password: &str, csrf: &str| {
            let form = format!("username={name}&password={password}&csrf={csrf}&request=");
            let headers = [FORM, ("host", host), ("origin", origin.as_str()), ("cookie", flow.as_str())];
            tried.client.raw("/login", &headers, form).await.unwrap()
        };
        assert_eq!(post("eve", "U*U", "forged").await.status, 403);
        for (name, password) in [("eve", "U*V"), ("nobody", "U*U"), ("ada", "U*U")] {
            let refused = post(name, password, &csrf).await;
            assert_eq!(refused.status, 401, "{name} {}", refused.body);
            assert!(refused.body.contains("role=\"alert\"") && cookie(&refused, "access_token").is_none());
        }
        let signed = post("EVE%40example.com", "U*U", &csrf).await;
        assert_eq!((signed.status, signed.header("location")), (303, "/login?done"), "{}", signed.body);
        let here = cookie(&signed, "access_token").unwrap();
        let there = cookie(&post("eve", "U*U", &csrf).await, "access_token").unwrap();

        let set = async |body: Value| {
            let headers = [("origin", origin.as_str()), ("cookie", here.as_str())];
            let path = format!("{ME}/password");
            tried.client.send(Method::PUT, &path, &headers, Some(&body)).await.unwrap()
        };
        let common = set(json!({"old": "U*U", "new": "leavemealone"})).await;
        assert_eq!(common.status, 400, "{}", common.body);
        assert!(!common.body.contains("leavemealone"), "a value is never told");
        assert_eq!(set(json!({"old": "x", "new": "purple-otter-sings"})).await.status, 403);
        let done = set(json!({"old": "U*U", "new": "purple-otter-sings"})).await;
        assert_eq!(done.status, 204, "{}", done.body);
        assert_eq!(tried.client.get(ME, &[("cookie", &there)]).await.status, 401, "the other session ended");
        assert_eq!(tried.client.get(ME, &[("cookie", &here)]).await.json()["username"], "eve");
        assert_eq!(post("eve", "U*U", &csrf).await.status, 401);
        let signed = post("eve", "purple-otter-sings", &csrf).await;
        let again = cookie(&signed, "access_token").unwrap();
        let news = tried.client.get(&format!("{ME}/notices"), &[("cookie", &again)]).await.json();
        assert_eq!(news["items"][0]["kind"], "password_changed");
        let page = tried.client.get("/login?done", &[("host", host), ("cookie", &again)]).await;
        assert!(page.body.contains("The password was changed"), "{}", page.body);
        let path = format!("{ME}/notices/{}", news["items"][0]["id"].as_str().unwrap());
        let headers = [("origin", origin.as_str()), ("cookie", again.as_str())];
        // On the page without a program, by a form that came from there.
        let (_, form) = page.body.split_once("action=\"/login/notices\"").unwrap();
        let notice = field(form, "notice");
        let away = async |from: &str, csrf: &str, session: &str| {
            let headers = [FORM, ("host", host), ("origin", from), ("cookie", session)];
            let body = format!("csrf={csrf}&notice={notice}");
            let answer = tried.client.raw("/login/notices", &headers, body).await.unwrap();
            (answer.status, answer.header("location").to_owned())
        };
        let shown = field(form, "csrf");
        assert_eq!(away("https://evil.example", shown, &again).await.0, 403);
        assert_eq!(away(&origin, "x", &again).await.0, 403);
        assert_eq!(away(&origin, shown, "a=b").await, (303, "/login?again".to_owned()));
        let dismiss = async || tried.client.send(Method::DELETE, &path, &headers, None).await.unwrap().status;
        assert_eq!(away(&origin, shown, &again).await, (303, "/login?done".to_owned()));
        assert_eq!(dismiss().await, 404, "it is gone");
        let page = tried.client.get("/login?done", &[("host", host), ("cookie", &again)]).await;
        assert!(!page.body.contains("The password was changed"), "{}", page.body);
        assert!(!tried.server.log().contains("purple-otter"), "nor logged");
    }
}

#[tokio::test]
async fn id_97_users_are_filtered_made_once_merged_and_erased() {
    for tried in tried(|options| options).await {
        let eve = json!({"username": "eve", "roles": ["user", "dev"], "department": "platform"});
        let once = async |body: &Value, key: &str| {
            let headers = [("authorization", tried.ada.as_str()), ("idempotency-key", key)];
            tried.client.post(USERS, &headers, body).await
        };
        let (first, second) = (once(&eve, "k-1").await, once(&eve, "k-1").await);
        assert_eq!((first.status, second.status), (201, 201), "{}", second.body);
        assert_eq!(first.json()["id"], second.json()["id"]);
        let other = once(&json!({"username": "mallory"}), "k-1").await;
        assert_eq!((other.status, &other.json()["code"]), (422, &json!("idempotency_mismatch")));
        for bad in
            [json!({"username": "x", "kind": "client"}), json!({"username": "x", "password_hash": BCRYPT})]
        {
            assert_eq!(tried.as_ada(Method::POST, USERS, Some(&bad)).await.status, 422, "{bad}");
        }
        let robot = tried.made(&json!({"username": "robot", "kind": "service", "roles": ["service"]})).await;
        assert_eq!(robot["kind"], "service");

        let names = async |query: &str| {
            let found = tried.as_ada(Method::GET, &format!("{USERS}?{query}"), None).await.json();
            let names = found["items"].as_array().unwrap().iter().map(|user| user["username"].clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names("role=dev").await, ["eve"]);
        assert_eq!(names("department=platform&q=E").await, ["eve"]);
        assert_eq!(names("status=suspended").await, [] as [&str; 0]);
        let unknown = tried.as_ada(Method::GET, &format!("{USERS}?status=gone"), None).await;
        assert_eq!((unknown.status, &unknown.json()["code"]), (400, &json!("invalid_filter")));

        let path = format!("{USERS}/eve/merge");
        let into = async |body: Value| tried.as_ada(Method::POST, &path, Some(&body)).await;
        assert_eq!(into(json!({"into": "robot"})).await.status, 422, "another kind");
        assert_eq!(into(json!({"into": "nobody"})).await.status, 404);
        let printed = tried
            .server
            .succeed(&["admin", "users", "merge", "eve", "--into", "bob", "--yes", "--output", "json"])
            .unwrap();
        let stays: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(stays["username"], "bob");
        let husk = format!("{USERS}/{}", first.json()["id"].as_str().unwrap());
        let gone = tried.as_ada(Method::GET, &husk, None).await.json();
        assert_eq!(
            (&gone["status"], &gone["email"], &gone["roles"]),
            (&json!("deleted"), &Value::Null, &json!([]))
        );
        assert!(!gone["username"].as_str().unwrap().contains("eve"), "{gone}");
        assert_eq!(into(json!({"into": "bob"})).await.status, 404, "nobody is called eve any more");
        let root =
            tried.as_ada(Method::POST, &format!("{USERS}/ada/merge"), Some(&json!({"into": "bob"}))).await;
        assert_eq!(root.status, 409, "the last administrator: {}", root.body);

        let suspended =
            tried.server.succeed(&["admin", "users", "suspend", "robot", "--output", "json"]).unwrap();
        assert!(suspended.contains("\"suspended\""), "{suspended}");
        assert_eq!(names("status=suspended").await, ["robot"]);
        tried.server.succeed(&["admin", "users", "activate", "robot"]).unwrap();
    }
}

#[tokio::test]
async fn id_98_a_key_counts_on_its_surfaces_and_from_its_networks() {
    for tried in tried(|options| options).await {
        tried.made(&json!({"username": "robot", "kind": "service", "roles": ["user"]})).await;
        let key = |more: &[&str]| {
            let words = ["admin", "api-keys", "create", "robot", "--name", "k"];
            let words: Vec<&str> = words.iter().chain(more).copied().collect();
            tried.server.succeed(&words).unwrap().trim().to_owned()
        };
        let ask = async |key: &str| {
            let body = json!({"model": "claude-demo", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]});
            let model = tried.client.post("/v1/messages", &[("x-api-key", key)], &body).await.status;
            (tried.client.get(ME, &[("x-api-key", key)]).await.status, model)
        };
        for (more, want) in [
            (&[][..], (200, 200)),
            (&["--never-expires", "--cidr", "127.0.0.0/8", "--cidr", "::1"], (200, 200)),
            (&["--cidr", "192.0.2.0/24"], (401, 401)),
            (&["--audience", "api"], (200, 200)),
            (&["--audience", "a2a", "--audience", "bridge"], (401, 401)),
        ] {
            let key = key(more);
            assert_eq!(ask(&key).await, want, "{more:?}");
            assert_eq!(ask(&key).await, want, "remembered: {more:?}");
        }
        let body = json!({"name": "mine", "allowed_cidrs": ["127.0.0.1"], "audiences": ["mcp"]});
        let own = tried.as_ada(Method::POST, &format!("{ME}/api-keys"), Some(&body)).await;
        assert_eq!(own.status, 422, "{}", own.body);
        assert!(own.body.contains("audiences"), "{}", own.body);
    }
}

#[tokio::test]
async fn id_58_a_rule_that_denies_the_owner_denies_their_client() {
    for tried in tried(|options| options).await {
        let bob = tried.as_ada(Method::GET, &format!("{USERS}/bob"), None).await.json();
        let new = json!({
            "client_name": "nightly", "grant_types": ["client_credentials"], "scope": "user",
            "token_endpoint_auth_method": "client_secret_basic", "owner_user_id": bob["id"],
        });
        let made = tried.as_ada(Method::POST, "/api/v1/admin/clients", Some(&new)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let made = made.json();
        let pair =
            format!("{}:{}", made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
        let basic = format!("Basic {}", STANDARD.encode(pair));
        let form = "grant_type=client_credentials&scope=user&audience=api".to_owned();
        let headers = [FORM, ("authorization", basic.as_str())];
        let token = tried.client.raw("/api/v1/core/oauth/token", &headers, form).await.unwrap();
        assert_eq!(token.status, 200, "{}", token.body);
        let bearer = format!("Bearer {}", token.json()["access_token"].as_str().unwrap());
        let ask = async || {
            let body = json!({"model": "claude-demo", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]});
            tried.client.post("/v1/messages", &[("authorization", &bearer)], &body).await
        };
        let allowed = ask().await;
        assert_eq!(allowed.status, 200, "{}", allowed.body);
        let rule = json!({"entity_type": "gateway_route", "entity_id": "demo", "rule_type": "user",
            "rule_value": bob["id"], "access": "deny", "justification": "a test"});
        assert_eq!(tried.as_ada(Method::POST, "/api/v1/admin/rules", Some(&rule)).await.status, 201);
        let denied = ask().await;
        assert!(denied.status == 400 && denied.body.contains("owner_deny"), "{}", denied.body);
    }
}
