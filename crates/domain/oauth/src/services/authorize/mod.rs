//! The authorization endpoint (RFC 6749 section 4.1, OpenID Connect Core section 3.1.2; ID-33 to ID-43): what was asked is checked
//! once and kept in a row; the browser then only carries the row's name.

pub mod answer;
pub mod grant;
pub mod request;
pub mod standing;

use crate::at_rest::Label;
use crate::constants::{AUTHORIZE_REQUEST_PREFIX, AUTHORIZE_REQUEST_TTL_SECONDS, PAR_URN};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::repository::oauth::authorize::Stored;
use crate::services::http::Parameters;
use crate::services::refusals::Refusal;
use crate::state::OAuthState;
use answer::Answer;
use grant::Authorization;
use request::AuthorizationRequest;
use standing::{Need, SignedIn};
use std::borrow::Cow;
use systemprompt_audit::EntryKind;
use systemprompt_models::{Principal, RequestContext, Secret};
use systemprompt_security::opaque;

/// Where the browser goes next.
pub enum Next {
    /// To the client, with a code or an error.
    Client(Answer),
    /// To the sign-in page, for the stored request of this id.
    SignIn(Secret<String>),
    /// To the consent page.
    Consent(Secret<String>),
}

/// Why nobody is sent anywhere: a client or a redirect URI that does not count, a request of another browser, a failure of ours.
#[derive(Debug)]
pub struct Refused {
    pub error: OauthError,
    pub ui_locales: Option<String>,
}

impl From<OauthError> for Refused {
    fn from(error: OauthError) -> Self {
        Self { error, ui_locales: None }
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        OauthError::from(error).into()
    }
}

/// Who asks: the browser with its flow cookie, and the person that its session is of.
#[derive(Clone, Copy)]
pub struct Browser<'a> {
    pub context: &'a RequestContext,
    pub visitor: Option<&'a Principal>,
    /// Value of the flow cookie.
    pub flow: &'a Secret<String>,
}

/// Takes a new request.
///
/// # Errors
/// What a page must say, because there is no client to tell.
pub async fn begin(
    state: &OAuthState,
    browser: Browser<'_>,
    parameters: &Parameters,
) -> Result<Next, Refused> {
    // What the client is told of is counted where that happens.
    taken(state, browser, parameters).await.inspect_err(|refused| {
        state.meter.refused("authorize", refused.error.code().as_str());
    })
}

async fn taken(state: &OAuthState, browser: Browser<'_>, parameters: &Parameters) -> Result<Next, Refused> {
    let client_id = parameters.get("client_id").unwrap_or_default();
    let client = state.client_named(browser.context, client_id).await?.filter(OAuthClient::is_active);
    let client = client.ok_or_else(OauthError::invalid_client)?;
    let pushed = pushed(state, parameters, &client).await?;
    let parameters = pushed.as_ref().map_or(Cow::Borrowed(parameters), Cow::Borrowed);
    let redirect = request::redirect_uri(&client, &parameters)?;
    let asked = match request::read(state, &client, redirect.clone(), &parameters, pushed.is_some()) {
        Ok(asked) => asked,
        Err(error) => return refuse(state, browser, &redirect.for_error(&client, &parameters), error).await,
    };
    go_on(state, browser, &client, asked, None).await
}

/// Goes on with a stored request, after a sign-in.
///
/// # Errors
/// A request that has expired, was used, or belongs to another browser.
pub async fn resume(state: &OAuthState, browser: Browser<'_>, id: &str) -> Result<Next, Refused> {
    let (asked, client) = stored(state, browser.flow, id).await?;
    go_on(state, browser, &client, asked, Some(id)).await
}

/// The stored request of this id, if this browser has one.
///
/// # Errors
/// When it cannot be read.
pub async fn waiting(
    state: &OAuthState,
    flow: &Secret<String>,
    id: &str,
) -> OauthResult<Option<AuthorizationRequest>> {
    if !opaque::has_form(AUTHORIZE_REQUEST_PREFIX, id) {
        return Ok(None);
    }
    let id = state.at_rest.candidates(Label::Par, id);
    let flow = state.at_rest.candidates(Label::Flow, flow.expose());
    let row = state.oauth.stored_request((&id.0, &id.1), (&flow.0, &flow.1), state.now()).await?;
    let Some(row) = row else { return Ok(None) };
    serde_json::from_str(&row.parameters)
        .map(Some)
        .map_err(|_| OauthError::Impossible("a stored authorization request that cannot be read".into()))
}

/// The stored request of this id with its client.
///
/// # Errors
/// As [`resume`].
pub async fn stored(
    state: &OAuthState,
    flow: &Secret<String>,
    id: &str,
) -> OauthResult<(AuthorizationRequest, OAuthClient)> {
    let expired = || OauthError::invalid_grant("request is not one of this browser, or has expired");
    let asked = waiting(state, flow, id).await?.ok_or_else(expired)?;
    let client = state.client(&asked.client_id).await?.filter(OAuthClient::is_active);
    Ok((asked, client.ok_or_else(OauthError::invalid_client)?))
}

async fn go_on(
    state: &OAuthState,
    browser: Browser<'_>,
    client: &OAuthClient,
    asked: AuthorizationRequest,
    id: Option<&str>,
) -> Result<Next, Refused> {
    let signed_in = SignedIn::find(state, browser.visitor).await?;
    let need = match standing::need(state, client, &asked, signed_in.as_ref()).await {
        Ok(need) => need,
        Err(error) if error.is_ours() => return Err(error.into()),
        Err(error) => return refuse(state, browser, &asked, error).await,
    };
    if asked.is_silent()
        && let Some(code) = need.refusal()
    {
        return refuse(
            state,
            browser,
            &asked,
            OauthError::new(code, "prompt is none, and the person must do something"),
        )
        .await;
    }
    let (kept, signed_in) = match (need, signed_in) {
        (Need::Nothing { remembered, scopes }, Some(signed_in)) => {
            let authorization =
                Authorization { client, asked: &asked, signed_in: &signed_in, scopes, remembered, id };
            return Ok(Next::Client(authorization.grant(state, browser.context).await?));
        }
        (need, signed_in) => (need, signed_in),
    };
    drop(signed_in);
    let id = match id {
        Some(id) => Secret::from(id),
        None => store(state, browser.flow, &asked).await?,
    };
    Ok(if matches!(kept, Need::SignIn) { Next::SignIn(id) } else { Next::Consent(id) })
}

/// The parameters of a pushed request that `request_uri` names.
async fn pushed(
    state: &OAuthState,
    parameters: &Parameters,
    client: &OAuthClient,
) -> OauthResult<Option<Parameters>> {
    let Some(id) = parameters.get("request_uri").and_then(|uri| uri.strip_prefix(PAR_URN)) else {
        return Ok(None);
    };
    let id = state.at_rest.candidates(Label::Par, id);
    let taken = state.oauth.take_pushed((&id.0, &id.1), client.client_id.as_str(), state.now()).await?;
    let text = taken.ok_or_else(|| {
        OauthError::invalid_grant("request_uri was used, has expired, or is another client's")
    })?;
    Parameters::parse(text.as_bytes()).map(Some)
}

/// Keeps a request; the browser gets its name.
async fn store(
    state: &OAuthState,
    flow: &Secret<String>,
    asked: &AuthorizationRequest,
) -> OauthResult<Secret<String>> {
    let id = opaque::generate(AUTHORIZE_REQUEST_PREFIX)?;
    let digest = state.at_rest.digest(Label::Par, id.expose());
    let flow = state.at_rest.digest(Label::Flow, flow.expose());
    let text = serde_json::to_string(asked)
        .map_err(|_| OauthError::Impossible("an authorization request that cannot be written".into()))?;
    let now = state.now();
    let times = (now, now + AUTHORIZE_REQUEST_TTL_SECONDS * 1000);
    let stored = state
        .oauth
        .store_request(&digest.hex, &asked.client_id, &text, (&flow.hex, &digest.pepper_id), times)
        .await?;
    match stored {
        Stored::Done => Ok(id),
        Stored::FlowFull => {
            Err(OauthError::invalid_request("this browser has begun too many sign-ins; finish or wait"))
        }
        Stored::Full => Err(OauthError::new(ErrorCode::TemporarilyUnavailable, "too many sign-ins are open")),
    }
}

/// Tells the client of an error, on record.
pub(crate) async fn refuse(
    state: &OAuthState,
    browser: Browser<'_>,
    asked: &AuthorizationRequest,
    error: OauthError,
) -> Result<Next, Refused> {
    if error.is_ours() {
        tracing::error!(%error, client_id = %asked.client_id, "an authorization request cannot be served");
    }
    let word = error.code().as_str();
    state.meter.refused("authorize", word);
    let refusal = Refusal {
        kind: EntryKind::OauthAuthorizeRefused,
        endpoint: "authorize",
        error: word,
        reason: Some(word),
        client_id: Some(asked.client_id.as_str()),
    };
    if let Some(draft) = state.refusals.entry(browser.context, &refusal, state.now()) {
        let draft = draft.with("redirect_host", answer::host_of(&asked.redirect_uri));
        state.record(draft).await.map_err(OauthError::from)?;
    }
    Ok(Next::Client(Answer::error(&state.settings().issuer, asked, &error)))
}

#[cfg(test)]
mod tests;
