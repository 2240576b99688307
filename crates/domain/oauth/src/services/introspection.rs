//! Introspection (RFC 7662): whether a token counts now, asked of the tables. Whoever may not know learns the same as of a token
//! that does not count.

use crate::at_rest::Label;
use crate::constants::REFRESH_TOKEN_PREFIX;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::repository::oauth::refresh_token::RefreshState;
use crate::services::grants::{is_live, session_of};
use crate::services::jwt::{AuthService, TokenValidator};
use crate::services::token::{ClientRequest, refused};
use crate::services::validation::client_credentials::authenticate;
use crate::state::OAuthState;
use serde::Serialize;
use systemprompt_audit::EntryKind;
use systemprompt_models::ids::{ClientId, SessionId, UserId};
use systemprompt_models::{Actor, JwtAudience, JwtClaims, RequestContext};
use systemprompt_security::opaque;

/// What is told of a token (RFC 7662 section 2.2). One that does not count is `{"active":false}`, and nothing more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Introspection {
    pub active: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenFacts>,
}

/// What is told of a token that counts. Times are epoch seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenFacts {
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    pub token_type: &'static str,
    pub exp: i64,
    pub iat: i64,
    pub nbf: i64,
    pub sub: UserId,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<JwtAudience>,
    pub iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    pub session_id: SessionId,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// Whoever the request proves.
    Client(ClientRequest<'a>),
    /// Somebody who may see every token.
    Administrator(ClientRequest<'a>),
}

/// Looks at a token.
///
/// # Errors
/// A client that has not proven itself, or no `token`.
pub async fn introspect(state: &OAuthState, asker: Asker<'_>) -> OauthResult<Introspection> {
    let (Asker::Client(request) | Asker::Administrator(request)) = asker;
    match look(state, asker).await {
        Err(error) => Err(refuse(state, request.context, error).await),
        seen => seen,
    }
}

async fn look(state: &OAuthState, asker: Asker<'_>) -> OauthResult<Introspection> {
    let (request, client) = match asker {
        Asker::Administrator(request) => (request, None),
        Asker::Client(request) => {
            let known = authenticate(state, request).await?;
            (request, Some(known.confidential()?.client))
        }
    };
    let token = request.parameters.need("token")?;
    let facts = if opaque::has_form(REFRESH_TOKEN_PREFIX, token) {
        refresh_token(state, token).await?
    } else {
        access_token(state, token).await?
    };
    let mut token = facts.filter(|facts| client.as_ref().is_none_or(|client| may_see(client, facts)));
    // A client reads what the token itself says of its person; an administrator may know who it is.
    if let (None, Some(facts)) = (&client, &mut token)
        && facts.username.is_empty()
    {
        let user = state.users.find(facts.sub.as_str()).await?;
        facts.username = user.map(|user| user.username).unwrap_or_default();
    }
    Ok(Introspection { active: token.is_some(), token })
}

/// A client sees what was issued to it, and what is for a resource that it is registered as.
fn may_see(client: &OAuthClient, facts: &TokenFacts) -> bool {
    let is_own = facts.client_id.as_ref() == Some(&client.client_id);
    let is_for = |audience: &JwtAudience| {
        matches!(audience, JwtAudience::Resource(_)) && client.allowed_audiences.contains(audience)
    };
    is_own || facts.aud.iter().any(is_for)
}

async fn access_token(state: &OAuthState, token: &str) -> OauthResult<Option<TokenFacts>> {
    let Some(claims) = AuthService(state).validate(token).await? else { return Ok(None) };
    let JwtClaims { iss, sub, aud, exp, nbf, iat, jti, scope, username, client_id, session_id, act, .. } =
        claims;
    Ok(Some(TokenFacts {
        scope,
        client_id,
        username,
        token_type: "Bearer",
        exp,
        iat,
        nbf,
        sub,
        aud,
        iss,
        jti: Some(jti.to_string()),
        act,
        session_id,
    }))
}

async fn refresh_token(state: &OAuthState, token: &str) -> OauthResult<Option<TokenFacts>> {
    let now = state.now();
    let found = state.oauth.find_refresh(&state.at_rest.candidates(Label::RefreshToken, token)).await?;
    let Some(row) = found.filter(|row| row.expires_at > now) else { return Ok(None) };
    if row.state()? != RefreshState::Fresh {
        return Ok(None);
    }
    let grant = state.oauth.find_grant(&row.grant_id).await?;
    let session = state.sessions.find(&session_of(&row.grant_id)).await?;
    let (Some(grant), Some(session)) = (grant, session.filter(|session| session.is_live(now))) else {
        return Ok(None);
    };
    if !is_live(state, &grant).await? {
        return Ok(None);
    }
    let is_told = row.scopes.split_ascii_whitespace().any(|scope| scope == "profile");
    let user = if is_told { state.users.find(&row.user_id).await? } else { None };
    let issued = row.issued_at.div_euclid(1000);
    Ok(Some(TokenFacts {
        scope: row.scopes,
        client_id: Some(ClientId::new(row.client_id)),
        username: user.map(|user| user.username).unwrap_or_default(),
        token_type: "refresh_token",
        exp: row.expires_at.div_euclid(1000),
        iat: issued,
        nbf: issued,
        sub: UserId::new(row.user_id),
        aud: Vec::new(),
        iss: state.tokens.issuer().to_owned(),
        jti: None,
        act: None,
        session_id: session.id,
    }))
}

/// Refuses who came with a token that lets nobody look; as every refusal it is counted and recorded.
pub async fn refuse(state: &OAuthState, context: &RequestContext, error: OauthError) -> OauthError {
    let kind = EntryKind::OauthIntrospectRefused;
    refused(state, context, "introspect", kind, &error, None).await;
    error
}

/// What a caller without a proof is told.
pub fn unproven() -> OauthError {
    OauthError::new(
        ErrorCode::InvalidToken,
        "a client must prove itself, or a token must allow administration",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_76_a_token_that_does_not_count_is_exactly_this() {
        assert_eq!(serde_json::to_string(&Introspection::default()).unwrap(), r#"{"active":false}"#);
    }
}
