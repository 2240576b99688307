//! A person's own passkeys: seeing, naming and removing them (ID-89).

use super::super::registry::Passkey;
use super::name_of;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::repository::notices::{self, NoticeKind};
use crate::repository::webauthn;
use crate::services::session::lookup;
use crate::state::OAuthState;
use systemprompt_audit::{Draft, EntryKind};
use systemprompt_database::retry_contended;
use systemprompt_models::RequestContext;
use systemprompt_models::ids::UserId;
use systemprompt_security::session::UserEnd;

/// The passkeys of a user, the oldest first.
///
/// # Errors
/// When they cannot be read.
pub async fn list(state: &OAuthState, user: &UserId) -> OauthResult<Vec<Passkey>> {
    let rows = webauthn::passkeys_of(&state.db, user.as_str()).await?;
    Ok(rows.into_iter().map(Passkey::from).collect())
}

/// One passkey of the user; `None` for one that is not theirs.
///
/// # Errors
/// When it cannot be read.
pub async fn get(state: &OAuthState, user: &UserId, id: &str) -> OauthResult<Option<Passkey>> {
    let row = webauthn::passkey(&state.db, id).await?;
    Ok(row.filter(|row| row.user_id == user.as_str()).map(Passkey::from))
}

/// Gives a passkey of the caller another name.
///
/// # Errors
/// A name out of form, or what could not be written.
pub async fn rename(
    state: &OAuthState,
    context: &RequestContext,
    id: &str,
    name: &str,
) -> OauthResult<Option<Passkey>> {
    let name = name_of(Some(name))?;
    let user = &context.principal.user_id;
    if !webauthn::rename(&state.db, user.as_str(), id, &name).await? {
        return Ok(None);
    }
    get(state, user, id).await
}

/// Removes a passkey of the caller. False for one that is not theirs.
///
/// # Errors
/// A sign-in that is too old, the last way to sign in, or what could not be written.
pub async fn remove(state: &OAuthState, context: &RequestContext, id: &str) -> OauthResult<bool> {
    let user = &context.principal.user_id;
    let Some(passkey) = get(state, user, id).await? else { return Ok(false) };
    lookup::need_recent(state, &context.principal).await?;
    let passwords = state.settings().identity.password.enabled;
    if !webauthn::has_another_way(&state.db, user.as_str(), id, passwords).await? {
        return Err(refused(state, context, id).await);
    }
    let all = list(state, user).await?;
    let is_last = !all.iter().any(|other| other.id != passkey.id && other.status == "active");
    let draft = removal(context, "ok", id);
    let draft =
        if is_last { draft.with("sessions", state.sessions.count_of(user, None).await?) } else { draft };
    state.record(draft).await?;
    retry_contended(|| removed(state, context, &passkey, passwords)).await
}

/// Removes a passkey; with the last one that counts, every session and grant ends. False when somebody else has removed it.
async fn removed(
    state: &OAuthState,
    context: &RequestContext,
    passkey: &Passkey,
    passwords: bool,
) -> OauthResult<bool> {
    let (user, id) = (&context.principal.user_id, passkey.id.as_str());
    let mut tx = state.db.write_tx().await?;
    let told = notices::tell(context, user, NoticeKind::PasskeyRemoved, Some(&passkey.name), state.now());
    for guard in [webauthn::lock_user(user.as_str()), webauthn::remove(user.as_str(), id, passwords), told] {
        if !guard.holds_in(&mut tx).await? {
            tx.rollback().await?;
            return not_removed(state, context, id, guard.name).await;
        }
    }
    // Without any, the way in is another one from here on, and so must be what goes on (ID-51).
    let is_last = !webauthn::has_usable(&mut tx, user.as_str()).await?;
    state.users.end_with(tx, user, is_last.then_some(UserEnd::All), "last_passkey_removed").await?;
    Ok(true)
}

/// What is told where a guard did not hold: a second click finds nothing, and who was suspended meanwhile may do nothing.
async fn not_removed(
    state: &OAuthState,
    context: &RequestContext,
    id: &str,
    guard: &'static str,
) -> OauthResult<bool> {
    if guard == webauthn::USER {
        return Err(OauthError::new(ErrorCode::AccessDenied, "this account may not sign in"));
    }
    if get(state, &context.principal.user_id, id).await?.is_none() {
        return Ok(false);
    }
    Err(refused(state, context, id).await)
}

/// The last way to sign in stays, on record.
async fn refused(state: &OAuthState, context: &RequestContext, id: &str) -> OauthError {
    match state.record(removal(context, "refused", id).with_reason("last_way_to_sign_in")).await {
        Ok(()) => OauthError::new(ErrorCode::Conflict, "the last way to sign in cannot be removed"),
        Err(error) => error.into(),
    }
}

fn removal(context: &RequestContext, outcome: &'static str, id: &str) -> Draft {
    Draft::new(EntryKind::OauthWebauthnRemoved, context, outcome)
        .with_subject("user", context.principal.user_id.as_str())
        .with("credential", id.chars().take(12).collect::<String>())
}
