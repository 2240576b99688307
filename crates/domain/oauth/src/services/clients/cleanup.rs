//! What the clean-up job removes of clients (ID-21, ID-104).

use super::{ClientError, delete};
use crate::state::OAuthState;
use std::sync::Arc;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Millis, Principal, RequestContext, UserType};

const DAY: Millis = 86_400_000;
/// How long a client that was registered may take to its first use before another takes its place.
const HOUR: Millis = 3_600_000;

/// Deletes at most `limit` registered clients that nobody used for `registration_unused_days`. Returns how many.
///
/// # Errors
/// What could not be recorded or written.
pub async fn unused_clients(state: &OAuthState, limit: i64) -> Result<u64, ClientError> {
    let by = system();
    let days = Millis::from(state.settings().identity.registration_unused_days);
    let before = state.now() - days * DAY;
    let mut deleted = 0;
    for id in state.clients.unused_registered(before, limit).await? {
        let Some(client) = state.clients.find_client_by_id(&id).await? else { continue };
        // Used meanwhile.
        if client.last_used_at.is_some_and(|at| at >= before) {
            continue;
        }
        match delete(state, &by, &client, Some(client.version), "unused").await {
            Ok(()) => deleted += 1,
            Err(ClientError::Changed) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Deletes the oldest registered client that was never used, if it had an hour for that: whoever fills the list up keeps nobody out
/// for long. Returns whether there was one.
///
/// # Errors
/// What could not be recorded or written.
pub(super) async fn make_room(state: &OAuthState) -> Result<bool, ClientError> {
    let Some(id) = state.clients.oldest_never_used(state.now() - HOUR).await? else { return Ok(false) };
    let Some(client) = state.clients.find_client_by_id(&id).await? else { return Ok(true) };
    if client.last_used_at.is_some() {
        return Ok(true);
    }
    match delete(state, &system(), &client, Some(client.version), "made_room").await {
        Ok(()) | Err(ClientError::Changed) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The installation itself.
fn system() -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.user_id = "system".into();
    principal.user_type = UserType::Service;
    RequestContext::new(Arc::new(principal), TraceId::generate())
}
