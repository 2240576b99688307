//! The ring as one node sees it at one moment: which key verifies, which signs, what is published. Pure; replaced whole.

use super::{KeyError, PrivateKey, PublicKey, SigningAlgorithm};
use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use systemprompt_models::Millis;

/// The set that every reader shares.
pub type SharedKeys = Arc<ArcSwap<KeySet>>;

/// Where a key is in its life (ID-30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Published, not signing yet.
    Next,
    /// Signing; one per algorithm.
    Active,
    /// Published and verifying until the last token under it has ended.
    Retired,
    /// Its time is over.
    Removed,
    /// Rejected at once; every token under it is dead.
    Revoked,
}

impl KeyState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Removed => "removed",
            Self::Revoked => "revoked",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Next, Self::Active, Self::Retired, Self::Removed, Self::Revoked]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUse {
    /// Tokens; published.
    Sig,
    /// Proxy assertions, which only this deployment and its tool children read; never published.
    Internal,
}

impl KeyUse {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sig => "sig",
            Self::Internal => "internal",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Sig, Self::Internal].into_iter().find(|key_use| key_use.as_str() == text)
    }
}

/// A key of the ring, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    pub kid: Arc<str>,
    pub alg: &'static str,
    #[serde(rename = "use")]
    pub key_use: KeyUse,
    pub state: KeyState,
    pub created_at: Millis,
    pub activated_at: Option<Millis>,
    pub retired_at: Option<Millis>,
    /// End of verification of a retired key.
    pub verify_until: Option<Millis>,
}

/// A key with what an administrator wants to know beside its row.
#[derive(Clone, Debug, Serialize)]
pub struct KeyDescription {
    #[serde(flatten)]
    pub info: KeyInfo,
    /// Whether this node has the private part, without which it cannot sign under the key.
    pub private_part: bool,
    /// The public key.
    pub jwk: Value,
}

/// A key that verifies signatures.
pub struct VerificationKey {
    pub(crate) info: KeyInfo,
    pub(crate) public: PublicKey,
    pub(crate) may_verify: bool,
    pub(crate) decoding: DecodingKey,
}

impl VerificationKey {
    pub(crate) fn new(info: KeyInfo, public: PublicKey, may_verify: bool) -> Self {
        let decoding = public.decoding_key();
        Self { info, public, may_verify, decoding }
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.public.algorithm()
    }

    /// Published, and tokens under it count. A `next` key is: another node may sign with it before this one has heard.
    fn is_live(&self, now: Millis) -> bool {
        match self.info.state {
            KeyState::Next | KeyState::Active => true,
            KeyState::Retired => self.info.verify_until.is_some_and(|until| now < until),
            KeyState::Removed | KeyState::Revoked => false,
        }
    }
}

/// All keys of the ring with the private parts that this node has.
#[derive(Default)]
pub struct KeySet {
    /// Rises with every change; verified tokens remember the value they were verified under.
    pub(crate) epoch: u64,
    keys: HashMap<Arc<str>, Arc<VerificationKey>>,
    private: HashMap<Arc<str>, Arc<PrivateKey>>,
}

impl KeySet {
    pub(crate) fn new(epoch: u64, keys: Vec<VerificationKey>, private: Vec<Arc<PrivateKey>>) -> Self {
        let keys = keys.into_iter().map(|key| (Arc::clone(&key.info.kid), Arc::new(key))).collect();
        let private = private.into_iter().map(|key| (Arc::from(key.kid()), key)).collect();
        Self { epoch, keys, private }
    }

    /// The key called `kid`, if tokens under it count at `now`.
    pub fn verification_key(&self, kid: &str, now: Millis) -> Option<&Arc<VerificationKey>> {
        self.live(kid, KeyUse::Sig, now)
    }

    /// The internal key called `kid`, if assertions under it count at `now`.
    pub fn internal_key(&self, kid: &str, now: Millis) -> Option<&Arc<VerificationKey>> {
        self.live(kid, KeyUse::Internal, now)
    }

    fn live(&self, kid: &str, key_use: KeyUse, now: Millis) -> Option<&Arc<VerificationKey>> {
        self.keys.get(kid).filter(|key| key.info.key_use == key_use && key.is_live(now))
    }

    /// The key that signs tokens with `algorithm`: the one that the table shows as active, if its private part is here.
    ///
    /// # Errors
    /// [`KeyError::NoSigner`].
    pub fn signer(&self, algorithm: SigningAlgorithm) -> Result<Arc<PrivateKey>, KeyError> {
        self.active(KeyUse::Sig, algorithm)
    }

    /// Whether the deployment signs tokens with this algorithm, even if this node has no private part of that key.
    pub fn signs(&self, algorithm: SigningAlgorithm) -> bool {
        self.keys.values().any(|key| {
            let info = &key.info;
            info.key_use == KeyUse::Sig && info.state == KeyState::Active && info.alg == algorithm.as_str()
        })
    }

    /// The key that signs proxy assertions.
    ///
    /// # Errors
    /// [`KeyError::NoSigner`].
    pub fn internal_signer(&self) -> Result<Arc<PrivateKey>, KeyError> {
        self.active(KeyUse::Internal, SigningAlgorithm::EdDsa)
    }

    fn active(&self, key_use: KeyUse, algorithm: SigningAlgorithm) -> Result<Arc<PrivateKey>, KeyError> {
        self.keys
            .values()
            .find(|key| {
                let info = &key.info;
                info.state == KeyState::Active && info.key_use == key_use && key.algorithm() == algorithm
            })
            .and_then(|key| self.private.get(&key.info.kid))
            .cloned()
            .ok_or(KeyError::NoSigner(algorithm))
    }

    /// Every key with what this node has of it, the oldest first.
    pub fn describe(&self) -> Vec<KeyDescription> {
        let of = |info: KeyInfo| {
            let key = self.keys.get(&info.kid)?;
            let private_part = self.private.contains_key(&info.kid);
            Some(KeyDescription { private_part, jwk: key.public.to_jwk(), info })
        };
        self.list().into_iter().filter_map(of).collect()
    }

    /// Every key, the oldest first.
    pub fn list(&self) -> Vec<KeyInfo> {
        let mut list: Vec<KeyInfo> = self.keys.values().map(|key| key.info.clone()).collect();
        list.sort_by(|a, b| (a.created_at, &a.kid).cmp(&(b.created_at, &b.kid)));
        list
    }

    /// The JWK Set that is published (RFC 7517 section 5): public members only, in a stable order.
    pub fn jwks(&self, now: Millis) -> Value {
        self.jwks_of(KeyUse::Sig, now)
    }

    /// The same of the internal keys; only tool children are given it.
    pub fn internal_jwks(&self, now: Millis) -> Value {
        self.jwks_of(KeyUse::Internal, now)
    }

    fn jwks_of(&self, key_use: KeyUse, now: Millis) -> Value {
        let keys = self.list();
        let keys = keys.iter().filter_map(|info| self.live(&info.kid, key_use, now));
        json!({"keys": keys.map(|key| key.public.to_jwk()).collect::<Vec<_>>()})
    }

    pub(crate) fn private_keys(&self) -> impl Iterator<Item = &Arc<PrivateKey>> {
        self.private.values()
    }

    pub(crate) fn infos_equal(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.iter().all(|(kid, key)| other.keys.get(kid).is_some_and(|o| o.info == key.info))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A set whose keys all have their private part here.
    pub(crate) fn set_of(keys: &[(&Arc<PrivateKey>, KeyState, Option<Millis>)]) -> KeySet {
        let public = keys.iter().enumerate().map(|(i, (key, state, verify_until))| {
            let info = KeyInfo {
                kid: key.kid().into(),
                alg: key.algorithm().as_str(),
                key_use: KeyUse::Sig,
                state: *state,
                created_at: i as Millis,
                activated_at: None,
                retired_at: None,
                verify_until: *verify_until,
            };
            VerificationKey::new(info, key.public().clone(), true)
        });
        KeySet::new(1, public.collect(), keys.iter().map(|(key, ..)| Arc::clone(key)).collect())
    }

    /// A set with one internal key.
    pub(crate) fn internal_set_of(key: &Arc<PrivateKey>, state: KeyState) -> KeySet {
        let info = KeyInfo {
            kid: key.kid().into(),
            alg: key.algorithm().as_str(),
            key_use: KeyUse::Internal,
            state,
            created_at: 0,
            activated_at: None,
            retired_at: None,
            verify_until: None,
        };
        let key_of = VerificationKey::new(info, key.public().clone(), true);
        KeySet::new(1, vec![key_of], vec![Arc::clone(key)])
    }

    #[test]
    fn states_decide_what_signs_verifies_and_is_published() {
        use KeyState::{Active, Next, Removed, Retired, Revoked};
        let key = Arc::new(PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap());
        for (state, until, signs, verifies) in [
            (Next, None, false, true),
            (Active, None, true, true),
            (Retired, Some(101), false, true),
            (Retired, Some(100), false, false),
            (Retired, None, false, false),
            (Removed, None, false, false),
            (Revoked, None, false, false),
        ] {
            let set = set_of(&[(&key, state, until)]);
            assert_eq!(set.signer(SigningAlgorithm::EdDsa).is_ok(), signs, "{state:?} {until:?}");
            assert_eq!(set.verification_key(key.kid(), 100).is_some(), verifies, "{state:?} {until:?}");
            let published = set.jwks(100)["keys"].as_array().unwrap().len();
            assert_eq!(published == 1, verifies, "{state:?} {until:?}");
            assert_eq!(set.list().len(), 1);
        }
    }

    #[test]
    fn the_published_set_has_no_private_member() {
        let keys: Vec<_> =
            SigningAlgorithm::ALL.into_iter().map(|a| Arc::new(PrivateKey::generate(a).unwrap())).collect();
        let set = set_of(&keys.iter().map(|key| (key, KeyState::Active, None)).collect::<Vec<_>>());
        let jwks = set.jwks(0);
        let read = super::super::Jwk::parse_set(&jwks).unwrap();
        for (jwk, key) in read.iter().zip(&keys) {
            assert_eq!((jwk.kid.as_str(), &jwk.key, jwk.may_verify), (key.kid(), key.public(), true));
        }
        for key in jwks["keys"].as_array().unwrap() {
            let names: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
            let allowed = ["alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"];
            assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
        }
    }
}
