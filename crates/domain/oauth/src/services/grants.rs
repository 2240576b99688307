//! The end of a grant, with everything that came from it.

use crate::error::OauthResult;
use crate::repository::oauth::grants::{GRANT_REVOKED, Grant, grant_revoked};
use crate::state::OAuthState;
use systemprompt_audit::{Draft, LedgerError, Unit};
use systemprompt_models::ids::{GrantId, SessionId};

/// The session of a grant: every access token of the grant is of it, so that its end is theirs. It shares the grant's UUID.
pub fn session_of(grant: &str) -> SessionId {
    let id = GrantId::new(grant);
    id.uuid().map_or_else(|| SessionId::new(format!("{}{grant}", SessionId::PREFIX)), SessionId::from_uuid)
}

/// Ends a grant: its refresh tokens, its access tokens and what they were exchanged for. `draft` is the record of it. Returns
/// whether it was live.
///
/// # Errors
/// When it cannot be recorded or written. What was not ended then ends with a repeat.
pub async fn end(state: &OAuthState, draft: Draft, grant: &str, reason: &'static str) -> OauthResult<bool> {
    let now = state.now();
    let live = state.oauth.live_refresh_tokens(grant, now).await?;
    let mut unit = Unit::new();
    unit.record(draft.with_reason(reason).with("grant", grant).with("refresh_tokens", live));
    unit.require(grant_revoked(grant, reason, now));
    let was_live = match state.ledger.append(unit).await {
        Ok(_) => true,
        Err(LedgerError::Guard(GRANT_REVOKED)) => false,
        Err(error) => return Err(error.into()),
    };
    // Also when another call was first: it may have gone away half-way.
    state.oauth.revoke_refresh_tokens(grant, now).await?;
    state.sessions.revoke_grant(&GrantId::new(grant), reason).await?;
    Ok(was_live)
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
