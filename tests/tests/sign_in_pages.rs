//! The sign-in pages of a browser that comes from a client: where their forms may end, in which language they are, and what comes
//! back to the client.

use crate::http::{Answer, FORM, OAUTH};
use crate::people::authenticator::PRESENT;
use crate::people::{SoftAuthenticator, ceremony};
use crate::rfc9700::{Browser, encoded, filled, hidden, parameter};
use crate::stores;
use reqwest::Method;
use serde_json::json;

const PASSWORD: &str = "purple-otter-sings";

/// A person with a password, whose browser has forgotten that they were signed in.
async fn signed_out() -> Browser {
    let options = stores::sqlite().env("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true");
    let mut browser = Browser::signed_in(options).await;
    let cookies = browser.cookies();
    let headers = [("cookie", cookies.as_str()), ("origin", browser.origin.as_str())];
    let path = "/api/v1/core/users/me/password";
    let set = browser.http.send(Method::PUT, path, &headers, Some(&json!({"new": PASSWORD}))).await.unwrap();
    assert_eq!(set.status, 204, "{}", set.body);
    browser.cookies.clear();
    browser
}

fn may_end_at_the_client(page: &Answer) -> bool {
    page.header("content-security-policy").ends_with("form-action 'self' https://app.example")
}

async fn sign_in(browser: &mut Browser, page: &Answer, password: &str) -> Answer {
    let mut fields = hidden(&page.body);
    fields.retain(|(name, _)| name == "csrf" || name == "request");
    fields.push(("username".into(), "root".into()));
    fields.push(("password".into(), password.into()));
    browser.submit("/login", encoded(&fields)).await
}

#[tokio::test]
async fn id_107_the_form_of_a_sign_in_may_end_at_the_client_that_waits_behind_it() {
    let mut browser = signed_out().await;
    let asked = browser.get(&browser.authorize("scope=openid%20user&state=s&ui_locales=de")).await;
    let address = asked.header("location").to_owned();
    let page = browser.get(&address).await;
    assert!(may_end_at_the_client(&page), "{}", page.header("content-security-policy"));
    assert!(page.body.contains("lang=\"de\""), "in the language that the client asked for");
    let wrong = sign_in(&mut browser, &page, "not-the-password").await;
    assert_eq!(wrong.status, 401, "{}", wrong.body);
    assert!(may_end_at_the_client(&wrong) && wrong.body.contains("lang=\"de\""));
    let done = sign_in(&mut browser, &wrong, PASSWORD).await;
    assert_eq!(done.status, 303, "{}", done.body);
    // Nothing waits, or it waits in another browser: the form stays here.
    for address in ["/login".to_owned(), address] {
        browser.cookies.clear();
        let page = browser.get(&address).await;
        assert!(page.header("content-security-policy").ends_with("form-action 'self'"), "{address}");
    }
}

#[tokio::test]
async fn id_1_the_forms_of_pages_may_name_their_request_in_the_address_and_nothing_else() {
    let mut browser = Browser::signed_in(stores::sqlite()).await;
    let page = browser.consent("scope=user&state=s").await;
    let request = hidden(&page.body).into_iter().find(|(name, _)| name == "request").unwrap().1;
    let mut fields = hidden(&page.body);
    fields.push(("decision".into(), "deny".into()));
    let whole = encoded(&fields);
    fields.retain(|(name, _)| name != "request");
    let form = encoded(&fields);
    for (query, form) in [
        (format!("request={request}&decision=allow"), &form),
        ("x=1".to_owned(), &form),
        ("&".to_owned(), &form),
        ("request=other".to_owned(), &whole),
    ] {
        let refused = browser.submit(&format!("{OAUTH}/consent?{query}"), form.clone()).await;
        assert_eq!((refused.status, refused.header("location")), (400, ""), "{query}: {}", refused.body);
    }
    let refused = browser.submit(&format!("{OAUTH}/revoke?request={request}"), "token=x".into()).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let done = browser.submit(&format!("{OAUTH}/consent?request={request}"), form).await;
    assert_eq!(done.status, 303, "{}", done.body);
    assert_eq!(parameter(done.header("location"), "error").as_deref(), Some("access_denied"));
}

#[tokio::test]
async fn id_108_the_pages_of_devices_and_links_speak_the_language_that_was_asked_for() {
    let mut browser = Browser::signed_in(stores::sqlite()).await;
    let german = |page: &Answer| page.body.contains("lang=\"de\"");
    for path in ["/device", "/webauthn/link", "/login"] {
        let page = browser.get(&format!("{path}?ui_locales=fr%20de-AT")).await;
        assert!(page.status == 200 && german(&page), "{path}: {}", page.body);
        assert!(!german(&browser.get(path).await), "{path}");
    }
    let page = browser.get("/device?ui_locales=de").await;
    assert!(hidden(&page.body).contains(&("ui_locales".into(), "de".into())), "{}", page.body);
    let path = format!("{OAUTH}/device_authorization");
    let form = format!("client_id={}&scope=user", browser.client);
    let code = browser.http.raw(&path, &[FORM], form).await.unwrap().json();
    let code = code["user_code"].as_str().unwrap().to_owned();
    let page = browser.get(&format!("/device?user_code={code}&ui_locales=de")).await;
    assert!(german(&page), "{}", page.body);
    let done = browser.submit("/device", filled(&page, "deny")).await;
    assert_eq!((done.status, done.header("location")), (303, "/device?done=denied&ui_locales=de"));
    browser.cookies.clear();
    let asked = browser.get("/device?ui_locales=de").await;
    assert_eq!(asked.header("location"), "/login?request=device&ui_locales=de");
}

#[tokio::test]
async fn id_93_a_passkey_that_verifies_nobody_leads_its_person_to_a_password() {
    let options = stores::sqlite()
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true")
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__WEBAUTHN__USER_VERIFICATION", "preferred");
    let mut browser = Browser::signed_in(options).await;
    let admin = format!("Bearer {}", browser.server.admin_token());
    let invite = json!({"email": "eve@example.com", "roles": ["user"]});
    let headers = [("authorization", admin.as_str())];
    let made = browser.http.post("/api/v1/admin/setup-link", &headers, &invite).await.json();
    let token = made["setup_url"].as_str().unwrap().split_once("#token=").unwrap().1.to_owned();
    let asked = browser.get(&browser.authorize("scope=openid%20user&state=s&prompt=login")).await;
    let request = parameter(&format!("{}{}", browser.origin, asked.header("location")), "request").unwrap();
    let mut device = SoftAuthenticator::new(&browser.origin);
    device.flags = PRESENT;
    let start = json!({"username": "eve", "email": "eve@example.com", "token": token, "request": request});
    let ends = (browser.origin.as_str(), "register");
    let done = ceremony(&browser.http, ends, start, |o| device.create(o), json!({"token": token})).await;
    let led = done.json()["redirect"].as_str().unwrap().to_owned();
    assert_eq!(led, format!("/login/password?request={request}"), "{}", done.body);
    let flow = browser.cookies["sp_flow"].clone();
    browser.keep(&done);
    browser.cookies.insert("sp_flow".into(), flow);
    let page = browser.get(&led).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("minlength=\"12\"") && may_end_at_the_client(&page), "{}", page.body);
    let form = |password: &str| {
        let mut fields = hidden(&page.body);
        fields.push(("new".into(), password.into()));
        fields
    };
    let weak = browser.submit("/login/password", encoded(&form("short"))).await;
    assert!(weak.status == 400 && weak.body.contains("role=\"alert\""), "{}", weak.body);
    let mut forged = form(PASSWORD);
    forged.retain(|(name, _)| name != "csrf");
    assert_eq!(browser.submit("/login/password", encoded(&forged)).await.status, 403);
    let set = browser.submit("/login/password", encoded(&form(PASSWORD))).await;
    let on = format!("{OAUTH}/webauthn/complete?request={request}");
    assert_eq!((set.status, set.header("location")), (303, on.as_str()), "{}", set.body);
    // Who has one needs the page no more.
    assert_eq!(browser.get(&led).await.header("location"), on);
    assert_eq!(
        browser.submit("/login/password", encoded(&form("another-long-one"))).await.header("location"),
        on
    );
    browser.cookies.clear();
    assert_eq!(browser.get(&led).await.header("location"), "/login?again");
    let page = browser.get("/login").await;
    let mut fields = hidden(&page.body);
    fields.retain(|(name, _)| name == "csrf");
    fields.extend([("username".into(), "eve".into()), ("password".into(), PASSWORD.into())]);
    assert_eq!(browser.submit("/login", encoded(&fields)).await.status, 303, "eve comes back in");
    let without = stores::sqlite().without_limits().start().unwrap();
    let off = crate::http::Client::without_redirects(&without).get("/login/password", &[]).await;
    assert_eq!(off.status, 404);
}

#[tokio::test]
async fn id_129_a_state_with_a_nul_comes_back_as_it_was() {
    let mut browser = Browser::signed_in(stores::sqlite()).await;
    let back = browser.back("scope=openid%20user&state=%00a%2500&nonce=%00").await;
    assert_eq!(parameter(&back, "state").as_deref(), Some("\0a%00"));
    assert!(parameter(&back, "code").is_some(), "{back}");
}

#[tokio::test]
async fn id_4_introspection_reads_no_cookie_and_tells_the_ledger_whom_it_refused() {
    let browser = Browser::signed_in(stores::sqlite()).await;
    let (cookies, admin) = (browser.cookies(), format!("Bearer {}", browser.server.admin_token()));
    let path = format!("{OAUTH}/introspect");
    for authorization in ["Bearer a b", "bearer x", "Bearer x.y.z"] {
        let headers = [FORM, ("cookie", cookies.as_str()), ("authorization", authorization)];
        let asked = browser.http.raw(&path, &headers, "token=x".into()).await.unwrap();
        assert_eq!(
            (asked.status, asked.json()["error"].as_str()),
            (401, Some("invalid_token")),
            "{authorization}"
        );
    }
    let headers = [FORM, ("authorization", admin.as_str())];
    assert_eq!(browser.http.raw(&path, &headers, "token=x".into()).await.unwrap().status, 200);
    let db = stores::open(&browser.server).await;
    let told = "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'oauth.introspect_refused'";
    assert_eq!(stores::count(&db, told).await, 3);
    let metrics = browser.http.get("/metrics", &[("authorization", &admin)]).await.body;
    let line = "oauth_refused_total{endpoint=\"introspect\",error=\"invalid_token\"} 3";
    assert!(metrics.contains(line), "{metrics}");
}
