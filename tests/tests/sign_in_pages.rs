//! The sign-in pages of a browser that comes from a client: where their forms may end, in which language they are, and what comes
//! back to the client.

use crate::http::{Answer, FORM, OAUTH};
use crate::rfc9700::{Browser, encoded, hidden, parameter};
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
