//! What the clean-up job removes of clients (ID-21, ID-104).

use super::{ClientError, delete};
use crate::state::OAuthState;
use systemprompt_models::{Millis, RequestContext};

const DAY: Millis = 86_400_000;

/// Deletes at most `limit` registered clients that nobody used for `registration_unused_days`. Returns how many.
///
/// # Errors
/// What could not be recorded or written.
pub async fn unused_clients(state: &OAuthState, by: &RequestContext, limit: i64) -> Result<u64, ClientError> {
    let days = Millis::from(state.settings().identity.registration_unused_days);
    let before = state.now() - days * DAY;
    let mut deleted = 0;
    for id in state.clients.unused_registered(before, limit).await? {
        let Some(client) = state.clients.find_client_by_id(&id).await? else { continue };
        // Used meanwhile.
        if client.last_used_at.is_some_and(|at| at >= before) {
            continue;
        }
        match delete(state, by, &client, Some(client.version), "unused").await {
            Ok(()) => deleted += 1,
            Err(ClientError::Changed) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Removes at most `limit` metadata documents and fetch budgets that matter no more. Returns how many.
///
/// # Errors
/// When the rows cannot be written.
pub async fn documents(state: &OAuthState, limit: i64) -> Result<u64, ClientError> {
    Ok(state.clients.clean_documents(state.now(), limit).await?)
}
