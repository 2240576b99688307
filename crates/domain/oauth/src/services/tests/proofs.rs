//! How a client shows who it is, row by row (ID-13, ID-17, ID-20), and what the common rules say of a request (ID-1).

use super::plane::{Plane, context, planes, request, word};
use crate::error::OauthResult;
use crate::services::clients::registration;
use crate::services::generation::TokenResponse;
use crate::services::http::Parameters;
use crate::services::token::token;
use crate::services::validation::client_assertion::ASSERTION_TYPE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use systemprompt_models::Secret;

const OWN: &str = "grant_type=client_credentials&scope=user";

async fn ask(plane: &Plane, header: Option<&str>, form: &str) -> OauthResult<TokenResponse> {
    let (context, parameters) = (context(), Parameters::parse(form.as_bytes())?);
    token(&plane.state, request(&context, header, &parameters)).await
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Gives `client` this secret beside its own.
async fn secret(plane: &Plane, client: &'static str, secret: &str) {
    let digest = plane.state.at_rest.digest(crate::at_rest::Label::ClientSecret, secret).hex;
    let mut tx = plane.db.write_tx().await.unwrap();
    systemprompt_database::on_tx!(tx, conn => sqlx::query(
        "INSERT INTO oauth_client_secrets (client_id, secret_digest, pepper_id, created_at) VALUES ($1, $2, 'p', 1)"
    ).bind(client).bind(&digest).execute(&mut *conn).await.map(drop))
    .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_13_one_method_a_request_and_basic_in_both_spellings() {
    for plane in planes().await {
        secret(&plane, "acme-ci", "a+b%2Fc:d e").await;
        let own = basic("acme-ci", "sps_acme-ci");
        let post = format!("{OWN}&client_id=acme-ci&client_secret=sps_acme-ci");
        let assertion = format!("&client_assertion_type={ASSERTION_TYPE}&client_assertion=a.b.c");
        let rows: [(&str, Option<String>, String, &str); 17] = [
            ("basic", Some(own.clone()), OWN.into(), "ok"),
            ("basic, in another case", Some(own.replace("Basic", "bAsIc")), OWN.into(), "ok"),
            ("basic with its own id beside it", Some(own.clone()), format!("{OWN}&client_id=acme-ci"), "ok"),
            ("post where basic is registered", None, post.clone(), "ok"),
            ("form-encoded halves", Some(basic("acme%2Dci", "a%2Bb%252Fc%3Ad+e")), OWN.into(), "ok"),
            ("halves as they are", Some(basic("acme-ci", "a+b%2Fc:d e")), OWN.into(), "ok"),
            ("basic and post", Some(own.clone()), post.clone(), "invalid_request"),
            ("basic and an assertion", Some(own.clone()), format!("{OWN}{assertion}"), "invalid_request"),
            ("post and an assertion", None, format!("{post}{assertion}"), "invalid_request"),
            ("basic beside another id", Some(own), format!("{OWN}&client_id=public"), "invalid_request"),
            ("nobody", None, OWN.into(), "invalid_request"),
            ("no secret where there is one", None, format!("{OWN}&client_id=acme-ci"), "invalid_client"),
            (
                "a secret where there is none",
                Some(basic("public", "sps_public")),
                OWN.into(),
                "invalid_client",
            ),
            ("a bearer", Some("Bearer x".into()), OWN.into(), "invalid_client"),
            ("no base64", Some("Basic ###".into()), OWN.into(), "invalid_client"),
            ("no colon", Some(format!("Basic {}", STANDARD.encode("acme-ci"))), OWN.into(), "invalid_client"),
            ("another secret", Some(basic("acme-ci", "sps_acme-cj")), OWN.into(), "invalid_client"),
        ];
        for (what, header, form, want) in rows {
            assert_eq!(word(&ask(&plane, header.as_deref(), &form).await), want, "{what}");
        }
        // Whatever is wrong, the answer is the same.
        plane.change("UPDATE oauth_clients SET status = 'disabled' WHERE client_id = 'acme-ci'").await;
        let mut texts = Vec::new();
        for (id, secret) in [("acme-ci", "sps_acme-ci"), ("nobody", "sps_x"), ("public", "sps_public")] {
            let error = ask(&plane, Some(&basic(id, secret)), OWN).await.unwrap_err();
            texts.push((error.status(), error.code().as_str(), error.description().into_owned()));
        }
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_1_a_parameter_stands_once_and_an_empty_one_is_none() {
    let [plane, _] = planes().await;
    let own = basic("acme-ci", "sps_acme-ci");
    for (form, want) in [
        (format!("{OWN}&scope=user"), "invalid_request"),
        (format!("{OWN}&grant_type=client_credentials"), "invalid_request"),
        (format!("{OWN}&audience=api&audience=mcp"), "ok"),
        (format!("{OWN}&resource=https://a.example&resource=https://b.example"), "ok"),
        (format!("{OWN}&plugin_id=&client_id=&client_secret="), "ok"),
        ("grant_type=client_credentials&scope=".into(), "invalid_scope"),
        ("grant_type=&scope=user".into(), "invalid_request"),
        (format!("{OWN}&something=else&code=x"), "ok"),
    ] {
        assert_eq!(word(&ask(&plane, Some(&own), &form).await), want, "{form}");
    }
}

fn members(redirect_uris: &Value) -> Map<String, Value> {
    let about = json!({"client_name": "App", "redirect_uris": redirect_uris});
    about.as_object().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_20_the_management_token_before_counts_for_a_minute_after_the_next_one() {
    for plane in planes().await {
        let (state, by) = (&plane.state, context());
        let uris = json!(["https://app.example/cb"]);
        let made = registration::register(state, &by, &members(&uris)).await.unwrap();
        let id = made.client.client_id.to_string();
        let first = made.registration_token.unwrap();
        let mut change = members(&uris);
        change.insert("client_id".into(), id.as_str().into());
        let put = async |token: &Secret<String>| {
            registration::update(state, &by, &id, Some(token.expose()), &change).await
        };
        let second = put(&first).await.unwrap().registration_token.unwrap();
        let counts = async |token: &Secret<String>| {
            registration::manage(state, &id, Some(token.expose())).await.is_ok()
        };
        plane.clock.advance(59_000);
        assert!(counts(&first).await && counts(&second).await);
        plane.clock.advance(2_000);
        assert!(!counts(&first).await && counts(&second).await);
        assert_eq!(word(&put(&first).await.map(drop)), "invalid_token");
        // Its secret opens nothing here, and no token at all neither.
        assert_eq!(
            word(&registration::manage(state, &id, made.secret.as_ref().map(|s| s.expose().as_str())).await),
            "invalid_token"
        );
        assert_eq!(word(&registration::manage(state, &id, None).await), "invalid_token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_17_a_code_without_a_redirect_uri_is_exchanged_without_one_or_with_its_own() {
    for plane in planes().await {
        for (given, sent, want) in [
            (1, "the same", "ok"),
            (1, "none", "invalid_grant"),
            (1, "another", "invalid_grant"),
            (0, "none", "ok"),
            (0, "the same", "ok"),
            (0, "another", "invalid_grant"),
        ] {
            let (code, _) = plane.code("user", "").await;
            if given == 0 {
                plane.change("UPDATE oauth_auth_codes SET redirect_uri_given = 0").await;
            }
            let form = Plane::code_form(&code);
            let own = format!("&redirect_uri={}", super::plane::REDIRECT);
            let form = match sent {
                "none" => form.replace(&own, ""),
                "another" => form.replace(&own, "&redirect_uri=https://app.example/other"),
                _ => form,
            };
            assert_eq!(word(&plane.token(None, &form).await), want, "given {given}, {sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_45_a_token_that_would_be_too_large_is_no_token_and_loses_no_role() {
    for plane in planes().await {
        // As an import could leave them: over the surface nobody gets so many.
        for (more, want) in [
            ("INSERT INTO user_roles (user_id, role) WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 129)
              SELECT u.id, 'a-role-with-a-long-name-' || n.i FROM n, users u WHERE u.username = 'bob'", "ok"),
            ("INSERT INTO user_roles (user_id, role) WITH RECURSIVE n(i) AS (SELECT 200 UNION ALL SELECT i + 1 FROM n WHERE i < 299)
              SELECT u.id, 'a-role-with-a-long-name-' || n.i FROM n, users u WHERE u.username = 'bob'", "server_error"),
        ] {
            plane.change(more).await;
            let (code, _) = plane.code("user", "").await;
            let answer = plane.token(None, &Plane::code_form(&code)).await;
            assert_eq!(word(&answer), want);
            match answer {
                Ok(tokens) => assert_eq!(plane.claims(&tokens.access_token).roles.len(), 31),
                Err(error) => assert_eq!(error.status(), 500),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_44_and_47_a_client_gets_what_it_is_registered_for() {
    for plane in planes().await {
        plane.client("once", "none", "authorization_code", "openid user", "").await;
        let (code, _) = plane.code("openid user offline_access", "").await;
        plane.change("UPDATE oauth_auth_codes SET client_id = 'once'").await;
        plane.change("UPDATE oauth_grants SET client_id = 'once'").await;
        let form = Plane::code_form(&code).replace("client_id=public", "client_id=once");
        let tokens = plane.token(None, &form).await.unwrap();
        assert!(tokens.refresh_token.is_none() && tokens.id_token.is_some());
        assert_eq!((tokens.token_type, tokens.scope.as_str()), ("Bearer", "user openid"));
        let grants = "urn:ietf:params:oauth:grant-type";
        for (grant, want) in [
            ("refresh_token&refresh_token=x".to_owned(), "unauthorized_client"),
            ("client_credentials&scope=user".into(), "unauthorized_client"),
            (format!("{grants}:device_code&device_code=x"), "unauthorized_client"),
            (format!("{grants}:token-exchange"), "unauthorized_client"),
            // Names of a later step, and those that nobody serves.
            (format!("{grants}:jwt-bearer&assertion=x"), "unsupported_grant_type"),
            (format!("{grants}:saml2-bearer"), "unsupported_grant_type"),
            ("password&username=a&password=b".into(), "unsupported_grant_type"),
            ("implicit".into(), "unsupported_grant_type"),
            ("Refresh_Token".into(), "unsupported_grant_type"),
        ] {
            let answer = plane.token(None, &format!("client_id=once&grant_type={grant}")).await;
            assert_eq!(word(&answer), want, "{grant}");
        }
    }
}
