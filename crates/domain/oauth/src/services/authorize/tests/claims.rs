//! The `claims` parameter from the request to the ID token and userinfo (ID-41, ID-69, ID-70).

use super::*;
use crate::services::generation::TokenResponse;
use crate::services::token::{ClientRequest, token};
use crate::services::userinfo::userinfo;
use serde_json::Value;
use systemprompt_database::on_tx;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const WANTED: &str = r#"{"id_token":{"email_verified":null,"locale":null,"sub":null},"userinfo":{"email":{"essential":true},"preferred_username":null}}"#;

pub(super) async fn tokens(f: &Fixture, form: &str) -> TokenResponse {
    let (context, parameters) = (caller(), Parameters::parse(form.as_bytes()).unwrap());
    let request =
        ClientRequest { context: &context, authorization: None, parameters: &parameters, limit: None };
    token(&f.state, request).await.unwrap()
}

pub(super) async fn exchanged(f: &Fixture, code: &str) -> TokenResponse {
    let form = format!(
        "grant_type=authorization_code&client_id=app&code={code}&redirect_uri={CALLBACK}&code_verifier={VERIFIER}"
    );
    tokens(f, &form).await
}

/// The claims about the person in the ID token, and the answer of userinfo.
async fn told(f: &Fixture, tokens: &TokenResponse) -> (Vec<String>, Vec<String>) {
    let id_token = f.state.verifier.verify_id_token(tokens.id_token.as_ref().unwrap().expose()).unwrap();
    let id_token = serde_json::to_value(id_token).unwrap();
    let about = ["name", "preferred_username", "locale", "updated_at", "email", "email_verified"];
    let in_token =
        about.into_iter().filter(|name| id_token.get(*name).is_some()).map(str::to_owned).collect();
    let info: Value = userinfo(&f.state, tokens.access_token.expose()).await.unwrap().into();
    (in_token, info.as_object().unwrap().keys().cloned().collect())
}

#[tokio::test]
async fn id_69_a_scope_that_is_cut_from_the_client_is_told_no_more_however_it_was_asked_for() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "profile", "email", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let request = asked(&[("claims", WANTED), ("scope", "openid user")]);
        let asking = ask(&f, Some(&visitor), &request).await;
        let form = [("decision", "allow"), ("scope_user", "1"), ("scope_claims:email", "1")];
        let code = decide(&f, &visitor, asking.request(), &form).await;
        let first = exchanged(&f, code.code()).await;
        assert_eq!(
            told(&f, &first).await,
            (vec!["email_verified".into()], vec!["email".into(), "sub".into()])
        );
        let mut tx = f.db.write_tx().await.unwrap();
        let cut = "DELETE FROM oauth_client_scopes WHERE client_id = 'app' AND value = 'email'";
        on_tx!(tx, conn => sqlx::query(cut).execute(&mut *conn).await.map(drop)).unwrap();
        tx.commit().await.unwrap();
        let refresh = first.refresh_token.unwrap();
        let form = format!("grant_type=refresh_token&client_id=app&refresh_token={}", refresh.expose());
        assert_eq!(told(&f, &tokens(&f, &form).await).await, (Vec::new(), vec!["sub".into()]));
    }
}

#[tokio::test]
async fn id_70_claims_that_were_asked_for_one_by_one_are_shown_and_told_where_they_were_asked() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "profile", "email", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let request = asked(&[("claims", WANTED), ("scope", "openid user")]);
        let asking = ask(&f, Some(&visitor), &request).await;
        let form = [
            ("decision", "allow"),
            ("scope_user", "1"),
            ("scope_claims:email", "1"),
            ("scope_claims:profile", "1"),
        ];
        let code = decide(&f, &visitor, asking.request(), &form).await;
        let first = exchanged(&f, code.code()).await;
        assert_eq!(first.scope, "user openid", "claims are no scopes");
        let (in_token, info) = told(&f, &first).await;
        assert_eq!(in_token, ["email_verified"], "nobody has a locale yet");
        assert_eq!(info, ["email", "preferred_username", "sub"]);

        let refresh = format!(
            "grant_type=refresh_token&client_id=app&refresh_token={}",
            first.refresh_token.as_ref().unwrap().expose()
        );
        let next = tokens(&f, &refresh).await;
        assert_eq!(told(&f, &next).await, (in_token, info), "later tokens tell the same");

        // The consent covers the same request, and not one for more.
        assert!(matches!(ask(&f, Some(&visitor), &request).await, Came::Client(_)));
        let more = asked(&[("claims", WANTED), ("scope", "openid user email")]);
        assert!(matches!(ask(&f, Some(&visitor), &more).await, Came::Consent(_)));
    }
}

#[tokio::test]
async fn id_70_claims_that_the_person_took_out_or_the_client_is_not_registered_for_are_not_told() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "email", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let request = asked(&[("claims", WANTED), ("scope", "openid user")]);
        let asking = ask(&f, Some(&visitor), &request).await;
        let (context, flow) = (caller(), flow());
        let browser = Browser { context: &context, visitor: Some(&visitor), flow: &flow };
        let waiting = crate::services::consent::waiting(&f.state, browser, asking.request()).await.unwrap();
        let person = waiting.signed_in.clone().unwrap();
        let frame = crate::services::templating::Frame::new(&f.state.settings(), None, None);
        let page = waiting.page(&f.state, frame, &person, asking.request()).unwrap();
        let lines: Vec<&str> = page.scopes.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(lines, ["user", "openid", "claims:email"], "profile is not the client's");
        let code =
            decide(&f, &visitor, asking.request(), &[("decision", "allow"), ("scope_user", "1")]).await;
        let (in_token, info) = told(&f, &exchanged(&f, code.code()).await).await;
        assert_eq!((in_token, info), (Vec::new(), vec!["sub".to_owned()]));
    }
}
