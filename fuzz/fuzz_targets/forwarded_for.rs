//! Any forwarding headers: no panic; from a peer that is no trusted proxy they have no effect.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use systemprompt_config::profile::values::Cidr;
use systemprompt_fuzz::headers;
use systemprompt_security::services::client_ip;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let headers = headers(rest);
    let trusted: Vec<Cidr> =
        ["10.0.0.0/8", "fd00::/8", "::1/128"].iter().filter_map(|text| text.parse().ok()).collect();
    let stranger = IpAddr::V4(Ipv4Addr::new(203, 0, 113, *first));
    assert_eq!(client_ip::resolve(stranger, &headers, &trusted), stranger);
    for proxy in [IpAddr::V4(Ipv4Addr::new(10, 0, 0, *first)), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let client = client_ip::resolve(proxy, &headers, &trusted);
        assert_eq!(client, client.to_canonical());
        assert_eq!(client_ip::key(client_ip::key(client)), client_ip::key(client));
    }
});
