//! Clients that are named by the address of their metadata document (draft-ietf-oauth-client-id-metadata-document).

pub mod fetcher;
pub mod jwks;
pub mod logo;
pub mod validator;

use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::state::{OAuthState, Settings};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use systemprompt_config::profile::identity::CimdConfig;

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

/// The host of a document's address if nothing is fetched from it (ID-27).
pub(crate) fn closed_host(settings: &Settings, id: &str) -> Option<String> {
    let config = &settings.identity.cimd;
    if !config.enabled || !is_document_id(id) {
        return None;
    }
    let host = validator::check_address(id).ok()?;
    validator::check_host(config, &host).is_err().then_some(host)
}

/// The client of a document's address; none if the address, the fetch or the document is not what it must be.
///
/// # Errors
/// Too many fetches ([`OauthError::Throttled`]), or a store or ledger that does not answer.
pub(crate) async fn client(state: &OAuthState, url: &str) -> OauthResult<Option<OAuthClient>> {
    let settings = state.settings();
    let config = &settings.identity.cimd;
    if !may_be_fetched(config, url) {
        return Ok(None);
    }
    if let Some(client) = fetcher::fresh(state, url).await? {
        return Ok(Some(client));
    }
    let flight = state.cimd.flight(url);
    let _alone = flight.lock().await;
    if let Some(client) = fetcher::fresh(state, url).await? {
        return Ok(Some(client));
    }
    fetcher::refresh(state, config, url).await
}

/// Whether [`client`] would ask the host of a document now.
pub(crate) async fn needs_fetch(state: &OAuthState, url: &str) -> OauthResult<bool> {
    let settings = state.settings();
    Ok(may_be_fetched(&settings.identity.cimd, url) && fetcher::fresh(state, url).await?.is_none())
}

fn may_be_fetched(config: &CimdConfig, url: &str) -> bool {
    if !config.enabled {
        return false;
    }
    let checked = validator::check_address(url).and_then(|host| validator::check_host(config, &host));
    if let Err(fault) = &checked {
        tracing::debug!(reason = fault.reason(), "an address is no client id");
    }
    checked.is_ok()
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
