//! Session tokens: HS256 under the derived key of their class (SEC-51, SEC-59).

use crate::jwt::sign::{IssueError, MAX_TOKEN_LIFE, PendingToken, TokenFacts};
use crate::keys::{ClassKeys, TokenClass};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_models::ids::{SessionId, UserId};
use systemprompt_models::{Clock, JwtAudience, Permission, RateLimitTier, UserType};

/// Life of a browser's session token.
pub const SESSION_TOKEN_LIFE: Duration = Duration::from_hours(1);

/// What a session token is for, which decides its audience and its longest life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionUse {
    /// The cookie of a browser: audience `web`, at most an hour (a day for an anonymous visitor).
    Browser,
    /// The command line, `exec` and the demo: audiences `web api mcp a2a`, at most a day.
    Cli,
}

/// What a session token says.
#[derive(Clone, Debug)]
pub struct SessionParams {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub email: String,
    pub user_type: UserType,
    pub permissions: Vec<Permission>,
    pub roles: Vec<String>,
    pub department: Option<String>,
    pub rate_limit_tier: RateLimitTier,
    pub duration: Duration,
}

/// Makes session tokens.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use systemprompt_models::{Permission, RateLimitTier, Secret, SystemClock, UserType, ids::{SessionId, UserId}};
/// use systemprompt_security::keys::ClassKeys;
/// use systemprompt_security::session::{SessionGenerator, SessionParams};
///
/// let keys = Arc::new(ClassKeys::derive(&Secret::from("at least thirty-two characters long")).unwrap());
/// let generator = SessionGenerator::new(keys, "http://localhost:8080", Arc::new(SystemClock));
/// let params = SessionParams {
///     user_id: UserId::generate(),
///     session_id: SessionId::generate(),
///     email: "bob@example.org".into(),
///     user_type: UserType::User,
///     permissions: vec![Permission::User],
///     roles: vec!["user".into()],
///     department: Some("engineering".into()),
///     rate_limit_tier: RateLimitTier::User,
///     duration: Duration::from_secs(3600),
/// };
/// let pending = generator.generate(&params).unwrap();
/// assert_eq!(pending.claims().scope, "user");
///
/// // The token itself is given out against the permit of its record.
/// async fn hand_out(
///     pending: systemprompt_security::jwt::PendingToken,
///     ledger: &systemprompt_audit::Ledger,
/// ) -> Result<Secret<String>, systemprompt_audit::LedgerError> {
///     let mut unit = systemprompt_audit::Unit::new();
///     pending.record(&mut unit, None);
///     Ok(pending.release(ledger.commit(unit).await?))
/// }
/// ```
pub struct SessionGenerator {
    keys: Arc<ClassKeys>,
    issuer: String,
    clock: Arc<dyn Clock>,
}

impl SessionGenerator {
    /// `issuer` is `security.jwt_issuer`.
    pub fn new(keys: Arc<ClassKeys>, issuer: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self { keys, issuer: issuer.into(), clock }
    }

    /// A browser's session token.
    ///
    /// # Errors
    /// No permissions, a type that does not follow from them, a hook scope, or a longer life than allowed.
    pub fn generate(&self, params: &SessionParams) -> Result<PendingToken, IssueError> {
        self.generate_for(SessionUse::Browser, params)
    }

    /// A session token for `purpose`.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_for(
        &self,
        purpose: SessionUse,
        params: &SessionParams,
    ) -> Result<PendingToken, IssueError> {
        check(params)?;
        let class = match params.user_type {
            UserType::Anon => TokenClass::Anonymous,
            _ => TokenClass::Session,
        };
        let (audiences, longest) = match (purpose, class) {
            (SessionUse::Cli, TokenClass::Session) => {
                let audiences = vec![JwtAudience::Web, JwtAudience::Api, JwtAudience::Mcp, JwtAudience::A2a];
                (audiences, MAX_TOKEN_LIFE)
            }
            (_, TokenClass::Anonymous) => (vec![JwtAudience::Web], MAX_TOKEN_LIFE),
            _ => (vec![JwtAudience::Web], SESSION_TOKEN_LIFE),
        };
        let facts = TokenFacts {
            class,
            issuer: &self.issuer,
            user_id: &params.user_id,
            session_id: &params.session_id,
            email: &params.email,
            audiences,
            permissions: &params.permissions,
            roles: params.roles.clone(),
            department: params.department.clone(),
            tier: params.rate_limit_tier,
            duration: params.duration,
            longest,
        };
        PendingToken::sign(&self.keys, facts, self.clock.now_seconds())
    }
}

fn check(params: &SessionParams) -> Result<(), IssueError> {
    if params.permissions.is_empty() {
        Err(IssueError::NoPermissions)
    } else if UserType::of(&params.permissions) != params.user_type {
        Err(IssueError::UserTypeMismatch)
    } else if params.permissions.iter().any(|permission| permission.is_hook_scope()) {
        Err(IssueError::HookScope)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_models::ManualClock;

    fn params() -> SessionParams {
        SessionParams {
            user_id: UserId::new("usr_1"),
            session_id: SessionId::new("ses_1"),
            email: String::new(),
            user_type: UserType::User,
            permissions: vec![Permission::User],
            roles: vec!["user".into()],
            department: None,
            rate_limit_tier: RateLimitTier::User,
            duration: Duration::from_mins(1),
        }
    }

    fn generator() -> SessionGenerator {
        let keys = ClassKeys::derive(&"0123456789abcdef0123456789abcdef".into()).unwrap();
        SessionGenerator::new(Arc::new(keys), "http://issuer", Arc::new(ManualClock::at(1_000_000)))
    }

    #[test]
    fn every_token_has_an_id_of_its_own() {
        let ids: std::collections::HashSet<_> =
            (0..100).map(|_| generator().generate(&params()).unwrap().claims().jti.clone()).collect();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn purpose_and_type_decide_audience_and_longest_life() {
        let anonymous = SessionParams {
            user_type: UserType::Anon,
            permissions: vec![Permission::Anonymous],
            rate_limit_tier: RateLimitTier::Anon,
            ..params()
        };
        let cli = &["web", "api", "mcp", "a2a"][..];
        for (purpose, params, audiences, longest) in [
            (SessionUse::Browser, params(), &["web"][..], 3600),
            (SessionUse::Cli, params(), cli, 86_400),
            (SessionUse::Browser, anonymous.clone(), &["web"][..], 86_400),
            (SessionUse::Cli, anonymous, &["web"][..], 86_400),
        ] {
            let of = |seconds| {
                let params = SessionParams { duration: Duration::from_secs(seconds), ..params.clone() };
                generator().generate_for(purpose, &params)
            };
            let pending = of(longest).unwrap();
            let claims = pending.claims();
            assert_eq!(claims.aud.iter().map(JwtAudience::as_str).collect::<Vec<_>>(), audiences);
            assert_eq!((claims.iat, claims.nbf, claims.exp), (1000, 1000, 1000 + longest as i64));
            assert_eq!(of(longest + 1).err(), Some(IssueError::TooLong));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        use Permission as P;
        for (permissions, user_type, error) in [
            (vec![], UserType::Unknown, IssueError::NoPermissions),
            (vec![P::User], UserType::Admin, IssueError::UserTypeMismatch),
            (vec![P::User, P::HookGovern], UserType::User, IssueError::HookScope),
        ] {
            let params = SessionParams { user_type, permissions, ..params() };
            assert_eq!(generator().generate(&params).err(), Some(error));
        }
        let params = SessionParams { rate_limit_tier: RateLimitTier::Admin, ..params() };
        assert_eq!(generator().generate(&params).err(), Some(IssueError::TierTooHigh));
        let params =
            SessionParams { duration: Duration::ZERO, rate_limit_tier: RateLimitTier::User, ..params };
        assert_eq!(generator().generate(&params).err(), Some(IssueError::TooShort));
    }
}
