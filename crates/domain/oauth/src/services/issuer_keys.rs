//! Keys of trusted issuers, from their JWK Sets: kept for ten minutes, asked for once a minute at most (ID-60, ID-131).

use crate::state::OAuthState;
use ipnet::IpNet;
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use systemprompt_config::profile::security::TrustedIssuer;
use systemprompt_models::Millis;
use systemprompt_net::egress::{Class, EgressError, Policy, Wanted, client_under};
use systemprompt_net::{Egress, HostRules};
use systemprompt_security::keys::Jwk;
use url::{Host, Url};

const KEEP: Millis = 600_000;
const ASK_EVERY: Millis = 60_000;
/// Most issuers whose keys are kept; the configuration has fewer.
const MAX_ISSUERS: usize = 256;

/// What is known of an issuer's keys.
#[derive(Debug, Default)]
struct Known {
    keys: Arc<[Jwk]>,
    read_at: Option<Millis>,
    /// When the last fetch began of those that have ended.
    asked_at: Option<Millis>,
}

impl Known {
    /// Keys that are not old: one of the old may have been withdrawn.
    fn kept(&self, now: Millis) -> Option<Arc<[Jwk]>> {
        let is_kept = self.read_at.is_some_and(|at| now - at < KEEP);
        is_kept.then(|| Arc::clone(&self.keys))
    }

    /// Whether nothing is to be fetched: a key has `kid`, or nobody is asked now.
    fn is_enough(&self, kid: &str, now: Millis) -> bool {
        let is_there = self.kept(now).is_some_and(|keys| keys.iter().any(|key| key.kid == kid));
        is_there || !self.may_ask(now)
    }

    /// Once a minute; and once more where keys are old, whatever was asked while they were not: a `kid` that nobody knows does not put
    /// off the fetch that is due.
    fn may_ask(&self, now: Millis) -> bool {
        let Some(asked_at) = self.asked_at else { return true };
        let old_at = self.read_at.map(|at| at + KEEP);
        now - asked_at >= ASK_EVERY || old_at.is_some_and(|at| asked_at < at && at <= now)
    }
}

#[derive(Debug, Default)]
struct Cached {
    known: Mutex<Known>,
    /// Held during a fetch: whoever needs one meanwhile waits for the same answer. Who finds their key waits for nobody.
    flight: Arc<tokio::sync::Mutex<()>>,
}

impl Cached {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longest time that an answer may take.
const TOTAL: Duration = Duration::from_secs(5);

/// The keys that this node knows.
#[derive(Debug)]
pub struct IssuerKeys {
    known: Mutex<HashMap<String, Arc<Cached>>>,
    hosts: HostRules,
}

impl IssuerKeys {
    pub(crate) fn new(hosts: HostRules) -> Self {
        Self { known: Mutex::default(), hosts }
    }

    /// The keys of `issuer`, read anew if they are old or have no `kid`. Nothing if they cannot be had.
    pub(crate) async fn of(
        &self,
        state: &OAuthState,
        issuer: &TrustedIssuer,
        kid: &str,
    ) -> Option<Arc<[Jwk]>> {
        let cached = self.entry(issuer);
        let is_enough = || cached.known().is_enough(kid, state.now());
        if is_enough() {
            return cached.known().kept(state.now());
        }
        let turn = Arc::clone(&cached.flight).lock_owned().await;
        if is_enough() {
            return cached.known().kept(state.now());
        }
        let (cached, issuer, of) = (Arc::clone(&cached), issuer.clone(), state.clone());
        let read = async move {
            let keys = of.issuer_keys.read(&of, &cached, &issuer).await;
            drop(turn);
            keys
        };
        state.to_the_end("keys of an issuer", read).await.flatten()
    }

    /// Fetches keys and notes that, also when they cannot be had.
    async fn read(&self, state: &OAuthState, cached: &Cached, issuer: &TrustedIssuer) -> Option<Arc<[Jwk]>> {
        let now = state.now();
        let fetched = self.fetch(issuer).await;
        let mut known = cached.known();
        known.asked_at = Some(now);
        match fetched {
            Ok(keys) => {
                known.keys = keys.into();
                known.read_at = Some(now);
            }
            Err(why) => {
                tracing::warn!(issuer = issuer.issuer, %why, "keys of a trusted issuer cannot be had");
            }
        }
        known.kept(state.now())
    }

    fn entry(&self, issuer: &TrustedIssuer) -> Arc<Cached> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{} {}", issuer.issuer, issuer.jwks_uri);
        if all.len() >= MAX_ISSUERS && !all.contains_key(&key) {
            all.clear();
        }
        Arc::clone(all.entry(key).or_default())
    }

    /// The client for an address that the operator wrote: what `security.egress` opens to them is open, and an IP address that stands
    /// there in full is too.
    fn egress(&self, address: &str) -> Result<Egress, EgressError> {
        let literal = Url::parse(address).ok().and_then(|url| literal(&url));
        let policy = Policy { allow_insecure: false, allow_private: literal.into_iter().collect() };
        client_under(Class::Operator, policy, self.hosts.clone())
    }

    /// The keys of a set that this server can use; those of other kinds are left out.
    async fn fetch(&self, issuer: &TrustedIssuer) -> Result<Vec<Jwk>, Fault> {
        let egress = self.egress(&issuer.jwks_uri)?;
        let fetched = tokio::time::timeout(TOTAL, egress.fetch_as(&issuer.jwks_uri, Wanted::JWKS)).await;
        let body = fetched.map_err(|_| Fault::Slow)??;
        let set: Value = serde_json::from_slice(&body).map_err(|_| Fault::NotJson)?;
        usable(&set).ok_or(Fault::NotASet)
    }
}

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error("it took too long")]
    Slow,
    #[error("it is no JSON")]
    NotJson,
    #[error("it is no JWK Set, or has a key twice")]
    NotASet,
}

/// The address that stands in a URL in place of a name.
fn literal(url: &Url) -> Option<IpNet> {
    match url.host()? {
        Host::Ipv4(address) => Some(IpAddr::from(address).into()),
        Host::Ipv6(address) => Some(IpAddr::from(address).into()),
        Host::Domain(_) => None,
    }
}

fn usable(set: &Value) -> Option<Vec<Jwk>> {
    let mut keys: Vec<Jwk> = Vec::new();
    for key in set.get("keys")?.as_array()?.iter().filter_map(|key| Jwk::parse(key).ok()) {
        if keys.iter().any(|known| known.kid == key.kid) {
            return None;
        }
        keys.push(key);
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use systemprompt_security::keys::{PrivateKey, SigningAlgorithm};

    #[test]
    fn id_60_the_address_of_a_trusted_issuer_is_the_operators_own() {
        let hosts = HostRules::new(Vec::new(), vec!["closed.example".parse().unwrap()], Vec::new());
        let keys = IssuerKeys::new(hosts);
        for (address, want) in [
            ("https://10.1.2.3/jwks", true),
            ("https://[fd00::7]:8443/jwks", true),
            ("https://idp.example:636/jwks", true),
            ("http://127.0.0.1:9000/jwks", true),
            ("http://idp.example/jwks", false),
            ("https://closed.example/jwks", false),
        ] {
            let checked = keys.egress(address).unwrap().check(address);
            assert_eq!(checked.is_ok(), want, "{address} {checked:?}");
        }
        assert!(keys.egress("https://10.1.2.3/jwks").unwrap().check("https://10.1.2.4/jwks").is_err());
    }

    #[test]
    fn keys_of_other_kinds_are_left_out_and_a_kid_twice_spoils_the_set() {
        let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap().public().to_jwk();
        let mixed =
            json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}, key, {"kty": "EC", "crv": "P-521"}]});
        assert_eq!(usable(&mixed).unwrap().len(), 1);
        assert!(usable(&json!({"keys": [key, key]})).is_none());
        assert!(usable(&json!([])).is_none());
    }
}
