//! Bans of addresses and networks (SEC-18, PL-31). Rows are the truth; each node keeps all of them in memory, so that the check
//! does no I/O and nobody is unbanned by exhausting the database. A change is recorded, written and in force on this node
//! before the call returns; other nodes see the epoch within a second or two.

pub mod error;
pub mod extension;
pub mod set;
pub mod store;

pub use error::BanError;
pub use extension::BansExtension;
pub use set::Banned;
pub use store::{BanStore, Standing};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use systemprompt_models::Millis;
use systemprompt_models::ids::BanId;

/// Broader networks are not banned: a slip of the hand would shut out a part of the world.
const MIN_PREFIX_V4: u8 = 8;
const MIN_PREFIX_V6: u8 = 32;
/// Longest reason, in characters.
pub const MAX_REASON: usize = 200;
/// Longest ban that has an end, in seconds: ten years.
pub const MAX_LIFE_S: u64 = 315_360_000;

/// What made a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BanSource {
    Manual,
    Behavioral,
    Velocity,
    Fingerprint,
    Scanner,
}

impl BanSource {
    const ALL: [Self; 5] = [Self::Manual, Self::Behavioral, Self::Velocity, Self::Fingerprint, Self::Scanner];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Behavioral => "behavioral",
            Self::Velocity => "velocity",
            Self::Fingerprint => "fingerprint",
            Self::Scanner => "scanner",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// A ban, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ban {
    pub id: BanId,
    pub network: IpNet,
    pub reason: String,
    pub source: BanSource,
    /// User id of who made it; `system` for an automatic one.
    pub created_by: String,
    pub created_at: Millis,
    /// Absent: until it is removed.
    pub expires_at: Option<Millis>,
    /// Refused requests; written every ten seconds.
    pub hits: i64,
    pub last_hit_at: Option<Millis>,
}

/// A ban to be made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBan {
    pub network: String,
    #[serde(default)]
    pub reason: String,
    /// Seconds; until it is removed if absent.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
    /// Bans even the caller, loopback or a trusted proxy.
    #[serde(default)]
    pub force: bool,
}

impl NewBan {
    fn network(&self) -> Result<IpNet, BanError> {
        let invalid = |field, message: String| Err(BanError::Invalid { field, message });
        let Some(network) = parse_network(&self.network) else {
            return invalid("network", "an address or a network, such as 192.0.2.7 or 2001:db8::/48".into());
        };
        let least = if network.addr().is_ipv4() { MIN_PREFIX_V4 } else { MIN_PREFIX_V6 };
        if network.prefix_len() < least {
            return invalid("network", format!("at most a /{least} can be banned"));
        }
        if self.reason.chars().count() > MAX_REASON {
            return invalid("reason", format!("at most {MAX_REASON} characters"));
        }
        if self.expires_in_s.is_some_and(|seconds| !(1..=MAX_LIFE_S).contains(&seconds)) {
            return invalid("expires_in_s", format!("1 to {MAX_LIFE_S}; leave it out for no end"));
        }
        Ok(network)
    }
}

/// An address or a network, host bits cut off, IPv4-mapped IPv6 as IPv4.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().ok()?,
    };
    Some(fold(network).trunc())
}

fn fold(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(network, IpNet::V4),
        _ => network,
    }
}

/// What an automatic ban of `address` covers: the address, or its /64.
pub fn covering(address: IpAddr) -> IpNet {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpNet::from(IpAddr::V4(v4)),
        IpAddr::V6(v6) => Ipv6Net::new(v6, 64).map_or(IpNet::from(IpAddr::V6(v6)), IpNet::V6).trunc(),
    }
}

fn overlaps(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Whether a network reaches into loopback.
fn reaches_loopback(network: IpNet) -> bool {
    let v4 = Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).map(IpNet::V4);
    v4.is_ok_and(|loopback| overlaps(network, loopback.trunc()))
        || network.contains(&IpAddr::V6(Ipv6Addr::LOCALHOST))
}

#[cfg(test)]
mod tests;
