//! A further passkey for a user: by a set-up token, or by a session that is minutes old (ID-89).

use super::super::registry::PasskeyRow;
use super::super::token::{Kind, Started, take};
use super::registration::{added, refused};
use super::{Done, Finish, Holder, NewPasskey, WebAuthnService, destination, method_of, name_of, new_handle};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::analytics::Method;
use crate::repository::notices::{self, NoticeKind};
use crate::repository::users::close_doors;
use crate::repository::webauthn;
use crate::services::password;
use crate::services::session::{SessionCreationService, SignInFacts, SignedIn};
use crate::services::setup::{self, Purpose, SetupToken};
use crate::users::User;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use systemprompt_audit::{Draft, EntryKind, Guard, LedgerError, Unit};
use systemprompt_database::retry_contended;
use systemprompt_models::Secret;
use systemprompt_security::session::UserEnd;

/// What follows a token that was shown.
#[derive(Serialize)]
#[serde(untagged)]
pub enum LinkStarted {
    /// It makes a user, who registers with it.
    Register {
        purpose: &'static str,
        email: Option<String>,
    },
    Passkey(Started),
}

#[derive(Serialize, Deserialize)]
struct Linking {
    passkey: NewPasskey,
    by_token: bool,
}

impl WebAuthnService<'_> {
    /// Begins to add a passkey.
    ///
    /// # Errors
    /// A token that does not count; without one, no session or one whose sign-in is too old.
    pub async fn link_start(&self, token: Option<&Secret<String>>) -> OauthResult<LinkStarted> {
        let (user, recovers) = match token {
            Some(token) => {
                let token = setup::look_up(self.state, token).await?;
                if token.purpose.registers() {
                    let purpose = token.purpose.as_str();
                    return Ok(LinkStarted::Register { purpose, email: token.email });
                }
                (self.tokens().holder(token.user_id.as_deref()).await?, token.purpose == Purpose::Recovery)
            }
            None => (self.tokens().recent(self.browser.visitor).await?, false),
        };
        let rows = webauthn::passkeys_of(&self.state.db, user.id.as_str()).await?;
        // Who comes back cannot remove one first: then one gives way.
        if rows.len() >= webauthn::MAX_PASSKEYS as usize && !recovers {
            return Err(OauthError::new(ErrorCode::Conflict, "there are 20 passkeys; remove one first"));
        }
        // One that is suspect does not stand in the way of its authenticator.
        let known = rows
            .iter()
            .filter(|row| row.status == "active")
            .filter_map(|row| URL_SAFE_NO_PAD.decode(&row.credential_id).ok())
            .collect();
        let handle = self.handle(&user).await?;
        let (options, passkey) = self.creation(&Holder {
            // Who comes back may have forgotten the password.
            alone: recovers || !password::is_set(self.state, &user.id).await?,
            handle: &handle,
            name: &user.username,
            display_name: user.display_name.as_deref().unwrap_or(&user.username),
            known,
        })?;
        let about = Linking { passkey, by_token: token.is_some() };
        let challenge_id = self.begin(Kind::Link, Some(user.id.as_str()), &about).await?;
        Ok(LinkStarted::Passkey(Started { challenge_id, options }))
    }

    /// Adds the passkey; who came by a token is signed in with it.
    ///
    /// # Errors
    /// An answer that does not fit, a token that somebody else used, a passkey too many.
    pub async fn link_finish(&self, answer: Finish, token: Option<&Secret<String>>) -> OauthResult<Done> {
        let (about, user_id): (Linking, _) =
            take(self.state, self.browser, Kind::Link, &answer.challenge_id).await?;
        let token = match (about.by_token, token) {
            (true, Some(token)) => Some(setup::look_up(self.state, token).await?),
            (false, None) => None,
            _ => return Err(OauthError::invalid_request("token is not that of the beginning")),
        };
        let user = match &token {
            Some(token) => self.tokens().holder(token.user_id.as_deref()).await?,
            None => self.tokens().recent(self.browser.visitor).await?,
        };
        if user_id.as_deref() != Some(user.id.as_str()) {
            return Err(OauthError::invalid_request("challenge_id is of another user"));
        }
        let (credential, raw) = self.created(&about.passkey, answer.credential)?;
        let name = name_of(answer.name.as_deref())?;
        let row = PasskeyRow::new(user.id.as_str(), &credential, &raw, &name, self.state.now())?;
        let method = method_of(&credential);
        let now = self.state.now();
        let told = notices::tell(self.context(), &user.id, NoticeKind::PasskeyAdded, Some(&name), now);
        let guards = vec![webauthn::lock_user(user.id.as_str()), webauthn::add(&row), told];
        let mut unit = Unit::new();
        unit.record(added(self.context(), &row));
        let signed_in = match &token {
            None => {
                require(&mut unit, guards);
                self.state.ledger.append(unit).await.map_err(|error| refused(error.into()))?;
                None
            }
            Some(token) => {
                Some(self.come_in((unit, guards), &user, token, (method, &row.credential_id)).await?)
            }
        };
        let token = signed_in.map(|signed_in| signed_in.token);
        Ok(Done { user_id: user.id.to_string(), redirect: destination(None), token })
    }

    /// Adds the passkey of somebody who came by a token, and signs them in with it.
    async fn come_in(
        &self,
        (mut unit, mut guards): (Unit, Vec<Guard>),
        user: &User,
        token: &SetupToken,
        (method, credential): (Method, &str),
    ) -> OauthResult<SignedIn> {
        let used = token.draft(self.context(), user.id.as_str());
        guards.push(token.used(self.state.now()));
        if token.purpose == Purpose::Recovery {
            unit.record(used.with("sessions", self.state.sessions.count_of(&user.id, None).await?));
            self.make_room(user, &mut unit, &mut guards).await?;
            self.state.ledger.append(unit).await?;
            retry_contended(|| self.recover(user, &guards)).await?;
            unit = Unit::new();
        } else {
            unit.record(used);
            require(&mut unit, guards);
        }
        let facts = SignInFacts {
            user,
            method,
            credential: Some(credential),
            context: self.context(),
            is_new: false,
            before: self.browser.visitor,
        };
        SessionCreationService(self.state).sign_in(facts, unit).await.map_err(refused)
    }

    /// Lets a passkey go where there are as many as there may be: one that is suspect, or else the one whose use is longest ago.
    async fn make_room(&self, user: &User, unit: &mut Unit, guards: &mut Vec<Guard>) -> OauthResult<()> {
        let rows = webauthn::passkeys_of(&self.state.db, user.id.as_str()).await?;
        if rows.len() < webauthn::MAX_PASSKEYS as usize {
            return Ok(());
        }
        let worth = |row: &&PasskeyRow| (row.status == "active", row.last_used_at.unwrap_or(row.created_at));
        let Some(old) = rows.iter().min_by_key(worth) else { return Ok(()) };
        unit.record(
            Draft::new(EntryKind::OauthWebauthnRemoved, self.context(), "ok")
                .with_reason("made_room")
                .with_subject("user", user.id.as_str())
                .with("credential", old.credential_id.chars().take(12).collect::<String>()),
        );
        // Behind the lock of the user, in front of the one that is added.
        guards.insert(1, webauthn::make_room(user.id.as_str(), &old.credential_id));
        let kind = NoticeKind::PasskeyRemoved;
        guards.push(notices::tell(self.context(), &user.id, kind, Some(&old.name), self.state.now()));
        Ok(())
    }

    /// Adds the passkey and puts whoever had the account before out, all of it or nothing: the owner is let in behind it.
    async fn recover(&self, user: &User, guards: &[Guard]) -> OauthResult<()> {
        let mut tx = self.state.db.write_tx().await?;
        for guard in guards {
            if !guard.holds_in(&mut tx).await? {
                return Err(refused(LedgerError::Guard(guard.name).into()));
            }
        }
        close_doors(&mut tx, user.id.as_str(), self.state.now()).await?;
        self.state.users.end_with(tx, &user.id, Some(UserEnd::All), "recovered").await?;
        Ok(())
    }

    async fn handle(&self, user: &User) -> OauthResult<String> {
        let given = self.state.users.repository.give_handle(user.id.as_str(), &new_handle()?).await?;
        given.ok_or_else(|| OauthError::Impossible("a user without a handle".into()))
    }
}

fn require(unit: &mut Unit, guards: Vec<Guard>) {
    for guard in guards {
        unit.require(guard);
    }
}
