//! What the edge makes of the configuration, so that a request does not. A reload is followed by the next request.

use crate::services::middleware::rate_limit::RateLimit;
use crate::services::middleware::security_headers::SecurityHeaders;
use std::sync::Arc;
use systemprompt_config::profile::Profile;

#[derive(Debug)]
pub(super) struct Settings {
    pub profile: Arc<Profile>,
    pub headers: SecurityHeaders,
    pub rate_limit: Arc<RateLimit>,
}

impl Settings {
    pub fn new(profile: &Arc<Profile>) -> Self {
        Self::with(profile, Arc::new(RateLimit::new(&profile.rate_limits)))
    }

    /// Those of another profile. Limits that did not change keep what they have counted.
    pub fn follow(&self, profile: &Arc<Profile>) -> Self {
        if profile.rate_limits == self.profile.rate_limits {
            Self::with(profile, Arc::clone(&self.rate_limit))
        } else {
            Self::new(profile)
        }
    }

    fn with(profile: &Arc<Profile>, rate_limit: Arc<RateLimit>) -> Self {
        let headers = SecurityHeaders::new(&profile.api_external_url(), &profile.server.security_headers);
        Self { profile: Arc::clone(profile), headers, rate_limit }
    }
}
