//! Sessions of people and of visitors (ID-78 to ID-81).

pub mod creation;
pub mod lookup;

pub use creation::{SessionCreationService, SignInFacts, SignedIn};

use crate::error::{ErrorCode, OauthResult};
use crate::services::refusals::Refusal;
use crate::state::{OAuthState, Settings};
use crate::users::{User, is_personal};
use systemprompt_audit::EntryKind;
use systemprompt_models::{Permission, RequestContext};

/// What a browser's session may do: what the person may, without what is for programs alone.
pub(crate) fn web_permissions(settings: &Settings, user: &User) -> Vec<Permission> {
    let all = settings.permissions_of_user(user);
    all.into_iter().filter(|permission| is_personal(user, *permission)).collect()
}

/// Records a sign-in that failed. The first ten a minute from one network are told one by one.
pub(crate) async fn record_failure(
    state: &OAuthState,
    context: &RequestContext,
    endpoint: &'static str,
    reason: &'static str,
) -> OauthResult<()> {
    record_refusal(state, context, (endpoint, ErrorCode::InvalidCredential), reason).await
}

/// The same of a step that was answered with another error.
pub(crate) async fn record_refusal(
    state: &OAuthState,
    context: &RequestContext,
    (endpoint, error): (&'static str, ErrorCode),
    reason: &'static str,
) -> OauthResult<()> {
    let refusal = Refusal {
        kind: EntryKind::OauthSigninFailed,
        endpoint,
        error: error.as_str(),
        reason: Some(reason),
        client_id: None,
    };
    if let Some(draft) = state.refusals.entry(context, &refusal, state.now()) {
        state.record(draft).await?;
    }
    Ok(())
}
