//! What happened to a person's account, as they read it: by the interface, and on the page that follows a sign-in.

use crate::error::OauthResult;
use crate::repository::notices;
pub use crate::repository::notices::{Notice, NoticeKind};
use crate::services::templating::{Texts, moment, place};
use crate::state::OAuthState;
use systemprompt_models::Principal;

/// Lines that a page shows.
const SHOWN: usize = 5;

/// What other sessions did to the caller's account, the newest first.
///
/// # Errors
/// When it cannot be read.
pub async fn list(state: &OAuthState, caller: &Principal) -> OauthResult<Vec<Notice>> {
    let found = notices::of(&state.db, &caller.user_id, caller.session_id.as_str()).await?;
    if found.len() >= notices::MAX_NOTICES as usize {
        notices::trim(&state.db, &caller.user_id).await?;
    }
    Ok(found)
}

/// Puts a notice away. False for one that is not the caller's.
///
/// # Errors
/// When it cannot be written.
pub async fn dismiss(state: &OAuthState, caller: &Principal, id: &str) -> OauthResult<bool> {
    Ok(notices::dismiss(&state.db, &caller.user_id, id).await?)
}

/// A notice on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeLine {
    pub id: String,
    pub words: &'static str,
    pub about: Option<String>,
    pub at: String,
    pub from: Option<String>,
}

/// The newest notices in the words of a page.
///
/// # Errors
/// When they cannot be read.
pub async fn lines(
    state: &OAuthState,
    caller: &Principal,
    t: &'static Texts,
) -> OauthResult<Vec<NoticeLine>> {
    let line = |notice: Notice| {
        let kind = NoticeKind::ALL.into_iter().find(|kind| kind.as_str() == notice.kind)?;
        let words = words(kind, t);
        Some(NoticeLine {
            id: notice.id,
            words,
            about: notice.about,
            at: moment(notice.created_at),
            from: notice.ip_prefix.as_deref().map(place),
        })
    };
    Ok(list(state, caller).await?.into_iter().filter_map(line).take(SHOWN).collect())
}

fn words(kind: NoticeKind, t: &'static Texts) -> &'static str {
    match kind {
        NoticeKind::PasskeyAdded => t.notice_passkey_added,
        NoticeKind::PasskeyRemoved => t.notice_passkey_removed,
        NoticeKind::PasskeySuspect => t.notice_passkey_suspect,
        NoticeKind::PasswordChanged => t.notice_password_changed,
        NoticeKind::RecoveryCodesMade => t.notice_recovery_made,
        NoticeKind::RecoveryUsed => t.notice_recovery_used,
    }
}
