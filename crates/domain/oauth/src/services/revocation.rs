//! Revocation (RFC 7009): a client ends what it was given. A token that does not count any more is no error.

use crate::at_rest::Label;
use crate::constants::REFRESH_TOKEN_PREFIX;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::services::generation::draft;
use crate::services::grants;
use crate::services::token::family::is_of;
use crate::services::token::{ClientRequest, refused};
use crate::services::validation::client_credentials::authenticate;
use crate::state::OAuthState;
use systemprompt_audit::EntryKind;
use systemprompt_models::ids::UserId;
use systemprompt_security::keys::TokenClass;
use systemprompt_security::opaque;

/// Ends a token. Returns what other nodes are to be told of, if something ended.
///
/// # Errors
/// A client that has not proven itself, another client's token, a token of a kind that does not end here, or a revocation that
/// cannot be recorded or written.
pub async fn revoke(state: &OAuthState, request: ClientRequest<'_>) -> OauthResult<Option<String>> {
    let ended = end(state, request).await;
    if let Err(error) = &ended {
        refused(state, request.context, "revoke", EntryKind::OauthTokenRefused, error, None).await;
    }
    ended
}

async fn end(state: &OAuthState, request: ClientRequest<'_>) -> OauthResult<Option<String>> {
    let client = authenticate(state, request).await?.client;
    let token = request.parameters.need("token")?;
    let foreign = || OauthError::new(ErrorCode::UnauthorizedClient, "token was issued to another client");
    if opaque::has_form(REFRESH_TOKEN_PREFIX, token) {
        let digests = state.at_rest.candidates(Label::RefreshToken, token);
        let Some(row) = state.oauth.find_refresh(&digests).await? else { return Ok(None) };
        if !is_of(&client, &row.client_id) {
            return Err(foreign());
        }
        // Whatever is left of a grant ended with it: what is dead costs nobody a write.
        let grant = state.oauth.find_grant(&row.grant_id).await?;
        if grant.is_none_or(|grant| grant.revoked_at.is_some()) {
            return Ok(None);
        }
        let user = UserId::new(row.user_id);
        let entry = draft(EntryKind::OauthRevoked, request.context, "ok", &client.client_id, Some(&user));
        grants::end(state, entry.with("scope", "grant"), &row.grant_id, "revoked_by_client", None).await?;
        return Ok(Some(row.grant_id));
    }
    let Ok(verified) = state.verifier.verify_own(token) else { return Ok(None) };
    if verified.class != TokenClass::Access {
        return Err(OauthError::new(
            ErrorCode::UnsupportedTokenType,
            "token is a session's, which ends at sign-out",
        ));
    }
    let claims = &verified.claims;
    if claims.client_id.as_ref() != Some(&client.client_id) {
        return Err(foreign());
    }
    let session = state.sessions.find(&claims.session_id).await?;
    let is_live = session.is_some_and(|session| session.is_live(state.now()));
    if !is_live || state.sessions.is_token_revoked(&claims.jti).await? {
        return Ok(None);
    }
    let entry = draft(EntryKind::OauthRevoked, request.context, "ok", &client.client_id, Some(&claims.sub));
    let entry = entry.with("scope", "token").with("jti", claims.jti.as_str());
    let entry = entry.with("sessions", state.sessions.count_exchanged(claims).await?);
    state.record(entry.with("expires_at", verified.expires_at())).await?;
    state.sessions.revoke_claims(claims).await?;
    Ok(Some(claims.jti.to_string()))
}
