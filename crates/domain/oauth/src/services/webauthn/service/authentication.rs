//! Signing in with a passkey (ID-86, ID-87).

use super::super::config::WebAuthnConfig;
use super::super::registry::{PasskeyRow, text};
use super::super::token::{Kind, Started, take};
use super::{Done, Finish, WebAuthnService, broken, destination, waiting};
use crate::at_rest::Label;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::analytics::Method;
use crate::repository::notices::{self, NoticeKind};
use crate::repository::webauthn;
use crate::services::attempts::{self, Subject};
use crate::services::session::{SessionCreationService, SignInFacts, record_failure};
use crate::users::{User, UserKind, UserStatus};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_config::profile::identity::CounterPolicy;
use webauthn_rs_core::proto::{AuthenticationResult, AuthenticationState, PublicKeyCredential};

/// Most passkeys that the answer to a mail names; of somebody with more the ones that were used last.
const MAX_NAMED: u8 = 8;
/// Lengths of the ids that authenticators make, in bytes.
const ID_LENGTHS: [usize; 5] = [16, 20, 32, 48, 64];

/// Who wants to sign in.
#[derive(Debug, Default, Deserialize)]
pub struct StartAuthentication {
    #[serde(default)]
    pub email: Option<String>,
    /// The authorization request to go on with.
    #[serde(default)]
    pub request: Option<String>,
    /// `conditional` where the browser offers passkeys in a field.
    #[serde(default)]
    pub mediation: Option<String>,
}

/// What the ceremony keeps.
#[derive(Serialize, Deserialize)]
struct Authenticating {
    authentication: AuthenticationState,
    /// Whether a mail was named: then only its user may answer, if there is one.
    named: bool,
    request: Option<String>,
}

/// A sign-in that waits for the password.
#[derive(Serialize, Deserialize)]
pub(crate) struct HalfSignIn {
    pub credential: String,
    /// Whether the passkey can leave its device.
    pub synced: bool,
    /// The authorization request to go on with.
    pub request: Option<String>,
}

impl WebAuthnService<'_> {
    /// Begins a sign-in. A mail that nobody has gets the same answer as one that somebody has.
    ///
    /// # Errors
    /// What could not be read or written.
    pub async fn auth_start(&self, asked: StartAuthentication) -> OauthResult<Started> {
        let config = WebAuthnConfig::of(&self.state.settings())?;
        let email = asked.email.as_deref().map(str::trim).filter(|mail| !mail.is_empty());
        if email.is_some_and(|mail| mail.len() > 254) {
            return Err(OauthError::invalid_request("email has at most 254 characters"));
        }
        let builder = config.core.new_challenge_authenticate_builder(Vec::new(), Some(config.verification));
        let builder = builder.map_err(|_| broken("a ceremony"))?.allow_backup_eligible_upgrade(false);
        let (options, authentication) =
            config.core.generate_challenge_authenticate(builder).map_err(|_| broken("a ceremony"))?;
        let mut options = serde_json::to_value(options).map_err(|_| broken("options"))?;
        let mut user_id = None;
        if let Some(email) = email {
            let (found, ids) = self.allowed(email).await?;
            user_id = found;
            let allowed: Vec<Value> =
                ids.into_iter().map(|id| json!({"type": "public-key", "id": id})).collect();
            if let Some(list) = options.pointer_mut("/publicKey/allowCredentials") {
                *list = Value::Array(allowed);
            }
        } else if asked.mediation.as_deref() == Some("conditional")
            && let Some(members) = options.as_object_mut()
        {
            members.insert("mediation".to_owned(), json!("conditional"));
        }
        // What leads nowhere is not kept: strangers write these rows.
        let request = asked.request.as_deref().map(|request| waiting(Some(request)).to_owned());
        let about = Authenticating { authentication, named: email.is_some(), request };
        let challenge_id = self.begin(Kind::Auth, user_id.as_deref(), &about).await?;
        Ok(Started { challenge_id, options })
    }

    /// The user of a mail with the ids of their passkeys, or made-up ids.
    async fn allowed(&self, email: &str) -> OauthResult<(Option<String>, Vec<String>)> {
        let most = i64::from(MAX_NAMED);
        let named = webauthn::named_by(&self.state.db, &email.to_lowercase(), most).await?;
        // Made up for everybody, so that both take the same time.
        let unknown = self.unknown(email);
        Ok(match named {
            Some((user, ids)) if !ids.is_empty() => (Some(user), ids),
            Some((user, _)) => (Some(user), unknown),
            None => (None, unknown),
        })
    }

    /// Ids that a mail without passkeys always gets: as many and as long as people's own are.
    fn unknown(&self, email: &str) -> Vec<String> {
        let mail = email.to_lowercase();
        let tag = |part: &str, n: usize| {
            let value = format!("{part}{n} {mail}");
            self.state.at_rest.tag(Label::UnknownCredential, "", value.as_bytes())
        };
        let drawn = |part: &str, n: usize| usize::from(tag(part, n).first().copied().unwrap_or_default());
        (1..=how_many(drawn("", 0)))
            .map(|n| {
                let length = ID_LENGTHS.get(drawn("length", n) % ID_LENGTHS.len()).copied().unwrap_or(32);
                let mut id = [tag("", n), tag("rest", n)].concat();
                id.truncate(length);
                URL_SAFE_NO_PAD.encode(id)
            })
            .collect()
    }

    /// Signs in, or refuses with one text for every reason.
    ///
    /// # Errors
    /// `invalid_credential`; a ceremony that is not open; too many failures; what could not be written.
    pub async fn auth_finish(&self, answer: Finish) -> OauthResult<Done> {
        let from = [Subject::Prefix(self.context())];
        attempts::admit(self.state, &from).await?;
        let (about, named): (Authenticating, Option<String>) =
            take(self.state, self.browser, Kind::Auth, &answer.challenge_id).await?;
        match self.authenticate(&about, named.as_deref(), answer.credential).await {
            Ok(done) => Ok(done),
            Err(Failed::Refused(reason)) => {
                attempts::failed(self.state, &from).await?;
                record_failure(self.state, self.context(), "webauthn/auth", reason).await?;
                Err(OauthError::new(ErrorCode::InvalidCredential, "the credential was not accepted"))
            }
            Err(Failed::Other(error)) => Err(error),
        }
    }

    async fn authenticate(
        &self,
        about: &Authenticating,
        named: Option<&str>,
        credential: Value,
    ) -> Result<Done, Failed> {
        let answer: PublicKeyCredential =
            serde_json::from_value(credential).map_err(|_| Failed::Refused("malformed"))?;
        let id = URL_SAFE_NO_PAD.encode(&answer.raw_id);
        let row = webauthn::passkey(&self.state.db, &id).await.map_err(OauthError::from)?;
        let row = row.ok_or(Failed::Refused("unknown_credential"))?;
        if row.status != "active" {
            return Err(Failed::Refused("suspect_credential"));
        }
        self.check_owner(about, named, &row, answer.get_user_unique_id()).await?;
        let stored = row.credential()?;
        let config = WebAuthnConfig::of(&self.state.settings())?;
        let result = config
            .core
            .authenticate_single_credential(&answer, &about.authentication, &stored)
            .map_err(|_| Failed::Refused("not_verified"))?;
        let user = self.state.users.find(&row.user_id).await.map_err(OauthError::from)?;
        let user = user.filter(may_sign_in).ok_or(Failed::Refused("not_active"))?;
        self.admit(about, &row, &user, &result).await
    }

    /// Whether the passkey is of the user who was named, or who the authenticator says.
    async fn check_owner(
        &self,
        about: &Authenticating,
        named: Option<&str>,
        row: &PasskeyRow,
        handle: Option<&[u8]>,
    ) -> Result<(), Failed> {
        if about.named && named != Some(row.user_id.as_str()) {
            return Err(Failed::Refused("other_user"));
        }
        let known = self.state.users.repository.handle(&row.user_id).await.map_err(OauthError::from)?;
        let known = known.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        match handle {
            // An authenticator may leave it out when it was told which passkeys to use.
            None if about.named => Ok(()),
            Some(handle) if known.as_deref() == Some(handle) => Ok(()),
            _ => Err(Failed::Refused("other_user")),
        }
    }

    async fn admit(
        &self,
        about: &Authenticating,
        row: &PasskeyRow,
        user: &User,
        result: &AuthenticationResult,
    ) -> Result<Done, Failed> {
        let mut stored = row.credential()?;
        let counter = i64::from(result.counter());
        stored.counter = result.counter();
        stored.backup_state = result.backup_state();
        let record = text(&stored)?;
        let (id, now) = (row.credential_id.as_str(), self.state.now());
        let stands_still = counter <= row.counter && (counter, row.counter) != (0, 0);
        let policy = self.state.settings().identity.webauthn.counter_policy;
        let mut unit = Unit::new();
        if policy == CounterPolicy::Deny {
            unit.require(webauthn::used(id, &record, counter, result.backup_state(), now));
        } else {
            // The higher of both stays, so that the next use of the copy shows too.
            let highest = counter.max(row.counter);
            unit.require(webauthn::used_anyway(id, &record, highest, result.backup_state(), now));
            if stands_still {
                unit.record(self.counter_draft(row, counter, "warned"));
            }
        }
        let done = if result.user_verified() {
            self.whole(about, user, (id, stored.backup_eligible), unit).await
        } else {
            self.half(about, user, (id, stored.backup_eligible), unit).await
        };
        match done {
            Ok(done) => Ok(done),
            Err(OauthError::Ledger(LedgerError::Guard("counter"))) => {
                let mut unit = Unit::new();
                unit.record(self.counter_draft(row, counter, "denied"));
                unit.require(webauthn::suspect(id));
                let kind = NoticeKind::PasskeySuspect;
                unit.require(notices::tell(self.context(), &user.id, kind, Some(&row.name), now));
                self.state.ledger.append(unit).await.map_err(OauthError::from)?;
                Err(Failed::Refused("counter"))
            }
            Err(error) => Err(Failed::Other(error)),
        }
    }

    /// Signs in: the authenticator made sure who it was.
    async fn whole(
        &self,
        about: &Authenticating,
        user: &User,
        (credential, synced): (&str, bool),
        unit: Unit,
    ) -> OauthResult<Done> {
        let facts = SignInFacts {
            user,
            method: Method::Passkey { synced },
            credential: Some(credential),
            context: self.context(),
            is_new: false,
            before: self.browser.visitor,
        };
        let signed_in = SessionCreationService(self.state).sign_in(facts, unit).await?;
        Ok(Done {
            user_id: user.id.to_string(),
            redirect: destination(about.request.as_deref()),
            token: Some(signed_in.token),
        })
    }

    /// Somebody has the passkey. That it is its person, their password must say.
    async fn half(
        &self,
        about: &Authenticating,
        user: &User,
        (credential, synced): (&str, bool),
        mut unit: Unit,
    ) -> OauthResult<Done> {
        unit.record(
            Draft::new(EntryKind::OauthSignin, self.context(), "password_needed")
                .with_subject("user", user.id.as_str())
                .with("method", "passkey"),
        );
        self.state.ledger.append(unit).await?;
        let half = HalfSignIn {
            credential: credential.to_owned(),
            synced,
            request: about.request.as_deref().map(|request| waiting(Some(request)).to_owned()),
        };
        let step = self.begin(Kind::Password, Some(user.id.as_str()), &half).await?;
        Ok(Done { user_id: user.id.to_string(), redirect: format!("/login?step={step}"), token: None })
    }

    fn counter_draft(&self, row: &PasskeyRow, counter: i64, outcome: &'static str) -> Draft {
        Draft::new(EntryKind::OauthWebauthnCounter, self.context(), outcome)
            .with_subject("user", row.user_id.as_str())
            .with("credential", row.credential_id.chars().take(12).collect::<String>())
            .with("stored", row.counter)
            .with("shown", counter)
    }
}

/// How many passkeys somebody has, by a number below 256: mostly one, seldom more than three, never more than are named.
fn how_many(drawn: usize) -> usize {
    match drawn {
        0..128 => 1,
        128..192 => 2,
        192..228 => 3,
        more => 4 + more % usize::from(MAX_NAMED - 3),
    }
}

fn may_sign_in(user: &User) -> bool {
    user.kind == UserKind::Person && user.status == UserStatus::Active
}

/// Why nobody was signed in.
enum Failed {
    /// The class of the reason, which is recorded and not told.
    Refused(&'static str),
    Other(OauthError),
}

impl From<OauthError> for Failed {
    fn from(error: OauthError) -> Self {
        Self::Other(error)
    }
}
