//! What the client sends for itself comes back unchanged, whatever characters it has (ID-36).

use super::*;
use crate::models::oauth::ResponseMode;
use crate::services::par;
use crate::services::token::ClientRequest;

const ODD: &str = "\0 %00 +&=\r\n\u{e4}\u{1f600}";

#[tokio::test]
async fn id_129_state_and_nonce_come_back_with_every_character() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let ada = f.user("ada", &["user"]).await;
        let here = f.signed_in(&ada).await;
        for value in ["x", ODD, "\0", &"\0".repeat(4096)] {
            let parameters = asked(&[("state", value), ("nonce", value), ("prompt", "consent")]);
            let asking = ask(&f, Some(&here), &parameters).await;
            let given =
                decide(&f, &here, asking.request(), &[("decision", "allow"), ("scope_user", "1")]).await;
            let Came::Client(pairs) = &given else { panic!("{given:?}") };
            assert!(pairs.contains(&("state".to_owned(), value.to_owned())), "{} bytes", value.len());
            let digests = f.state.at_rest.candidates(Label::AuthCode, given.code());
            let code = f.state.oauth.find_code(&digests).await.unwrap().unwrap();
            assert_eq!(code.nonce().as_deref(), Some(value));
        }
        // With an error too; a request that was pushed goes the same way.
        let refused = ask(&f, None, &asked(&[("state", ODD), ("prompt", "none")])).await;
        assert_eq!(refused.error(), "login_required");
        let Came::Client(pairs) = &refused else { panic!("{refused:?}") };
        assert!(pairs.contains(&("state".to_owned(), ODD.to_owned())));
        let (context, parameters) = (caller(), asked(&[("state", ODD), ("prompt", "none")]));
        let request =
            ClientRequest { context: &context, authorization: None, parameters: &parameters, limit: None };
        let uri = par::push(&f.state, request).await.unwrap();
        let named =
            Parameters::parse(format!("client_id=app&request_uri={}", uri.expose()).as_bytes()).unwrap();
        let Came::Client(pairs) = ask(&f, None, &named).await else { panic!("a page") };
        assert!(pairs.contains(&("state".to_owned(), ODD.to_owned())));
    }
}

#[tokio::test]
async fn id_36_a_state_that_no_form_carries_is_refused_where_a_form_would_change_it() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        for (state, want) in
            [("a\0", "invalid_request"), ("a\nb", "invalid_request"), ("a b", "login_required")]
        {
            let changes = [("state", state), ("response_mode", "form_post"), ("prompt", "none")];
            let came = ask(&f, None, &asked(&changes)).await;
            assert_eq!(came.error(), want, "{state:?}");
            let Came::Client(pairs) = came else { panic!("a page") };
            assert_eq!(pairs.iter().any(|(name, _)| name == "state"), want == "login_required");
            assert!(ResponseMode::Query.carries(state));
        }
    }
}
