//! Finding a browser's session by its token, and keeping it (ID-79); what a person sees of their sessions.

use super::SessionCreationService;
use crate::constants::RECENT_SIGN_IN_SECONDS;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::analytics::OwnSession;
use crate::services::grants;
use crate::state::OAuthState;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_models::ids::SessionId;
use systemprompt_models::session::SessionSource;
use systemprompt_models::{JwtClaims, Millis, Principal, RequestContext, Secret};
use systemprompt_security::session::{SessionRow, UserEnd};

/// A browser's session as it stands.
pub struct Found {
    pub session_id: SessionId,
    /// Absent for somebody unknown.
    pub user_id: Option<String>,
    /// Seconds of the token.
    pub expires_in: i64,
    /// A new token; the browser keeps the one it has without.
    pub token: Option<Secret<String>>,
}

/// The session that the verified `claims` are of, with a new token when more than half of its life is gone; without claims a new
/// session of somebody unknown.
///
/// # Errors
/// What could not be read or written.
pub async fn look_up(
    state: &OAuthState,
    context: &RequestContext,
    claims: Option<&JwtClaims>,
) -> OauthResult<Found> {
    let Some(claims) = claims else {
        let (session_id, token, expires_in) = SessionCreationService(state).anonymous(context).await?;
        return Ok(Found { session_id, user_id: None, expires_in, token: Some(token) });
    };
    let left = claims.exp - state.clock.now_seconds();
    let mut found = Found {
        session_id: claims.session_id.clone(),
        user_id: (!claims.is_anonymous()).then(|| claims.sub.to_string()),
        expires_in: left,
        token: None,
    };
    let life = claims.exp - claims.iat;
    if claims.is_anonymous() || left * 2 > life {
        return Ok(found);
    }
    if let Some((token, seconds)) = renew(state, context, claims).await? {
        found.token = Some(token);
        found.expires_in = seconds;
    }
    Ok(found)
}

async fn renew(
    state: &OAuthState,
    context: &RequestContext,
    claims: &JwtClaims,
) -> OauthResult<Option<(Secret<String>, i64)>> {
    // Only a browser's session is kept alive. What was made for a program may less, and ends when it was said to.
    let row = state.sessions.find(&claims.session_id).await?;
    if row.is_none_or(|row| row.source != Some(SessionSource::Web)) {
        return Ok(None);
    }
    let Some(user) = state.users.find(claims.sub.as_str()).await? else { return Ok(None) };
    let idle = Millis::from(state.settings().identity.session.idle) * 1000;
    if !state.sessions.extend(&claims.session_id, state.now() + idle).await? {
        return Ok(None);
    }
    let Some(row) = state.sessions.find(&claims.session_id).await? else { return Ok(None) };
    let left = (row.expires_at - state.now()) / 1000;
    let pending = SessionCreationService(state).token(&user, &claims.session_id, left)?;
    let seconds = pending.claims().exp - pending.claims().iat;
    let mut unit = Unit::new();
    pending.record(&mut unit, Some(context));
    let permit = state.ledger.commit(unit).await?;
    Ok(Some((pending.release(permit), seconds)))
}

/// The live sessions of the caller, the newest first, at most 200.
///
/// # Errors
/// When they cannot be read.
pub async fn own(state: &OAuthState, caller: &Principal) -> OauthResult<Vec<OwnSession>> {
    let live = state.sessions.list(&caller.user_id).await?.into_iter();
    Ok(live.map(|row| OwnSession { current: row.id == caller.session_id, session: row }).collect())
}

/// Ends a session of the caller. False for one that is not theirs, or has ended.
///
/// # Errors
/// What could not be recorded or written.
pub async fn end_own(state: &OAuthState, context: &RequestContext, id: &str) -> OauthResult<bool> {
    let id = SessionId::new(id);
    let row = state.sessions.find(&id).await?;
    let is_own = |row: &SessionRow| {
        row.user_id.as_ref() == Some(&context.principal.user_id) && row.is_live(state.now())
    };
    if !row.as_ref().is_some_and(is_own) {
        return Ok(false);
    }
    let draft = Draft::new(EntryKind::OauthSessionRevoked, context, "ok");
    let draft = draft.with("user_id", context.principal.user_id.as_str());
    grants::end_session(state, draft, &id, "revoked_by_user").await?;
    Ok(true)
}

/// Ends every session and grant of the caller, or all but the session that asks. Returns how many sessions.
///
/// # Errors
/// As [`end_own`].
pub async fn end_all_own(
    state: &OAuthState,
    context: &RequestContext,
    keep_current: bool,
) -> OauthResult<usize> {
    let caller = &context.principal;
    let kept = keep_current.then_some(&caller.session_id);
    let live = state.sessions.count_of(&caller.user_id, kept).await?;
    let draft = Draft::new(EntryKind::OauthSessionRevoked, context, "ok")
        .with("user_id", caller.user_id.as_str())
        .with("kept", kept.map(SessionId::as_str))
        .with("sessions", live);
    state.record(draft).await?;
    let end = kept.map_or(UserEnd::All, UserEnd::Others);
    Ok(state.users.end_sessions(&caller.user_id, end, "revoked_by_user").await?)
}

/// Refuses a browser that has not signed in within the last five minutes. A session of the command line was made to do such things.
///
/// # Errors
/// As [`need_recent`].
pub async fn need_recent_browser(state: &OAuthState, caller: &Principal) -> OauthResult<()> {
    let row = state.sessions.find(&caller.session_id).await?;
    if row.is_some_and(|row| row.source == Some(SessionSource::Cli)) {
        return Ok(());
    }
    need_recent(state, caller).await
}

/// Refuses whoever has not signed in within the last five minutes (ID-89, ID-100).
///
/// # Errors
/// `login_required`, or rows that cannot be read.
pub async fn need_recent(state: &OAuthState, caller: &Principal) -> OauthResult<()> {
    let row = state.sessions.find(&caller.session_id).await?;
    // The session of a grant has the time of the sign-in it came from, and is none itself.
    let row = row.filter(|row| {
        row.source == Some(SessionSource::Web)
            && row.is_live(state.now())
            && row.user_id.as_ref() == Some(&caller.user_id)
    });
    let signed_in = row.and_then(|row| row.auth_time).unwrap_or(i64::MIN / 2);
    if state.clock.now_seconds().saturating_sub(signed_in) <= RECENT_SIGN_IN_SECONDS {
        return Ok(());
    }
    Err(OauthError::new(ErrorCode::LoginRequired, "sign in again first"))
}
