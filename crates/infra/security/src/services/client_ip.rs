//! The address of the client (SEC-13): the peer, or, behind trusted proxies, the first hop from the right that is not one.

use http::HeaderMap;
use std::net::{IpAddr, Ipv6Addr};
use systemprompt_config::profile::values::Cidr;

/// Most hops that a forwarding header is read for.
const MAX_HOPS: usize = 32;

/// The client's address. Forwarding headers count only if the peer is trusted; a malformed element ends the walk at the last
/// good hop.
pub fn resolve(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let hops = match values(headers, "x-forwarded-for") {
        Some(hops) => hops,
        None => match values(headers, "forwarded") {
            Some(elements) => elements.iter().map(|e| forwarded_for(e).unwrap_or_default()).collect(),
            None => return peer,
        },
    };
    let mut client = peer;
    for hop in hops.iter().rev().take(MAX_HOPS) {
        let Some(address) = parse_hop(hop) else { break };
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// What limits and bans count an address as: IPv6 by its /64.
pub fn key(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Whether forwarding headers of this peer are believed.
pub fn is_trusted(address: IpAddr, trusted: &[Cidr]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(address))
}

/// The comma-separated elements of all lines of a header.
fn values(headers: &HeaderMap, name: &str) -> Option<Vec<String>> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|v| v.to_str().unwrap_or_default()).collect();
    if lines.is_empty() {
        return None;
    }
    Some(lines.iter().flat_map(|line| line.split(',')).map(|hop| hop.trim().to_owned()).collect())
}

/// The `for` of one `Forwarded` element (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<String> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn parse_hop(hop: &str) -> Option<IpAddr> {
    if let Ok(address) = hop.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(inner) = hop.strip_prefix('[') {
        return inner.split(']').next()?.parse::<IpAddr>().ok().map(|a| a.to_canonical());
    }
    hop.rsplit_once(':')?.0.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_headers_count_only_behind_trusted_proxies() {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "::1/128"].iter().map(|n| Cidr(n.parse().unwrap())).collect();
        for (peer, header, value, want) in [
            ("203.0.113.9", "x-forwarded-for", "198.51.100.1", "203.0.113.9"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "x-forwarded-for", "1.1.1.1, 198.51.100.1, 10.2.3.4", "198.51.100.1"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.1, junk, 10.2.3.4", "10.2.3.4"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.1:4711", "198.51.100.1"),
            (
                "10.0.0.1",
                "forwarded",
                "for=192.0.2.60;proto=http, for=\"[2001:db8::17]:47011\"",
                "2001:db8::17",
            ),
            ("::ffff:10.0.0.1", "x-forwarded-for", "::ffff:198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "x-real-ip", "198.51.100.1", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header, value.parse().unwrap());
            let got = resolve(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(got, want.parse::<IpAddr>().unwrap(), "{peer} {header}: {value}");
        }
    }

    #[test]
    fn ipv6_counts_by_its_64_bit_prefix() {
        assert_eq!(key("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(key("192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
