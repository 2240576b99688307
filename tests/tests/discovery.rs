//! What clients read before anything else (ID-28 to ID-32): metadata at every address where it is looked for, public keys, health.

use crate::http::Client;
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const FORMS: [&str; 2] = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn id_28_both_documents_say_the_same_and_no_more_than_there_is() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::without_redirects(&server);
    let [one, two] = [client.get(FORMS[0], &[]).await, client.get(FORMS[1], &[]).await];
    assert_eq!((one.status, &one.body), (200, &two.body));
    let document = one.json();
    let base = format!("{}/api/v1/core/oauth", server.url());
    for (member, want) in [
        ("issuer", json!(server.url())),
        ("authorization_endpoint", json!(format!("{base}/authorize"))),
        ("token_endpoint", json!(format!("{base}/token"))),
        ("userinfo_endpoint", json!(format!("{base}/userinfo"))),
        ("introspection_endpoint", json!(format!("{base}/introspect"))),
        ("revocation_endpoint", json!(format!("{base}/revoke"))),
        ("registration_endpoint", json!(format!("{base}/register"))),
        ("pushed_authorization_request_endpoint", json!(format!("{base}/par"))),
        ("device_authorization_endpoint", json!(format!("{base}/device_authorization"))),
        ("end_session_endpoint", json!(format!("{base}/logout"))),
        ("jwks_uri", json!(format!("{}/.well-known/jwks.json", server.url()))),
        ("response_types_supported", json!(["code"])),
        ("response_modes_supported", json!(["query", "form_post"])),
        ("code_challenge_methods_supported", json!(["S256"])),
        (
            "token_endpoint_auth_methods_supported",
            json!(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]),
        ),
        (
            "introspection_endpoint_auth_methods_supported",
            json!(["client_secret_basic", "client_secret_post", "private_key_jwt"]),
        ),
        (
            "revocation_endpoint_auth_methods_supported",
            json!(["client_secret_basic", "client_secret_post", "private_key_jwt"]),
        ),
        (
            "token_endpoint_auth_signing_alg_values_supported",
            json!(["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"]),
        ),
        ("authorization_response_iss_parameter_supported", json!(true)),
        ("client_id_metadata_document_supported", json!(true)),
        ("prompt_values_supported", json!(["none", "login", "consent", "select_account"])),
        ("claims_parameter_supported", json!(true)),
        ("request_parameter_supported", json!(false)),
        ("request_uri_parameter_supported", json!(false)),
        ("require_pushed_authorization_requests", json!(false)),
        ("subject_types_supported", json!(["public"])),
        ("acr_values_supported", json!(["phrh", "phr"])),
        ("ui_locales_supported", json!(["en", "de"])),
        ("gateway_protocol_version", json!(1)),
    ] {
        assert_eq!(document[member], want, "{member}");
    }
    let list =
        |member: &str| -> BTreeSet<String> { serde_json::from_value(document[member].clone()).unwrap() };
    let grants = [
        "authorization_code",
        "refresh_token",
        "client_credentials",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:grant-type:device_code",
    ];
    assert_eq!(list("grant_types_supported"), grants.map(str::to_owned).into());
    assert!(list("id_token_signing_alg_values_supported").contains("RS256"));
    for scope in [
        "openid",
        "profile",
        "email",
        "offline_access",
        "admin",
        "user",
        "service",
        "a2a",
        "mcp",
        "hook:govern",
    ] {
        assert!(list("scopes_supported").contains(scope), "{scope}");
    }
    for claim in ["sub", "iss", "auth_time", "acr", "amr", "sid", "email", "preferred_username"] {
        assert!(list("claims_supported").contains(claim), "{claim}");
    }
    for resource in list("protected_resources") {
        let path = resource.strip_prefix(server.url()).unwrap().to_owned();
        let own = client.get(&format!("/.well-known/oauth-protected-resource{path}"), &[]).await;
        assert_eq!((own.status, &own.json()["resource"]), (200, &json!(resource)));
    }
    // What comes with a later step is not spoken of before it works.
    for part in ["dpop", "jwt-bearer", "backchannel", "mtls", "check_session", "id-jag"] {
        assert!(!one.body.contains(part), "{part}");
    }
    // Whatever is named answers, and with something of its own.
    for (member, value) in document.as_object().unwrap() {
        let address = value.as_str().filter(|text| text.starts_with(server.url()) && member != "issuer");
        let Some(path) = address.map(|text| text[server.url().len()..].to_owned()) else { continue };
        let answer = client.send(Method::OPTIONS, &path, &[], None).await.unwrap().status;
        let got = client.get(&path, &[]).await.status;
        assert!(got != 404 && answer != 404, "{member} leads nowhere: {got}");
    }
}

#[tokio::test]
async fn id_28_what_is_off_is_not_offered() {
    let server = stores::sqlite()
        .without_limits()
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__CIMD__ENABLED", "false")
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__REGISTRATION", "closed")
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true")
        .env("SYSTEMPROMPT__SECURITY__ALLOW_REGISTRATION", "true")
        .start()
        .unwrap();
    let document = Client::new(&server).get(FORMS[1], &[]).await.json();
    assert_eq!(document["client_id_metadata_document_supported"], false);
    assert!(!names(&document).contains("registration_endpoint"));
    assert_eq!(document["acr_values_supported"], json!(["phrh", "phr", "pwd"]));
    let prompts = document["prompt_values_supported"].as_array().unwrap();
    assert!(prompts.contains(&json!("create")));
}

#[tokio::test]
async fn id_28_documents_are_kept_for_five_minutes_and_asked_for_anew_by_their_tag() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::new(&server);
    let resource = "/.well-known/oauth-protected-resource";
    for path in [FORMS[0], FORMS[1], resource, "/.well-known/jwks.json"] {
        let whole = client.get(path, &[]).await;
        assert_eq!(whole.header("cache-control"), "public, max-age=300", "{path}");
        let tag = whole.header("etag").to_owned();
        assert!(tag.len() > 10 && tag.starts_with('"'), "{path}: {tag}");
        for shown in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            let same = client.get(path, &[("if-none-match", &shown)]).await;
            assert_eq!(
                (same.status, same.body.as_str(), same.header("etag")),
                (304, "", tag.as_str()),
                "{path}"
            );
            assert_eq!(same.header("cache-control"), "public, max-age=300");
        }
        assert_eq!(client.get(path, &[("if-none-match", "\"x\"")]).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn id_28_an_issuer_with_a_path_is_found_in_all_three_forms_and_no_other_one() {
    let server = stores::sqlite()
        .without_limits()
        .env("SYSTEMPROMPT__SECURITY__JWT_ISSUER", "https://id.example/tenants/one")
        .start()
        .unwrap();
    let client = Client::without_redirects(&server);
    let plain = client.get(FORMS[0], &[]).await;
    assert_eq!(plain.json()["issuer"], "https://id.example/tenants/one");
    let inserted = FORMS.map(|form| format!("{form}/tenants/one"));
    let appended = format!("/tenants/one{}", FORMS[0]);
    for path in inserted.iter().chain([&appended]) {
        let answer = client.get(path, &[("origin", "https://elsewhere.example")]).await;
        assert_eq!((answer.status, &answer.body), (200, &plain.body), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        let tag = plain.header("etag");
        assert_eq!(client.get(path, &[("if-none-match", tag)]).await.status, 304, "{path}");
    }
    for path in [
        format!("{}/tenants/two", FORMS[0]),
        format!("{}/tenants", FORMS[1]),
        format!("/tenants/two{}", FORMS[0]),
        format!("/tenants{}", FORMS[0]),
        format!("/x/tenants/one{}", FORMS[0]),
        "/tenants/one/health".into(),
    ] {
        assert_eq!(client.get(&path, &[]).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn id_29_every_surface_has_its_document_and_names_tell_nothing() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let client = Client::new(&server);
    let of =
        async |path: &str| client.get(&format!("/.well-known/oauth-protected-resource{path}"), &[]).await;
    for path in [
        "",
        "/api/v1",
        "/v1",
        "/v1/bridge",
        "/api/v1/hooks",
        "/api/v1/mcp/demo/mcp",
        "/api/v1/mcp/nobody-made-this/mcp",
        "/api/v1/agents/nobody",
    ] {
        let answer = of(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let document = answer.json();
        let want = [
            "authorization_servers",
            "bearer_methods_supported",
            "jwks_uri",
            "resource",
            "resource_documentation",
            "resource_name",
            "scopes_supported",
        ];
        assert_eq!(names(&document), want.into(), "{path}");
        assert_eq!(document["resource"], format!("{}{path}", server.url()));
        assert_eq!(document["authorization_servers"], json!([server.url()]));
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
        let scopes = document["scopes_supported"].as_array().unwrap();
        assert!(!scopes.is_empty() && !scopes.contains(&json!("offline_access")), "{path}: {scopes:?}");
    }
    let [there, not] = ["/api/v1/mcp/demo/mcp", "/api/v1/mcp/ghost/mcp"];
    let (there, not) = (of(there).await.body.replace("demo", "X"), of(not).await.body.replace("ghost", "X"));
    assert_eq!(there, not, "nobody learns here which servers there are");
    for path in
        ["/api/v2", "/api/v1/mcp", "/api/v1/mcp/a/b/mcp", "/api/v1/mcp/%20/mcp", "/api/v1/agents/", "/login"]
    {
        assert_eq!(of(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn id_30_the_published_keys_are_public_and_one_of_them_is_rs256() {
    let server = stores::sqlite()
        .without_limits()
        .env("SYSTEMPROMPT__SECURITY__SIGNING_ALGORITHM", "EdDSA")
        .start()
        .unwrap();
    let client = Client::new(&server);
    let answer = client.get("/.well-known/jwks.json", &[]).await;
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    let set = answer.json();
    assert_eq!(names(&set), ["keys"].into());
    let mut algorithms = BTreeSet::new();
    for key in set["keys"].as_array().unwrap() {
        let of_kind: &[&str] = match key["kty"].as_str().unwrap() {
            "RSA" => &["e", "n"],
            "OKP" => &["crv", "x"],
            other => panic!("{other}"),
        };
        let want: BTreeSet<&str> =
            ["alg", "kid", "kty", "use"].into_iter().chain(of_kind.iter().copied()).collect();
        assert_eq!((names(key), &key["use"]), (want, &json!("sig")));
        assert_eq!(key["kid"].as_str().unwrap().len(), 43, "an RFC 7638 thumbprint");
        algorithms.insert(key["alg"].as_str().unwrap());
    }
    assert_eq!(algorithms, ["EdDSA", "RS256"].into());
}

#[tokio::test]
async fn id_32_health_says_which_part_and_nothing_else() {
    let server = stores::sqlite().without_limits().start().unwrap();
    let answer = Client::new(&server).get("/api/v1/core/oauth/health", &[]).await;
    let well = json!({"status": "ok", "keys": "ok", "database": "ok", "ledger": "ok"});
    assert_eq!((answer.status, answer.json()), (200, well));
}
