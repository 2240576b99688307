//! `security.egress`: which hosts this deployment may fetch from (SEC-103).

use systemprompt_config::Loaded;
use systemprompt_net::HostRules;
use systemprompt_net::egress::HostPatternError;

/// The lists of the profile. A deployment that serves this host alone may also be given URLs of this host.
///
/// # Errors
/// An entry that names no host and no network.
pub fn hosts(loaded: &Loaded) -> Result<HostRules, HostPatternError> {
    let egress = &loaded.profile.security.egress;
    let hosts = HostRules::new(
        egress.allow_hosts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        egress.deny_hosts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        egress.allow_private.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
    );
    Ok(if loaded.profile.server.host.is_loopback() { hosts.with_loopback() } else { hosts })
}
