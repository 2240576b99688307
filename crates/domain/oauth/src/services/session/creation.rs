//! Making sessions: a sign-in always makes a new one (ID-81).

use super::web_permissions;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::services::refusals::ip_prefix;
use crate::state::OAuthState;
use crate::users::{User, UserKind, UserStatus};
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_models::ids::{SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource, SignIn};
use systemprompt_models::{Millis, Permission, Principal, RateLimitTier, RequestContext, Secret, UserType};
use systemprompt_security::jwt::PendingToken;
use systemprompt_security::session::{SessionOpened, SessionParams};

/// How a person proved who they are (ID-69).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// With user verification; `synced` if the key can leave its device.
    Passkey {
        synced: bool,
    },
    /// A passkey that was there, without a look at who used it: for the session in which it was made, and no other.
    Presence {
        synced: bool,
    },
    Password,
    /// Such a passkey and the password.
    PresenceAndPassword {
        synced: bool,
    },
}

impl Method {
    /// Authentication context class.
    pub fn acr(self) -> &'static str {
        match self {
            Self::Passkey { synced: false } => "phrh",
            Self::Passkey { synced: true } => "phr",
            // Below every level (OpenID Connect Core section 2).
            Self::Presence { .. } => "0",
            Self::Password | Self::PresenceAndPassword { .. } => "pwd",
        }
    }

    /// Methods in the words of RFC 8176.
    pub fn amr(self) -> &'static str {
        match self {
            Self::Passkey { synced: false } => "hwk user",
            Self::Passkey { synced: true } => "swk user",
            Self::Presence { synced: false } => "hwk",
            Self::Presence { synced: true } => "swk",
            Self::PresenceAndPassword { synced: false } => "hwk pwd",
            Self::PresenceAndPassword { synced: true } => "swk pwd",
            Self::Password => "pwd",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Passkey { .. } | Self::Presence { .. } => "passkey",
            Self::PresenceAndPassword { .. } => "passkey_and_password",
            Self::Password => "password",
        }
    }
}

/// Who signs in, how, and from where.
#[derive(Clone, Copy, Debug)]
pub struct SignInFacts<'a> {
    pub user: &'a User,
    pub method: Method,
    /// Id of the passkey; its beginning is recorded.
    pub credential: Option<&'a str>,
    pub context: &'a RequestContext,
    /// Whether the user is made in the same unit.
    pub is_new: bool,
    /// The session that the browser had; an anonymous one ends.
    pub before: Option<&'a Principal>,
}

/// A session that has just begun.
pub struct SignedIn {
    pub session_id: SessionId,
    pub user_id: UserId,
    /// Value of the session cookie.
    pub token: Secret<String>,
}

/// Characters of a credential's id that are recorded.
const CREDENTIAL_SHOWN: usize = 12;

/// Makes sessions.
#[derive(Clone, Copy, Debug)]
pub struct SessionCreationService<'a>(pub &'a OAuthState);

impl SessionCreationService<'_> {
    /// Signs a person in. `unit` holds what must hold for it; the session, its records and that are one.
    ///
    /// # Errors
    /// A person who may not act or may nothing, a guard of `unit` that did not hold, or what could not be written.
    pub async fn sign_in(&self, facts: SignInFacts<'_>, mut unit: Unit) -> OauthResult<SignedIn> {
        let state = self.0;
        state.sessions.wait_to_issue(&facts.user.id, None).await?;
        // As they are now: what was read when the sign-in began may be some seconds old.
        let now = if facts.is_new { None } else { state.users.find(facts.user.id.as_str()).await? };
        let user = now.as_ref().unwrap_or(facts.user);
        if user.status != UserStatus::Active || user.kind != UserKind::Person {
            return Err(refused());
        }
        let session_id = SessionId::generate();
        let pending = self.token(user, &session_id, i64::MAX)?;
        // Before the new one stands: what came from a session ends with it.
        let anonymous = facts.before.filter(|before| before.user_type == UserType::Anon && is_stored(before));
        if let Some(before) = anonymous {
            state.sessions.revoke(&before.session_id, "signed_in").await?;
        }
        let credential: Option<String> =
            facts.credential.map(|id| id.chars().take(CREDENTIAL_SHOWN).collect());
        unit.record(
            Draft::new(EntryKind::OauthSignin, facts.context, "ok")
                .with_subject("user", user.id.as_str())
                .with("session_id", session_id.as_str())
                .with("method", facts.method.as_str())
                .with("acr", facts.method.acr())
                .with("credential", credential)
                .with("address", ip_prefix(facts.context)),
        );
        pending.record(&mut unit, Some(facts.context));
        if facts.is_new {
            unit.require(user.stands());
        } else {
            unit.require_first(user.stands());
        }
        let row = self.row(facts, session_id.clone(), anonymous);
        unit.open(SessionOpened::new(row, state.now()));
        let permit = state.ledger.commit(unit).await?;
        Ok(SignedIn { session_id, user_id: user.id.clone(), token: pending.release(permit) })
    }

    /// A session of somebody unknown.
    ///
    /// # Errors
    /// What could not be written.
    pub async fn anonymous(&self, context: &RequestContext) -> OauthResult<(SessionId, Secret<String>, i64)> {
        let state = self.0;
        let life = i64::from(state.settings().identity.session.anonymous);
        let nobody = Principal::anonymous();
        let session_id = SessionId::generate();
        let pending = state
            .session_tokens
            .generate(&SessionParams {
                user_id: nobody.user_id,
                session_id: session_id.clone(),
                email: String::new(),
                user_type: UserType::Anon,
                permissions: vec![Permission::Anonymous],
                roles: Vec::new(),
                department: None,
                rate_limit_tier: RateLimitTier::Anon,
                duration: seconds(life),
            })
            .map_err(systemprompt_security::jwt::SignError::from)?;
        let end = state.now() + life * 1000;
        let mut new = CreateSessionInput::new(session_id.clone(), None, SessionSource::Anonymous, end);
        new.facts.ends_at = Some(end);
        new.facts.ip_prefix = ip_prefix(context);
        let mut unit = Unit::new();
        pending.record(&mut unit, Some(context));
        unit.open(SessionOpened::new(new, state.now()));
        let permit = state.ledger.commit(unit).await?;
        Ok((session_id, pending.release(permit), life))
    }

    /// A cookie's token for a session of `user` that ends in `left` seconds at the latest.
    pub(super) fn token(&self, user: &User, session: &SessionId, left: i64) -> OauthResult<PendingToken> {
        let settings = self.0.settings();
        let permissions = web_permissions(&settings, user);
        if permissions.is_empty() {
            return Err(refused());
        }
        let user_type = UserType::of(&permissions);
        let params = SessionParams {
            user_id: user.id.clone(),
            session_id: session.clone(),
            email: user.email.clone().unwrap_or_default(),
            user_type,
            permissions,
            roles: user.roles.clone(),
            department: user.department.clone(),
            rate_limit_tier: user_type.tier(),
            duration: seconds(i64::from(settings.identity.session.cookie_max_age).min(left)),
        };
        Ok(self.0.session_tokens.generate(&params).map_err(systemprompt_security::jwt::SignError::from)?)
    }

    fn row(&self, facts: SignInFacts<'_>, id: SessionId, parent: Option<&Principal>) -> CreateSessionInput {
        let state = self.0;
        let times = &state.settings().identity.session;
        let now = state.now();
        let ends_at = now + Millis::from(times.absolute) * 1000;
        let expires_at = (now + Millis::from(times.idle) * 1000).min(ends_at);
        let mut new =
            CreateSessionInput::new(id, Some(facts.user.id.clone()), SessionSource::Web, expires_at);
        new.facts = SignIn {
            ends_at: Some(ends_at),
            auth_time: Some(state.clock.now_seconds()),
            acr: Some(facts.method.acr().to_owned()),
            amr: Some(facts.method.amr().to_owned()),
            ip_prefix: ip_prefix(facts.context),
            user_agent: facts.context.user_agent.as_deref().map(str::to_owned),
            parent: parent.map(|parent| parent.session_id.clone()),
            ..SignIn::default()
        };
        new
    }
}

/// Whether an anonymous visitor has a session of their own.
fn is_stored(principal: &Principal) -> bool {
    principal.session_id != Principal::anonymous().session_id
}

fn seconds(life: i64) -> Duration {
    Duration::from_secs(life.max(1).cast_unsigned())
}

fn refused() -> OauthError {
    OauthError::new(ErrorCode::AccessDenied, "this account may not sign in")
}
