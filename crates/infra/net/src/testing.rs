//! Names whose answers a test decides, for the clients of outgoing requests.

use crate::egress::{Class, Egress, EgressError, HostRules, Lookup, Names, Policy, client_resolving};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A table of names. Each has lists of addresses, which are answered in turn, the last one from then on.
#[derive(Debug)]
pub struct Stub(Mutex<HashMap<&'static str, Vec<Vec<SocketAddr>>>>);

impl Stub {
    /// What is no address is no answer.
    pub fn of(table: &[(&'static str, &[&[&str]])]) -> Arc<Self> {
        let address = |ip: &&str| ip.parse().ok().map(|ip| SocketAddr::new(ip, 0));
        let addresses = |list: &&[&str]| list.iter().filter_map(address).collect();
        let rows = table.iter().map(|(host, lists)| (*host, lists.iter().map(addresses).collect()));
        Arc::new(Self(Mutex::new(rows.collect())))
    }
}

impl Names for Stub {
    fn lookup(&self, host: String) -> Lookup {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lists = table.get_mut(host.as_str());
        let found = lists
            .and_then(|lists| if lists.len() > 1 { Some(lists.remove(0)) } else { lists.first().cloned() });
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// The client for URLs of outsiders, with these names in place of the system's.
///
/// # Errors
/// When it cannot be made.
pub fn untrusted(names: Arc<Stub>, hosts: HostRules) -> Result<Egress, EgressError> {
    client_resolving(Class::Untrusted, Policy::default(), hosts, names)
}
