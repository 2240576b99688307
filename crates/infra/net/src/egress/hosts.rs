//! Which hosts the operator opens, closes, or lets be private (SEC-103).

use crate::address::is_link_local;
use ipnet::IpNet;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// A host by its name, or every host below a domain: `api.example.com`, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    name: String,
    below: bool,
}

/// The text names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a host name, an IP address or *.domain")]
pub struct HostPatternError;

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_address = name.parse::<IpAddr>().is_ok();
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            });
        if (is_address && !below) || is_name { Ok(Self { name, below }) } else { Err(HostPatternError) }
    }
}

impl HostPattern {
    /// Whether `host`, as a URL names it, is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = plain(host);
        if self.below {
            let parent = host.len().checked_sub(self.name.len() + 1).map(|at| host.split_at(at));
            return parent.is_some_and(|(_, end)| {
                end.strip_prefix('.').is_some_and(|end| end.eq_ignore_ascii_case(&self.name))
            });
        }
        host.eq_ignore_ascii_case(&self.name)
    }
}

/// A host of a URL without brackets and without the dot at its end.
fn plain(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.')
}

/// A network, or a host by name, that may be private.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrivateEntry {
    Net(IpNet),
    Host(HostPattern),
}

impl FromStr for PrivateEntry {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net(address.to_canonical().into()));
        }
        match text.parse::<IpNet>() {
            Ok(net) => Ok(Self::Net(net.trunc())),
            Err(_) => text.parse().map(Self::Host),
        }
    }
}

impl PrivateEntry {
    /// Whether `address`, found for `host`, is opened. What is link-local is so only by an entry of its own: a network of that
    /// range.
    fn opens(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Self::Net(net) => {
                net.contains(&address) && (!is_link_local(address) || is_link_local(net.network()))
            }
            Self::Host(pattern) => !is_link_local(address) && pattern.matches(host),
        }
    }
}

/// The operator's lists. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct HostRules(Arc<Lists>);

#[derive(Debug, Default)]
struct Lists {
    allow: Vec<HostPattern>,
    deny: Vec<HostPattern>,
    private: Vec<PrivateEntry>,
    loopback: bool,
}

impl HostRules {
    /// `allow` bounds what outsiders may name, if it is not empty; `deny` closes hosts to every class; `private` opens special-use
    /// addresses to the operator's own URLs.
    pub fn new(allow: Vec<HostPattern>, deny: Vec<HostPattern>, private: Vec<PrivateEntry>) -> Self {
        Self(Arc::new(Lists { allow, deny, private, loopback: false }))
    }

    /// Lets outsiders' URLs name http on loopback: for a deployment that serves this host alone, where its users are.
    pub fn with_loopback(self) -> Self {
        let lists = &*self.0;
        let (allow, deny, private) = (lists.allow.clone(), lists.deny.clone(), lists.private.clone());
        Self(Arc::new(Lists { allow, deny, private, loopback: true }))
    }

    /// The same lists, with this host closed to outsiders' URLs.
    pub fn without_loopback(&self) -> Self {
        let lists = &self.0;
        let (allow, deny, private) = (lists.allow.clone(), lists.deny.clone(), lists.private.clone());
        Self(Arc::new(Lists { allow, deny, private, loopback: false }))
    }

    pub(super) fn opens_loopback(&self) -> bool {
        self.0.loopback
    }

    pub(crate) fn denies(&self, host: &str) -> bool {
        self.0.deny.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether an outsider may name `host`.
    pub(super) fn allows(&self, host: &str) -> bool {
        self.0.allow.is_empty() || self.0.allow.iter().any(|pattern| pattern.matches(host))
    }

    pub(super) fn opens(&self, host: &str, address: IpAddr) -> bool {
        self.0.private.iter().any(|entry| entry.opens(host, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_exactly_or_by_their_domain() {
        for (pattern, host, want) in [
            ("api.example.com", "API.example.com", true),
            ("api.example.com", "api.example.com.", true),
            ("api.example.com", "evil-api.example.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("2001:db8::1", "[2001:db8::1]", true),
        ] {
            assert_eq!(pattern.parse::<HostPattern>().unwrap().matches(host), want, "{pattern} {host}");
        }
        for bad in ["", "*", "*.", "a b", "http://x", "x/y", "*.192.0.2.7/8", "a..b", "ex*mple.com"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn private_entries_open_metadata_addresses_only_by_their_own_range() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (entry, host, ip, want) in [
            ("10.0.0.0/8", "x", "10.1.2.3", true),
            ("10.0.0.0/8", "x", "11.1.2.3", false),
            ("0.0.0.0/0", "x", "169.254.169.254", false),
            ("169.254.169.254", "x", "169.254.169.254", true),
            ("vault.internal", "vault.internal", "10.1.2.3", true),
            ("vault.internal", "vault.internal", "169.254.169.254", false),
            ("*.internal", "vault.internal", "fd00::1", true),
            ("vault.internal", "other.internal", "10.1.2.3", false),
        ] {
            let entry: PrivateEntry = entry.parse().unwrap();
            assert_eq!(entry.opens(host, address(ip)), want, "{entry:?} {host} {ip}");
        }
    }
}
