//! `security.identity` and what of `security` identity rests on.

use super::Check;
use crate::diagnostic::Diagnostic;
use crate::document::steps;
use crate::profile::Profile;
use crate::profile::identity::Wanted;
use crate::schema::HttpUrl;
use std::net::IpAddr;
use systemprompt_models::Permission;

/// Whether a name is a public suffix that the list knows, under which others have names too.
fn is_public_suffix(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known() && suffix == name.as_str())
}

impl Check<'_> {
    pub(super) fn identity(&mut self, profile: &Profile) {
        let security = &profile.security;
        if let Some(issuer) = &security.jwt_issuer {
            let fits = HttpUrl::parse(issuer).is_some_and(|url| url.secure || url.is_loopback());
            if !fits {
                let finding = Diagnostic::error(
                    "invalid_value",
                    "an issuer is an https address, or http on loopback, without query and fragment",
                );
                self.add(&steps!["security", "jwt_issuer"], finding);
            }
        }
        let identity = &security.identity;
        let lacks_verification = identity.webauthn.user_verification == Wanted::Preferred;
        if lacks_verification && !identity.password.enabled {
            let finding =
                Diagnostic::error("invalid_value", "a passkey without user verification is one factor alone")
                    .with_remedy("keep `required`, or set `security.identity.password.enabled: true`");
            self.add(&steps!["security", "identity", "webauthn", "user_verification"], finding);
        }
        if let Some(rp_id) = &identity.webauthn.rp_id {
            self.rp_id(rp_id, &profile.api_external_url());
        }
        let admin = identity.role_permissions.get("admin");
        if !admin.is_some_and(|permissions| permissions.contains(&Permission::Admin)) {
            let finding = Diagnostic::error("invalid_value", "the role `admin` permits `admin`")
                .with_remedy("add it: nobody could administer this deployment");
            self.add(&steps!["security", "identity", "role_permissions"], finding);
        }
        if identity.session.idle > identity.session.absolute {
            let finding = Diagnostic::error(
                "invalid_value",
                "a session cannot rest longer than it lives (security.identity.session.absolute)",
            );
            self.add(&steps!["security", "identity", "session", "idle"], finding);
        }
        let cimd = &identity.cimd;
        if !(cimd.cache_min..=cimd.cache_max).contains(&cimd.cache_default) {
            let finding =
                Diagnostic::error("invalid_value", "cache_default lies between cache_min and cache_max");
            self.add(&steps!["security", "identity", "cimd", "cache_default"], finding);
        }
        for (role, permissions) in &identity.role_permissions {
            if permissions.contains(&Permission::Anonymous) {
                let finding = Diagnostic::error("invalid_value", "no role permits `anonymous`");
                self.add(&steps!["security", "identity", "role_permissions", role.as_str()], finding);
            }
        }
    }

    /// The id that passkeys are bound to: the external host or a domain above it, which is nobody's in common.
    fn rp_id(&mut self, rp_id: &str, external_url: &str) {
        let host = HttpUrl::parse(external_url).map(|url| url.host).unwrap_or_default();
        let covers = rp_id == host || host.strip_suffix(rp_id).is_some_and(|rest| rest.ends_with('.'));
        let what = if rp_id.parse::<IpAddr>().is_ok() {
            "an IP address is no relying party"
        } else if is_public_suffix(rp_id) {
            "a public suffix belongs to nobody alone"
        } else if !covers {
            "neither the host of `server.api_external_url` nor a domain above it"
        } else {
            return;
        };
        let finding = Diagnostic::error("invalid_value", format!("`{rp_id}`: {what}"))
            .with_remedy("name the external host or a parent domain of it, or leave it out");
        self.add(&steps!["security", "identity", "webauthn", "rp_id"], finding);
    }
}

#[cfg(test)]
mod tests {
    use super::is_public_suffix;

    #[test]
    fn id_82_a_public_suffix_is_no_relying_party() {
        for suffix in ["com", "co.uk", "CO.UK", "github.io"] {
            assert!(is_public_suffix(suffix), "{suffix}");
        }
        for name in ["localhost", "example.org", "id.example.co.uk", "octo.github.io", "intranet"] {
            assert!(!is_public_suffix(name), "{name}");
        }
    }
}
