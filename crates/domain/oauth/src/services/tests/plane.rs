//! An authorization server without HTTP: storage, ledger, keys, two people and a few clients.

use crate::at_rest::{AtRest, Label};
use crate::error::{OauthError, OauthResult};
use crate::extension::OauthExtension;
use crate::repository::testing::open_session;
use crate::services::generation::TokenResponse;
use crate::services::http::Parameters;
use crate::services::introspection::{Asker, Introspection, introspect};
use crate::services::revocation::revoke;
use crate::services::token::{ClientRequest, token};
use crate::state::{OAuthParts, OAuthState, Settings};
use crate::users::{NewUser, Users};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use std::sync::Arc;
use systemprompt_audit::testing;
use systemprompt_config::profile::identity::IdentityConfig;
use systemprompt_database::testing::TestDb;
use systemprompt_database::{on, on_tx};
use systemprompt_extension::Extension as _;
use systemprompt_models::ids::{GrantId, SessionId, TraceId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{
    Clock, JwtAudience, JwtClaims, ManualClock, Millis, Principal, RequestContext, Secret, Tasks,
};
use systemprompt_net::{Egress, HostRules};
use systemprompt_security::jwt::Verifier;
use systemprompt_security::keys::{ClassKeys, KeyRing, SigningAlgorithm};
use systemprompt_security::opaque;
use systemprompt_security::session::{SessionGenerator, Sessions, TokensExtension};
use tempfile::TempDir;

pub const ISSUER: &str = "http://localhost:8080";
pub const START: Millis = 1_790_000_000_000;
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const REDIRECT: &str = "https://app.example/callback";

pub struct Plane {
    pub state: OAuthState,
    pub clock: ManualClock,
    pub bob: UserId,
    /// bob's browser.
    pub session: SessionId,
    pub db: TestDb,
    pub ring: KeyRing,
    _keys: TempDir,
}

pub async fn planes() -> [Plane; 2] {
    planes_with(|_| {}).await
}

pub async fn planes_with(change: impl Fn(&mut Settings)) -> [Plane; 2] {
    let mut migrations = testing::migrations();
    migrations.extend(TokensExtension.migrations());
    migrations.extend(OauthExtension.migrations());
    let [sqlite, postgres] = systemprompt_database::testing::databases(&migrations).await;
    [Plane::new(sqlite, &change).await, Plane::new(postgres, &change).await]
}

fn settings() -> Settings {
    Settings {
        issuer: ISSUER.into(),
        external_url: ISSUER.into(),
        display_name: "test".into(),
        access_life: 90,
        refresh_life: 1000,
        audiences: vec![JwtAudience::Web, JwtAudience::Api, JwtAudience::Mcp, JwtAudience::A2a],
        allowed_resource_audiences: vec!["https://rs.example".into()],
        allow_registration: false,
        algorithm: SigningAlgorithm::EdDsa,
        trusted_issuers: Vec::new(),
        identity: IdentityConfig::default(),
    }
}

impl Plane {
    async fn new(db: TestDb, change: &impl Fn(&mut Settings)) -> Self {
        let clock = ManualClock::at(START);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let tables: Vec<_> = TokensExtension.tables().into_iter().chain(OauthExtension.tables()).collect();
        let ledger = testing::ledger(&db, &tables).await;
        let keys_folder = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(db.clone(), keys_folder.path().join("signing.json"), Arc::clone(&shared))
            .await
            .unwrap();
        ring.ensure(SigningAlgorithm::EdDsa, &ledger).await.unwrap();
        let classes = Arc::new(ClassKeys::derive(&Secret::from("0123456789abcdef0123456789abcdef")).unwrap());
        let sessions = Arc::new(Sessions::open(db.clone(), Arc::clone(&shared)).await.unwrap());
        let users = Users::new(db.clone(), ledger.clone(), Arc::clone(&shared), Arc::clone(&sessions));
        let mut settings = settings();
        change(&mut settings);
        let state = OAuthState::new(OAuthParts {
            db: db.clone(),
            ledger,
            clock: Arc::clone(&shared),
            at_rest: AtRest::new(&Secret::from("fedcba9876543210fedcba9876543210"), None).unwrap(),
            users: users.clone(),
            sessions,
            session_tokens: SessionGenerator::new(Arc::clone(&classes), ISSUER, Arc::clone(&shared)),
            keys: ring.keys(),
            verifier: Arc::new(Verifier::new(ISSUER, classes, ring.keys(), shared)),
            settings,
            hosts: HostRules::default().with_loopback(),
            tasks: Tasks::default(),
        })
        .unwrap();
        let bob = NewUser {
            username: "bob".into(),
            email: Some("bob@example.org".into()),
            roles: vec!["user".into()],
            department: Some("engineering".into()),
            ..NewUser::default()
        };
        let bob = users.create(&context(), bob).await.unwrap().id;
        let session = SessionId::generate();
        let mut new = CreateSessionInput::new(
            session.clone(),
            Some(bob.clone()),
            SessionSource::Web,
            START + 86_400_000,
        );
        new.facts.auth_time = Some(START / 1000 - 60);
        new.facts.acr = Some("phrh".into());
        new.facts.amr = Some("hwk user".into());
        open_session(&state, new).await;
        let plane = Self { state, clock, bob, session, db, ring, _keys: keys_folder };
        let all = "authorization_code refresh_token urn:ietf:params:oauth:grant-type:device_code";
        let scopes = "openid profile email offline_access user mcp a2a service hook:track";
        plane.client("public", "none", all, scopes, "").await;
        plane.client("other", "none", all, scopes, "").await;
        let all = "client_credentials urn:ietf:params:oauth:grant-type:token-exchange";
        plane
            .client("acme-ci", "client_secret_basic", all, "service user mcp hook:govern hook:track", "")
            .await;
        plane
    }

    /// Fetches by another client from now on.
    pub fn fetches_by(&mut self, egress: Egress) {
        assert!(self.state.fetch_by(egress));
    }

    /// A client whose secret is `sps_` and its id.
    pub async fn client(&self, id: &str, method: &str, grants: &str, scopes: &str, audiences: &str) {
        let mut tx = self.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_clients (client_id, name, kind, auth_method, application_type, status, user_id,
                 allowed_audiences, metadata_digest, created_at, updated_at, version)
             VALUES ($1, $1, 'managed', $2, 'web', 'active', $3, $4, '', 1, 1, 1)"
        ).bind(id).bind(method).bind(format!("user-of-{id}")).bind(audiences).execute(&mut *conn).await.map(drop))
        .unwrap();
        for (list, words) in [("grant", grants), ("scope", scopes)] {
            for word in words.split(' ') {
                let statement = match list {
                    "grant" => "INSERT INTO oauth_client_grant_types (client_id, value) VALUES ($1, $2)",
                    _ => "INSERT INTO oauth_client_scopes (client_id, value) VALUES ($1, $2)",
                };
                on_tx!(tx, conn => sqlx::query(statement).bind(id).bind(word).execute(&mut *conn).await.map(drop))
                    .unwrap();
            }
        }
        let digest = self.state.at_rest.digest(Label::ClientSecret, &format!("sps_{id}"));
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_client_secrets (client_id, secret_digest, pepper_id, created_at) VALUES ($1, $2, 'p', 1)"
        ).bind(id).bind(&digest.hex).execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
    }

    /// A code for `public` in bob's session, with its grant.
    pub async fn code(&self, scopes: &str, resources: &str) -> (String, GrantId) {
        let grant = GrantId::generate();
        let code = opaque::generate("ac_").unwrap().expose().clone();
        let digest = self.state.at_rest.digest(Label::AuthCode, &code);
        let challenge = URL_SAFE_NO_PAD.encode(digest_of(VERIFIER));
        let now = self.clock.now();
        let offline = i64::from(scopes.contains("offline_access") || !scopes.contains("openid"));
        let mut tx = self.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_grants (grant_id, user_id, client_id, session_id, kind, scopes, resources, offline, created_at,
                 family_expires_at)
             VALUES ($1, $2, 'public', $3, 'code', $4, $5, $6, $7, $8)"
        )
            .bind(grant.as_str()).bind(self.bob.as_str()).bind(self.session.as_str()).bind(scopes).bind(resources)
            .bind(offline).bind(now).bind(now + 5_000_000).execute(&mut *conn).await.map(drop))
        .unwrap();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO oauth_auth_codes (code_digest, client_id, user_id, session_id, grant_id, redirect_uri,
                 redirect_uri_given, code_challenge, scopes, resources, nonce, auth_time, acr, amr, pepper_id, created_at,
                 expires_at)
             VALUES ($1, 'public', $2, $3, $4, $5, 1, $6, $7, $8, 'n-0S6', $9, 'phrh', 'hwk user', 'p', $10, $11)"
        )
            .bind(&digest.hex).bind(self.bob.as_str()).bind(self.session.as_str()).bind(grant.as_str()).bind(REDIRECT)
            .bind(&challenge).bind(scopes).bind(resources).bind(START / 1000 - 60).bind(now).bind(now + 600_000)
            .execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        (code, grant)
    }

    /// The form that exchanges a code.
    pub fn code_form(code: &str) -> String {
        format!(
            "grant_type=authorization_code&client_id=public&code={code}&redirect_uri={REDIRECT}&code_verifier={VERIFIER}"
        )
    }

    /// Tokens for a new code.
    pub async fn signed_in(&self, scopes: &str, resources: &str) -> (TokenResponse, GrantId) {
        let (code, grant) = self.code(scopes, resources).await;
        (self.token(None, &Self::code_form(&code)).await.unwrap(), grant)
    }

    pub async fn refresh(&self, token: &str, more: &str) -> OauthResult<TokenResponse> {
        let form = format!("grant_type=refresh_token&client_id=public&refresh_token={token}{more}");
        self.token(None, &form).await
    }

    pub async fn token(&self, client: Option<&str>, form: &str) -> OauthResult<TokenResponse> {
        let (parameters, authorization) = (Parameters::parse(form.as_bytes())?, client.map(basic));
        let context = context();
        token(&self.state, request(&context, authorization.as_deref(), &parameters)).await
    }

    pub async fn introspect(&self, client: &str, token: &str) -> OauthResult<Introspection> {
        let parameters = Parameters::parse(format!("token={token}").as_bytes())?;
        let (context, authorization) = (context(), basic(client));
        introspect(&self.state, Asker::Client(request(&context, Some(&authorization), &parameters))).await
    }

    /// Whether a token counts, as an administrator is told.
    pub async fn is_live(&self, token: &Secret<String>) -> bool {
        let parameters = Parameters::parse(format!("token={}", token.expose()).as_bytes()).unwrap();
        let context = context();
        let asker = Asker::Administrator(request(&context, None, &parameters));
        introspect(&self.state, asker).await.unwrap().active
    }

    pub async fn revoke(&self, client: &str, token: &str) -> OauthResult<Option<String>> {
        let parameters = Parameters::parse(format!("client_id={client}&token={token}").as_bytes())?;
        revoke(&self.state, request(&context(), None, &parameters)).await
    }

    /// The same by a client that proves itself.
    pub async fn revoke_with_secret(&self, client: &str, token: &str) -> OauthResult<Option<String>> {
        let parameters = Parameters::parse(format!("token={token}").as_bytes())?;
        revoke(&self.state, request(&context(), Some(&basic(client)), &parameters)).await
    }

    pub fn claims(&self, token: &Secret<String>) -> JwtClaims {
        self.state.verifier.verify_own(token.expose()).unwrap().claims
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        let (count,): (i64,) = on!(&*self.db, pool => sqlx::query_as(query).fetch_one(pool).await).unwrap();
        count
    }

    pub async fn change(&self, statement: &'static str) {
        let mut tx = self.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(statement).execute(&mut *conn).await.map(drop)).unwrap();
        tx.commit().await.unwrap();
    }

    /// Records of a kind, the oldest first.
    pub async fn records(&self, kind: &str) -> Vec<Value> {
        let rows: Vec<(String,)> = on!(&*self.db, pool => sqlx::query_as(
            "SELECT CAST(record AS TEXT) FROM ledger_entries WHERE kind = $1 ORDER BY seq"
        ).bind(kind).fetch_all(pool).await)
        .unwrap();
        rows.iter().map(|(text,)| serde_json::from_str(text).unwrap()).collect()
    }
}

pub fn context() -> RequestContext {
    let mut context = RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate());
    context.client_ip = "192.0.2.7".parse().ok();
    context
}

pub fn request<'a>(
    context: &'a RequestContext,
    authorization: Option<&'a str>,
    parameters: &'a Parameters,
) -> ClientRequest<'a> {
    ClientRequest { context, authorization, parameters, limit: None }
}

pub fn basic(client: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{client}:sps_{client}")))
}

pub fn digest_of(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

/// `error` of an answer; `ok` of one that is none.
pub fn word<T>(answer: &Result<T, OauthError>) -> &'static str {
    answer.as_ref().map_or_else(|error| error.code().as_str(), |_| "ok")
}

/// Runs `count` calls at once.
pub async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    call: impl Fn() -> F,
) -> Vec<T> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        tasks.spawn(call());
    }
    tasks.join_all().await
}
