//! Refusals of the protocol endpoints: the first ten a minute of one key become an entry each, all further ones one entry with
//! their count (ID-111). So nobody fills the ledger from outside, and nothing goes unseen.

use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use systemprompt_audit::{Draft, EntryKind, Payload, Role};
use systemprompt_models::{Millis, RequestContext};

/// Entries of one key a minute that stand alone.
const ALONE: u32 = 10;
const WINDOW: Millis = 60_000;
/// Most keys that are counted; all further ones share one, which then is told in one entry.
const MAX_KEYS: usize = 4096;

/// A refusal as its entry tells it. Nothing of it is the caller's text but the client's id, and that only if there is such a client.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    pub kind: EntryKind,
    pub endpoint: &'static str,
    pub error: &'static str,
    pub reason: Option<&'a str>,
    pub client_id: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
struct Key {
    kind: &'static str,
    endpoint: &'static str,
    error: &'static str,
    /// Client, else the network of the caller; empty of those beyond the bound.
    who: String,
    is_client: bool,
}

#[derive(Debug)]
struct Window {
    kind: EntryKind,
    began: Millis,
    count: u32,
}

/// Counts of the present minute.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<Key, Window>>);

impl Refusals {
    /// The entry of a refusal, unless its key has had its ten of this minute; what it is counted as is told by [`Self::take`].
    pub fn entry(&self, context: &RequestContext, refusal: &Refusal<'_>, now: Millis) -> Option<Draft> {
        let who = refusal.client_id.map(str::to_owned).or_else(|| ip_prefix(context)).unwrap_or_default();
        let kind = refusal.kind;
        let mut key = Key {
            kind: kind.as_str(),
            endpoint: refusal.endpoint,
            error: refusal.error,
            who,
            is_client: refusal.client_id.is_some(),
        };
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_KEYS && !windows.contains_key(&key) {
            key.who.clear();
            key.is_client = false;
        }
        let is_shared = key.who.is_empty();
        let window = windows.entry(key).or_insert(Window { kind, began: now, count: 0 });
        window.count = window.count.saturating_add(1);
        if is_shared || window.count > ALONE {
            return None;
        }
        let draft = Draft::new(kind, context, "refused")
            .with("endpoint", refusal.endpoint)
            .with("error", refusal.error)
            .with("client", refusal.client_id);
        Some(match refusal.reason {
            Some(reason) => draft.with_reason(reason.to_owned()),
            None => draft,
        })
    }

    /// The entries of what was counted beyond, of minutes that are over.
    pub fn take(&self, now: Millis) -> Vec<Draft> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut drafts = Vec::new();
        windows.retain(|key, window| {
            if now.saturating_sub(window.began) < WINDOW {
                return true;
            }
            let told = if key.who.is_empty() { 0 } else { ALONE };
            let beyond = window.count.saturating_sub(told);
            if beyond > 0 {
                let draft = Draft::system(window.kind, "refused")
                    .with("endpoint", key.endpoint)
                    .with("error", key.error)
                    .with("count", beyond);
                drafts.push(if key.is_client {
                    draft.with("client", key.who.as_str())
                } else {
                    // An address is somebody's, so it is a payload.
                    draft.with_payload(Payload::of(Role::Addresses, &json!({"network": key.who})))
                });
            }
            false
        });
        drafts
    }
}

/// The network of a caller that limits and records go by: /32 or /64 (ID-94).
pub fn ip_prefix(context: &RequestContext) -> Option<String> {
    use std::net::{IpAddr, Ipv6Addr};
    context.client_ip.map(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) => format!("{ip}/32"),
        IpAddr::V6(ip) => {
            let network = u128::from(ip) >> 64 << 64;
            format!("{}/64", Ipv6Addr::from(network))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use systemprompt_models::Principal;
    use systemprompt_models::ids::TraceId;

    fn context(ip: &str) -> RequestContext {
        let mut context = RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate());
        context.client_ip = ip.parse().ok();
        context
    }

    fn refusal(client: Option<&'static str>) -> Refusal<'static> {
        Refusal {
            kind: EntryKind::OauthTokenRefused,
            endpoint: "token",
            error: "invalid_grant",
            reason: None,
            client_id: client,
        }
    }

    #[test]
    fn id_111_beyond_ten_a_minute_refusals_of_one_key_are_one_entry_with_a_count() {
        let counts = Refusals::default();
        let alone = (0..50).filter_map(|n| counts.entry(&context("192.0.2.1"), &refusal(None), n)).count();
        assert_eq!(alone, 10);
        assert!(counts.entry(&context("192.0.2.2"), &refusal(None), 1).is_some(), "another network");
        assert!(counts.take(1000).is_empty(), "the minute is not over");
        let told = counts.take(WINDOW + 60);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].detail["count"], 40);
        assert!(counts.entry(&context("192.0.2.1"), &refusal(None), WINDOW + 61).is_some(), "a new minute");
    }

    #[test]
    fn keys_are_bounded_and_what_is_beyond_is_counted_together() {
        let counts = Refusals::default();
        for n in 0..(MAX_KEYS as u32 + 500) {
            let ip = format!("10.{}.{}.1", n >> 8, n & 255);
            counts.entry(&context(&ip), &refusal(None), 0);
        }
        let told = counts.take(WINDOW);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].detail["count"], 500);
    }

    #[test]
    fn networks_are_an_address_of_version_four_and_a_subnet_of_version_six() {
        for (ip, want) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(ip_prefix(&context(ip)).as_deref(), Some(want), "{ip}");
        }
    }
}
