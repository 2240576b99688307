//! Pushed authorization requests (RFC 9126): checked when they come, kept for a minute and a half, used once.

use crate::at_rest::Label;
use crate::constants::{PAR_TTL_SECONDS, PAR_URN};
use crate::error::{OauthError, OauthResult};
use crate::services::authorize::request as authorize;
use crate::services::http::Parameters;
use crate::services::token::{ClientRequest, refused};
use crate::services::validation::client_credentials::authenticate;
use crate::state::OAuthState;
use systemprompt_audit::EntryKind;
use systemprompt_models::Secret;
use systemprompt_security::opaque;
use url::form_urlencoded::Serializer;

/// Parameters by which a client proves itself, which are no part of the request.
const PROOFS: [&str; 3] = ["client_secret", "client_assertion", "client_assertion_type"];

/// Takes a pushed request; returns its name.
///
/// # Errors
/// What the client is told.
pub async fn push(state: &OAuthState, request: ClientRequest<'_>) -> OauthResult<Secret<String>> {
    let pushed = take(state, request).await;
    if let Err(error) = &pushed {
        refused(state, request.context, "par", EntryKind::OauthAuthorizeRefused, error, None).await;
    }
    pushed
}

async fn take(state: &OAuthState, request: ClientRequest<'_>) -> OauthResult<Secret<String>> {
    let parameters = request.parameters;
    let client = authenticate(state, request).await?.client;
    if parameters.get("request_uri").is_some() {
        return Err(OauthError::invalid_request("request_uri cannot be pushed"));
    }
    let redirect = authorize::redirect_uri(&client, parameters)?;
    authorize::read(state, &client, redirect, parameters, false)?;
    let kept = kept(client.client_id.as_str(), parameters);
    let id = opaque::generate("")?;
    let digest = state.at_rest.digest(Label::Par, id.expose());
    let now = state.now();
    let row = (client.client_id.as_str(), kept, &*digest.pepper_id);
    let times = (now, now + PAR_TTL_SECONDS * 1000);
    if !state.oauth.store_pushed(&digest.hex, (row.0, &row.1, row.2), times, MAX_OPEN).await? {
        return Err(OauthError::Throttled { retry_after: RETRY_SECONDS });
    }
    Ok(Secret::new(format!("{PAR_URN}{}", id.expose())))
}

/// Most requests of one client that wait.
const MAX_OPEN: i64 = 10_000;
const RETRY_SECONDS: u32 = 10;

/// The parameters that make up the request, as a form.
fn kept(client_id: &str, parameters: &Parameters) -> String {
    let mut kept = Serializer::new(String::new());
    for (name, value) in parameters.iter().filter(|(name, _)| !PROOFS.contains(name) && *name != "client_id")
    {
        kept.append_pair(name, value);
    }
    kept.append_pair("client_id", client_id).finish()
}
