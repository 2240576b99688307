//! Refusals of callers who are nobody yet. One by one an outsider could fill the ledger with them; they are counted by reason
//! and become one record a minute (AUD-19).

use ipnet::IpNet;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use systemprompt_audit::{Draft, EntryKind, Payload, Role};

/// Most reasons of one record.
const MAX_REASONS: usize = 100;
/// Most networks that are counted one by one; all further ones are counted together.
const MAX_NETWORKS: usize = 4096;
/// Most networks that the payload names, those with the most refusals.
const MAX_NAMED: usize = 100;
/// Length of the networks that addresses are counted by.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 56;

/// Counts by reason, and by network.
#[derive(Debug, Default)]
pub struct RefusalCounts(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    reasons: BTreeMap<&'static str, i64>,
    networks: HashMap<IpNet, i64>,
    others: i64,
}

impl RefusalCounts {
    /// Counts a refusal. `reason` is one of a closed set, never a text of the caller's.
    pub fn count(&self, reason: &'static str, client: IpAddr) {
        let network = network(client);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { reasons, networks, others } = &mut *counts;
        if reasons.len() < MAX_REASONS || reasons.contains_key(reason) {
            *reasons.entry(reason).or_default() += 1;
        }
        if networks.len() < MAX_NETWORKS || networks.contains_key(&network) {
            *networks.entry(network).or_default() += 1;
        } else {
            *others += 1;
        }
    }

    /// The record of what was counted, which begins anew; nothing when there was nothing.
    pub fn take(&self) -> Option<Draft> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counts.reasons.is_empty() {
            return None;
        }
        let total: i64 = counts.reasons.values().sum();
        let draft = Draft::system(EntryKind::SystemRefusals, "ok").with("total", total);
        let draft = draft.with_payload(origins(counts.networks, counts.others));
        Some(counts.reasons.into_iter().fold(draft, |draft, (reason, count)| draft.with(reason, count)))
    }
}

fn network(client: IpAddr) -> IpNet {
    let client = client.to_canonical();
    let prefix = if client.is_ipv4() { PREFIX_V4 } else { PREFIX_V6 };
    IpNet::new(client, prefix).map_or(IpNet::from(client), |network| network.trunc())
}

/// Where the refused came from. An address is somebody's, so it is a payload.
fn origins(networks: HashMap<IpNet, i64>, mut others: i64) -> Payload {
    let mut networks: Vec<(IpNet, i64)> = networks.into_iter().collect();
    networks.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    others += networks.iter().skip(MAX_NAMED).map(|(_, count)| count).sum::<i64>();
    let named = networks.iter().take(MAX_NAMED);
    let named: Vec<_> =
        named.map(|(network, count)| json!({"network": network.to_string(), "count": count})).collect();
    Payload::of(Role::Addresses, &json!({"networks": named, "others": others}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_one_record_with_a_count_for_each_reason() {
        let counts = RefusalCounts::default();
        assert!(counts.take().is_none());
        for _ in 0..1000 {
            counts.count("scanner-path", "192.0.2.7".parse().unwrap());
        }
        counts.count("unauthenticated", "2001:db8::1".parse().unwrap());
        let draft = counts.take().unwrap();
        assert_eq!(draft.detail["total"], 1001);
        assert_eq!(
            (&draft.detail["scanner-path"], &draft.detail["unauthenticated"]),
            (&1000.into(), &1.into())
        );
        assert!(counts.take().is_none());
    }
}
