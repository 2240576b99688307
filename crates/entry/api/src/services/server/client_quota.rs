//! The limit of OAuth clients (ID-94), one by one: counted once a client has shown who it is, so that nobody uses up another's share
//! by naming it, and a busy network slows none of its clients.

use super::settings::Settings;
use crate::services::middleware::rate_limit::Quotas;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::RateLimitTier;
use systemprompt_oauth::models::oauth::ClientAuthMethod;
use systemprompt_oauth::services::validation::client_credentials::ClientLimit;

/// What one request is counted as.
pub(super) struct ClientQuota {
    settings: Arc<Settings>,
    address: IpAddr,
    left: Arc<OnceLock<Quotas>>,
}

impl ClientQuota {
    pub fn new(settings: &Arc<Settings>, address: IpAddr) -> Self {
        Self { settings: Arc::clone(settings), address, left: Arc::default() }
    }

    /// What the authorization server asks.
    pub fn limit(&self) -> ClientLimit {
        let (settings, address, left) = (Arc::clone(&self.settings), self.address, Arc::clone(&self.left));
        ClientLimit::new(move |authenticated| {
            // Anybody can name a client without a secret: such a one has its share per address.
            let from = (authenticated.method == ClientAuthMethod::None).then_some(address);
            let key = (authenticated.client.client_id.as_str(), from);
            let group = (RateGroup::OauthToken, RateLimitTier::User);
            let (quotas, outcome) = settings.rate_limit.check(group, key, 1);
            if let Some(quotas) = quotas {
                // A request is counted once.
                left.get_or_init(|| quotas);
            }
            outcome.map_err(|refusal| refusal.retry_after.unwrap_or(1))
        })
    }

    /// What the limit leaves the client, if one was counted.
    pub fn left(&self) -> Option<Quotas> {
        self.left.get().copied()
    }
}
