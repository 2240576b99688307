//! Keys of trusted issuers, from their JWK Sets: kept for ten minutes, asked for once a minute at most (ID-60, ID-131).

use crate::state::OAuthState;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use systemprompt_config::profile::security::TrustedIssuer;
use systemprompt_models::Millis;
use systemprompt_net::egress::Wanted;
use systemprompt_security::keys::Jwk;

const KEEP: Millis = 600_000;
const ASK_EVERY: Millis = 60_000;
/// Most issuers whose keys are kept; the configuration has fewer.
const MAX_ISSUERS: usize = 256;

#[derive(Debug, Default)]
struct Cached {
    keys: Arc<[Jwk]>,
    read_at: Option<Millis>,
    asked_at: Option<Millis>,
}

/// The keys that this node knows.
#[derive(Debug, Default)]
pub struct IssuerKeys(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Cached>>>>);

impl IssuerKeys {
    /// The keys of `issuer`, read anew if they are old or have no `kid`. Nothing if they cannot be had.
    pub(crate) async fn of(
        &self,
        state: &OAuthState,
        issuer: &TrustedIssuer,
        kid: &str,
    ) -> Option<Arc<[Jwk]>> {
        let cached = self.entry(issuer);
        // Held while it is fetched: whoever asks meanwhile waits for the same answer.
        let mut cached = cached.lock().await;
        let now = state.now();
        let is_kept = cached.read_at.is_some_and(|at| now - at < KEEP);
        if is_kept && cached.keys.iter().any(|key| key.kid == kid) {
            return Some(Arc::clone(&cached.keys));
        }
        let may_ask = cached.asked_at.is_none_or(|at| now - at >= ASK_EVERY);
        if may_ask {
            cached.asked_at = Some(now);
            match fetch(state, issuer).await {
                Ok(keys) => {
                    cached.keys = keys.into();
                    cached.read_at = Some(now);
                }
                Err(why) => {
                    tracing::warn!(issuer = issuer.issuer, why, "keys of a trusted issuer cannot be had");
                }
            }
        }
        // Old keys are no keys: one of them may have been withdrawn.
        let is_kept = cached.read_at.is_some_and(|at| now - at < KEEP);
        is_kept.then(|| Arc::clone(&cached.keys))
    }

    fn entry(&self, issuer: &TrustedIssuer) -> Arc<tokio::sync::Mutex<Cached>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{} {}", issuer.issuer, issuer.jwks_uri);
        if all.len() >= MAX_ISSUERS && !all.contains_key(&key) {
            all.clear();
        }
        Arc::clone(all.entry(key).or_default())
    }
}

/// The keys of a set that this server can use; those of other kinds are left out.
async fn fetch(state: &OAuthState, issuer: &TrustedIssuer) -> Result<Vec<Jwk>, String> {
    let body = state.egress.fetch_as(&issuer.jwks_uri, Wanted::JWKS).await.map_err(|e| e.to_string())?;
    let set: Value = serde_json::from_slice(&body).map_err(|_| "it is no JSON".to_owned())?;
    usable(&set).ok_or_else(|| "it is no JWK Set, or has a key twice".to_owned())
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
    fn keys_of_other_kinds_are_left_out_and_a_kid_twice_spoils_the_set() {
        let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap().public().to_jwk();
        let mixed =
            json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}, key, {"kty": "EC", "crv": "P-521"}]});
        assert_eq!(usable(&mixed).unwrap().len(), 1);
        assert!(usable(&json!({"keys": [key, key]})).is_none());
        assert!(usable(&json!([])).is_none());
    }
}
