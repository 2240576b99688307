//! Ceremonies: what is begun is a row that one call of the same browser takes (ID-83).

use crate::at_rest::Label;
use crate::constants::CHALLENGE_TTL_SECONDS;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::repository::webauthn::{self, NewChallenge};
use crate::services::session::record_refusal;
use crate::state::OAuthState;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use systemprompt_models::{Principal, RequestContext, Secret};
use systemprompt_security::opaque;

/// Ids that are tried: one that falls into a full part says little of the others.
const TRIES: usize = 2;

/// The browser of a ceremony.
#[derive(Clone, Copy)]
pub struct Browser<'a> {
    pub context: &'a RequestContext,
    /// Whose session its cookie is of.
    pub visitor: Option<&'a Principal>,
    /// Value of the flow cookie.
    pub flow: &'a Secret<String>,
}

/// What a browser needs to go on.
#[derive(Clone, Debug, Serialize)]
pub struct Started {
    pub challenge_id: String,
    /// For `navigator.credentials`.
    pub options: Value,
}

/// Kinds of ceremonies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Register,
    Auth,
    Link,
    /// A passkey was shown that does not verify its user; the password is to follow.
    Password,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Auth => "auth",
            Self::Link => "link",
            Self::Password => "password",
        }
    }

    /// Where a ceremony of this kind ends, as records name it.
    fn endpoint(self) -> &'static str {
        match self {
            Self::Register => "webauthn/register",
            Self::Auth => "webauthn/auth",
            Self::Link => "webauthn/link",
            Self::Password => "login",
        }
    }
}

/// Stores a ceremony that has begun and returns its id.
pub(crate) async fn begin(
    state: &OAuthState,
    browser: Browser<'_>,
    kind: Kind,
    user_id: Option<&str>,
    about: &impl Serialize,
) -> OauthResult<String> {
    let text = serde_json::to_string(about)
        .map_err(|_| OauthError::Impossible("a ceremony that cannot be written".into()))?;
    let now = state.now();
    let flow = state.at_rest.digest(Label::Flow, browser.flow.expose()).hex;
    for _ in 0..TRIES {
        let mut random = [0; 16];
        opaque::fill(&mut random)?;
        let id = hex::encode(random);
        let new = NewChallenge {
            id: &id,
            kind: kind.as_str(),
            state: &text,
            user_id,
            flow_digest: &flow,
            now,
            expires_at: now + CHALLENGE_TTL_SECONDS * 1000,
        };
        if webauthn::insert_challenge(&state.db, &new).await? {
            return Ok(id);
        }
    }
    Err(OauthError::Throttled { retry_after: 60 })
}

/// What is kept of a ceremony, which stays open, and of whom it is.
pub(crate) async fn look<T: DeserializeOwned>(
    state: &OAuthState,
    browser: Browser<'_>,
    kind: Kind,
    id: &str,
) -> OauthResult<(T, Option<String>)> {
    let flows = state.at_rest.candidates(Label::Flow, browser.flow.expose());
    let flows = (flows.0.as_str(), flows.1.as_str());
    read(webauthn::challenge(&state.db, id, kind.as_str(), flows, state.now()).await?)
}

/// Takes a ceremony; nobody can take it again. A second end of it, and one in another browser, are on record: an answer that
/// somebody caught would come so.
pub(crate) async fn take<T: DeserializeOwned>(
    state: &OAuthState,
    browser: Browser<'_>,
    kind: Kind,
    id: &str,
) -> OauthResult<(T, Option<String>)> {
    let (present, previous) = state.at_rest.candidates(Label::Flow, browser.flow.expose());
    let taken =
        webauthn::take_challenge(&state.db, id, kind.as_str(), (&present, &previous), state.now()).await?;
    if taken.is_none() {
        let at = (kind.endpoint(), ErrorCode::InvalidRequest);
        record_refusal(state, browser.context, at, "ceremony_not_open").await?;
    }
    read(taken)
}

fn read<T: DeserializeOwned>(taken: Option<(String, Option<String>)>) -> OauthResult<(T, Option<String>)> {
    let wrong = || OauthError::invalid_request("challenge_id is not one of this browser that is open");
    let (text, user_id) = taken.ok_or_else(wrong)?;
    let about = serde_json::from_str(&text)
        .map_err(|_| OauthError::Impossible("a ceremony that cannot be read".into()))?;
    Ok((about, user_id))
}
