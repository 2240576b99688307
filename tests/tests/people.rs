//! People on a running server, on both engines: the set-up link, passkeys, sessions, cookies, and the pages of all that.

#[path = "../../crates/domain/oauth/src/services/webauthn/tests/authenticator.rs"]
pub(crate) mod authenticator;

use crate::http::{Answer, Client, FORM};
use crate::stores;
pub(crate) use authenticator::SoftAuthenticator;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt_tests::Server;

const BASE: &str = "/api/v1/core/oauth/webauthn";
const ME: &str = "/api/v1/core/users/me";

/// A browser of today; the root is a page, and scanners get none.
const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";

/// The value of a cookie that an answer sets.
pub(crate) fn cookie(answer: &Answer, name: &str) -> Option<String> {
    let mut set = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let whole = set.rfind(|text| text.starts_with(&format!("{name}=")))?;
    Some(whole.to_owned())
}

pub(crate) fn value(cookie: &str) -> &str {
    cookie.split(';').next().unwrap()
}

/// The external origin and the token of the link that `up` printed.
pub(crate) fn setup(server: &Server) -> (String, String) {
    let link = server.ready()["setup_url"].as_str().unwrap().to_owned();
    let (origin, token) = link.split_once("/webauthn/link#token=").unwrap();
    (origin.to_owned(), token.to_owned())
}

/// A browser's ceremony: its answers come with the flow cookie of its beginning.
pub(crate) async fn ceremony(
    client: &Client,
    (origin, name): (&str, &str),
    start: Value,
    answer: impl FnOnce(&Value) -> Value,
    extra: Value,
) -> Answer {
    let begun = client.post(&format!("{BASE}/{name}/start"), &[("origin", origin)], &start).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let flow = cookie(&begun, "sp_flow").unwrap();
    let options = begun.json();
    assert_eq!(begun.header("x-challenge-id"), options["challenge_id"]);
    let mut body =
        json!({"challenge_id": options["challenge_id"], "credential": answer(&options["options"])});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let headers = [("origin", origin), ("cookie", value(&flow))];
    client.post(&format!("{BASE}/{name}/finish"), &headers, &body).await
}

#[tokio::test]
async fn a12_the_set_up_link_leads_to_the_first_administrator_and_a_passkey_signs_in() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let client = Client::without_redirects(&server);
        let (origin, token) = setup(&server);
        let mut device = SoftAuthenticator::new(&origin);

        let told = client
            .post(&format!("{BASE}/link/start"), &[("origin", &origin)], &json!({"token": token}))
            .await;
        assert_eq!(told.json(), json!({"purpose": "bootstrap", "email": null}));
        let start = json!({"username": "root", "email": "root@example.com", "token": token});
        let extra = json!({"token": token});
        let done = ceremony(&client, (&origin, "register"), start, |o| device.create(o), extra).await;
        assert_eq!(done.status, 200, "{}", done.body);
        assert_eq!(done.json()["redirect"], "/login?done");
        let session = cookie(&done, "access_token").unwrap();
        for part in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=3600"] {
            assert!(session.contains(part), "{session}");
        }
        assert!(!session.contains("Secure") && !session.contains("Domain"), "{session}");

        let who = client.get(ME, &[("cookie", value(&session))]).await.json();
        assert_eq!((&who["username"], &who["roles"]), (&json!("root"), &json!(["admin", "user"])));
        let again = client
            .post(&format!("{BASE}/link/start"), &[("origin", &origin)], &json!({"token": token}))
            .await;
        assert_eq!((again.status, &again.json()["error"]), (400, &json!("invalid_grant")));

        let signed = ceremony(&client, (&origin, "auth"), json!({}), |o| device.get(o), json!({})).await;
        assert_eq!(signed.status, 200, "{}", signed.body);
        let other = cookie(&signed, "access_token").unwrap();
        let listed = client.get(&format!("{ME}/sessions"), &[("cookie", value(&other))]).await.json();
        let listed = listed["items"].as_array().unwrap().clone();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed.iter().filter(|session| session["current"] == true).count(), 1);
        let first =
            listed.iter().find(|session| session["current"] == false).unwrap()["id"].as_str().unwrap();
        let headers = [("origin", origin.as_str()), ("cookie", value(&other))];
        let end = async |id: &str| {
            client.send(Method::DELETE, &format!("{ME}/sessions/{id}"), &headers, None).await.unwrap().status
        };
        assert_eq!((end("sess_00").await, end(first).await, end(first).await), (404, 204, 404));
        assert_eq!(client.get(ME, &[("cookie", value(&session))]).await.status, 401);

        // The next start prints no link: somebody can sign in.
        let server = server.restart().unwrap();
        assert!(server.ready()["setup_url"].is_null());
    }
}

#[tokio::test]
async fn a_first_administrator_is_told_what_is_next_and_makes_recovery_codes() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let client = Client::without_redirects(&server);
        let (origin, token) = setup(&server);
        let host = origin.strip_prefix("http://").unwrap();
        let stranger = client.get("/", &[("host", host), ("user-agent", BROWSER)]).await;
        assert_eq!(stranger.status, 200, "{}", stranger.body);
        for part in ["href=\"/login\"", "/api/v1/docs/identity.md", "/api/v1/openapi.json"] {
            assert!(stranger.body.contains(part), "{part}: {}", stranger.body);
        }
        let document = client.get("/api/v1/docs/identity.md", &[]).await;
        assert_eq!((document.status, document.body.starts_with("# Identity")), (200, true));
        assert_eq!(client.get("/api/v1/docs/x.md", &[]).await.status, 404);
        let nobody = client.get("/login?done", &[("host", host)]).await;
        assert!(nobody.body.contains("data-ceremony=\"auth\""), "nobody is signed in: {}", nobody.body);

        let mut device = SoftAuthenticator::new(&origin);
        let start =
            json!({"username": "root", "email": "root@example.com", "full_name": "Rosa", "token": token});
        let with = json!({"token": token});
        let done = ceremony(&client, (&origin, "register"), start, |o| device.create(o), with).await;
        let session = cookie(&done, "access_token").unwrap();
        let own = [("host", host), ("cookie", value(&session)), ("user-agent", BROWSER)];
        for path in ["/login?done", "/login"] {
            let page = client.get(path, &own).await;
            for part in ["Rosa", "root@example.com", "/login/recovery-codes", "/webauthn/link", "/logout"] {
                assert!(page.body.contains(part), "{path} has no {part}: {}", page.body);
            }
            assert!(page.body.contains("You have no recovery codes"), "{}", page.body);
        }
        assert!(client.get("/", &own).await.body.contains("Rosa"));
        for path in ["/login?switch", "/login?again", "/login?request=device"] {
            let page = client.get(path, &own).await;
            assert!(page.body.contains("data-ceremony=\"auth\""), "{path}: {}", page.body);
        }
        let leaving = client.get("/api/v1/core/oauth/logout", &own).await;
        assert!(
            leaving.body.contains("Rosa") && leaving.body.contains("root@example.com"),
            "{}",
            leaving.body
        );

        let page = client.get("/login", &own).await.body;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").unwrap();
        let csrf = format!("csrf={}", rest.split('"').next().unwrap());
        let ask = async |session: &str, origin: &str, csrf: &str| {
            let headers = [FORM, ("host", host), ("cookie", session), ("origin", origin)];
            client.raw("/login/recovery-codes", &headers, csrf.to_owned()).await.unwrap()
        };
        assert_eq!(ask(value(&session), "https://evil.example", &csrf).await.status, 403);
        assert_eq!(ask(value(&session), &origin, "csrf=x").await.status, 403);
        let nobody = ask("a=b", &origin, &csrf).await;
        assert_eq!((nobody.status, nobody.header("location")), (303, "/login?again"));
        let made = ask(value(&session), &origin, &csrf).await;
        assert_eq!((made.status, made.header("cache-control")), (200, "no-store"), "{}", made.body);
        let codes: Vec<&str> =
            made.body.split("<li>").skip(1).filter_map(|part| part.split("</li>").next()).collect();
        assert_eq!((codes.len(), codes[0].len()), (10, 19), "{codes:?}");
        assert!(client.get("/login", &own).await.body.contains("Recovery codes left: 10"));
        let flow = client.get("/login?recovery", &[("host", host)]).await;
        let (_, rest) = flow.body.split_once("name=\"csrf\" value=\"").unwrap();
        let body = format!("csrf={}&recovery=1&code={}", rest.split('"').next().unwrap(), codes[3]);
        let flow = cookie(&flow, "sp_flow").unwrap();
        let headers = [FORM, ("host", host), ("cookie", value(&flow)), ("origin", origin.as_str())];
        let used = client.raw("/login", &headers, body).await.unwrap();
        assert_eq!(used.status, 303, "{}", used.body);
        assert!(client.get("/login", &own).await.body.contains("Recovery codes left: 9"));
    }
}

#[tokio::test]
async fn pages_are_framed_by_nobody_and_stand_under_one_host() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::without_redirects(&server);
    let (origin, _) = setup(&server);
    let host = origin.strip_prefix("http://").unwrap();
    for path in ["/login", "/login?recovery", "/login?done", "/webauthn/link"] {
        let page = client.get(path, &[("host", host), ("accept-language", "de")]).await;
        assert_eq!(page.status, 200, "{path} {}", page.body);
        assert_eq!((page.header("x-frame-options"), page.header("cache-control")), ("DENY", "no-store"));
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        let policy = page.header("content-security-policy");
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"),
            "{policy}"
        );
        assert!(page.body.contains("lang=\"de\""));
    }
    let port = host.split(':').nth(1).unwrap();
    let moved = client.get("/login?request=device", &[("host", &format!("127.0.0.1:{port}"))]).await;
    assert_eq!(moved.status, 302);
    assert_eq!(moved.header("location"), format!("{origin}/login?request=device"));
    // What waits for the sign-in comes along, whole: the cookies of one name are none of the other.
    for path in [
        "/login?recovery",
        "/login?done",
        "/device?done=allowed",
        "/device?user_code=bcdf%20ghjk",
        "/webauthn/link",
        "/api/v1/core/oauth/authorize?client_id=a%2Bb&redirect_uri=https://app.example/cb&state=%C3%A4+%25",
        "/api/v1/core/oauth/consent?request=ar_x",
        "/api/v1/core/oauth/logout?client_id=x&state=1",
    ] {
        for name in ["127.0.0.1", "[::1]"] {
            let moved = client.get(path, &[("host", &format!("{name}:{port}"))]).await;
            assert_eq!((moved.status, moved.header("location")), (302, format!("{origin}{path}").as_str()));
            assert!(cookie(&moved, "sp_flow").is_none());
        }
    }
    let named = format!("127.0.0.1:{port}");
    let form = [("host", named.as_str()), FORM];
    let again = client
        .raw("/api/v1/core/oauth/authorize", &form, "client_id=x&state=%C3%A4+%25&scope=a+b".into())
        .await
        .unwrap();
    assert_eq!(
        (again.status, again.header("location")),
        (
            303,
            format!("{origin}/api/v1/core/oauth/authorize?client_id=x&state=%C3%A4+%25&scope=a+b").as_str()
        )
    );
    let device = client.get("/device?user_code=bcdf%20ghjk", &[("host", host)]).await;
    assert_eq!((device.status, device.header("location")), (303, "/login?request=BCDF-GHJK"));
    let hidden = client.raw("/login", &[FORM], "username=a&password=b".into());
    assert_eq!(hidden.await.unwrap().status, 404);
}

#[tokio::test]
async fn id_42_the_flow_of_a_browser_lasts_as_long_as_what_it_began_last() {
    let server = stores::sqlite().start().unwrap();
    let client = Client::without_redirects(&server);
    let (origin, _) = setup(&server);
    let host = origin.strip_prefix("http://").unwrap();
    let first = cookie(&client.get("/login", &[("host", host)]).await, "sp_flow").unwrap();
    assert!(first.contains("Max-Age=1800"), "{first}");
    let authorize = "/api/v1/core/oauth/authorize?client_id=nobody&response_type=code";
    for path in ["/login", "/webauthn/link", authorize] {
        let next = client.get(path, &[("host", host), ("cookie", value(&first))]).await;
        assert_eq!(cookie(&next, "sp_flow").as_ref(), Some(&first), "{path}");
    }
    let headers = [("origin", origin.as_str()), ("cookie", value(&first))];
    let begun = client.post(&format!("{BASE}/auth/start"), &headers, &json!({})).await;
    assert_eq!(cookie(&begun, "sp_flow").as_ref(), Some(&first));
}

#[tokio::test]
async fn id_79_who_comes_by_in_the_second_half_of_the_cookies_life_gets_it_anew() {
    let server = stores::sqlite()
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__SESSION__COOKIE_MAX_AGE", "60")
        .start()
        .unwrap();
    let client = Client::without_redirects(&server);
    let (origin, token) = setup(&server);
    let host = origin.strip_prefix("http://").unwrap();
    let mut device = SoftAuthenticator::new(&origin);
    let start = json!({"username": "root", "email": "root@example.com", "token": token});
    let extra = json!({"token": token});
    let done = ceremony(&client, (&origin, "register"), start, |o| device.create(o), extra).await;
    let session = cookie(&done, "access_token").unwrap();
    let pages = [
        "/login?done",
        "/device",
        "/api/v1/core/oauth/authorize?client_id=nobody",
        "/api/v1/core/oauth/consent?request=ar_x",
    ];
    let renewed = async |path: &str, shown: &str| {
        cookie(&client.get(path, &[("host", host), ("cookie", value(shown))]).await, "access_token")
    };
    for path in pages {
        assert_eq!(renewed(path, &session).await, None, "{path}: it is new");
    }
    tokio::time::sleep(std::time::Duration::from_secs(31)).await;
    for path in pages {
        let next = renewed(path, &session).await.unwrap_or_else(|| panic!("{path} renews nothing"));
        assert!(next.contains("Max-Age=60") && next.contains("HttpOnly"), "{next}");
        assert_ne!(value(&next), value(&session));
        let who = client.get(ME, &[("cookie", value(&next))]).await;
        assert_eq!(who.json()["username"], "root");
        assert_eq!(renewed(path, &next).await, None, "{path}: it is new");
    }
    assert_eq!(renewed("/api/v1/core/oauth/logout", &session).await, None, "who leaves is not kept");
}

#[tokio::test]
async fn ceremonies_refuse_other_origins_and_nobody_continues_a_foreign_request() {
    let server = stores::sqlite().start().unwrap();
    let client = Client::without_redirects(&server);
    let start = format!("{BASE}/auth/start");
    for headers in [&[("origin", "https://evil.example")][..], &[("sec-fetch-site", "cross-site")]] {
        assert_eq!(client.post(&start, headers, &json!({})).await.status, 403);
    }
    let typed = client.raw(&start, &[("content-type", "text/plain")], "{}".into()).await.unwrap();
    assert_eq!(typed.status, 415);
    let complete = format!("{BASE}/complete");
    for (query, location) in [("", "/login?done"), ("?request=https://evil.example", "/login?done")] {
        let answer = client.get(&format!("{complete}{query}"), &[]).await;
        assert_eq!((answer.status, answer.header("location")), (303, location));
    }
    let id = format!("ar_{}", "a".repeat(43));
    let answer = client.get(&format!("{complete}?request={id}&client_id=x&redirect_uri=y"), &[]).await;
    assert_eq!(answer.header("location"), format!("/api/v1/core/oauth/authorize?request={id}"));
}

#[tokio::test]
async fn id_79_a_session_is_anonymous_until_somebody_signs_in_and_its_token_is_for_programs() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::without_redirects(&server);
    let path = "/api/v1/core/oauth/session";
    let program = client.send(Method::POST, path, &[("accept", "application/json")], None).await.unwrap();
    let body = program.json();
    assert_eq!((program.status, &body["anonymous"], &body["user_id"]), (200, &json!(true), &Value::Null));
    assert!(body["access_token"].is_string());
    let kept = cookie(&program, "access_token").unwrap();
    assert!(kept.contains("Max-Age=86400"), "{kept}");
    let headers = [("accept", "application/json"), ("sec-fetch-mode", "cors"), ("cookie", value(&kept))];
    let browser = client.send(Method::POST, path, &headers, None).await.unwrap();
    assert_eq!(browser.json()["session_id"], body["session_id"], "{} {}", browser.status, browser.body);
    assert!(browser.json().get("access_token").is_none() && cookie(&browser, "access_token").is_none());
    let twice = format!("{}; {}", value(&kept), value(&kept));
    let headers = [("accept", "application/json"), ("cookie", twice.as_str())];
    let other = client.send(Method::POST, path, &headers, None).await.unwrap();
    assert_ne!(other.json()["session_id"], body["session_id"]);
}

#[tokio::test]
async fn administrators_make_links_and_suspend_people() {
    for options in stores::unlimited().await {
        let server = options.start().unwrap();
        let client = Client::without_redirects(&server);
        let (origin, _) = setup(&server);
        let admin = format!("Bearer {}", server.admin_token());
        let headers = [("authorization", admin.as_str())];
        let printed = server.succeed(&["admin", "setup-link", "--user", "bob", "--output", "json"]).unwrap();
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed["expires_in"], 86_400);
        for (purpose, life) in [("credential_link", "24 hours"), ("recovery", "1 hour")] {
            let shown = server.run(&["admin", "setup-link", "--user", "bob", "--purpose", purpose]).unwrap();
            let (link, said) =
                (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
            assert!(link.contains("#token=su_") && !link.contains(life), "{link}");
            assert!(said.contains(&format!("counts once, within {life}")), "{said}");
        }
        let token = printed["setup_url"].as_str().unwrap().split_once("#token=").unwrap().1.to_owned();
        let mut device = SoftAuthenticator::new(&origin);
        let with = json!({"token": token});
        let done = ceremony(&client, (&origin, "link"), with.clone(), |o| device.create(o), with).await;
        assert_eq!(done.status, 200, "{}", done.body);
        let cookie = cookie(&done, "access_token").unwrap();
        assert_eq!(client.get(ME, &[("cookie", value(&cookie))]).await.json()["username"], "bob");
        let keys = client.get(&format!("{ME}/passkeys"), &[("cookie", value(&cookie))]).await.json();
        assert_eq!(keys["items"].as_array().unwrap().len(), 1);
        let own = [("origin", origin.as_str()), ("cookie", value(&cookie))];
        let codes = client.send(Method::POST, &format!("{ME}/recovery-codes"), &own, None).await.unwrap();
        assert_eq!(codes.json()["codes"].as_array().unwrap().len(), 10);
        let last = format!("{ME}/passkeys/{}", device.id());
        assert_eq!(client.send(Method::DELETE, &last, &own, None).await.unwrap().status, 409);

        let made = client.post(&format!("{ME}/api-keys"), &own, &json!({"name": "mine"})).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let foreign = format!("{ME}/api-keys/{id}");
        assert_eq!(client.send(Method::DELETE, &foreign, &headers, None).await.unwrap().status, 404);
        assert_eq!(client.send(Method::DELETE, &foreign, &own, None).await.unwrap().status, 204);

        let suspend =
            client.send(Method::POST, "/api/v1/admin/users/bob/suspend", &headers, None).await.unwrap();
        assert_eq!((suspend.status, &suspend.json()["status"]), (200, &json!("suspended")));
        assert_eq!(client.get(ME, &[("cookie", value(&cookie))]).await.status, 401);
        let signed = ceremony(&client, (&origin, "auth"), json!({}), |o| device.get(o), json!({})).await;
        assert_eq!((signed.status, &signed.json()["error"]), (401, &json!("invalid_credential")));
        let active =
            client.send(Method::POST, "/api/v1/admin/users/bob/activate", &headers, None).await.unwrap();
        assert_eq!(active.json()["status"], "active");
        let signed = ceremony(&client, (&origin, "auth"), json!({}), |o| device.get(o), json!({})).await;
        assert_eq!(signed.status, 200, "{}", signed.body);
    }
}
