//! One-time set-up tokens: the first administrator, invitations, a further passkey, a way back in (ID-90, ID-91).

use crate::at_rest::Label;
use crate::constants::SETUP_TOKEN_PREFIX;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::repository::setup_token::{self, SetupRow};
use crate::state::OAuthState;
use crate::users::{User, UserKind, UserStatus};
use systemprompt_audit::{Draft, EntryKind, Guard};
use systemprompt_models::{Millis, RequestContext, Secret};
use systemprompt_security::opaque;

/// Life of a token, and of one that follows a recovery code.
pub const SETUP_TTL_SECONDS: i64 = 86_400;
pub const RECOVERY_TTL_SECONDS: i64 = 600;
/// Where the tokens lead; the token stands in the fragment, which no server sees.
pub const LINK_PAGE: &str = "/webauthn/link";

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Makes the first administrator.
    Bootstrap,
    /// Makes a user.
    Invite,
    /// Adds a passkey to a user.
    CredentialLink,
    /// The same, and ends every other session and grant.
    Recovery,
}

impl Purpose {
    const ALL: [Self; 4] = [Self::Bootstrap, Self::Invite, Self::CredentialLink, Self::Recovery];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Invite => "invite",
            Self::CredentialLink => "credential_link",
            Self::Recovery => "recovery",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == word)
    }

    /// Whether it makes a user.
    pub fn registers(self) -> bool {
        matches!(self, Self::Bootstrap | Self::Invite)
    }
}

/// A token that counts.
#[derive(Clone, Debug)]
pub struct SetupToken {
    pub purpose: Purpose,
    pub user_id: Option<String>,
    /// The mail that the user it makes must have.
    pub email: Option<String>,
    pub roles: Vec<String>,
    digests: (String, String),
}

impl SetupToken {
    /// Uses the token up.
    pub(crate) fn used(&self, now: Millis) -> Guard {
        setup_token::used((&self.digests.0, &self.digests.1), now)
    }

    /// The record of its use.
    pub(crate) fn draft(&self, context: &RequestContext, user_id: &str) -> Draft {
        Draft::new(EntryKind::OauthSetupUsed, context, "ok")
            .with_subject("user", user_id)
            .with("purpose", self.purpose.as_str())
    }
}

/// Looks a token up without using it.
///
/// # Errors
/// One that is unknown, has expired, or was used; only the holder of a genuine one is told which.
pub async fn look_up(state: &OAuthState, token: &Secret<String>) -> OauthResult<SetupToken> {
    let unknown = || OauthError::invalid_grant("token is not known");
    if !opaque::has_form(SETUP_TOKEN_PREFIX, token.expose()) {
        return Err(unknown());
    }
    let digests = state.at_rest.candidates(Label::SetupToken, token.expose());
    let row = setup_token::find(&state.db, (&digests.0, &digests.1)).await?.ok_or_else(unknown)?;
    if row.used_at.is_some() {
        return Err(OauthError::invalid_grant("token was used"));
    } else if row.expires_at <= state.now() {
        return Err(OauthError::new(ErrorCode::ExpiredToken, "token has expired"));
    }
    let purpose = Purpose::parse(&row.purpose)
        .ok_or_else(|| OauthError::Impossible("a set-up token without a purpose".into()))?;
    Ok(SetupToken {
        purpose,
        user_id: row.user_id,
        email: row.email,
        roles: row.roles.split_ascii_whitespace().map(str::to_owned).collect(),
        digests,
    })
}

/// An address at which a token is used once.
pub struct SetupLink {
    pub url: Secret<String>,
    /// Seconds that it counts.
    pub expires_in: i64,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewSetup<'a> {
    pub purpose: Purpose,
    pub user: Option<&'a User>,
    pub email: Option<String>,
    pub roles: Vec<String>,
    /// Seconds.
    pub life: i64,
}

/// Makes a token; without a context the system itself does.
///
/// # Errors
/// What could not be recorded or written.
pub async fn issue(
    state: &OAuthState,
    by: Option<&RequestContext>,
    new: NewSetup<'_>,
) -> OauthResult<Secret<String>> {
    let token = opaque::generate(SETUP_TOKEN_PREFIX)?;
    let digest = state.at_rest.digest(Label::SetupToken, token.expose());
    let now = state.now();
    let draft = match by {
        Some(context) => Draft::new(EntryKind::OauthSetupIssued, context, "ok"),
        None => Draft::system(EntryKind::OauthSetupIssued, "ok"),
    };
    let user_id = new.user.map(|user| user.id.to_string());
    let draft = draft
        .with("purpose", new.purpose.as_str())
        .with("user_id", user_id.clone())
        .with("roles", new.roles.join(" "))
        .with("lifetime_s", new.life);
    state.record(draft).await?;
    let row = SetupRow {
        purpose: new.purpose.as_str().to_owned(),
        user_id,
        email: new.email,
        roles: new.roles.join(" "),
        issued_by: by.map_or("system", |context| context.principal.user_id.as_str()).to_owned(),
        pepper_id: digest.pepper_id.to_string(),
        created_at: now,
        expires_at: now + new.life * 1000,
        used_at: None,
    };
    setup_token::insert(&state.db, &digest.hex, &row).await?;
    Ok(token)
}

/// The address that a token is used at.
pub fn link(state: &OAuthState, token: &Secret<String>) -> Secret<String> {
    Secret::new(format!("{}{LINK_PAGE}#token={}", state.settings().external_url, token.expose()))
}

/// The address at which the first administrator is made, while there is none who can sign in. The one before it ends.
///
/// # Errors
/// As [`issue`].
pub async fn first_administrator(state: &OAuthState) -> OauthResult<Option<Secret<String>>> {
    if setup_token::has_administrator(&state.db).await? {
        return Ok(None);
    }
    let mut roles = state.settings().identity.default_roles.clone();
    roles.push("admin".to_owned());
    let new = NewSetup {
        purpose: Purpose::Bootstrap,
        user: None,
        email: None,
        roles: crate::users::normal_roles(roles),
        life: SETUP_TTL_SECONDS,
    };
    let token = issue(state, None, new).await?;
    Ok(Some(link(state, &token)))
}

/// The address at which a person adds a passkey, or comes back in.
///
/// # Errors
/// Whoever cannot sign in, a purpose that is not about a user, or what could not be written.
pub async fn for_user(
    state: &OAuthState,
    by: &RequestContext,
    user: &User,
    purpose: Purpose,
) -> OauthResult<SetupLink> {
    if user.kind != UserKind::Person || user.status != UserStatus::Active {
        return Err(OauthError::invalid_request("the user is no active person"));
    }
    let life = match purpose {
        Purpose::CredentialLink => SETUP_TTL_SECONDS,
        Purpose::Recovery => 3600,
        Purpose::Bootstrap | Purpose::Invite => {
            return Err(OauthError::invalid_request("purpose is credential_link or recovery for a user"));
        }
    };
    let new = NewSetup { purpose, user: Some(user), email: None, roles: Vec::new(), life };
    let token = issue(state, Some(by), new).await?;
    Ok(SetupLink { url: link(state, &token), expires_in: life })
}

/// The address at which somebody makes themselves a user with these roles.
///
/// # Errors
/// Roles or a mail out of form, or what could not be written.
pub async fn invitation(
    state: &OAuthState,
    by: &RequestContext,
    email: Option<String>,
    roles: Vec<String>,
) -> OauthResult<SetupLink> {
    crate::users::check(None, email.as_deref(), None, Some(&roles))
        .map_err(|_| OauthError::invalid_request("email or roles are not in form"))?;
    let roles = if roles.is_empty() { state.settings().identity.default_roles.clone() } else { roles };
    let life = SETUP_TTL_SECONDS;
    let new = NewSetup {
        purpose: Purpose::Invite,
        user: None,
        email,
        roles: crate::users::normal_roles(roles),
        life,
    };
    let token = issue(state, Some(by), new).await?;
    Ok(SetupLink { url: link(state, &token), expires_in: life })
}
