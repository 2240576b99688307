//! What measurements of tokens work on: keys, sessions and tokens of one deployment in a database of its own.

use crate::ledger::options;
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_audit::{Ledger, Unit};
use systemprompt_database::{Db, migrate};
use systemprompt_extension::Extension as _;
use systemprompt_models::ids::{SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{Clock, Permission, RateLimitTier, Secret, SystemClock, Tasks, UserType};
use systemprompt_security::auth::AuthValidationService;
use systemprompt_security::jwt::{Surface, Verifier};
use systemprompt_security::keys::{ClassKeys, KeyRing, PublicKey, SigningAlgorithm};
use systemprompt_security::session::{
    SessionGenerator, SessionOpened, SessionParams, SessionUse, Sessions, TokensExtension,
};

/// Sessions with a token each.
pub const SESSIONS: usize = 10_000;
const ISSUER: &str = "http://localhost:8080";
const LIFE: Duration = Duration::from_hours(1);

/// A token and what its signature is checked with.
pub struct Signed {
    pub algorithm: &'static str,
    pub token: String,
    pub surface: Surface,
    /// Absent for HS256.
    pub public: Option<PublicKey>,
}

impl Signed {
    pub fn decode(part: &str) -> Result<Vec<u8>> {
        Ok(URL_SAFE_NO_PAD.decode(part)?)
    }
}

/// One deployment.
pub struct House {
    pub verifier: Arc<Verifier>,
    ring: KeyRing,
    sessions: Arc<Sessions>,
    generator: SessionGenerator,
    ledger: Ledger,
    /// The ledger's writer ends with it.
    _tasks: Tasks,
}

impl House {
    pub async fn open(folder: &Path) -> Result<Self> {
        let url = format!("sqlite:{}", folder.join("tokens.db").display());
        let db = Db::connect(&url, 4).await?;
        let mut migrations = systemprompt_audit::MIGRATIONS.to_vec();
        migrations.extend(TokensExtension.migrations());
        migrate(&db, &migrations).await?;
        let (clock, tasks): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), Tasks::default());
        let tables = Vec::leak(TokensExtension.tables());
        let ledger = Ledger::start(&db, tables, options(folder, &db), Arc::clone(&clock), &tasks).await?;
        let ring = KeyRing::open(db.clone(), folder.join("keys.json"), Arc::clone(&clock)).await?;
        for algorithm in SigningAlgorithm::ALL {
            ring.ensure(algorithm, &ledger).await?;
        }
        let secret = Secret::from("a secret of the measurement, long enough");
        let classes = Arc::new(ClassKeys::derive(&secret)?);
        let generator = SessionGenerator::new(Arc::clone(&classes), ISSUER, Arc::clone(&clock));
        let verifier = Arc::new(Verifier::new(ISSUER, classes, ring.keys(), Arc::clone(&clock)));
        let sessions = Arc::new(Sessions::open(db, clock).await?);
        Ok(Self { verifier, ring, sessions, generator, ledger, _tasks: tasks })
    }

    /// A service with nothing known yet.
    pub fn service(&self) -> AuthValidationService {
        AuthValidationService::new(Arc::clone(&self.verifier), Arc::clone(&self.sessions))
    }

    /// An access token of each algorithm of the ring, and a session token.
    pub async fn one_of_each(&self) -> Result<Vec<Signed>> {
        let now = SystemClock.now_seconds();
        let claims = json!({
            "iss": ISSUER, "sub": "usr_bench", "aud": ["api"], "iat": now, "nbf": now, "exp": now + 3600,
            "jti": "jti_bench", "scope": "user mcp", "user_type": "user", "rate_limit_tier": "user",
            "roles": ["user", "dev"], "department": "engineering", "session_id": "ses_bench",
        });
        let mut signed = Vec::new();
        for algorithm in SigningAlgorithm::ALL {
            let key = self.ring.keys().load().signer(algorithm)?;
            let header = json!({"typ": "at+jwt", "alg": algorithm.as_str(), "kid": key.kid()});
            let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let input = format!("{}.{}", encoded(&header), encoded(&claims));
            let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes())?);
            signed.push(Signed {
                algorithm: algorithm.as_str(),
                token: format!("{input}.{signature}"),
                surface: Surface::Api,
                public: Some(key.public().clone()),
            });
        }
        let pending = self.generator.generate_for(SessionUse::Cli, &params(&SessionId::generate()))?;
        let mut unit = Unit::new();
        pending.record(&mut unit, None);
        let token = pending.release(self.ledger.commit(unit).await?);
        signed.push(Signed {
            algorithm: "HS256",
            token: token.expose().clone(),
            surface: Surface::Api,
            public: None,
        });
        Ok(signed)
    }

    /// Requests with a session token each, all of different sessions.
    pub async fn requests(&self) -> Result<Vec<HeaderMap>> {
        let mut requests = Vec::with_capacity(SESSIONS);
        for _ in 0..SESSIONS {
            let id = SessionId::generate();
            let pending = self.generator.generate_for(SessionUse::Cli, &params(&id))?;
            let user = Some(UserId::new("usr_bench"));
            let session = CreateSessionInput::new(id, user, SessionSource::Cli, pending.expires_at());
            let mut unit = Unit::new();
            pending.record(&mut unit, None);
            unit.open(SessionOpened::new(session, SystemClock.now()));
            let token = pending.release(self.ledger.commit(unit).await?);
            let mut headers = HeaderMap::new();
            headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {}", token.expose()))?);
            requests.push(headers);
        }
        Ok(requests)
    }
}

fn params(session: &SessionId) -> SessionParams {
    SessionParams {
        user_id: UserId::new("usr_bench"),
        session_id: session.clone(),
        email: "bench@example.org".to_owned(),
        user_type: UserType::User,
        permissions: vec![Permission::User, Permission::Mcp],
        roles: vec!["user".to_owned(), "dev".to_owned()],
        department: Some("engineering".to_owned()),
        rate_limit_tier: RateLimitTier::User,
        duration: LIFE,
    }
}
