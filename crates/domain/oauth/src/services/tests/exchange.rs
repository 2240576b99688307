//! Token exchange (ID-59 to ID-63, A26).

mod rows;

use super::plane::{ISSUER, Plane, START, context, planes, planes_with, word};
use crate::error::OauthResult;
use crate::services::generation::TokenResponse;
use crate::users::UserChange;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use systemprompt_database::on_tx;
use systemprompt_models::ids::{EntryId, GrantId};
use systemprompt_models::{Actor, Permission, Principal, RequestContext, Secret};
use systemprompt_security::keys::{PrivateKey, SigningAlgorithm};
use systemprompt_security::session::{Cutoff, CutoffKind, EVERYBODY};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const TYPES: &str = "urn:ietf:params:oauth:token-type";
pub(super) const IDP: &str = "https://idp.example";

pub(super) async fn exchange(
    plane: &Plane,
    client: &str,
    token: &str,
    kind: &str,
    more: &str,
) -> OauthResult<TokenResponse> {
    let grant = "urn:ietf:params:oauth:grant-type:token-exchange";
    let form = format!("grant_type={grant}&subject_token={token}&subject_token_type={TYPES}:{kind}{more}");
    plane.token(Some(client), &form).await
}

/// What exchanges: one client more than the depth of a chain may be.
pub(super) async fn chain_of_clients(plane: &Plane) {
    for n in 1..=6 {
        let grants = "urn:ietf:params:oauth:grant-type:token-exchange";
        plane.client(&format!("hop-{n}"), "client_secret_basic", grants, "user mcp", "").await;
    }
}

/// A client that signs people in and exchanges.
async fn web_app(plane: &Plane) {
    let grants = "authorization_code urn:ietf:params:oauth:grant-type:token-exchange";
    for id in ["web-app", "thief"] {
        plane.client(id, "client_secret_basic", grants, "openid user mcp a2a", "").await;
    }
}

/// The ID token of a new grant to `web-app`, in bob's session.
async fn id_token(plane: &Plane, scopes: &str) -> (Secret<String>, GrantId) {
    let (code, grant) = plane.code(scopes, "").await;
    for statement in [
        "UPDATE oauth_auth_codes SET client_id = 'web-app'",
        "UPDATE oauth_grants SET client_id = 'web-app' WHERE client_id = 'public'",
    ] {
        plane.change(statement).await;
    }
    let form = Plane::code_form(&code).replace("client_id=public&", "");
    (plane.token(Some("web-app"), &form).await.unwrap().id_token.unwrap(), grant)
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_each_exchange_adds_an_actor_until_there_are_five() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let mut token = plane.signed_in("openid user mcp", "").await.0.access_token;
        for n in 1..=6 {
            let answer = exchange(&plane, &format!("hop-{n}"), token.expose(), "access_token", "").await;
            if n == 6 {
                assert_eq!(word(&answer), "invalid_request");
                break;
            }
            let tokens = answer.unwrap();
            assert_eq!(tokens.issued_token_type, Some("urn:ietf:params:oauth:token-type:access_token"));
            assert!(tokens.refresh_token.is_none() && tokens.id_token.is_none());
            let claims = plane.claims(&tokens.access_token);
            assert_eq!((&claims.sub, tokens.scope.as_str()), (&plane.bob, "user mcp"));
            let want: Vec<String> = (1..=n).rev().map(|n| format!("user-of-hop-{n}")).collect();
            assert_eq!(claims.act.as_ref().map(Actor::chain), Some(want));
            token = tokens.access_token;
        }
        let told = plane.records("oauth.exchange").await;
        assert_eq!((told.len(), told[4]["act_chain"].as_array().unwrap().len()), (5, 5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_63_a_child_dies_with_its_parent_and_lives_no_longer() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let parent = plane.signed_in("user", "").await.0.access_token;
        plane.clock.advance(30_000);
        let child = exchange(&plane, "hop-1", parent.expose(), "access_token", "").await.unwrap();
        assert_eq!(child.expires_in, 60, "what is left of the parent");
        let grandchild = exchange(&plane, "hop-2", child.access_token.expose(), "jwt", "").await.unwrap();
        assert!(plane.is_live(&grandchild.access_token).await);
        plane.state.sessions.revoke(&plane.claims(&parent).session_id, "test").await.unwrap();
        for token in [&parent, &child.access_token, &grandchild.access_token] {
            assert!(!plane.is_live(token).await);
        }
        assert_eq!(
            word(&exchange(&plane, "hop-1", parent.expose(), "access_token", "").await),
            "invalid_grant"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_61_an_exchange_only_narrows() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let subject = plane.signed_in("user mcp a2a", "").await.0;
        let token = subject.access_token.expose();
        let refresh = subject.refresh_token.unwrap();
        let rows = [
            (token.as_str(), "access_token", "", "ok"),
            (token, "access_token", "&scope=user+admin", "ok"),
            (token, "access_token", "&scope=a2a", "invalid_scope"),
            (token, "access_token", "&audience=mcp&resource=https://rs.example", "ok"),
            (token, "access_token", "&resource=https://elsewhere.example", "invalid_target"),
            (token, "access_token", "&audience=internal", "invalid_target"),
            (refresh.expose(), "refresh_token", "", "invalid_request"),
            (refresh.expose(), "access_token", "", "invalid_grant"),
            (token, "saml2", "", "invalid_request"),
            (token, "id_token", "", "invalid_grant"),
            (token, "access_token", "&actor_token=x", "invalid_request"),
            (
                token,
                "access_token",
                "&requested_token_type=urn:ietf:params:oauth:token-type:refresh_token",
                "invalid_request",
            ),
        ];
        for (token, kind, more, want) in rows {
            assert_eq!(word(&exchange(&plane, "hop-1", token, kind, more).await), want, "{kind} {more}");
        }
        let form =
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&client_id=public&subject_token=x";
        assert_eq!(word(&plane.token(None, form).await), "unauthorized_client");
        // An actor of its own.
        let actor = plane.token(Some("acme-ci"), "grant_type=client_credentials&scope=user").await.unwrap();
        let more =
            format!("&actor_token={}&actor_token_type={TYPES}:access_token", actor.access_token.expose());
        let acted = exchange(&plane, "hop-1", token, "access_token", &more).await.unwrap();
        let act = plane.claims(&acted.access_token).act.unwrap();
        assert_eq!((act.sub.as_str(), act.client_id.unwrap().as_str()), ("user-of-acme-ci", "acme-ci"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_an_id_token_counts_at_its_own_client_while_its_session_lives() {
    for plane in planes().await {
        web_app(&plane).await;
        let (id_token, _) = id_token(&plane, "openid user").await;
        let tokens = exchange(&plane, "web-app", id_token.expose(), "id_token", "").await.unwrap();
        assert_eq!((tokens.scope.as_str(), &plane.claims(&tokens.access_token).sub), ("user", &plane.bob));
        assert_eq!(
            word(&exchange(&plane, "thief", id_token.expose(), "id_token", "").await),
            "invalid_grant"
        );
        assert_eq!(
            word(&exchange(&plane, "web-app", id_token.expose(), "access_token", "").await),
            "invalid_grant"
        );
        plane.state.sessions.revoke(&plane.session, "test").await.unwrap();
        assert!(!plane.is_live(&tokens.access_token).await);
        assert_eq!(
            word(&exchange(&plane, "web-app", id_token.expose(), "id_token", "").await),
            "invalid_grant"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_an_id_token_is_cut_off_with_every_other_token_of_its_time() {
    for (kind, id) in [(CutoffKind::All, EVERYBODY), (CutoffKind::Client, "web-app")] {
        for plane in planes().await {
            web_app(&plane).await;
            let (token, _) = id_token(&plane, "openid user").await;
            let now = plane.state.now();
            let cutoff = Cutoff {
                kind,
                id: id.to_owned(),
                not_before: now,
                reason: "test".to_owned(),
                expires_at: now + 3_600_000,
            };
            plane.state.sessions.cut_off(&cutoff, &EntryId::generate()).await.unwrap();
            plane.clock.advance(1000);
            let refused = exchange(&plane, "web-app", token.expose(), "id_token", "").await;
            assert_eq!(word(&refused), "invalid_grant", "{kind:?}");
            let (later, _) = id_token(&plane, "openid user").await;
            assert_eq!(word(&exchange(&plane, "web-app", later.expose(), "id_token", "").await), "ok");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_61_an_id_token_is_exchanged_for_what_was_granted_and_ends_with_the_grant() {
    for plane in planes().await {
        web_app(&plane).await;
        let (told, _) = id_token(&plane, "openid").await;
        assert_eq!(word(&exchange(&plane, "web-app", told.expose(), "id_token", "").await), "invalid_scope");
        plane.clock.advance(1000);
        let (told, _) = id_token(&plane, "openid mcp").await;
        let tokens = exchange(&plane, "web-app", told.expose(), "id_token", "").await.unwrap();
        assert_eq!(tokens.scope, "mcp", "the person may more, and granted this");
        plane.change("UPDATE oauth_grants SET revoked_at = 1").await;
        assert_eq!(word(&exchange(&plane, "web-app", told.expose(), "id_token", "").await), "invalid_grant");
        let session = plane.claims(&tokens.access_token).session_id;
        let parent = plane.state.sessions.find(&session).await.unwrap().unwrap().parent_session_id;
        plane.state.sessions.revoke(&parent.unwrap(), "test").await.unwrap();
        assert!(!plane.is_live(&tokens.access_token).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_61_of_several_grants_the_newest_that_counts_says_what_an_id_token_is_exchanged_for() {
    for plane in planes().await {
        web_app(&plane).await;
        let (_, first) = id_token(&plane, "openid user").await;
        plane.clock.advance(1000);
        let (told, second) = id_token(&plane, "openid user mcp").await;
        plane.clock.advance(1000);
        let (_, third) = id_token(&plane, "openid a2a").await;
        plane.clock.advance(1000);
        // Newer ones of another client, and of another session.
        plane.signed_in("openid user mcp a2a", "").await;
        let (_, elsewhere) = id_token(&plane, "openid user a2a").await;
        let change = async |statement: &'static str, grant: &GrantId| {
            let mut tx = plane.db.write_tx().await.unwrap();
            on_tx!(tx, conn => sqlx::query(statement).bind(grant.as_str()).execute(&mut *conn).await.map(drop))
                .unwrap();
            tx.commit().await.unwrap();
        };
        change("UPDATE oauth_grants SET session_id = 'sess_other' WHERE grant_id = $1", &elsewhere).await;
        plane
            .change("UPDATE oauth_grants SET client_id = 'thief' WHERE scopes = 'openid user mcp a2a'")
            .await;
        let scope = async || {
            let answer = exchange(&plane, "web-app", told.expose(), "id_token", "").await;
            answer.map_or_else(|error| error.code().as_str().to_owned(), |tokens| tokens.scope)
        };
        assert_eq!(scope().await, "a2a", "whichever ID token is shown");
        change("UPDATE oauth_grants SET revoked_at = 1 WHERE grant_id = $1", &third).await;
        assert_eq!(scope().await, "user mcp");
        change("UPDATE oauth_grants SET family_expires_at = 1 WHERE grant_id = $1", &second).await;
        assert_eq!(scope().await, "user");
        change("UPDATE oauth_grants SET revoked_at = 1 WHERE grant_id = $1", &first).await;
        assert_eq!(scope().await, "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanged_token_is_not_carried_further_than_it_came() {
    for plane in planes().await {
        chain_of_clients(&plane).await;
        let bound = plane.signed_in("user mcp", "https://rs.example").await.0.access_token;
        let tokens = exchange(&plane, "hop-1", bound.expose(), "access_token", "").await.unwrap();
        assert_eq!(plane.claims(&tokens.access_token).aud, plane.claims(&bound).aud);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanged_hook_token_stays_bound_to_its_plugin() {
    for plane in planes().await {
        let grants = "urn:ietf:params:oauth:grant-type:token-exchange";
        plane.client("relay", "client_secret_basic", grants, "hook:track", "").await;
        let form = "grant_type=client_credentials&scope=hook:track&audience=hook&plugin_id=acme.lint";
        let token = plane.token(Some("acme-ci"), form).await.unwrap().access_token;
        let hook = "&audience=hook";
        let tokens = exchange(&plane, "relay", token.expose(), "access_token", hook).await.unwrap();
        assert_eq!(plane.claims(&tokens.access_token).plugin_id.as_deref(), Some("acme.lint"));
        plane.change("UPDATE oauth_clients SET plugin_id = 'other' WHERE client_id = 'relay'").await;
        let refused = exchange(&plane, "relay", token.expose(), "access_token", hook).await;
        assert_eq!(word(&refused), "invalid_target");
    }
}

/// A server of one document; counts how often it is asked.
pub(super) struct Keys {
    pub address: String,
    asked: Arc<AtomicUsize>,
    _task: tokio::task::JoinSet<()>,
}

pub(super) async fn serve(document: Value) -> Keys {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/jwks", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 2048];
            let _ = stream.read(&mut buffer).await;
            let body = document.to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Keys { address, asked, _task: task }
}

/// An issuer with a key, and servers that trust it.
async fn trusting(mapping: &str) -> (PrivateKey, Keys, [Plane; 2]) {
    let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
    let keys = serve(json!({"keys": [key.public().to_jwk()]})).await;
    let trusted =
        json!([{"issuer": IDP, "jwks_uri": keys.address, "audience": "here", "subject_mapping": mapping}]);
    let planes =
        planes_with(|settings| settings.trusted_issuers = serde_json::from_value(trusted.clone()).unwrap())
            .await;
    for plane in &planes {
        chain_of_clients(plane).await;
    }
    (key, keys, planes)
}

pub(super) fn signed(key: &PrivateKey, kid: &str, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": key.algorithm().as_str(), "kid": kid});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(&header), part(claims));
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).unwrap()))
}

pub(super) fn claims(change: &Value) -> Value {
    let now = START / 1000;
    let mut claims = json!({"iss": IDP, "sub": "s-1", "aud": "here", "iat": now, "exp": now + 600});
    for (name, value) in change.as_object().unwrap() {
        claims[name.as_str()] = value.clone();
    }
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_a_trusted_issuers_token_counts_once_and_a_look_alike_never() {
    let stranger = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
    let (key, keys, planes) = trusting("verified_email").await;
    for plane in planes {
        plane.change("UPDATE users SET email_verified = 1 WHERE username = 'bob'").await;
        let bob = json!({"email": "Bob@example.org", "email_verified": true});
        let with = |more: Value| {
            let mut all = bob.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims(&all)
        };
        let rows = [
            (signed(&key, key.kid(), &claims(&json!({"email": "bob@example.org"}))), "invalid_grant"),
            (
                signed(
                    &key,
                    key.kid(),
                    &claims(&json!({"email": "bob@example.org", "email_verified": "true"})),
                ),
                "invalid_grant",
            ),
            (signed(&key, key.kid(), &with(json!({"iss": "https://idp.example/"}))), "invalid_grant"),
            (signed(&key, key.kid(), &with(json!({"iss": "https://idp.exampIe"}))), "invalid_grant"),
            (signed(&key, key.kid(), &with(json!({"aud": "there"}))), "invalid_grant"),
            (signed(&key, key.kid(), &with(json!({"iat": START / 1000 - 7200}))), "invalid_grant"),
            (signed(&stranger, key.kid(), &with(json!({}))), "invalid_grant"),
            (signed(&key, key.kid(), &with(json!({"may_act": {"sub": "somebody"}}))), "invalid_grant"),
            (signed(&key, key.kid(), &with(json!({"jti": "once"}))), "ok"),
            (signed(&key, key.kid(), &with(json!({"jti": "once"}))), "invalid_grant"),
            (signed(&key, key.kid(), &with(json!({"may_act": {"sub": "user-of-hop-1"}}))), "ok"),
            // Linked now, so that the address does not matter any more.
            (signed(&key, key.kid(), &claims(&json!({}))), "ok"),
            (signed(&key, key.kid(), &claims(&json!({"sub": "s-2"}))), "invalid_grant"),
        ];
        for (n, (token, want)) in rows.iter().enumerate() {
            assert_eq!(word(&exchange(&plane, "hop-1", token, "jwt", "").await), *want, "row {n}");
        }
        let token = signed(&key, key.kid(), &claims(&json!({"act": {"sub": "proxy"}})));
        let tokens = exchange(&plane, "hop-1", &token, "jwt", "&scope=user").await.unwrap();
        let claims = plane.claims(&tokens.access_token);
        assert_eq!((&claims.sub, claims.iss.as_str()), (&plane.bob, ISSUER));
        let inner = claims.act.unwrap().act.unwrap();
        assert_eq!((inner.sub.as_str(), inner.iss.as_deref()), ("proxy", Some(IDP)));
    }
    assert_eq!(keys.asked.load(Ordering::SeqCst), 2, "once for each of the two servers");
}

#[tokio::test(flavor = "multi_thread")]
async fn id_131_a_thousand_unknown_keys_cause_one_fetch_a_minute() {
    let (key, keys, planes) = trusting("provision").await;
    let [plane, _] = planes;
    let trusted = plane.state.settings().trusted_issuers[0].clone();
    for n in 0..1000 {
        let known = plane.state.issuer_keys.of(&plane.state, &trusted, &format!("kid-{n}")).await;
        assert!(known.is_some_and(|keys| keys.iter().all(|key| key.kid != format!("kid-{n}"))));
    }
    assert_eq!(keys.asked.load(Ordering::SeqCst), 1);
    plane.clock.advance(60_000);
    assert!(plane.state.issuer_keys.of(&plane.state, &trusted, "another").await.is_some());
    assert_eq!(keys.asked.load(Ordering::SeqCst), 2);
    // A subject that is new gets a user with the default roles, once.
    let token = signed(&key, key.kid(), &claims(&json!({})));
    for _ in 0..2 {
        assert_eq!(exchange(&plane, "hop-1", &token, "jwt", "").await.unwrap().scope, "user mcp");
    }
    assert_eq!(plane.count("SELECT COUNT(*) FROM users WHERE username LIKE 'fed-%'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_a_mail_links_to_the_person_whom_somebody_else_knows_it_of_and_on_record() {
    let (key, _keys, planes) = trusting("verified_email").await;
    for plane in planes {
        let mail = json!({"email": "bob@example.org", "email_verified": true});
        let token = signed(&key, key.kid(), &claims(&mail));
        let set = async |by: RequestContext, email: &str| {
            let change = UserChange { email: Some(email.to_owned()), ..UserChange::default() };
            plane.state.users.change(&by, plane.bob.as_str(), None, change).await.unwrap()
        };
        let link = async || word(&exchange(&plane, "hop-1", &token, "jwt", "").await);
        let principal = Principal { permissions: vec![Permission::Admin], ..Principal::anonymous() };
        let admin = || RequestContext { principal: Arc::new(principal.clone()), ..context() };

        set(context(), "bob@example.org").await;
        assert_eq!(link().await, "invalid_grant", "he says so himself");
        set(admin(), "robert@example.org").await;
        set(context(), "bob@example.org").await;
        assert_eq!(link().await, "invalid_grant", "an administrator vouched for another one");
        set(admin(), "bob@example.org").await;
        plane.change("UPDATE users SET kind = 'service' WHERE username = 'bob'").await;
        assert_eq!(link().await, "invalid_grant", "no person");
        plane.change("UPDATE users SET kind = 'person' WHERE username = 'bob'").await;
        assert!(plane.records("admin.user.linked").await.is_empty());
        assert_eq!(link().await, "ok");
        assert_eq!(link().await, "ok");
        let told = plane.records("admin.user.linked").await;
        assert_eq!((told.len(), &told[0]["subject_entity"]["id"]), (1, &json!(plane.bob)));
        assert_eq!(
            (&told[0]["detail"]["issuer"], &told[0]["detail"]["subject"]),
            (&json!(IDP), &json!("s-1"))
        );
    }
}
