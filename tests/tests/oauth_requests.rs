//! What holds for every endpoint of the authorization server (ID-1 to ID-3, ID-33): the form of a request, and that nobody keeps an
//! answer.

use crate::http::{Answer, Client, FORM, OAUTH, UNSTORED};
use crate::rfc9700::Browser;
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;

/// Endpoints that take a form, and how long it may be.
const FORMS: [(&str, usize); 7] = [
    ("token", 8),
    ("introspect", 8),
    ("revoke", 8),
    ("userinfo", 8),
    ("device_authorization", 8),
    ("par", 16),
    ("authorize", 16),
];
const JSON: [&str; 3] = ["register", "webauthn/auth/start", "webauthn/register/start"];

fn word(answer: &Answer) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn id_1_each_endpoint_takes_its_media_type_in_its_size() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::without_redirects(&server);
    let origin = ("origin", server.url());
    for (name, kilobytes) in FORMS {
        let path = format!("{OAUTH}/{name}");
        let other = client.post(&path, &[origin], &json!({"client_id": "x"})).await;
        assert_eq!((other.status, word(&other).as_str()), (415, "invalid_request"), "{name}");
        let text = |bytes: usize| format!("a={}", "x".repeat(bytes - 2));
        let fits = client.raw(&path, &[FORM, origin], text(kilobytes * 1024)).await.unwrap();
        assert!(fits.status < 500 && fits.status != 413, "{name}: {}", fits.status);
        let large = client.raw(&path, &[FORM, origin], text(kilobytes * 1024 + 1)).await.unwrap();
        assert_eq!(large.status, 413, "{name}");
        let query = client.raw(&format!("{path}?client_id=x"), &[FORM, origin], "a=b".into()).await.unwrap();
        assert_eq!((query.status, word(&query).as_str()), (400, "invalid_request"), "{name}");
        let twice = client.raw(&path, &[FORM, origin], "client_id=a&client_id=a".into()).await.unwrap();
        assert!(matches!(twice.status, 400 | 401) && twice.header("location").is_empty(), "{name}");
    }
    for name in JSON {
        let path = format!("{OAUTH}/{name}");
        let other = client.raw(&path, &[FORM, origin], "a=b".into()).await.unwrap();
        assert_eq!(other.status, 415, "{name}: {}", other.body);
        let large = json!({"client_name": "x".repeat(65 * 1024)});
        assert_eq!(client.post(&path, &[origin], &large).await.status, 413, "{name}");
    }
}

#[tokio::test]
async fn id_33_an_authorization_request_in_the_address_has_8_kilobytes_and_in_a_form_16() {
    let browser = Browser::signed_in(stores::sqlite()).await;
    let client = Client::without_redirects(&browser.server);
    let request = format!(
        "client_id={}&redirect_uri=https://app.example/cb&response_type=code&scope=user&code_challenge_method=S256\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&state=",
        browser.client
    );
    let address = async |bytes: usize| {
        client.get(&format!("{OAUTH}/authorize?{request}{}", "y".repeat(bytes)), &[]).await.status
    };
    assert_eq!(address(4000).await, 303, "to the page of the request");
    for bytes in [8 * 1024, 17 * 1024] {
        assert_eq!(address(bytes).await, 414, "{bytes}");
    }
    // A `state` of so many bytes, each three characters long, goes by a form.
    let form = format!("{request}{}", "%C3%A4".repeat(2000));
    let origin = ("origin", browser.server.url());
    let answer = client.raw(&format!("{OAUTH}/authorize"), &[FORM, origin], form).await.unwrap();
    assert_eq!(answer.status, 303, "{}", answer.body);
}

#[tokio::test]
async fn id_3_nobody_keeps_an_answer_whether_it_went_well_or_not() {
    let mut browser = Browser::signed_in(stores::sqlite()).await;
    let pages = browser.pages().await;
    let tokens = browser.tokens("scope=openid%20user").await;
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let demo = browser.server.ready()["demo"].clone();
    let (id, secret) = (demo["client_id"].as_str().unwrap(), demo["client_secret"].as_str().unwrap());
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let client = browser.client.clone();
    let shown = format!("token={}", tokens["access_token"].as_str().unwrap());
    let pushed = format!(
        "client_id={client}&redirect_uri=https://app.example/cb&response_type=code&code_challenge_method=S256\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
    let device = format!("client_id={client}&scope=user");
    let mut answers = Vec::new();
    for (name, authorization, form) in [
        ("token", basic.as_str(), "grant_type=client_credentials&scope=user"),
        ("token", basic.as_str(), "grant_type=nothing"),
        ("introspect", &basic, &shown),
        ("introspect", "Basic eA==", &shown),
        ("revoke", &basic, "token=x"),
        ("revoke", &basic, ""),
        ("par", "", &pushed),
        ("par", "", "client_id=nobody"),
        ("device_authorization", "", &device),
        ("device_authorization", "", "client_id=nobody"),
        ("userinfo", &bearer, ""),
        ("userinfo", "Bearer x", ""),
    ] {
        let mut headers = vec![FORM];
        headers.extend((!authorization.is_empty()).then_some(("authorization", authorization)));
        let path = format!("{OAUTH}/{name}");
        answers.push((name, browser.http.raw(&path, &headers, form.to_owned()).await.unwrap()));
    }
    let about = json!({"client_name": "x", "redirect_uris": ["https://app.example/cb"]});
    answers.push(("register", browser.http.post(&format!("{OAUTH}/register"), &[], &about).await));
    answers.push(("register", browser.http.post(&format!("{OAUTH}/register"), &[], &json!({})).await));
    let session = browser.http.send(Method::POST, &format!("{OAUTH}/session"), &[], None).await.unwrap();
    answers.push(("session", session));
    answers.extend(pages);
    let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, answer)| answer.status < 400);
    assert!(good.len() > 10 && bad.len() > 6, "{} {}", good.len(), bad.len());
    for (name, answer) in &answers {
        for (header, want) in UNSTORED {
            assert_eq!(answer.header(header), want, "{name} {}: {header}", answer.status);
        }
    }
}

#[tokio::test]
async fn id_2_an_error_names_the_parameter_and_no_value() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::without_redirects(&server);
    let mark = "zq9-a-value-of-the-caller";
    for (name, parameter, form) in [
        ("token", "grant_type", format!("grant_type={mark}&client_id=sp_cli")),
        ("token", "code", format!("grant_type=authorization_code&client_id=sp_cli&code={mark}")),
        (
            "token",
            "refresh_token",
            format!("grant_type=refresh_token&client_id=sp_cli&refresh_token={mark}&scope={mark}"),
        ),
        ("token", "client", format!("grant_type=refresh_token&client_id={mark}&refresh_token=x")),
        ("device_authorization", "scope", format!("client_id=sp_cli&scope={mark}")),
        ("par", "redirect_uri", format!("client_id=sp_cli&redirect_uri={mark}&response_type=code")),
        ("revoke", "client", format!("client_id={mark}&token={mark}")),
        ("introspect", "client", format!("client_id={mark}&client_secret={mark}&token={mark}")),
    ] {
        let answer = client.raw(&format!("{OAUTH}/{name}"), &[FORM], form.clone()).await.unwrap();
        let body = answer.json();
        let names: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["error", "error_description", "trace_id"], "{name} {form}");
        assert!(matches!(answer.status, 400 | 401), "{name} {form}: {}", answer.status);
        let told = body["error_description"].as_str().unwrap();
        assert!(told.split(' ').any(|word| word == parameter), "{name} {form}: {told}");
        assert!(!answer.body.contains(mark) && answer.body.is_ascii(), "{name} {form}: {}", answer.body);
    }
}
