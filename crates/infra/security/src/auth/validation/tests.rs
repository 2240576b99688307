use super::*;
use crate::auth::api_key::{self, ApiKeyFuture};
use crate::auth::{HookTokenError, HookTokenValidator};
use crate::jwt::sign::{compact, header};
use crate::jwt::{AdminTokenParams, JwtService};
use crate::keys::set::tests::set_of;
use crate::keys::{ClassKeys, KeyState, PrivateKey, SharedKeys, SigningAlgorithm};
use crate::session::{SessionGenerator, SessionParams, SessionUse, testing};
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use systemprompt_audit::Ledger;
use systemprompt_database::testing::TestDb;
use systemprompt_models::ids::{Jti, SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{
    Code, CredentialKind, ManualClock, Millis, Permission, RateLimitTier, Refusal, Secret, UserType,
};

const ISSUER: &str = "http://localhost:8080";
const NOW: Millis = 1_800_000_000_000;
const HOUR: Millis = 3_600_000;

/// Knows one key and counts how often it is asked.
struct OneKey {
    key: Secret<String>,
    asked: AtomicUsize,
}

impl ApiKeyProvider for OneKey {
    fn verify<'a>(&'a self, key: &'a str) -> ApiKeyFuture<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let principal = (key == self.key.expose()).then(|| Principal {
            user_id: UserId::new("ada"),
            credential: CredentialKind::ApiKey { id: "key_1".into() },
            permissions: vec![Permission::User],
            ..Principal::anonymous()
        });
        Box::pin(async { Ok(principal.map(VerifiedKey::anywhere)) })
    }
}

struct Fixture {
    db: TestDb,
    ledger: Ledger,
    clock: ManualClock,
    classes: Arc<ClassKeys>,
    ring_key: Arc<PrivateKey>,
    keys: SharedKeys,
    sessions: Arc<Sessions>,
    provider: Arc<OneKey>,
    service: Arc<AuthValidationService>,
}

impl Fixture {
    async fn new() -> Self {
        let db = TestDb::sqlite(&testing::migrations()).await;
        let ledger = testing::ledger(&db).await;
        let clock = ManualClock::at(NOW);
        let classes = Arc::new(ClassKeys::derive(&"0123456789abcdef0123456789abcdef".into()).unwrap());
        let ring_key = Arc::new(PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap());
        let keys: SharedKeys =
            Arc::new(ArcSwap::from_pointee(set_of(&[(&ring_key, KeyState::Active, None)])));
        let sessions = Arc::new(Sessions::open((*db).clone(), Arc::new(clock.clone())).await.unwrap());
        let verifier =
            Verifier::new(ISSUER, Arc::clone(&classes), Arc::clone(&keys), Arc::new(clock.clone()));
        let provider = Arc::new(OneKey { key: api_key::generate().unwrap(), asked: AtomicUsize::new(0) });
        let service = AuthValidationService::new(Arc::new(verifier), Arc::clone(&sessions))
            .with_api_keys(Arc::clone(&provider) as _);
        Self { db, ledger, clock, classes, ring_key, keys, sessions, provider, service: Arc::new(service) }
    }

    async fn session(&self, user: Option<&str>) -> SessionId {
        let id = SessionId::generate();
        let user_id = user.map(UserId::from);
        let new = CreateSessionInput::new(id.clone(), user_id, SessionSource::Cli, NOW + 24 * HOUR);
        testing::open(&self.ledger, new, NOW).await;
        id
    }

    /// A command-line token (audiences web, api, mcp, a2a) of a new session.
    async fn token(&self, user: &str) -> (String, SessionId, Jti) {
        let session_id = self.session(Some(user)).await;
        let generator =
            SessionGenerator::new(Arc::clone(&self.classes), ISSUER, Arc::new(self.clock.clone()));
        let params = SessionParams {
            user_id: user.into(),
            session_id: session_id.clone(),
            email: String::new(),
            user_type: UserType::User,
            permissions: vec![Permission::User],
            roles: Vec::new(),
            department: None,
            rate_limit_tier: RateLimitTier::User,
            duration: Duration::from_hours(1),
        };
        let pending = generator.generate_for(SessionUse::Cli, &params).unwrap();
        (pending.token().to_owned(), session_id, pending.claims().jti.clone())
    }

    /// An access token with `change`d claims, in a session of ada's.
    async fn access(&self, change: Value) -> String {
        let session = self.session(Some("ada")).await;
        let now = NOW / 1000;
        let mut claims = json!({
            "iss": ISSUER, "sub": "ada", "aud": ["api"], "exp": now + 3600, "nbf": now, "iat": now,
            "jti": Jti::generate(), "scope": "user", "user_type": "user", "session_id": session,
            "rate_limit_tier": "user",
        });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let header = header("at+jwt", "EdDSA", self.ring_key.kid());
        let sign = |input: &[u8]| self.ring_key.sign(input).unwrap();
        compact(&header, claims.to_string().as_bytes(), sign).expose().clone()
    }

    async fn ask(
        &self,
        lines: &[(&str, &str)],
        surface: Surface,
        mode: AuthMode,
    ) -> Result<Authenticated, AuthError> {
        self.service.identify(&headers(lines), surface, mode).await
    }

    fn is_known(&self, lines: &[(&str, &str)], surface: Surface) -> bool {
        self.service.is_known(&self.service.look(&headers(lines), surface))
    }

    async fn bearer(&self, token: &str, surface: Surface) -> Result<Authenticated, AuthError> {
        self.ask(&[("authorization", &format!("Bearer {token}"))], surface, AuthMode::Required).await
    }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

fn jwt_error(result: Result<Authenticated, AuthError>) -> JwtError {
    match result {
        Err(AuthError::InvalidToken { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_gives_its_principal_again_and_again() {
    let f = Fixture::new().await;
    let (token, session, jti) = f.token("ada").await;
    for _ in 0..3 {
        let found = f.bearer(&token, Surface::Mcp).await.unwrap();
        assert_eq!(found.principal.user_id.as_str(), "ada");
        assert_eq!((&found.principal.session_id, found.source), (&session, CredentialSource::Bearer));
        assert_eq!(found.principal.credential, CredentialKind::Token { jti: jti.clone() });
    }
    let (one, two) =
        (f.bearer(&token, Surface::Mcp).await.unwrap(), f.bearer(&token, Surface::Api).await.unwrap());
    assert!(Arc::ptr_eq(&one.principal, &two.principal), "a hit shares the principal");
    assert_eq!(jwt_error(f.bearer(&token, Surface::Govern).await), JwtError::TypeNotAccepted);
}

#[tokio::test]
async fn a_hit_still_checks_audience_expiry_session_and_key() {
    let f = Fixture::new().await;
    let access = f.access(json!({})).await;
    assert!(f.bearer(&access, Surface::Api).await.is_ok());
    assert_eq!(jwt_error(f.bearer(&access, Surface::Mcp).await), JwtError::AudienceMismatch);

    let (token, ..) = f.token("ada").await;
    assert!(f.bearer(&token, Surface::Api).await.is_ok());
    f.clock.advance(HOUR - 1);
    f.sessions.refresh().await.unwrap();
    assert!(f.bearer(&token, Surface::Api).await.is_ok());
    f.clock.advance(1);
    let expired = f.bearer(&token, Surface::Api).await;
    let refusal = Refusal::from(expired.as_ref().unwrap_err());
    assert_eq!(jwt_error(expired), JwtError::Expired);
    assert_eq!((refusal.code, refusal.reason.as_ref()), (Code::InvalidToken, "the token has expired"));

    f.clock.set(NOW);
    f.keys.store(Arc::new(set_of(&[(&f.ring_key, KeyState::Active, None)])));
    assert!(f.bearer(&access, Surface::Api).await.is_ok());
    let mut revoked = set_of(&[(&f.ring_key, KeyState::Revoked, None)]);
    revoked.epoch = 2;
    f.keys.store(Arc::new(revoked));
    assert_eq!(jwt_error(f.bearer(&access, Surface::Api).await), JwtError::KeyUnknown);
}

#[tokio::test]
async fn a_revocation_counts_before_its_call_returns() {
    let f = Fixture::new().await;
    let (by_session, session, _) = f.token("ada").await;
    let (by_jti, _, jti) = f.token("ada").await;
    let (by_user, ..) = f.token("bob").await;
    let (untouched, ..) = f.token("eve").await;
    for token in [&by_session, &by_jti, &by_user, &untouched] {
        assert!(f.bearer(token, Surface::Api).await.is_ok());
    }
    f.sessions.revoke(&session, "signed out").await.unwrap();
    f.sessions.revoke_token(&jti, NOW + HOUR).await.unwrap();
    testing::end_user(&f.sessions, &f.db, &"bob".into(), "suspended").await;
    for _ in 0..2 {
        assert_eq!(jwt_error(f.bearer(&by_session, Surface::Api).await), JwtError::SessionEnded);
        assert_eq!(jwt_error(f.bearer(&by_jti, Surface::Api).await), JwtError::Revoked);
        assert_eq!(jwt_error(f.bearer(&by_user, Surface::Api).await), JwtError::SessionEnded);
        assert!(f.bearer(&untouched, Surface::Api).await.is_ok());
    }
}

#[tokio::test]
async fn without_a_confirmed_copy_no_token_counts() {
    let f = Fixture::new().await;
    let (token, ..) = f.token("ada").await;
    assert!(f.bearer(&token, Surface::Api).await.is_ok());
    f.clock.advance(30_001);
    let refused = f.bearer(&token, Surface::Api).await.unwrap_err();
    assert_eq!(Refusal::from(refused).code, Code::RevocationUnavailable);
    f.sessions.refresh().await.unwrap();
    assert!(f.bearer(&token, Surface::Api).await.is_ok());
}

#[tokio::test]
async fn a_session_must_exist_and_be_the_users() {
    let f = Fixture::new().await;
    let of_bob = f.session(Some("bob")).await;
    let nobodys = f.session(None).await;
    for (session, want) in [
        ("ses_none", JwtError::SessionUnknown),
        (of_bob.as_str(), JwtError::SessionForeign),
        (nobodys.as_str(), JwtError::SessionForeign),
    ] {
        let token = f.access(json!({"session_id": session})).await;
        assert_eq!(jwt_error(f.bearer(&token, Surface::Api).await), want);
    }
}

#[tokio::test]
async fn case_15_modes_decide_what_a_missing_or_bad_credential_means() {
    use CredentialSource::{Bearer, Cookie, None as Nobody};
    type Row<'a> =
        (&'a str, Vec<(&'a str, &'a str)>, Option<CredentialSource>, Option<(CredentialSource, bool)>);
    let f = Fixture::new().await;
    let (token, ..) = f.token("ada").await;
    let good = format!("access_token={token}");
    let access = format!("access_token={}", f.access(json!({})).await);
    let (bearer, bad) = (format!("Bearer {token}"), format!("{token}x"));
    let (bad_bearer, bad_cookie) = (format!("Bearer {bad}"), format!("access_token={bad}"));
    let twice = format!("{good}; {good}");
    let rows: [Row<'_>; 9] = [
        ("nothing", vec![], None, Some((Nobody, false))),
        ("bearer", vec![("authorization", &bearer)], Some(Bearer), Some((Bearer, false))),
        ("bad bearer", vec![("authorization", &bad_bearer)], None, None),
        ("bad bearer, good cookie", vec![("authorization", &bad_bearer), ("cookie", &good)], None, None),
        ("malformed header", vec![("authorization", "Basic dXNlcjpwYXNzd29yZA==")], None, None),
        (
            "malformed header, good cookie",
            vec![("authorization", "Basic dTpw"), ("cookie", &good)],
            Some(Cookie),
            Some((Cookie, false)),
        ),
        ("bad cookie", vec![("cookie", &bad_cookie)], None, Some((Nobody, true))),
        ("two cookies", vec![("cookie", &twice)], None, Some((Nobody, true))),
        ("access token in the cookie", vec![("cookie", &access)], None, Some((Nobody, true))),
    ];
    for (name, lines, required, optional) in rows {
        let found = f.ask(&lines, Surface::Api, AuthMode::Required).await;
        assert_eq!(found.as_ref().ok().map(|a| a.source), required, "{name}: {found:?}");
        if let Err(error) = found {
            assert_eq!(Refusal::from(error).status(), 401, "{name}");
        }
        let found = f.ask(&lines, Surface::Api, AuthMode::Optional).await;
        assert_eq!(found.as_ref().ok().map(|a| (a.source, a.clear_cookie)), optional, "{name}: {found:?}");
        assert!(
            found.is_ok_and(|a| a.principal.is_anonymous() == (a.source == Nobody)) || optional.is_none()
        );
    }
    // On a surface without cookies one is not even looked at.
    let found = f.ask(&[("cookie", &good)], Surface::Mcp, AuthMode::Optional).await.unwrap();
    assert_eq!((found.source, found.clear_cookie), (Nobody, false));
    assert!(f.ask(&[], Surface::Api, AuthMode::Disabled).await.unwrap().principal.is_anonymous());
}

#[tokio::test]
async fn an_api_key_is_asked_for_once_and_checked_offline_first() {
    let f = Fixture::new().await;
    let key = f.provider.key.expose().clone();
    for lines in [[("authorization", format!("Bearer {key}"))], [("x-api-key", key.clone())]] {
        let lines = [(lines[0].0, lines[0].1.as_str())];
        let found = f.ask(&lines, Surface::Gateway, AuthMode::Required).await.unwrap();
        assert_eq!(found.principal.user_id.as_str(), "ada");
        assert!(f.is_known(&lines, Surface::Gateway));
    }
    assert_eq!(f.provider.asked.load(Ordering::Relaxed), 1);

    let mistyped = key.replacen("sp-live-", "sp-live-A", 1);
    assert!(matches!(f.bearer(&mistyped, Surface::Api).await, Err(AuthError::InvalidApiKey)));
    assert_eq!(f.provider.asked.load(Ordering::Relaxed), 1);
    let unknown = api_key::generate().unwrap();
    assert!(matches!(f.bearer(unknown.expose(), Surface::Api).await, Err(AuthError::InvalidApiKey)));
    assert!(matches!(f.bearer(unknown.expose(), Surface::Api).await, Err(AuthError::InvalidApiKey)));
    assert_eq!(f.provider.asked.load(Ordering::Relaxed), 3, "failures are not kept");

    for surface in Surface::ALL {
        let taken = matches!(surface, Surface::Api | Surface::Gateway | Surface::A2a | Surface::Bridge);
        assert_eq!(f.bearer(&key, surface).await.is_ok(), taken, "{surface:?}");
    }
    let asked = f.provider.asked.load(Ordering::Relaxed);
    f.service.forget_keys();
    assert!(f.bearer(&key, Surface::Api).await.is_ok());
    assert_eq!(
        f.provider.asked.load(Ordering::Relaxed),
        asked + 1,
        "asked for again once keys were forgotten"
    );
    f.service.forget();
    assert!(!f.is_known(&[("x-api-key", &key)], Surface::Gateway));
}

/// GW-14, and SEC-42 for the other surfaces.
#[tokio::test]
async fn two_headers_are_reconciled() {
    type Want = Result<&'static str, &'static str>;
    let f = Fixture::new().await;
    let ((ada, ..), (bob, ..)) = (f.token("ada").await, f.token("bob").await);
    let key = f.provider.key.expose().clone();
    let foreign = "sk-ant-0123456789abcdef";
    let foreign_jwt = f.access(json!({"iss": "https://elsewhere.example"})).await;
    let rows: [(&str, &str, &str, Want, Want); 9] = [
        ("same value", &ada, &ada, Ok("ada"), Ok("ada")),
        ("token and key of one user", &ada, &key, Ok("ada"), Ok("ada")),
        ("two users", &bob, &ada, Err("conflicting_credentials"), Ok("bob")),
        ("ours, foreign key", &ada, foreign, Ok("ada"), Ok("ada")),
        ("foreign bearer, our key", foreign, &key, Ok("ada"), Err("invalid_token")),
        ("foreign token, our token", &foreign_jwt, &bob, Ok("bob"), Err("invalid_token")),
        ("two foreign ones", foreign, &foreign_jwt, Err("invalid_token"), Err("invalid_token")),
        ("malformed bearer, our key", "x y", &key, Ok("ada"), Err("malformed")),
        ("ours, malformed key", &ada, "x", Ok("ada"), Ok("ada")),
    ];
    for (name, bearer, key, gateway, api) in rows {
        let bearer = format!("Bearer {bearer}");
        for (surface, want) in [(Surface::Gateway, gateway), (Surface::Api, api)] {
            let lines = [("authorization", bearer.as_str()), ("x-api-key", key)];
            let found = f.ask(&lines, surface, AuthMode::Required).await;
            let found = found.as_ref().map(|a| a.principal.user_id.as_str()).map_err(AuthError::label);
            assert_eq!(found, want, "{name} on {surface:?}");
        }
    }
    for surface in [Surface::Gateway, Surface::Mcp, Surface::Hooks, Surface::Api] {
        let found = f.ask(&[("x-api-key", &ada)], surface, AuthMode::Required).await.unwrap();
        assert_eq!(found.source, CredentialSource::ApiKeyHeader, "{surface:?}");
    }
    // Cookies never authenticate on the gateway.
    let cookie = format!("access_token={ada}");
    assert!(f.ask(&[("cookie", &cookie)], Surface::Gateway, AuthMode::Required).await.is_err());
}

#[tokio::test]
async fn the_context_takes_correlation_from_headers_and_identity_from_the_token() {
    let f = Fixture::new().await;
    let (token, session, _) = f.token("ada").await;
    let bearer = format!("Bearer {token}");
    let ask = async |extra: (&str, &str)| {
        let headers = headers(&[("authorization", &bearer), ("x-context-id", "ctx_1"), extra]);
        f.service.validate_request(&headers, AuthMode::Required).await
    };
    let context = ask(("x-trace-id", "0123456789abcdef")).await.unwrap();
    assert_eq!(context.trace_id.as_str(), "0123456789abcdef");
    assert_eq!(context.context_id.unwrap().as_str(), "ctx_1");
    assert_eq!(context.principal.user_id.as_str(), "ada");
    assert!(ask(("x-session-id", session.as_str())).await.is_ok());
    let refused = ask(("x-session-id", "ses_other")).await.unwrap_err();
    assert_eq!(Refusal::from(refused).code, Code::SessionMismatch);
}

#[tokio::test]
async fn an_admin_token_is_an_admins_on_api_and_console() {
    let f = Fixture::new().await;
    let params = AdminTokenParams {
        user_id: "ada".into(),
        session_id: f.session(Some("ada")).await,
        email: "ada@example.org".into(),
        issuer: ISSUER.into(),
        duration: Duration::from_hours(24),
    };
    let service = JwtService::new(Arc::clone(&f.classes), Arc::new(f.clock.clone()));
    let pending = service.generate_admin_token(&params).unwrap();
    let found = f.bearer(pending.token(), Surface::Api).await.unwrap().principal;
    assert_eq!((found.user_type, found.tier), (UserType::Admin, RateLimitTier::Admin));
    assert!(found.has(Permission::Admin) && found.has(Permission::User));
    assert!(f.bearer(pending.token(), Surface::Mcp).await.is_err());
    let longer = AdminTokenParams { duration: Duration::from_secs(86_401), ..params };
    assert!(service.generate_admin_token(&longer).is_err());
}

#[tokio::test]
async fn an_anonymous_token_needs_a_session_without_a_user() {
    let f = Fixture::new().await;
    let generator = SessionGenerator::new(Arc::clone(&f.classes), ISSUER, Arc::new(f.clock.clone()));
    let params = SessionParams {
        user_id: "anonymous".into(),
        session_id: f.session(None).await,
        email: String::new(),
        user_type: UserType::Anon,
        permissions: vec![Permission::Anonymous],
        roles: Vec::new(),
        department: None,
        rate_limit_tier: RateLimitTier::Anon,
        duration: Duration::from_hours(24),
    };
    let pending = generator.generate(&params).unwrap();
    let found = f.bearer(pending.token(), Surface::Site).await.unwrap().principal;
    assert_eq!(found.user_type, UserType::Anon);
    assert!(f.bearer(pending.token(), Surface::Hooks).await.is_err());
}

#[tokio::test]
async fn a_hook_token_counts_for_its_plugin_and_scope() {
    use Permission::{HookGovern, HookTrack};
    let f = Fixture::new().await;
    let validator = HookTokenValidator::new(Arc::clone(&f.service));
    let hook = json!({"aud": ["hook"], "scope": "hook:govern", "user_type": "service", "rate_limit_tier": "service",
        "plugin_id": "demo"});
    let token = async |change: Value| {
        let mut claims = hook.clone();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        f.access(claims).await
    };
    let ask = async |token: &str, scope, plugin: &str| validator.validate(token, scope, plugin).await;

    let good = token(json!({})).await;
    let claims = ask(&good, HookGovern, "demo").await.unwrap();
    assert_eq!((claims.plugin_id.as_str(), claims.permissions.as_slice()), ("demo", &[HookGovern][..]));
    assert!(matches!(ask(&good, HookTrack, "demo").await, Err(HookTokenError::ScopeMissing(HookTrack))));
    assert!(matches!(ask(&good, HookGovern, "other").await, Err(HookTokenError::PluginMismatch)));
    let unbound = token(json!({"plugin_id": null})).await;
    assert!(matches!(ask(&unbound, HookGovern, "demo").await, Err(HookTokenError::PluginMissing)));
    let long = token(json!({"exp": NOW / 1000 + 3601})).await;
    assert!(matches!(ask(&long, HookGovern, "demo").await, Err(HookTokenError::LifeTooLong)));
    let elsewhere = token(json!({"aud": ["api"]})).await;
    assert!(matches!(ask(&elsewhere, HookGovern, "demo").await, Err(HookTokenError::Auth(_))));
    let key = f.provider.key.expose().clone();
    assert!(matches!(ask(&key, HookGovern, "demo").await, Err(HookTokenError::Auth(_))));

    let (session, ..) = f.token("bob").await;
    let claims = ask(&session, HookGovern, "demo").await.unwrap();
    assert_eq!((claims.user_id.as_str(), claims.plugin_id.as_str()), ("bob", "demo"));
}
