//! The ceremonies.

pub mod authentication;
pub mod credentials;
pub mod link;
pub mod registration;

use super::config::{ALGORITHMS, WebAuthnConfig};
use super::jwt::JwtTokenValidator;
use super::token::{Browser, Kind, begin};
use crate::constants::AUTHORIZE_REQUEST_PREFIX;
use crate::error::{OauthError, OauthResult};
use crate::models::analytics::Method;
use crate::services::device_page;
use crate::state::OAuthState;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use systemprompt_config::profile::identity::Wanted;
use systemprompt_models::{RequestContext, Secret};
use systemprompt_security::opaque;
use webauthn_rs_core::proto::{
    AttestationConveyancePreference, CredProtect, Credential, CredentialProtectionPolicy,
    RegisterPublicKeyCredential, RegistrationState, RequestRegistrationExtensions, UserVerificationPolicy,
};

/// In place of a request: the page of devices waits.
const DEVICE: &str = "device";
/// Bytes of a user handle.
const HANDLE_BYTES: usize = 64;

/// Passkey ceremonies of a browser.
#[derive(Clone, Copy)]
pub struct WebAuthnService<'a> {
    pub state: &'a OAuthState,
    pub browser: Browser<'a>,
}

/// A sign-in that has come to its end.
pub struct Done {
    pub user_id: String,
    pub redirect: String,
    /// Value of the session cookie; absent where the session stays the one it was.
    pub token: Option<Secret<String>>,
}

/// The answer of an authenticator with the ceremony that it ends.
#[derive(Clone, Debug, Deserialize)]
pub struct Finish {
    pub challenge_id: String,
    /// `PublicKeyCredential.toJSON()`.
    pub credential: Value,
    /// Name of a new passkey.
    #[serde(default)]
    pub name: Option<String>,
}

/// A new passkey that a ceremony is about.
#[derive(Serialize, Deserialize)]
pub(super) struct NewPasskey {
    pub registration: RegistrationState,
    pub handle: String,
}

/// Whom a new passkey is for.
struct Holder<'a> {
    /// Whether the passkey would be their one way to sign in, which half of a sign-in is not.
    alone: bool,
    handle: &'a str,
    name: &'a str,
    display_name: &'a str,
    known: Vec<Vec<u8>>,
}

impl WebAuthnService<'_> {
    fn context(&self) -> &RequestContext {
        self.browser.context
    }

    fn tokens(&self) -> JwtTokenValidator<'_> {
        JwtTokenValidator(self.state)
    }

    /// Options for a new passkey, with the state that its ceremony keeps.
    fn creation(&self, holder: &Holder<'_>) -> OauthResult<(Value, NewPasskey)> {
        let config = WebAuthnConfig::of(&self.state.settings())?;
        let verification = if holder.alone { UserVerificationPolicy::Required } else { config.verification };
        let handle = URL_SAFE_NO_PAD
            .decode(holder.handle)
            .map_err(|_| OauthError::Impossible("a user handle that is no base64url".into()))?;
        let begun = config
            .core
            .new_challenge_register_builder(&handle, holder.name, holder.display_name)
            .map_err(|_| OauthError::invalid_request("username is not valid"))?
            .attestation(AttestationConveyancePreference::None)
            .credential_algorithms(ALGORITHMS.to_vec())
            .require_resident_key(config.resident_key == Wanted::Required)
            .user_verification_policy(verification)
            .reject_synchronised_authenticators(false)
            .exclude_credentials(Some(holder.known.clone()))
            .extensions(Some(RequestRegistrationExtensions {
                // It would make a passkey useless that cannot verify its user.
                cred_protect: (verification == UserVerificationPolicy::Required).then_some(CredProtect {
                    credential_protection_policy: CredentialProtectionPolicy::UserVerificationRequired,
                    enforce_credential_protection_policy: Some(false),
                }),
                uvm: None,
                cred_props: Some(true),
                min_pin_length: None,
                hmac_create_secret: None,
            }));
        let (options, registration) =
            config.core.generate_challenge_register(begun).map_err(|_| broken("a ceremony"))?;
        let mut options = serde_json::to_value(options).map_err(|_| broken("options"))?;
        // The library knows `required` and `discouraged`; a passkey that is found without a name is what is wished.
        if config.resident_key == Wanted::Preferred
            && let Some(selection) = options.pointer_mut("/publicKey/authenticatorSelection/residentKey")
        {
            *selection = json!("preferred");
        }
        Ok((options, NewPasskey { registration, handle: holder.handle.to_owned() }))
    }

    /// Checks the answer to [`Self::creation`].
    fn created(
        &self,
        new: &NewPasskey,
        credential: Value,
    ) -> OauthResult<(Credential, RegisterPublicKeyCredential)> {
        let wrong = || OauthError::invalid_request("credential does not answer this ceremony");
        let config = WebAuthnConfig::of(&self.state.settings())?;
        let answer: RegisterPublicKeyCredential = serde_json::from_value(credential).map_err(|_| wrong())?;
        let made = config.core.register_credential(&answer, &new.registration, None).map_err(|_| wrong())?;
        Ok((made, answer))
    }

    async fn begin(&self, kind: Kind, user_id: Option<&str>, about: &impl Serialize) -> OauthResult<String> {
        begin(self.state, self.browser, kind, user_id, about).await
    }
}

/// How a person proved themselves who made this passkey just now.
fn method_of(made: &Credential) -> Method {
    let synced = made.backup_eligible;
    if made.user_verified { Method::Passkey { synced } } else { Method::Presence { synced } }
}

/// A handle that says nothing of its user.
fn new_handle() -> OauthResult<String> {
    let mut random = [0; HANDLE_BYTES];
    opaque::fill(&mut random)?;
    Ok(opaque::encode("", &random))
}

/// Where a browser goes whose person has half of a sign-in, until they set the other half.
fn other_half(request: Option<&str>) -> String {
    format!("/login/password?request={}", waiting(request))
}

/// Where a browser goes after a sign-in: on with the stored request, if it names one.
pub fn destination(request: Option<&str>) -> String {
    match waiting(request) {
        "" => "/login?done".to_owned(),
        DEVICE => "/device".to_owned(),
        id if opaque::has_form(AUTHORIZE_REQUEST_PREFIX, id) => {
            format!("{}/webauthn/complete?request={id}", crate::constants::OAUTH_BASE)
        }
        code => format!("/device?user_code={code}"),
    }
}

/// What waits for the sign-in: an authorization request, the page of devices, or a device by its code; empty for anything else.
pub fn waiting(request: Option<&str>) -> &str {
    let is_one = |id: &&str| {
        *id == DEVICE
            || opaque::has_form(AUTHORIZE_REQUEST_PREFIX, id)
            || device_page::normal(id).is_some_and(|code| code == *id)
    };
    request.filter(is_one).unwrap_or_default()
}

fn broken(what: &str) -> OauthError {
    OauthError::Impossible(format!("{what} that the passkey library does not make"))
}

/// The name of a new passkey.
fn name_of(given: Option<&str>) -> OauthResult<String> {
    let name = given.map_or("Passkey", str::trim);
    let fits = (1..=super::registry::MAX_NAME).contains(&name.chars().count())
        && !name.chars().any(|c| c.is_control() || is_override(c));
    if fits {
        Ok(name.to_owned())
    } else {
        Err(OauthError::invalid_request("name has 1 to 64 characters, none of them a control character"))
    }
}

/// Whether a character turns the direction of the text around it.
fn is_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}
