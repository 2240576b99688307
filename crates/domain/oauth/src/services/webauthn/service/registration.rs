//! A new user with a first passkey (ID-84).

use super::super::registry::PasskeyRow;
use super::super::token::{Kind, Started, take};
use super::super::user_service::{Newcomer, UserCreationService};
use super::{
    Done, Finish, Holder, NewPasskey, WebAuthnService, destination, method_of, name_of, new_handle,
    other_half, waiting,
};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::analytics::Method;
use crate::repository::webauthn;
use crate::services::session::{SessionCreationService, SignInFacts};
use crate::services::setup::{self, Purpose, SetupToken};
use serde::{Deserialize, Serialize};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_models::Secret;

/// Who wants to be a user.
#[derive(Deserialize)]
pub struct StartRegistration {
    pub username: String,
    pub email: String,
    #[serde(default)]
    pub full_name: Option<String>,
    /// A set-up token that makes a user.
    #[serde(default)]
    pub token: Option<Secret<String>>,
    /// The authorization request to go on with.
    #[serde(default)]
    pub request: Option<String>,
}

/// What the ceremony keeps.
#[derive(Serialize, Deserialize)]
struct Registering {
    passkey: NewPasskey,
    username: String,
    email: String,
    full_name: Option<String>,
    request: Option<String>,
    /// Digests of the token, under which it is found again.
    token: Option<String>,
}

impl WebAuthnService<'_> {
    /// Begins a registration. Whether name and mail are free is told at its end alone.
    ///
    /// # Errors
    /// Fields out of form, or nobody who may register.
    pub async fn register_start(&self, asked: StartRegistration) -> OauthResult<Started> {
        crate::users::check(
            Some(&asked.username),
            Some(&asked.email),
            asked.full_name.as_deref().filter(|name| !name.is_empty()),
            None,
        )
        .map_err(|_| OauthError::invalid_request("username, email or full_name is not in form"))?;
        let alone = match &asked.token {
            // Nobody could let the first administrator in again.
            Some(token) => self.registering_token(token, &asked.email).await?.purpose == Purpose::Bootstrap,
            None if self.state.settings().allow_registration => false,
            None => return Err(closed()),
        };
        let handle = new_handle()?;
        let display_name = asked.full_name.clone().filter(|name| !name.is_empty());
        let (options, passkey) = self.creation(&Holder {
            alone,
            handle: &handle,
            name: &asked.username,
            display_name: display_name.as_deref().unwrap_or(&asked.username),
            known: Vec::new(),
        })?;
        let about = Registering {
            passkey,
            username: asked.username,
            email: asked.email,
            full_name: display_name,
            request: asked.request.as_deref().map(|request| waiting(Some(request)).to_owned()),
            token: asked.token.as_ref().map(|token| self.sealed(token)),
        };
        let challenge_id = self.begin(Kind::Register, None, &about).await?;
        Ok(Started { challenge_id, options })
    }

    /// Makes the user, the passkey and the session, or none of them.
    ///
    /// # Errors
    /// An answer that does not fit, a name or mail that is taken, a token that somebody else used.
    pub async fn register_finish(&self, answer: Finish, token: Option<&Secret<String>>) -> OauthResult<Done> {
        let (about, _): (Registering, _) =
            take(self.state, self.browser, Kind::Register, &answer.challenge_id).await?;
        let token = match (&about.token, token) {
            (None, _) if self.state.settings().allow_registration => None,
            (Some(sealed), Some(token)) if *sealed == self.sealed(token) => {
                Some(self.registering_token(token, &about.email).await?)
            }
            _ => return Err(closed()),
        };
        let (credential, raw) = self.created(&about.passkey, answer.credential)?;
        let users = UserCreationService(self.state);
        let user = users.person(newcomer(&about, token.as_ref()));
        let name = name_of(answer.name.as_deref())?;
        let row = PasskeyRow::new(user.id.as_str(), &credential, &raw, &name, self.state.now())?;
        let mut unit = Unit::new();
        let (created, rows) = users.rows(self.context(), &user, Some(&about.passkey.handle));
        unit.record(created);
        unit.record(added(self.context(), &row));
        if let Some(token) = &token {
            unit.record(token.draft(self.context(), user.id.as_str()));
            unit.require(token.used(self.state.now()));
        }
        for row in rows {
            unit.require(row);
        }
        unit.require(webauthn::add(&row));
        let method = method_of(&credential);
        let facts = SignInFacts {
            user: &user,
            method,
            credential: Some(&row.credential_id),
            context: self.context(),
            is_new: true,
            before: self.browser.visitor,
        };
        let signed_in = SessionCreationService(self.state).sign_in(facts, unit).await.map_err(refused)?;
        let request = about.request.as_deref();
        Ok(Done {
            user_id: user.id.to_string(),
            redirect: match method {
                Method::Presence { .. } => other_half(request),
                _ => destination(request),
            },
            token: Some(signed_in.token),
        })
    }

    /// A set-up token that makes a user with this mail.
    async fn registering_token(&self, token: &Secret<String>, email: &str) -> OauthResult<SetupToken> {
        let found = setup::look_up(self.state, token).await?;
        if !found.purpose.registers() {
            return Err(OauthError::invalid_grant("token is for another purpose"));
        }
        if found.email.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(email)) {
            return Err(OauthError::invalid_request("email is not the invited one"));
        }
        Ok(found)
    }

    fn sealed(&self, token: &Secret<String>) -> String {
        self.state.at_rest.digest(crate::at_rest::Label::SetupToken, token.expose()).hex
    }
}

/// Who comes, as they said at the beginning and as the token says that they brought.
fn newcomer(about: &Registering, token: Option<&SetupToken>) -> Newcomer {
    Newcomer {
        username: about.username.clone(),
        email: Some(about.email.clone()),
        // The link of an invitation came to this address; anybody else only says so.
        email_verified: token.is_some_and(|token| token.purpose == Purpose::Invite && token.email.is_some()),
        display_name: about.full_name.clone(),
        roles: token.map(|token| token.roles.clone()),
    }
}

/// The record of a new passkey.
pub(super) fn added(context: &systemprompt_models::RequestContext, row: &PasskeyRow) -> Draft {
    Draft::new(EntryKind::OauthWebauthnAdded, context, "ok")
        .with_subject("user", row.user_id.as_str())
        .with("credential", row.credential_id.chars().take(12).collect::<String>())
        .with("aaguid", row.aaguid.clone())
        .with("name", row.name.as_str())
}

fn closed() -> OauthError {
    OauthError::new(ErrorCode::AccessDenied, "registration is not open")
}

/// Which guard did not hold.
pub(super) fn refused(error: OauthError) -> OauthError {
    match error {
        OauthError::Ledger(LedgerError::Guard("account")) => {
            OauthError::new(ErrorCode::Conflict, "username or email is taken")
        }
        OauthError::Ledger(LedgerError::Guard("passkey")) => {
            OauthError::new(ErrorCode::Conflict, "the passkey is known, or there are too many")
        }
        OauthError::Ledger(LedgerError::Guard("setup_token")) => OauthError::invalid_grant("token was used"),
        OauthError::Ledger(LedgerError::Guard("user")) => {
            OauthError::new(ErrorCode::AccessDenied, "this account may not sign in")
        }
        other => other,
    }
}
