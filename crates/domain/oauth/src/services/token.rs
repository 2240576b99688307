//! The token endpoint (RFC 6749 section 3.2): which grant it is, who asks, and what becomes of a refusal.

mod code;
pub(crate) mod family;
mod refresh;

use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::oauth::GrantType;
use crate::repository::users::USER_CHANGED;
use crate::services::generation::{ClientTokenOptions, TokenResponse, generate_client_tokens, still_active};
use crate::services::http::Parameters;
use crate::services::refusals::Refusal;
use crate::services::validation::audience;
use crate::services::validation::client_credentials::{AuthenticatedClient, ClientLimit, authenticate};
use crate::services::{device, exchange};
use crate::state::OAuthState;
use systemprompt_audit::{EntryKind, LedgerError};
use systemprompt_models::{Millis, RequestContext};

/// How often a token is made whose person is changed meanwhile.
const MOST_TRIES: usize = 3;

/// What comes to an endpoint where clients prove themselves.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    pub context: &'a RequestContext,
    pub authorization: Option<&'a str>,
    pub parameters: &'a Parameters,
    pub limit: Option<&'a ClientLimit>,
}

/// Answers a token request.
///
/// # Errors
/// Those of RFC 6749 section 5.2, RFC 8628 section 3.5, RFC 8693 section 2.2.2 and RFC 8707 section 2.
pub async fn token(state: &OAuthState, request: ClientRequest<'_>) -> OauthResult<TokenResponse> {
    let mut client = None;
    let answer = answer(state, request, &mut client).await;
    if let Some(grant) = request.parameters.get("grant_type").and_then(GrantType::parse) {
        state.meter.token(grant.as_str(), answer.is_ok());
    }
    if let Err(error) = &answer {
        let client = client.as_ref().map(|known| known.client.client_id.as_str());
        refused(state, request.context, "token", EntryKind::OauthTokenRefused, error, client).await;
    }
    answer
}

/// How soon a token is made after its client was read.
const SOON: Millis = 1_000;

async fn answer(
    state: &OAuthState,
    request: ClientRequest<'_>,
    known: &mut Option<AuthenticatedClient>,
) -> OauthResult<TokenResponse> {
    let parameters = request.parameters;
    let grant = GrantType::parse(parameters.need("grant_type")?).ok_or_else(|| {
        OauthError::new(ErrorCode::UnsupportedGrantType, "grant_type is none of those that are served")
    })?;
    let began = state.now();
    let asking = known.insert(authenticate(state, request).await?);
    if !asking.client.has_grant(grant) {
        return Err(unauthorized());
    }
    let mut answer = serve(state, request, grant, asking).await;
    // A person was changed while a token was made of what they were, in whatever respect: it is made of what they are. A device asks
    // again by itself, and not too soon.
    for _ in 1..MOST_TRIES {
        let is_changed = matches!(&answer, Err(OauthError::Ledger(LedgerError::Guard(USER_CHANGED))));
        if !is_changed || grant == GrantType::DeviceCode {
            break;
        }
        answer = serve(state, request, grant, asking).await;
    }
    // The end of a client reaches a few seconds ahead (`Sessions::end_client_in`), and this took longer than most do: what was made
    // behind that reach leaves only if the client still has its right.
    if answer.is_ok() && state.now() - began > SOON {
        still_active(state, &asking.client.client_id).await?;
    }
    answer
}

async fn serve(
    state: &OAuthState,
    request: ClientRequest<'_>,
    grant: GrantType,
    asking: &AuthenticatedClient,
) -> OauthResult<TokenResponse> {
    let parameters = request.parameters;
    match grant {
        GrantType::ClientCredentials => {
            let client = &asking.clone().confidential()?.client;
            let options = ClientTokenOptions {
                scope: parameters.get("scope"),
                plugin_id: parameters.get("plugin_id"),
                audience: audience::requested(parameters)?,
            };
            generate_client_tokens(state, client, request.context, options).await
        }
        GrantType::AuthorizationCode => code::exchange(state, request, &asking.client).await,
        GrantType::RefreshToken => refresh::exchange(state, request, &asking.client).await,
        GrantType::DeviceCode => device::exchange(state, request, &asking.client).await,
        GrantType::TokenExchange => {
            exchange::exchange(state, request, &asking.clone().confidential()?.client).await
        }
    }
}

/// A grant that the client was not given.
pub(crate) fn unauthorized() -> OauthError {
    OauthError::new(ErrorCode::UnauthorizedClient, "grant_type is not allowed for this client")
}

/// Records a refusal. That it could not be recorded lets nobody in.
pub(crate) async fn refused(
    state: &OAuthState,
    context: &RequestContext,
    endpoint: &'static str,
    kind: EntryKind,
    error: &OauthError,
    client_id: Option<&str>,
) {
    state.meter.refused(endpoint, error.code().as_str());
    // A device that asks again is no event, and what failed here was logged.
    let is_waiting = matches!(error.code(), ErrorCode::AuthorizationPending | ErrorCode::SlowDown);
    if is_waiting || error.is_ours() {
        return;
    }
    let description = error.description();
    let refusal =
        Refusal { kind, endpoint, error: error.code().as_str(), reason: Some(&description), client_id };
    if let Some(draft) = state.refusals.entry(context, &refusal, state.now())
        && let Err(error) = state.record(draft).await
    {
        tracing::warn!(%error, endpoint, "a refusal could not be recorded");
    }
}
