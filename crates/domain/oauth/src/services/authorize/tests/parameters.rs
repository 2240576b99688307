//! The parameters of an authorization request, row by row (ID-33 to ID-43).

use super::*;
use serde_json::Value;
use systemprompt_database::on;

/// The newest record of a kind.
async fn newest(f: &Fixture, kind: &str) -> Value {
    let (text,): (String,) = on!(&*f.db, pool => sqlx::query_as(sql!(
        "SELECT CAST(record AS TEXT) FROM ledger_entries WHERE kind = $1 ORDER BY seq DESC LIMIT 1"
    )).bind(kind).fetch_one(pool).await)
    .unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn allow(f: &Fixture, visitor: &Principal, asking: &Came) -> Came {
    let ticked = [("decision", "allow"), ("scope_user", "1"), ("scope_mcp", "1")];
    decide(f, visitor, asking.request(), &ticked).await
}

#[tokio::test]
async fn id_17_a_redirect_uri_may_be_left_out_where_there_is_one() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let asking = ask(&f, Some(&visitor), &asked(&[("redirect_uri", "")])).await;
        assert!(allow(&f, &visitor, &asking).await.code().starts_with("ac_"));
        let mut tx = f.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_client_redirect_uris (client_id, kind, value) VALUES ('app', 'login', 'https://app.example/2')"
        )).execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(ask(&f, None, &asked(&[("redirect_uri", "")])).await, Came::Page("invalid_redirect_uri"));
        assert!(matches!(ask(&f, None, &asked(&[])).await, Came::SignIn(_)));
    }
}

#[tokio::test]
async fn id_36_state_and_nonce_have_4096_bytes_after_decoding_and_no_least() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        // Two bytes each, six where they are encoded.
        let (most, more) = ("ä".repeat(2048), format!("{}x", "ä".repeat(2048)));
        for name in ["state", "nonce"] {
            for fits in ["x", most.as_str()] {
                assert!(matches!(ask(&f, None, &asked(&[(name, fits)])).await, Came::SignIn(_)), "{name}");
            }
            assert_eq!(ask(&f, None, &asked(&[(name, &more)])).await.error(), "invalid_request", "{name}");
        }
    }
}

#[tokio::test]
async fn id_38_without_a_scope_the_client_gets_what_both_have_but_admin() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user", "mcp", "a2a", "admin", "service", "hook:track"]).await;
        let visitor = f.signed_in(&f.user("ada", &["admin", "user"]).await).await;
        for (scope, want) in [
            ("", "user a2a mcp openid"),
            ("user phone mcp", "user mcp"),
            ("admin user", "admin user"),
            ("service hook:track hook:govern user", "user"),
        ] {
            let asking = ask(&f, Some(&visitor), &asked(&[("scope", scope), ("prompt", "consent")])).await;
            let all = ["user", "mcp", "a2a", "admin"].map(|name| (format!("scope_{name}"), "1"));
            let mut form: Vec<(&str, &str)> =
                all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            form.extend([("decision", "allow"), ("admin_confirmed", "1")]);
            let code = decide(&f, &visitor, asking.request(), &form).await;
            assert!(code.code().starts_with("ac_"), "{scope}");
            let record = newest(&f, "oauth.authorized").await;
            let mut granted: Vec<&str> = record["detail"]["scopes"].as_str().unwrap().split(' ').collect();
            let mut want: Vec<&str> = want.split(' ').collect();
            granted.sort_unstable();
            want.sort_unstable();
            assert_eq!(granted, want, "{scope}: {record}");
        }
        for scope in ["service", "hook:track hook:govern", "phone", "anonymous"] {
            let refused = ask(&f, Some(&visitor), &asked(&[("scope", scope)])).await;
            assert_eq!(refused.error(), "invalid_scope", "{scope}");
        }
    }
}

#[tokio::test]
async fn id_39_resources_are_surfaces_or_listed_in_canonical_form_and_four_at_most() {
    for f in fixtures().await {
        let mut settings = (*f.state.settings()).clone();
        settings.allowed_resource_audiences =
            vec!["https://RS.example:443/".into(), "https://rs.example/x".into()];
        f.state.configure(settings);
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        for (resource, kept) in [
            (URL, URL),
            ("HTTP://LOCALHOST:8080/v1/", "http://localhost:8080/v1"),
            (
                "http://localhost:8080/api/v1/mcp/whatever/mcp",
                "http://localhost:8080/api/v1/mcp/whatever/mcp",
            ),
            ("http://localhost:8080/api/v1/agents/any", "http://localhost:8080/api/v1/agents/any"),
            ("https://rs.example", "https://rs.example"),
            ("https://rs.EXAMPLE:443/x/", "https://rs.example/x"),
        ] {
            let asking = ask(&f, Some(&visitor), &asked(&[("resource", resource)])).await;
            allow(&f, &visitor, &asking).await.code();
            assert_eq!(newest(&f, "oauth.authorized").await["detail"]["resources"], kept, "{resource}");
        }
        for wrong in [
            "v1",
            "/v1",
            "http://localhost:8080/v1#part",
            "http://localhost:8080/v2",
            "http://localhost:8080/v1/models",
            "http://localhost:8081/v1",
            "http://localhost:8080.evil.example/v1",
            "https://user@rs.example",
            "https://rs.example/y",
            "http://rs.example",
        ] {
            assert_eq!(
                ask(&f, None, &asked(&[("resource", wrong)])).await.error(),
                "invalid_target",
                "{wrong}"
            );
        }
        let many = |count: usize| {
            let usual = "client_id=app&response_type=code&state=s&code_challenge_method=S256";
            let more: Vec<String> =
                (0..count).map(|n| format!("&resource={URL}/api/v1/agents/a{n}")).collect();
            let text = format!("{usual}&redirect_uri={CALLBACK}&code_challenge={CHALLENGE}{}", more.concat());
            Parameters::parse(text.as_bytes()).unwrap()
        };
        assert!(matches!(ask(&f, None, &many(4)).await, Came::SignIn(_)));
        assert_eq!(ask(&f, None, &many(5)).await.error(), "invalid_target");
    }
}

#[tokio::test]
async fn id_40_each_prompt_is_answered_as_it_says() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        f.client("local", "http://127.0.0.1/cb", &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        f.clock.advance(1000);
        let local = [("client_id", "local"), ("redirect_uri", "http://127.0.0.1/cb")];
        let prompted = |prompt| asked(&[("prompt", prompt)]);
        let prompted_there = |prompt| asked(&[local[0], local[1], ("prompt", prompt)]);
        for wrong in ["sometimes", "none login", "consent none", "NONE", "create"] {
            assert_eq!(ask(&f, Some(&visitor), &prompted(wrong)).await.error(), "invalid_request", "{wrong}");
        }
        // Nobody is there; nothing is remembered; it is, but anybody on the computer could take the answer.
        assert_eq!(ask(&f, None, &prompted("none")).await.error(), "login_required");
        for parameters in [prompted("none"), prompted_there("none")] {
            assert_eq!(ask(&f, Some(&visitor), &parameters).await.error(), "consent_required");
        }
        for parameters in [asked(&[]), asked(&local)] {
            let asking = ask(&f, Some(&visitor), &parameters).await;
            allow(&f, &visitor, &asking).await.code();
        }
        assert!(ask(&f, Some(&visitor), &prompted("none")).await.code().starts_with("ac_"));
        assert_eq!(ask(&f, Some(&visitor), &prompted_there("none")).await.error(), "interaction_required");
        // What shows a page shows it although all is remembered.
        for prompt in ["consent", "select_account", "consent select_account"] {
            assert!(matches!(ask(&f, Some(&visitor), &prompted(prompt)).await, Came::Consent(_)), "{prompt}");
        }
        for prompt in ["login", "login consent"] {
            assert!(matches!(ask(&f, Some(&visitor), &prompted(prompt)).await, Came::SignIn(_)), "{prompt}");
        }
        let mut settings = (*f.state.settings()).clone();
        settings.allow_registration = true;
        f.state.configure(settings);
        assert!(matches!(ask(&f, Some(&visitor), &prompted("create")).await, Came::SignIn(_)));
    }
}

#[tokio::test]
async fn id_41_what_is_asked_about_the_sign_in_has_bounds_and_preferences_are_no_error() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let ada = f.user("ada", &["user"]).await;
        let visitor = f.signed_in(&ada).await;
        let asking = ask(&f, Some(&visitor), &asked(&[])).await;
        allow(&f, &visitor, &asking).await.code();
        let long = "x".repeat(255);
        let most = format!(r#"{{"userinfo":{{"{}":null}}}}"#, "n".repeat(4096 - 22));
        assert_eq!(most.len(), 4096);
        let own = format!(r#"{{"id_token":{{"sub":{{"value":"{}"}}}}}}"#, ada.id);
        for (name, value) in [
            ("max_age", "2147483648"),
            ("login_hint", "ada@example.com"),
            ("login_hint", long.as_str()),
            ("acr_values", "urn:nowhere phrh"),
            ("ui_locales", "tlh de-AT"),
            ("display", "hologram"),
            ("claims", "{}"),
            ("claims", &most),
            ("claims", &own),
            ("unheard_of", "x"),
        ] {
            let came = ask(&f, Some(&visitor), &asked(&[(name, value)])).await;
            assert!(came.code().starts_with("ac_"), "{name}={value}");
        }
        let more = format!("{most} ");
        for (name, value) in [
            ("max_age", "2147483649"),
            ("max_age", "-1"),
            ("max_age", "1.5"),
            ("max_age", "x"),
            ("claims", "null"),
            ("claims", "{"),
            ("claims", &more),
        ] {
            let came = ask(&f, Some(&visitor), &asked(&[(name, value)])).await;
            assert_eq!(came.error(), "invalid_request", "{name}={value:.40}");
        }
    }
}

#[tokio::test]
async fn id_41_a_hint_is_ours_whatever_its_end_and_another_subject_must_sign_in() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let (ada, bob) = (f.user("ada", &["user"]).await, f.user("bob", &["user"]).await);
        let visitor = f.signed_in(&ada).await;
        let asking = ask(&f, Some(&visitor), &asked(&[])).await;
        allow(&f, &visitor, &asking).await.code();
        f.clock.advance(1000);
        let algorithm = f.state.settings().algorithm;
        let hint = |issuer: &str, subject: &str| {
            let claims = serde_json::json!({"iss": issuer, "sub": subject, "aud": "app", "exp": 1, "iat": 0});
            f.state.tokens.id_token(algorithm, &claims).unwrap().expose().clone()
        };
        let (own, other) = (hint(URL, ada.id.as_str()), hint(URL, bob.id.as_str()));
        let silent = async |hint: &str| {
            ask(&f, Some(&visitor), &asked(&[("prompt", "none"), ("id_token_hint", hint)])).await
        };
        assert!(silent(&own).await.code().starts_with("ac_"), "its end does not matter");
        assert_eq!(silent(&other).await.error(), "login_required");
        let asking = ask(&f, Some(&visitor), &asked(&[("id_token_hint", &other)])).await;
        assert!(matches!(asking, Came::SignIn(_)), "{asking:?}");
        let (input, _) = own.rsplit_once('.').unwrap();
        for wrong in [hint("https://elsewhere.example", ada.id.as_str()), format!("{input}.AAAA"), "x".into()]
        {
            assert_eq!(silent(&wrong).await.error(), "invalid_request");
        }
        let both = format!(r#"{{"id_token":{{"sub":{{"value":"{}"}}}}}}"#, bob.id);
        let torn = asked(&[("id_token_hint", &own), ("claims", &both)]);
        assert_eq!(ask(&f, Some(&visitor), &torn).await.error(), "invalid_request");
    }
}

#[tokio::test]
async fn id_43_an_authorization_and_its_refusal_are_on_record() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        let resource = format!("{URL}/v1");
        let asking = ask(&f, Some(&visitor), &asked(&[("resource", &resource)])).await;
        let code = allow(&f, &visitor, &asking).await;
        assert_eq!(code.code().len(), "ac_".len() + 43);
        let record = newest(&f, "oauth.authorized").await;
        let detail = &record["detail"];
        assert_eq!(
            (&record["subject_entity"]["kind"], &record["subject_entity"]["id"]),
            (&"oauth_client".into(), &"app".into())
        );
        assert_eq!((&detail["redirect_host"], &detail["acr"]), (&"app.example".into(), &"phr".into()));
        assert_eq!(
            (&detail["scopes"], &detail["resources"]),
            (&"user openid".into(), &resource.as_str().into())
        );
        assert!(!record.to_string().contains(code.code()));
        let (lives,): (i64,) = on!(&*f.db, pool => sqlx::query_as(sql!(
            "SELECT expires_at - created_at FROM oauth_auth_codes"
        )).fetch_one(pool).await)
        .unwrap();
        assert_eq!(lives, 600_000);

        assert_eq!(
            ask(&f, None, &asked(&[("response_type", "token")])).await.error(),
            "unsupported_response_type"
        );
        let refused = newest(&f, "oauth.authorize_refused").await;
        assert_eq!(refused["detail"]["error"], "unsupported_response_type");
        assert_eq!(refused["detail"]["redirect_host"], "app.example");
    }
}

#[tokio::test]
async fn id_68_a_pushed_request_lasts_90_seconds_and_nothing_beside_it_counts() {
    for f in fixtures().await {
        f.client("app", CALLBACK, &["openid", "user", "mcp"]).await;
        let visitor = f.signed_in(&f.user("ada", &["user"]).await).await;
        for (changes, want) in [
            (&[("redirect_uri", "https://evil.example/cb")][..], "invalid_redirect_uri"),
            (&[("response_type", "token")], "unsupported_response_type"),
            (&[("code_challenge", "")], "invalid_request"),
            (&[("request_uri", "urn:ietf:params:oauth:request_uri:x")], "invalid_request"),
            (&[("request", "x")], "request_not_supported"),
            (&[("resource", "https://elsewhere.example")], "invalid_target"),
            (&[("client_id", "nobody")], "invalid_client"),
        ] {
            let refused = push(&f, &asked(changes)).await.err().map(|error| error.code().as_str());
            assert_eq!(refused, Some(want), "{changes:?}");
        }
        let pushed = async || push(&f, &asked(&[("state", "pushed"), ("scope", "user")])).await.unwrap();
        let late = pushed().await;
        let name = late.expose().strip_prefix("urn:ietf:params:oauth:request_uri:").unwrap();
        assert_eq!(name.len(), 43);
        let with = |uri: &Secret<String>| {
            asked(&[
                ("request_uri", uri.expose()),
                ("state", "beside"),
                ("scope", "mcp"),
                ("redirect_uri", "https://evil.example/cb"),
                ("prompt", "none"),
            ])
        };
        let asking = ask(&f, Some(&visitor), &with(&pushed().await)).await;
        let Came::Client(pairs) = allow(&f, &visitor, &asking).await else { panic!("{asking:?}") };
        assert!(pairs.contains(&("state".to_owned(), "pushed".to_owned())), "{pairs:?}");
        assert_eq!(newest(&f, "oauth.authorized").await["detail"]["scopes"], "user");
        f.clock.advance(90_000);
        assert_eq!(ask(&f, Some(&visitor), &with(&late)).await, Came::Page("invalid_grant"));
    }
}
