//! Fetching, recording and keeping metadata documents (ID-23 to ID-27). Errors and invalid documents are never kept, and a document
//! that is no longer fresh is not used when its refresh fails.

use super::{Look, logo, take_budget, validator};
use crate::error::OauthResult;
use crate::models::cimd::{CimdFault, StoredDocument};
use crate::models::clients::{ClientKind, ClientStatus, OAuthClient};
use crate::models::oauth::dynamic_registration::ClientMetadata;
use crate::services::clients::{can_sign, client_of, metadata_digest};
use crate::state::OAuthState;
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind};
use systemprompt_config::profile::identity::CimdConfig;
use systemprompt_models::Millis;
use systemprompt_models::ids::ClientId;
use systemprompt_net::{EgressError, Fetched, Wanted};
use systemprompt_security::keys::SigningAlgorithm;
use url::Url;

/// How exactly the last use of a document is known.
const USE_STEP: Millis = 3_600_000;

/// Documents that are read at once where all are.
const PAGE: i64 = 200;

/// The client of a kept document while that is fresh, or what there is in its place.
pub(super) async fn kept(state: &OAuthState, url: &str) -> OauthResult<Look> {
    let now = state.now();
    let Some(stored) = state.clients.document(url).await? else { return Ok(Look::Unknown) };
    if now >= stored.fresh_until {
        return Ok(Look::Stale);
    }
    // What an earlier version accepted may be refused by this one.
    let Ok(metadata) = validator::read(url, stored.document.as_bytes()) else { return Ok(Look::Stale) };
    state.clients.touch_document(url, now, now - USE_STEP).await?;
    Ok(Look::Fresh(Box::new(client(metadata, &stored))))
}

/// How many clients of kept documents have their ID tokens signed with an algorithm. Each is read, a page at a time: the members of a
/// document stand in no columns.
pub(crate) async fn signed_with(state: &OAuthState, algorithm: SigningAlgorithm) -> sqlx::Result<i64> {
    let (mut count, mut after) = (0, String::new());
    loop {
        let page = state.clients.documents(&after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        after.clone_from(last);
        let is_meant = |(url, document): &&(String, String)| {
            validator::read(url, document.as_bytes())
                .is_ok_and(|metadata| metadata.id_token_signed_response_alg == algorithm)
        };
        count += page.iter().filter(is_meant).count() as i64;
    }
}

/// Fetches the document anew.
pub(super) async fn refresh(
    state: &OAuthState,
    config: &CimdConfig,
    url: &str,
) -> OauthResult<Option<OAuthClient>> {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    take_budget(state, &host).await?;
    let now = state.now();
    let before = state.clients.document(url).await?;
    let age = before.as_ref().map(|stored| now.saturating_sub(stored.fetched_at) / 1000);
    let (fetched, metadata) = match fetch(state, config, url).await {
        Ok(found) => found,
        Err(fault) => {
            state.meter.cimd_fetch(fault.reason());
            let draft = Draft::system(EntryKind::OauthCimdRefused, "refused")
                .with_subject("client", url)
                .with_reason(fault.reason())
                .with("host", host)
                .with("status", fault.status())
                .with("member", fault.member())
                .with("cache_age_s", age);
            state.record(draft).await?;
            return Ok(None);
        }
    };
    state.meter.cimd_fetch("ok");
    let logo = match &metadata.logo_uri {
        Some(uri) => logo::fetch(state, &host, uri).await,
        None => None,
    };
    let life = lifetime(config, fetched.fresh_for);
    let stored = StoredDocument {
        url: url.to_owned(),
        document: String::from_utf8_lossy(&fetched.body).into_owned(),
        metadata_digest: metadata_digest(&metadata),
        fetched_at: now,
        fresh_until: now + life,
        has_logo: logo.is_some(),
    };
    let is_changed = before.is_some_and(|before| before.metadata_digest != stored.metadata_digest);
    let draft = Draft::system(EntryKind::OauthCimdFetched, "ok")
        .with_subject("client", url)
        .with("host", host)
        .with("status", 200)
        .with("bytes", fetched.body.len())
        .with("fresh_s", life / 1000)
        .with("cache_age_s", age)
        .with("changed", is_changed);
    state.record(draft).await?;
    state.clients.store_document(&stored, logo.as_ref(), is_changed).await?;
    Ok(Some(client(metadata, &stored)))
}

async fn fetch(
    state: &OAuthState,
    config: &CimdConfig,
    url: &str,
) -> Result<(Fetched, ClientMetadata), CimdFault> {
    let wanted = Wanted { max_bytes: config.max_bytes as usize, ..Wanted::CLIENT_METADATA };
    let fetched = state.egress.document(url, wanted).await.inspect_err(|error| log(url, error))?;
    let metadata = validator::read(url, &fetched.body)?;
    can_sign(state, metadata.id_token_signed_response_alg)
        .map_err(|fault| CimdFault::Member(fault.member))?;
    Ok((fetched, metadata))
}

fn log(url: &str, error: &EgressError) {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    tracing::info!(host, %error, "a client's metadata document could not be fetched");
}

/// Milliseconds for which a document is kept.
fn lifetime(config: &CimdConfig, fresh_for: Option<Duration>) -> Millis {
    let default = u64::from(config.cache_default);
    let (least, most) = (u64::from(config.cache_min), u64::from(config.cache_max));
    let seconds = fresh_for.map_or(default, |life| life.as_secs()).min(most).max(least);
    Millis::try_from(seconds.saturating_mul(1000)).unwrap_or(Millis::MAX)
}

fn client(metadata: ClientMetadata, stored: &StoredDocument) -> OAuthClient {
    let id = ClientId::new(stored.url.as_str());
    let mut client = client_of(id, ClientKind::MetadataDocument, metadata, stored.fetched_at);
    client.status = ClientStatus::Active;
    client.metadata_digest.clone_from(&stored.metadata_digest);
    // Only what we can serve ourselves is shown.
    client.logo_uri = client.logo_uri.filter(|_| stored.has_logo);
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_26_freshness_is_held_between_the_bounds() {
        let config =
            CimdConfig { cache_min: 60, cache_max: 600, cache_default: 300, ..CimdConfig::default() };
        for (given, want) in [(None, 300), (Some(0), 60), (Some(59), 60), (Some(100), 100), (Some(9999), 600)]
        {
            assert_eq!(lifetime(&config, given.map(Duration::from_secs)), want * 1000, "{given:?}");
        }
    }
}
