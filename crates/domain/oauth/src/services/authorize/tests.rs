mod claims;
mod echo;
mod explained;
mod parameters;

use super::*;
use crate::repository::testing::{Fixture, URL, caller, fixtures};
use systemprompt_database::{on, on_tx, sql};
use url::Url;

/// RFC 7636 appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CALLBACK: &str = "https://app.example/cb";

fn flow() -> Secret<String> {
    Secret::from("fl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
}

/// A request with `changes` over the usual parameters; an empty value takes one away.
fn asked(changes: &[(&str, &str)]) -> Parameters {
    let mut pairs = vec![
        ("client_id", "app"),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", "openid user"),
        ("state", "s"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    for (name, value) in changes {
        pairs.retain(|(known, _)| known != name);
        pairs.push((name, value));
    }
    Parameters::parse(
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().as_bytes(),
    )
    .unwrap()
}

/// What came of it: the parameters at the client, the page that is next, or the error page.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Client(Vec<(String, String)>),
    SignIn(String),
    Consent(String),
    Page(&'static str),
}

impl Came {
    fn error(&self) -> &str {
        match self {
            Self::Client(pairs) => &pairs.iter().find(|(name, _)| name == "error").unwrap().1,
            other => panic!("{other:?}"),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Client(pairs) => {
                &pairs.iter().find(|(name, _)| name == "code").unwrap_or_else(|| panic!("{pairs:?}")).1
            }
            other => panic!("{other:?}"),
        }
    }

    fn request(&self) -> &str {
        match self {
            Self::SignIn(id) | Self::Consent(id) => id,
            other => panic!("{other:?}"),
        }
    }
}

fn came(next: Result<Next, Refused>) -> Came {
    match next {
        Ok(Next::Client(answer)) => {
            let url = Url::parse(&answer.location()).unwrap();
            let pairs: Vec<(String, String)> =
                url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            // RFC 9207: in every answer, errors included.
            assert_eq!(pairs.last().unwrap(), &("iss".to_owned(), URL.to_owned()));
            Came::Client(pairs)
        }
        Ok(Next::SignIn(id)) => Came::SignIn(id.expose().clone()),
        Ok(Next::Consent(id)) => Came::Consent(id.expose().clone()),
        Err(refused) => {
            assert!(!refused.error.is_ours(), "{:?}", refused.error);
            Came::Page(refused.error.code().as_str())
        }
    }
}

async fn ask(f: &Fixture, visitor: Option<&Principal>, parameters: &Parameters) -> Came {
    let (context, flow) = (caller(), flow());
    came(begin(&f.state, Browser { context: &context, visitor, flow: &flow }, parameters).await)
}

async fn go_on_with(f: &Fixture, visitor: Option<&Principal>, id: &str) -> Came {
    let (context, flow) = (caller(), flow());
    came(resume(&f.state, Browser { context: &context, visitor, flow: &flow }, id).await)
}

async fn decide(f: &Fixture, visitor: &Principal, id: &str, form: &[(&str, &str)]) -> Came {
    let (context, flow) = (caller(), flow());
    let browser = Browser { context: &context, visitor: Some(visitor), flow: &flow };
    let waiting = crate::services::consent::waiting(&f.state, browser, id).await.unwrap();
    let frame = crate::services::templating::Frame::new(&f.state.settings(), None, None);
    let person = waiting.signed_in.clone().unwrap();
    let page = waiting.page(&f.state, frame, &person, id).unwrap();
    let mut pairs = vec![("request", id), ("csrf", page.csrf.as_str())];
    for (name, value) in form {
        pairs.retain(|(known, _)| known != name);
        pairs.push((name, value));
    }
    let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let form = Parameters::parse(text.as_bytes()).unwrap();
    came(crate::services::consent::decide(&f.state, browser, &form).await)
}

#[tokio::test]
async fn id_113_nobody_is_sent_to_where_no_client_said() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        for (changes, want) in [
            (&[("client_id", "nobody")][..], "invalid_client"),
            (&[("client_id", "")], "invalid_client"),
            (&[("redirect_uri", "https://app.example/cb/")], "invalid_redirect_uri"),
            (&[("redirect_uri", "https://app.example/cb?x=1")], "invalid_redirect_uri"),
            (&[("redirect_uri", "https://APP.example/cb")], "invalid_redirect_uri"),
            (&[("redirect_uri", "https://evil.example/cb")], "invalid_redirect_uri"),
            (&[("request_uri", "urn:ietf:params:oauth:request_uri:gone")], "invalid_grant"),
        ] {
            assert_eq!(ask(&f, None, &asked(changes)).await, Came::Page(want), "{changes:?}");
        }
    }
}

#[tokio::test]
async fn id_125_every_other_error_goes_to_the_client_with_state_and_issuer() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        for (changes, want) in [
            (&[("response_type", "")][..], "invalid_request"),
            (&[("response_type", "token")], "unsupported_response_type"),
            (&[("response_mode", "fragment")], "invalid_request"),
            (&[("request", "x")], "request_not_supported"),
            (&[("request_uri", "https://app.example/r")], "request_uri_not_supported"),
            (&[("registration", "{}")], "registration_not_supported"),
            (&[("code_challenge", "")], "invalid_request"),
            (&[("code_challenge_method", "plain")], "invalid_request"),
            (&[("code_challenge_method", "")], "invalid_request"),
            (&[("scope", "phone service")], "invalid_scope"),
            (&[("resource", "https://other.example/api")], "invalid_target"),
            (&[("resource", "http://localhost:8080/v1#x")], "invalid_target"),
            (&[("prompt", "sometimes")], "invalid_request"),
            (&[("prompt", "none login")], "invalid_request"),
            (&[("prompt", "none")], "login_required"),
            (&[("max_age", "-1")], "invalid_request"),
            (&[("claims", "[]")], "invalid_request"),
            (&[("id_token_hint", "x.y.z")], "invalid_request"),
        ] {
            let came = ask(&f, None, &asked(changes)).await;
            assert_eq!(came.error(), want, "{changes:?}");
            let Came::Client(pairs) = came else { unreachable!() };
            assert!(pairs.contains(&("state".to_owned(), "s".to_owned())), "{changes:?}");
        }
    }
}

#[tokio::test]
async fn a_person_signs_in_consents_and_is_not_asked_again() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user", "mcp"]).await;
        let ada = f.user("ada", &["user"]).await;
        let first = ask(&f, None, &asked(&[])).await;
        let Came::SignIn(id) = &first else { panic!("{first:?}") };
        let visitor = f.signed_in(&ada).await;
        let next = go_on_with(&f, Some(&visitor), id).await;
        assert_eq!(next, Came::Consent(id.clone()));
        let answered = decide(&f, &visitor, id, &[("decision", "allow"), ("scope_user", "1")]).await;
        assert!(answered.code().starts_with("ac_"));
        // The request is used up, and the consent holds for as much as was given, not for more.
        assert_eq!(go_on_with(&f, Some(&visitor), id).await, Came::Page("invalid_grant"));
        assert!(ask(&f, Some(&visitor), &asked(&[])).await.code().starts_with("ac_"));
        assert!(matches!(
            ask(&f, Some(&visitor), &asked(&[("scope", "openid user mcp")])).await,
            Came::Consent(_)
        ));
        assert!(matches!(ask(&f, Some(&visitor), &asked(&[("prompt", "consent")])).await, Came::Consent(_)));
        let silent =
            ask(&f, Some(&visitor), &asked(&[("scope", "openid user mcp"), ("prompt", "none")])).await;
        assert_eq!(silent.error(), "consent_required");
        let rows: Vec<(String, i64, String)> = on!(&*f.db, pool => sqlx::query_as(sql!(
            "SELECT c.scopes, g.offline, c.redirect_uri FROM oauth_auth_codes c JOIN oauth_grants g ON g.grant_id = c.grant_id"
        )).fetch_all(pool).await)
        .unwrap();
        let want = ("user openid".to_owned(), 0, CALLBACK.to_owned());
        assert_eq!(rows, vec![want.clone(), want]);
    }
}

#[tokio::test]
async fn a_consent_ends_with_what_was_shown_of_the_client() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let asking = ask(&f, Some(&visitor), &asked(&[])).await;
        decide(&f, &visitor, asking.request(), &[("decision", "allow"), ("scope_user", "1")]).await.code();
        assert!(ask(&f, Some(&visitor), &asked(&[])).await.code().starts_with("ac_"));
        let mut tx = f.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(sql!("UPDATE oauth_clients SET metadata_digest = 'another'"))
            .execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(ask(&f, Some(&visitor), &asked(&[])).await, Came::Consent(_)));
    }
}

#[tokio::test]
async fn whoever_says_no_sends_the_client_away() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        for form in [
            &[("decision", "deny")][..],
            &[("scope_user", "1")],
            &[("decision", "maybe"), ("scope_user", "1")],
        ] {
            let asking = ask(&f, Some(&visitor), &asked(&[])).await;
            assert_eq!(
                decide(&f, &visitor, asking.request(), form).await.error(),
                "access_denied",
                "{form:?}"
            );
        }
        let asking = ask(&f, Some(&visitor), &asked(&[])).await;
        let forged = [("decision", "allow"), ("scope_user", "1"), ("csrf", "0")];
        assert_eq!(decide(&f, &visitor, asking.request(), &forged).await, Came::Page("access_denied"));
        // Nothing was given away meanwhile.
        let (codes,): (i64,) =
            on!(&*f.db, pool => sqlx::query_as(sql!("SELECT COUNT(*) FROM oauth_auth_codes"))
            .fetch_one(pool).await)
            .unwrap();
        assert_eq!(codes, 0);
    }
}

#[tokio::test]
async fn a_loopback_client_is_always_asked_about() {
    for f in fixtures().await {
        f.client("app", "http://127.0.0.1/cb", &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let local = asked(&[("redirect_uri", "http://127.0.0.1:49152/cb")]);
        for _ in 0..2 {
            let asking = ask(&f, Some(&visitor), &local).await;
            decide(&f, &visitor, asking.request(), &[("decision", "allow"), ("scope_user", "1")])
                .await
                .code();
        }
    }
}

#[tokio::test]
async fn what_the_person_does_not_have_cannot_be_granted() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user", "admin"]).await;
        let visitor = f.signed_in(&f.user("bob", &["user"]).await).await;
        assert_eq!(ask(&f, Some(&visitor), &asked(&[("scope", "admin")])).await.error(), "invalid_scope");
        let nobody = f.signed_in(&f.user("eve", &["guest"]).await).await;
        assert_eq!(ask(&f, Some(&nobody), &asked(&[("scope", "user")])).await.error(), "invalid_scope");
    }
}

#[tokio::test]
async fn a_fresh_sign_in_is_one_after_the_request() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let ada = f.user("ada", &["user"]).await;
        let old = f.signed_in(&ada).await;
        f.clock.advance(10_000);
        for changes in [&[("prompt", "login")][..], &[("max_age", "5")], &[("max_age", "0")]] {
            let asking = ask(&f, Some(&old), &asked(changes)).await;
            assert!(matches!(asking, Came::SignIn(_)), "{changes:?}");
            // The same session again is no sign-in.
            assert!(matches!(go_on_with(&f, Some(&old), asking.request()).await, Came::SignIn(_)));
            f.clock.advance(1000);
            let fresh = f.signed_in(&ada).await;
            assert!(
                matches!(go_on_with(&f, Some(&fresh), asking.request()).await, Came::Consent(_)),
                "{changes:?}"
            );
        }
        assert!(matches!(ask(&f, Some(&old), &asked(&[("max_age", "3600")])).await, Came::Consent(_)));
    }
}

/// The consent page has an address of its own: whoever opens it by hand skips nothing.
#[tokio::test]
async fn a_step_up_is_not_passed_by_opening_the_consent_page() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let ada = f.user("ada", &["user"]).await;
        let old = f.signed_in(&ada).await;
        f.clock.advance(10_000);
        let acr = r#"{"id_token":{"acr":{"essential":true,"values":["phrh"]}}}"#;
        for changes in [&[("prompt", "login")][..], &[("max_age", "5")], &[("claims", acr)]] {
            let asking = ask(&f, Some(&old), &asked(changes)).await;
            let id = asking.request();
            let (context, flow) = (caller(), flow());
            let browser = Browser { context: &context, visitor: Some(&old), flow: &flow };
            let waiting = crate::services::consent::waiting(&f.state, browser, id).await.unwrap();
            assert!(waiting.person(&f.state).is_none(), "{changes:?}");
            let allow = [("decision", "allow"), ("scope_user", "1")];
            assert!(matches!(decide(&f, &old, id, &allow).await, Came::SignIn(_)), "{changes:?}");
        }
    }
}

#[tokio::test]
async fn another_person_than_the_one_meant_is_not_let_through() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let (ada, bob) = (f.user("ada", &["user"]).await, f.user("bob", &["user"]).await);
        let hint = serde_json::json!({"iss": URL, "sub": ada.id, "aud": "app", "exp": 1, "iat": 0});
        let hint = f.state.tokens.id_token(f.state.settings().algorithm, &hint).unwrap();
        let here = f.signed_in(&bob).await;
        f.clock.advance(1000);
        let asking = ask(&f, Some(&here), &asked(&[("id_token_hint", hint.expose())])).await;
        assert!(matches!(asking, Came::SignIn(_)), "{asking:?}");
        f.clock.advance(1000);
        let again = f.signed_in(&bob).await;
        assert_eq!(go_on_with(&f, Some(&again), asking.request()).await.error(), "login_required");
        let right = f.signed_in(&ada).await;
        assert!(matches!(go_on_with(&f, Some(&right), asking.request()).await, Came::Consent(_)));
    }
}

#[tokio::test]
async fn an_essential_context_class_is_met_or_refused() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let ada = f.user("ada", &["user"]).await;
        let visitor = f.signed_in(&ada).await;
        f.clock.advance(1000);
        let wants =
            |acr: &str| format!(r#"{{"id_token":{{"acr":{{"essential":true,"values":["{acr}"]}}}}}}"#);
        assert!(matches!(
            ask(&f, Some(&visitor), &asked(&[("claims", &wants("phr"))])).await,
            Came::Consent(_)
        ));
        let asking = ask(&f, Some(&visitor), &asked(&[("claims", &wants("phrh"))])).await;
        assert!(matches!(asking, Came::SignIn(_)));
        f.clock.advance(1000);
        let fresh = f.signed_in(&ada).await;
        let refused = go_on_with(&f, Some(&fresh), asking.request()).await;
        assert_eq!(refused.error(), "unmet_authentication_requirements");
    }
}

#[tokio::test]
async fn a_stored_request_belongs_to_one_browser_and_expires() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let asking = ask(&f, None, &asked(&[])).await;
        let (context, other) = (caller(), Secret::from("fl_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"));
        let foreign = Browser { context: &context, visitor: Some(&visitor), flow: &other };
        assert_eq!(came(resume(&f.state, foreign, asking.request()).await), Came::Page("invalid_grant"));
        for _ in 0..19 {
            ask(&f, None, &asked(&[])).await.request();
        }
        assert_eq!(ask(&f, None, &asked(&[])).await, Came::Page("invalid_request"));
        f.clock.advance(1_800_000);
        assert_eq!(go_on_with(&f, Some(&visitor), asking.request()).await, Came::Page("invalid_grant"));
    }
}

async fn push(f: &Fixture, parameters: &Parameters) -> crate::OauthResult<Secret<String>> {
    let context = caller();
    let request = crate::services::token::ClientRequest {
        context: &context,
        authorization: None,
        parameters,
        limit: None,
    };
    crate::services::par::push(&f.state, request).await
}

#[tokio::test]
async fn a_pushed_request_is_used_once_by_its_client() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        f.client("other", CALLBACK, &["openid", "user"]).await;
        let uri = push(&f, &asked(&[])).await.unwrap();
        let by = |client: &str| {
            asked(&[
                ("client_id", client),
                ("request_uri", uri.expose()),
                ("redirect_uri", ""),
                ("code_challenge", ""),
            ])
        };
        assert_eq!(ask(&f, None, &by("other")).await, Came::Page("invalid_grant"));
        assert!(matches!(ask(&f, None, &by("app")).await, Came::SignIn(_)));
        assert_eq!(ask(&f, None, &by("app")).await, Came::Page("invalid_grant"));
        let wrong = push(&f, &asked(&[("code_challenge_method", "plain")])).await;
        assert_eq!(wrong.err().map(|error| error.code().as_str()), Some("invalid_request"));
    }
}

#[tokio::test]
async fn a_stored_request_gives_one_code_to_two_tabs() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let asking = ask(&f, Some(&visitor), &asked(&[])).await;
        let form = [("decision", "allow"), ("scope_user", "1")];
        let (one, two) = tokio::join!(
            decide(&f, &visitor, asking.request(), &form),
            decide(&f, &visitor, asking.request(), &form)
        );
        let given = [&one, &two].into_iter().filter(|came| matches!(came, Came::Client(_))).count();
        assert_eq!(given, 1, "{one:?} {two:?}");
    }
}

#[tokio::test]
async fn id_28_a_client_whose_algorithm_has_no_key_is_told_before_anybody_signs_in() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let mut tx = f.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query("UPDATE oauth_clients SET id_token_signed_response_alg = 'ES256'")
            .execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        for scope in ["openid user", ""] {
            let refused = ask(&f, None, &asked(&[("scope", scope)])).await;
            assert_eq!(refused.error(), "temporarily_unavailable", "{scope}");
            let Came::Client(pairs) = refused else { panic!("told to the client") };
            let described = pairs.iter().find(|(name, _)| name == "error_description").unwrap();
            assert!(described.1.contains("id_token_signed_response_alg"), "{described:?}");
        }
        // Who wants no ID token needs no key for one.
        let plain = ask(&f, None, &asked(&[("scope", "user")])).await;
        assert!(matches!(plain, Came::SignIn(_)), "{plain:?}");
    }
}
