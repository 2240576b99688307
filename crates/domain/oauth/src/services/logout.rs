//! Signing out at the request of a client (OpenID Connect RP-Initiated Logout 1.0; ID-71).

use super::http::Parameters;
use super::id_token::is_sid_of;
use super::pages::Person;
use super::templating::Frame;
use crate::at_rest::Label;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::oauth::ResponseMode;
use crate::services::grants;
use crate::state::OAuthState;
use askama::Template;
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use systemprompt_audit::{Draft, EntryKind};
use systemprompt_models::ids::{SessionId, UserId};
use systemprompt_models::{Principal, RequestContext};
use url::form_urlencoded::Serializer;

/// Asks whether to sign out.
#[derive(Template)]
#[template(path = "logout.html")]
pub struct LogoutPage {
    pub frame: Frame,
    pub person: Option<Person>,
    pub action: String,
    pub csrf: String,
    /// The parameters of the request, which the form carries on.
    pub fields: Vec<(&'static str, String)>,
}

/// What follows a request to sign out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logout {
    /// The person must confirm it.
    Ask,
    Done(Done),
}

/// What became of a request to sign out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Where the browser goes back to, if the client named a registered address.
    pub back: Option<String>,
    /// The session that ended; none if there was none.
    pub session: Option<SessionId>,
}

/// Who would be signed out.
///
/// # Errors
/// When the row cannot be read.
pub async fn person(state: &OAuthState, visitor: &Principal) -> OauthResult<Option<Person>> {
    let user = state.users.find(visitor.user_id.as_str()).await?;
    Ok(user.filter(|_| !visitor.is_anonymous()).map(|user| Person::from(&user)))
}

/// What binds the form to the session.
pub fn csrf(state: &OAuthState, visitor: &Principal) -> String {
    state.at_rest.digest(Label::Csrf, &format!("logout {}", visitor.session_id)).hex
}

/// The parameters that a confirmation carries on.
pub fn fields(parameters: &Parameters) -> Vec<(&'static str, String)> {
    ["id_token_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales"]
        .into_iter()
        .filter_map(|name| Some((name, parameters.get(name)?.to_owned())))
        .collect()
}

/// Signs out, or says that the person must be asked.
///
/// # Errors
/// A hint that is no ID token of ours, an address that is not registered, a form that is not ours.
pub async fn logout(
    state: &OAuthState,
    context: &RequestContext,
    visitor: Option<&Principal>,
    parameters: &Parameters,
    is_form: bool,
) -> OauthResult<Logout> {
    let hint = hint(state, parameters)?;
    let back = back(state, context, parameters, hint.as_ref()).await?;
    let Some(visitor) = visitor else {
        // The cookie may have ended before its session, which the person means to leave all the same.
        let named = match &hint {
            Some(claims) => named(state, claims).await?,
            None => None,
        };
        if let Some((user, session)) = &named {
            end_session(state, context, user, session).await?;
        }
        return Ok(Logout::Done(Done { back, session: named.map(|(_, session)| session) }));
    };
    let is_this_session =
        hint.as_ref().and_then(sid).is_some_and(|named| is_sid_of(state, named, &visitor.session_id));
    let is_confirmed = is_form && parameters.get("csrf").is_some();
    if is_confirmed {
        let is_ours =
            csrf(state, visitor).as_bytes().ct_eq(parameters.get("csrf").unwrap_or_default().as_bytes());
        if !bool::from(is_ours) {
            return Err(OauthError::new(ErrorCode::AccessDenied, "csrf is not of this page"));
        }
    } else if !is_this_session {
        return Ok(Logout::Ask);
    }
    end_session(state, context, &visitor.user_id, &visitor.session_id).await?;
    Ok(Logout::Done(Done { back, session: Some(visitor.session_id.clone()) }))
}

/// Ends a browser session with what hangs on it.
async fn end_session(
    state: &OAuthState,
    context: &RequestContext,
    user: &UserId,
    session: &SessionId,
) -> OauthResult<()> {
    let draft = Draft::new(EntryKind::OauthLogout, context, "ok").with("user_id", user.as_str());
    grants::end_session(state, draft, session, "logout").await.map(drop)
}

fn sid(claims: &serde_json::Map<String, Value>) -> Option<&str> {
    claims.get("sid").and_then(Value::as_str)
}

/// The live browser session that an ID token names, with its person.
async fn named(
    state: &OAuthState,
    claims: &serde_json::Map<String, Value>,
) -> OauthResult<Option<(UserId, SessionId)>> {
    let (Some(sub), Some(named)) = (claims.get("sub").and_then(Value::as_str), sid(claims)) else {
        return Ok(None);
    };
    let user = UserId::new(sub);
    let mut sessions = state.sessions.browsers_of(&user).await?.into_iter();
    let found = sessions.find(|row| is_sid_of(state, named, &row.id));
    Ok(found.map(|row| (user, row.id)))
}

fn hint(state: &OAuthState, parameters: &Parameters) -> OauthResult<Option<serde_json::Map<String, Value>>> {
    match parameters.get("id_token_hint") {
        None => Ok(None),
        Some(hint) => state
            .verifier
            .verify_id_token(hint)
            .map(Some)
            .map_err(|_| OauthError::invalid_request("id_token_hint is no ID token of this server")),
    }
}

/// The registered address of the client that the hint or `client_id` names, with `state` behind it.
async fn back(
    state: &OAuthState,
    context: &RequestContext,
    parameters: &Parameters,
    hint: Option<&serde_json::Map<String, Value>>,
) -> OauthResult<Option<String>> {
    let Some(uri) = parameters.get("post_logout_redirect_uri") else { return Ok(None) };
    let wrong = || OauthError::invalid_request("post_logout_redirect_uri is not registered");
    let audience = hint.and_then(|claims| claims.get("aud")).and_then(Value::as_str);
    let named = parameters.get("client_id");
    if let (Some(audience), Some(named)) = (audience, named)
        && audience != named
    {
        return Err(OauthError::invalid_request("client_id is not the client of id_token_hint"));
    }
    let client = match audience.or(named) {
        // Nobody signs out at a client that was never here: its document is not fetched for that.
        Some(id) => state.client_known(context, id).await?,
        None => None,
    };
    let client = client.ok_or_else(wrong)?;
    if !client.relations.post_logout_redirect_uris.iter().any(|known| known == uri) {
        return Err(wrong());
    }
    let Some(echo) = parameters.get("state") else { return Ok(Some(uri.to_owned())) };
    // The page that asks may come between, whose form carries no such character.
    if !ResponseMode::FormPost.carries(echo) {
        return Err(OauthError::invalid_request("state holds a NUL or the end of a line"));
    }
    let query = Serializer::new(String::new()).append_pair("state", echo).finish();
    let joint = if uri.contains('?') { '&' } else { '?' };
    Ok(Some(format!("{uri}{joint}{query}")))
}
