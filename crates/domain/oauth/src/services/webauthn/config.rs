//! The relying party: its id, its one origin, and what it wants of authenticators.

use crate::error::{OauthError, OauthResult};
use crate::state::Settings;
use std::time::Duration;
use systemprompt_config::profile::identity::Wanted;
use url::{Host, Url};
use webauthn_rs_core::WebauthnCore;
use webauthn_rs_core::proto::{COSEAlgorithm, UserVerificationPolicy};

/// How long a browser lets the person think.
const TIMEOUT: Duration = Duration::from_mins(5);

/// EdDSA where the authenticator has it, else what nearly all have.
pub(crate) const ALGORITHMS: [COSEAlgorithm; 3] =
    [COSEAlgorithm::ES256, COSEAlgorithm::EDDSA, COSEAlgorithm::RS256];

/// What the ceremonies need of the settings.
#[derive(Debug)]
pub struct WebAuthnConfig {
    pub(crate) core: WebauthnCore,
    pub(crate) resident_key: Wanted,
    /// Without user verification a passkey is half of a sign-in: that is enough only where a password can be the other half.
    pub(crate) verification: UserVerificationPolicy,
}

impl WebAuthnConfig {
    /// # Errors
    /// An external URL or `webauthn.rp_id` under which no browser makes passkeys.
    pub fn of(settings: &Settings) -> OauthResult<Self> {
        let wanted = &settings.identity.webauthn;
        let url = Url::parse(&settings.external_url).map_err(|_| unusable())?;
        let Some(Host::Domain(host)) = url.host() else { return Err(unusable()) };
        let rp_id = wanted.rp_id.as_deref().unwrap_or(host);
        if !covers(rp_id, host) {
            return Err(unusable());
        }
        let origin = Url::parse(&url.origin().ascii_serialization()).map_err(|_| unusable())?;
        let name = wanted.rp_name.as_deref().unwrap_or(&settings.display_name);
        let core = WebauthnCore::new_unsafe_experts_only(
            name,
            rp_id,
            vec![origin],
            TIMEOUT,
            Some(false),
            Some(false),
        );
        let has_other_half = settings.identity.password.enabled;
        let verification = match wanted.user_verification {
            Wanted::Preferred if has_other_half => UserVerificationPolicy::Preferred,
            Wanted::Preferred | Wanted::Required => UserVerificationPolicy::Required,
        };
        Ok(Self { core, resident_key: wanted.resident_key, verification })
    }
}

/// Whether `rp_id` is the host or a parent domain of it with a dot of its own.
fn covers(rp_id: &str, host: &str) -> bool {
    rp_id == host || (rp_id.contains('.') && host.strip_suffix(rp_id).is_some_and(|rest| rest.ends_with('.')))
}

fn unusable() -> OauthError {
    OauthError::invalid_request(
        "passkeys need server.api_external_url with a host name that webauthn.rp_id covers; an IP address has none",
    )
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn the_relying_party_is_the_host_or_a_domain_above_it() {
        for (rp_id, host, want) in [
            ("localhost", "localhost", true),
            ("example.org", "id.example.org", true),
            ("id.example.org", "id.example.org", true),
            ("example.org", "evilexample.org", false),
            ("org", "example.org", false),
            ("other.org", "example.org", false),
        ] {
            assert_eq!(covers(rp_id, host), want, "{rp_id} {host}");
        }
    }
}
