//! Keys of clients that publish them at an address (ID-26). An unknown `kid` causes at most one fetch a minute, so that nobody makes
//! us ask a host as often as they send tokens; a fetch whose caller goes away comes to its end and counts as any other.

use super::{take_budget, take_share};
use crate::error::OauthResult;
use crate::services::validation::client_keys::ClientKeys;
use crate::state::OAuthState;
use moka::sync::Cache;
use serde_json::Value;
use std::sync::Arc;
use systemprompt_models::{Millis, RequestContext};
use systemprompt_net::Wanted;
use url::Url;

/// Most key sets that are kept; the least used goes.
const MAX_SETS: u64 = 1000;
/// Shortest time between two fetches of a set.
const RETRY: Millis = 60_000;

#[derive(Clone, Debug)]
struct Held {
    keys: Arc<ClientKeys>,
    tried_at: Millis,
    fresh_until: Millis,
}

/// Key sets by their address.
#[derive(Debug)]
pub struct KeyCache(Cache<String, Held>);

impl Default for KeyCache {
    fn default() -> Self {
        Self(Cache::new(MAX_SETS))
    }
}

/// The keys at `uri`, with a fetch where none are fresh or none is `found` among them. None where they cannot be had.
///
/// # Errors
/// Too many fetches, of the network that asks or of all; or a store that does not answer.
pub(crate) async fn keys(
    state: &OAuthState,
    context: &RequestContext,
    uri: &str,
    found: impl Fn(&ClientKeys) -> bool,
) -> OauthResult<Option<Arc<ClientKeys>>> {
    if let Known::So(keys) = known(state, uri, &found) {
        return Ok(keys);
    }
    let turn = state.cimd.flight(uri).lock_owned().await;
    // Whoever waited takes what the first one found.
    if let Known::So(keys) = known(state, uri, &found) {
        return Ok(keys);
    }
    let Some(url) = Url::parse(uri).ok().filter(|url| url.scheme() == "https") else { return Ok(None) };
    // Nothing is proven yet: a token that nobody signed brings us here.
    take_share(state, context).await?;
    take_budget(state, url.host_str().unwrap_or_default()).await?;
    let (of, uri) = (state.clone(), uri.to_owned());
    let fetch = async move {
        let keys = fetch(&of, &uri, url.host_str()).await;
        drop(turn);
        keys
    };
    Ok(state.to_the_end("keys of a client", fetch).await.flatten())
}

/// Fetches a set and keeps it; one that cannot be had is noted, so that it is not asked for again at once.
async fn fetch(state: &OAuthState, uri: &str, host: Option<&str>) -> Option<Arc<ClientKeys>> {
    let now = state.now();
    let config = &state.settings().identity.cimd;
    let fetched = match state.egress.document(uri, Wanted::JWKS).await {
        Ok(fetched) => fetched,
        Err(error) => {
            tracing::info!(host, %error, "a client's keys could not be fetched");
            return tried(state, uri);
        }
    };
    let parsed = serde_json::from_slice::<Value>(&fetched.body).ok().map(|set| ClientKeys::parse(&set));
    let Some(Ok(keys)) = parsed else {
        tracing::info!(host, "a client's keys are no key set");
        return tried(state, uri);
    };
    let life = fetched.fresh_for.map_or(u64::from(config.cache_default), |life| life.as_secs());
    let life = life.min(u64::from(config.cache_max)).max(u64::from(config.cache_min)).saturating_mul(1000);
    let fresh_until = now.saturating_add(Millis::try_from(life).unwrap_or(Millis::MAX));
    let keys = Arc::new(keys);
    let held = Held { keys: Arc::clone(&keys), tried_at: now, fresh_until };
    state.cimd.keys.0.insert(uri.to_owned(), held);
    Some(keys)
}

/// What is known without a fetch.
enum Known {
    /// The keys, or that there are none for now.
    So(Option<Arc<ClientKeys>>),
    Nothing,
}

fn known(state: &OAuthState, uri: &str, found: impl Fn(&ClientKeys) -> bool) -> Known {
    let Some(held) = state.cimd.keys.0.get(uri) else { return Known::Nothing };
    let now = state.now();
    let is_fresh = now < held.fresh_until;
    let is_enough = (is_fresh && found(&held.keys)) || now - held.tried_at < RETRY;
    if is_enough { Known::So(is_fresh.then_some(held.keys)) } else { Known::Nothing }
}

/// Notes a fetch that failed.
fn tried(state: &OAuthState, uri: &str) -> Option<Arc<ClientKeys>> {
    let held = state.cimd.keys.0.get(uri);
    let (keys, fresh_until) = held.map_or_else(Default::default, |held| (held.keys, held.fresh_until));
    state.cimd.keys.0.insert(uri.to_owned(), Held { keys, tried_at: state.now(), fresh_until });
    None
}
