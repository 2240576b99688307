//! Clients that are named by the address of their metadata document (draft-ietf-oauth-client-id-metadata-document).

pub mod fetcher;
pub mod jwks;
pub mod logo;
pub mod validator;

use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::cimd::CimdFault;
use crate::models::clients::OAuthClient;
use crate::services::refusals::{Refusal, ip_prefix};
use crate::state::OAuthState;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use systemprompt_audit::EntryKind;
use systemprompt_models::RequestContext;

/// What this node holds for the fetches of metadata.
#[derive(Debug, Default)]
pub struct CimdState {
    /// One fetch at a time for an address; who comes meanwhile waits and then finds what it brought. Holds those under way alone.
    flights: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    pub(crate) keys: jwks::KeyCache,
}

impl CimdState {
    fn flight(&self, url: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(url).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(tokio::sync::Mutex::new(()));
        flights.insert(url.to_owned(), Arc::downgrade(&flight));
        flight
    }
}

/// Whether an id names a metadata document.
pub fn is_document_id(id: &str) -> bool {
    id.starts_with("https://")
}

/// What an id is, by what is known without a fetch.
pub(crate) enum Look {
    /// Its document is kept and fresh.
    Fresh(Box<OAuthClient>),
    /// Its document was kept, and must be fetched anew.
    Stale,
    /// Its document must be fetched.
    Unknown,
    /// Nothing is fetched from its host, which this is (ID-27).
    Closed(String),
    /// An address that is no client's.
    Unfit,
    /// Not the address of a document.
    Other,
}

/// What `id` is. A document that is used is noted as used.
///
/// # Errors
/// A store that does not answer.
pub(crate) async fn look(state: &OAuthState, id: &str) -> OauthResult<Look> {
    if !is_document_id(id) {
        return Ok(Look::Other);
    }
    let settings = state.settings();
    let config = &settings.identity.cimd;
    if !config.enabled {
        return Ok(Look::Unfit);
    }
    let host = match validator::check_address(id) {
        Ok(host) => host,
        Err(fault) => {
            tracing::debug!(reason = fault.reason(), "an address is no client id");
            return Ok(Look::Unfit);
        }
    };
    if validator::check_host(config, &host).is_err() {
        return Ok(Look::Closed(host));
    }
    fetcher::kept(state, id).await
}

/// The client of a document's address that [`look`] found to be a client's; none if the fetch or the document is not what it must be.
///
/// # Errors
/// Too many fetches ([`OauthError::Throttled`]), or a store or ledger that does not answer.
pub(crate) async fn fetched(state: &OAuthState, url: &str) -> OauthResult<Option<OAuthClient>> {
    let turn = state.cimd.flight(url).lock_owned().await;
    if let Look::Fresh(client) = fetcher::kept(state, url).await? {
        return Ok(Some(*client));
    }
    let (of, url) = (state.clone(), url.to_owned());
    let refresh = async move {
        let refreshed = fetcher::refresh(&of, &of.settings().identity.cimd, &url).await;
        drop(turn);
        refreshed
    };
    // Its record is written whoever leaves meanwhile.
    let stopping = || OauthError::new(ErrorCode::TemporarilyUnavailable, "the server stops");
    state.to_the_end("a metadata document", refresh).await.ok_or_else(stopping)?
}

/// Records that a document was named on a host from which nothing is fetched.
///
/// # Errors
/// What could not be recorded.
pub(crate) async fn refuse_host(
    state: &OAuthState,
    context: &RequestContext,
    host: String,
) -> OauthResult<()> {
    let refusal = Refusal {
        kind: EntryKind::OauthCimdRefused,
        endpoint: "client_id",
        error: ErrorCode::InvalidClient.as_str(),
        reason: Some(CimdFault::Host.reason()),
        client_id: None,
    };
    if let Some(draft) = state.refusals.entry(context, &refusal, state.now()) {
        state.record(draft.with("host", host)).await?;
    }
    Ok(())
}

/// Takes a fetch out of the share of whoever's network asks for it.
///
/// # Errors
/// [`OauthError::Throttled`] where the share is used up; a store that does not answer.
pub(crate) async fn take_share(state: &OAuthState, context: &RequestContext) -> OauthResult<()> {
    match ip_prefix(context) {
        Some(network) if !state.clients.take_newcomer(&network, state.now()).await? => {
            Err(OauthError::Throttled { retry_after: 1 })
        }
        _ => Ok(()),
    }
}

/// Takes a place among the fetches: one a second from a host with five at once, ten a second in all.
pub(crate) async fn take_budget(state: &OAuthState, host: &str) -> OauthResult<()> {
    if state.clients.take_fetch(host, state.now()).await? {
        Ok(())
    } else {
        Err(OauthError::Throttled { retry_after: 1 })
    }
}

#[cfg(test)]
mod tests;
