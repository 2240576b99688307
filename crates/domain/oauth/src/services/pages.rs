//! The pages of signing in, registering, adding a passkey and coming back in (ID-106).

use super::authorize::standing::SignedIn;
use super::consent::ScopeLine;
use super::notices::{self, NoticeLine};
use super::templating::{Frame, initial};
use crate::at_rest::Label;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::repository::recovery_codes;
use crate::state::OAuthState;
use crate::users::User;
use askama::Template;
use subtle::ConstantTimeEq as _;
use systemprompt_models::{Principal, Secret};

/// Signing in.
#[derive(Template)]
#[template(path = "login.html")]
pub struct LoginPage {
    pub frame: Frame,
    /// The authorization request to go on with.
    pub request: String,
    pub registration: bool,
    pub password: bool,
    /// What was typed before, so that a wrong password does not take it away.
    pub username: String,
    pub csrf: String,
    pub fault: Option<&'static str>,
}

/// The password after a passkey that did not verify its user.
#[derive(Template)]
#[template(path = "second.html")]
pub struct SecondPage {
    pub frame: Frame,
    pub step: String,
    pub csrf: String,
    pub fault: Option<&'static str>,
}

/// The other half of the sign-in of somebody whose passkey does not verify them.
#[derive(Template)]
#[template(path = "password.html")]
pub struct PasswordPage {
    pub frame: Frame,
    pub person: Person,
    /// The authorization request to go on with.
    pub request: String,
    /// Least number of characters.
    pub least: u32,
    pub csrf: String,
    pub fault: Option<&'static str>,
}

/// Who is signed in, as pages show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub initial: String,
    pub mail: Option<String>,
}

impl From<&User> for Person {
    fn from(user: &User) -> Self {
        let name = user.display_name.clone().unwrap_or_else(|| user.username.clone());
        Self { initial: initial(&name), name, mail: user.email.clone() }
    }
}

/// What follows a sign-in that nothing waited for, and what somebody sees who is signed in already.
#[derive(Template)]
#[template(path = "done.html")]
pub struct DonePage {
    pub frame: Frame,
    pub person: Person,
    pub notices: Vec<NoticeLine>,
    /// Recovery codes that were not used.
    pub codes_left: i64,
    /// Of the form that makes new ones.
    pub csrf: String,
    pub notices_csrf: String,
    /// Where signing out is.
    pub logout: String,
}

impl DonePage {
    /// # Errors
    /// When the rows cannot be read.
    pub async fn of(
        state: &OAuthState,
        visitor: &Principal,
        signed_in: &SignedIn,
        frame: Frame,
    ) -> OauthResult<Self> {
        Ok(Self {
            person: Person::from(&signed_in.user),
            notices: notices::lines(state, visitor, frame.t).await?,
            codes_left: recovery_codes::left(&state.db, visitor.user_id.as_str()).await?,
            csrf: csrf_of_session(state, RECOVERY_CODES, visitor),
            notices_csrf: csrf_of_session(state, NOTICES, visitor),
            logout: state.settings().endpoint("/logout"),
            frame,
        })
    }
}

/// Recovery codes, this once.
#[derive(Template)]
#[template(path = "recovery_codes.html")]
pub struct RecoveryCodesPage {
    pub frame: Frame,
    pub codes: Vec<String>,
}

/// The page at the root.
#[derive(Template)]
#[template(path = "home.html")]
pub struct HomePage {
    pub frame: Frame,
    pub person: Option<Person>,
}

/// Becoming a user.
#[derive(Template)]
#[template(path = "register.html")]
pub struct RegisterPage {
    pub frame: Frame,
    pub request: String,
}

/// Where a set-up link leads: it registers, or adds a passkey, as its token says.
#[derive(Template)]
#[template(path = "link.html")]
pub struct LinkPage {
    pub frame: Frame,
}

/// Coming back in with a recovery code.
#[derive(Template)]
#[template(path = "recovery.html")]
pub struct RecoveryPage {
    pub frame: Frame,
    pub csrf: String,
    pub fault: Option<&'static str>,
}

/// Entering the code that a device shows.
#[derive(Template)]
#[template(path = "device.html")]
pub struct DevicePage {
    pub frame: Frame,
    pub fault: Option<&'static str>,
}

/// Deciding what a device gets.
#[derive(Template)]
#[template(path = "device_confirm.html")]
pub struct DeviceConfirmPage {
    pub frame: Frame,
    pub csrf: String,
    /// `XXXX-XXXX`, to be compared with what the device shows.
    pub user_code: String,
    pub client_name: String,
    pub initial: String,
    pub unverified: bool,
    pub person_name: String,
    pub person_initial: String,
    pub scopes: Vec<ScopeLine>,
    pub resources: Vec<String>,
    /// Where the device asked from, and when.
    pub place: Option<String>,
    pub asked_at: String,
}

/// The form that makes recovery codes.
pub const RECOVERY_CODES: &str = "recovery-codes";
/// The form that sets a first password.
pub const FIRST_PASSWORD: &str = "first-password";
/// The form that puts notices away.
pub const NOTICES: &str = "notices";

/// What binds a form of `purpose` to the session that it was made for.
pub fn csrf_of_session(state: &OAuthState, purpose: &str, visitor: &Principal) -> String {
    csrf(state, purpose, &Secret::from(visitor.session_id.as_str()))
}

/// Refuses a form that was not made for this session.
///
/// # Errors
/// `access_denied`.
pub fn check_csrf_of_session(
    state: &OAuthState,
    purpose: &str,
    visitor: &Principal,
    shown: Option<&str>,
) -> OauthResult<()> {
    check_csrf(state, purpose, &Secret::from(visitor.session_id.as_str()), shown)
}

/// What binds a form of `purpose` to the flow cookie of the browser it was made for.
pub fn csrf(state: &OAuthState, purpose: &str, flow: &Secret<String>) -> String {
    state.at_rest.digest(Label::Csrf, &format!("{purpose} {}", flow.expose())).hex
}

/// Refuses a form that was not made for this browser.
///
/// # Errors
/// `access_denied`.
pub fn check_csrf(
    state: &OAuthState,
    purpose: &str,
    flow: &Secret<String>,
    shown: Option<&str>,
) -> OauthResult<()> {
    let (present, previous) = state.at_rest.candidates(Label::Csrf, &format!("{purpose} {}", flow.expose()));
    let shown = shown.unwrap_or_default().as_bytes();
    let is_ours = present.as_bytes().ct_eq(shown) | previous.as_bytes().ct_eq(shown);
    if bool::from(is_ours) {
        Ok(())
    } else {
        Err(OauthError::new(ErrorCode::AccessDenied, "csrf is not of this page"))
    }
}
