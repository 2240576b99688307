//! The end of a grant, with everything that came from it.

use crate::error::OauthResult;
use crate::repository::oauth::grants::{
    GRANT_REVOKED, Grant, consents_end, grant_revoked, grants_of_session_end, refresh_tokens_end,
};
use crate::state::OAuthState;
use systemprompt_audit::{Draft, LedgerError, Unit};
use systemprompt_models::ids::{GrantId, SessionId};
use systemprompt_security::session::Root;

/// The session of a grant: every access token of the grant is of it, so that its end is theirs. It shares the grant's UUID.
pub fn session_of(grant: &str) -> SessionId {
    let id = GrantId::new(grant);
    id.uuid().map_or_else(|| SessionId::new(format!("{}{grant}", SessionId::PREFIX)), SessionId::from_uuid)
}

/// Ends a grant: its refresh tokens, its access tokens, what they were exchanged for, and the `consents` of this user and client. All
/// that and `draft`, the record of it, are one. Returns whether it was live.
///
/// # Errors
/// When it cannot be recorded or written; then nothing ended.
pub async fn end(
    state: &OAuthState,
    draft: Draft,
    grant: &str,
    reason: &'static str,
    consents: Option<(&str, &str)>,
) -> OauthResult<bool> {
    let now = state.now();
    let live = state.oauth.live_refresh_tokens(grant, now).await?;
    let id = GrantId::new(grant);
    let ending = state.sessions.ending(Root::Grant(&id), reason).await?;
    let draft = draft.with_reason(reason).with("grant", grant).with("refresh_tokens", live);
    let mut unit = Unit::new();
    unit.record(draft.with("sessions", ending.sessions()));
    unit.require(grant_revoked(grant, reason, now));
    if let Some((user, client)) = consents {
        unit.change(consents_end(user, client, now));
    }
    let ended = ending.add_to(&mut unit);
    unit.change(refresh_tokens_end(grant, now));
    match state.ledger.append(unit).await {
        Ok(_) => {
            state.sessions.apply_written(ended).await;
            Ok(true)
        }
        Err(LedgerError::Guard(GRANT_REVOKED)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends a session with the grants that are not to outlive it and all that came from either. All that and `draft`, the record of it,
/// are one. Returns how many sessions were live.
///
/// # Errors
/// As [`end`].
pub async fn end_session(
    state: &OAuthState,
    draft: Draft,
    session: &SessionId,
    reason: &'static str,
) -> OauthResult<usize> {
    let ending = state.sessions.ending(Root::Session(session), reason).await?;
    let mut unit = Unit::new();
    unit.record(draft.with("ended", session.as_str()).with("sessions", ending.sessions()));
    let [grants, refresh_tokens] = grants_of_session_end(session.as_str(), reason, state.now());
    unit.change(grants.clone());
    let ended = ending.add_to(&mut unit);
    // A unit that was waited for may have given one in this session; none is given once that has ended.
    unit.change(grants);
    unit.change(refresh_tokens);
    state.ledger.append(unit).await?;
    Ok(state.sessions.apply_written(ended).await)
}

/// Whether a grant and the browser session that it hangs on count.
pub(crate) async fn is_live(state: &OAuthState, grant: &Grant) -> OauthResult<bool> {
    let now = state.now();
    if !grant.is_live(now) {
        return Ok(false);
    }
    match grant.parent() {
        None => Ok(true),
        Some(parent) => {
            let parent = state.sessions.find(&SessionId::new(parent)).await?;
            Ok(parent.is_some_and(|session| session.is_live(now)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_has_one_session_which_its_id_tells() {
        let grant = GrantId::generate();
        let session = session_of(grant.as_str());
        assert_eq!((session.uuid(), session.as_str().len()), (grant.uuid(), 37));
        assert_eq!(session_of("other").as_str(), "sess_other");
    }
}
