//! What the edge makes of the configuration, so that a request does not. A reload is followed by the next request.

use crate::services::middleware::rate_limit::RateLimit;
use crate::services::middleware::security_headers::SecurityHeaders;
use std::sync::Arc;
use systemprompt_config::profile::Profile;

#[derive(Debug)]
pub(super) struct Settings {
    pub profile: Arc<Profile>,
    /// Among how many nodes the limits are divided.
    pub nodes: u32,
    pub headers: SecurityHeaders,
    pub rate_limit: Arc<RateLimit>,
}

impl Settings {
    pub fn new(profile: &Arc<Profile>, nodes: u32) -> Self {
        Self::with(profile, nodes, Arc::new(RateLimit::new(&profile.rate_limits, nodes)))
    }

    /// Those of another profile, or of another number of nodes. Limits that did not change keep what they have counted.
    pub fn follow(&self, profile: &Arc<Profile>, nodes: u32) -> Self {
        if profile.rate_limits == self.profile.rate_limits && nodes == self.nodes {
            Self::with(profile, nodes, Arc::clone(&self.rate_limit))
        } else {
            Self::new(profile, nodes)
        }
    }

    fn with(profile: &Arc<Profile>, nodes: u32, rate_limit: Arc<RateLimit>) -> Self {
        let headers = SecurityHeaders::new(&profile.api_external_url(), &profile.server.security_headers);
        Self { profile: Arc::clone(profile), nodes, headers, rate_limit }
    }
}
