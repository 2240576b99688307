//! A state on a throw-away database, for the tests of this crate.

use crate::OauthExtension;
use crate::at_rest::AtRest;
use crate::models::clients::OAuthClient;
use crate::state::{OAuthParts, OAuthState, Settings};
use crate::users::{NewUser, User, Users};
use std::sync::Arc;
use systemprompt_audit::testing::ledger;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_config::profile::Profile;
use systemprompt_database::on_tx;
use systemprompt_database::sql;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_extension::Extension as _;
use systemprompt_models::ids::{SessionId, TraceId};
use systemprompt_models::session::{CreateSessionInput, SessionSource, SignIn};
use systemprompt_models::{ManualClock, Millis, Principal, RequestContext, Secret, Tasks, UserType};
use systemprompt_net::HostRules;
use systemprompt_security::authz::AuthzExtension;
use systemprompt_security::jwt::Verifier;
use systemprompt_security::keys::{ClassKeys, KeyRing, SigningAlgorithm};
use systemprompt_security::session::{SessionGenerator, SessionOpened, Sessions, TokensExtension};

pub(crate) const NOW: Millis = 1_800_000_000_000;
pub(crate) const URL: &str = "http://localhost:8080";

/// A server of its own on one engine.
pub(crate) struct Fixture {
    pub db: TestDb,
    pub clock: ManualClock,
    pub state: OAuthState,
    _keys: tempfile::TempDir,
}

/// One on each engine.
pub(crate) async fn fixtures() -> Vec<Fixture> {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(TokensExtension.migrations());
    migrations.extend(AuthzExtension.migrations());
    migrations.extend(OauthExtension.migrations());
    let mut all = Vec::new();
    for db in databases(&migrations).await {
        all.push(fixture(db).await);
    }
    all
}

async fn fixture(db: TestDb) -> Fixture {
    let clock = ManualClock::at(NOW);
    let shared = Arc::new(clock.clone());
    let tables: Vec<_> = TokensExtension.tables().into_iter().chain(OauthExtension.tables()).collect();
    let ledger = ledger(&db, &tables).await;
    let folder = tempfile::tempdir().unwrap();
    let ring = KeyRing::open((*db).clone(), folder.path().join("keys.json"), Arc::clone(&shared) as _)
        .await
        .unwrap();
    ring.ensure(SigningAlgorithm::EdDsa, &ledger).await.unwrap();
    let classes = Arc::new(ClassKeys::derive(&"0123456789abcdef0123456789abcdef".into()).unwrap());
    let sessions = Arc::new(Sessions::open((*db).clone(), Arc::clone(&shared) as _).await.unwrap());
    let mut profile = Profile::default();
    profile.security.signing_algorithm = systemprompt_config::profile::security::SigningAlgorithm::EdDSA;
    let verifier = Verifier::new(URL, Arc::clone(&classes), ring.keys(), Arc::clone(&shared) as _);
    let state = OAuthState::new(OAuthParts {
        db: (*db).clone(),
        ledger: ledger.clone(),
        clock: Arc::clone(&shared) as _,
        at_rest: AtRest::new(&Secret::from("0123456789abcdef0123456789abcdef"), None).unwrap(),
        users: Users::new((*db).clone(), ledger, Arc::clone(&shared) as _, Arc::clone(&sessions)),
        sessions,
        session_tokens: SessionGenerator::new(classes, URL, shared),
        keys: ring.keys(),
        verifier: Arc::new(verifier),
        settings: Settings::of(&profile),
        hosts: HostRules::default(),
        tasks: Tasks::default(),
    })
    .unwrap();
    Fixture { db, clock, state, _keys: folder }
}

impl Fixture {
    pub(crate) async fn user(&self, name: &str, roles: &[&str]) -> User {
        let new = NewUser {
            username: name.to_owned(),
            email: Some(format!("{name}@example.com")),
            roles: roles.iter().map(ToString::to_string).collect(),
            ..NewUser::default()
        };
        self.state.users.create(&caller(), new).await.unwrap()
    }

    /// A browser session of a person who has just signed in.
    pub(crate) async fn signed_in(&self, user: &User) -> Principal {
        let now = self.state.clock.now();
        let mut session = CreateSessionInput::new(
            SessionId::generate(),
            Some(user.id.clone()),
            SessionSource::Web,
            now + 3_600_000,
        );
        session.facts = SignIn {
            auth_time: Some(now / 1000),
            acr: Some("phr".into()),
            amr: Some("swk user".into()),
            ..SignIn::default()
        };
        let mut principal = Principal::anonymous();
        principal.user_id = user.id.clone();
        principal.session_id = session.id.clone();
        open_session(&self.state, session).await;
        principal.user_type = UserType::User;
        principal
    }

    /// A public client with one redirect URI, written as its row.
    pub(crate) async fn client(&self, id: &str, redirect_uri: &str, scopes: &[&str]) -> OAuthClient {
        let mut tx = self.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_clients (client_id, name, kind, auth_method, application_type, status, user_id, metadata_digest,
                 created_at, updated_at, version)
             VALUES ($1, 'Test client', 'managed', 'none', 'web', 'active', 'usr_client', 'digest', 0, 0, 1)"
        )).bind(id).execute(&mut *conn).await.map(drop))
        .unwrap();
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_client_redirect_uris (client_id, kind, value) VALUES ($1, 'login', $2)"
        )).bind(id).bind(redirect_uri).execute(&mut *conn).await.map(drop))
        .unwrap();
        for grant in ["authorization_code", "refresh_token"] {
            on_tx!(tx, conn => sqlx::query(sql!(
                "INSERT INTO oauth_client_grant_types (client_id, value) VALUES ($1, $2)"
            )).bind(id).bind(grant).execute(&mut *conn).await.map(drop))
            .unwrap();
        }
        for scope in scopes {
            on_tx!(tx, conn => sqlx::query(sql!(
                "INSERT INTO oauth_client_scopes (client_id, value) VALUES ($1, $2)"
            )).bind(id).bind(scope).execute(&mut *conn).await.map(drop))
            .unwrap();
        }
        tx.commit().await.unwrap();
        self.state.client(id).await.unwrap().unwrap()
    }
}

/// Somebody from nowhere in particular.
/// Opens a session in the unit of its record.
pub(crate) async fn open_session(state: &OAuthState, new: CreateSessionInput) {
    let mut unit = Unit::new();
    unit.record(Draft::system(EntryKind::OauthSessionCreated, "ok"));
    unit.open(SessionOpened::new(new, state.now()));
    drop(state.ledger.commit(unit).await.unwrap());
}

pub(crate) fn caller() -> RequestContext {
    RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate())
}
