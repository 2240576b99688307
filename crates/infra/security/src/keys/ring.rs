//! The key ring: public parts and states in a table that all nodes share, private parts in a file of mode 0600.

use super::set::{KeySet, KeyState, SharedKeys};
use super::{KeyDescription, KeyError, KeyInfo, KeyUse, PrivateKey, SigningAlgorithm, file};
use crate::jwt::sign::MAX_TOKEN_LIFE;
use crate::repository::keys::{KeyRepository, NewKeyRow};
use arc_swap::ArcSwap;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_database::Db;
use systemprompt_models::{Clock, Millis, RequestContext};
use tokio::sync::Mutex;

mod lifecycle;

pub use lifecycle::Rotation;

/// How long a key is published before it signs: verifiers keep the published set for a while.
pub const MIN_PUBLISHED: Millis = 600_000;
/// How long a retired key verifies: the longest life that a token can have been given, and five minutes for clocks that differ.
/// The configured life may have been longer when the last token was signed, so the longest that can be configured counts.
const VERIFIES_FOR: Millis = MAX_TOKEN_LIFE.as_millis() as Millis + 300_000;

/// The key ring of one node.
pub struct KeyRing {
    repository: KeyRepository,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    keys: SharedKeys,
    /// One change or reload at a time.
    turn: Mutex<()>,
}

impl KeyRing {
    /// Reads table and file. Makes nothing: an empty ring verifies nothing, see [`Self::ensure`].
    ///
    /// # Errors
    /// A table that cannot be read, or a key or key file that is refused.
    pub async fn open(db: Db, path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, KeyError> {
        let ring = Self {
            repository: KeyRepository::new(db),
            path,
            clock,
            keys: Arc::new(ArcSwap::from_pointee(KeySet::default())),
            turn: Mutex::new(()),
        };
        ring.reload().await?;
        Ok(ring)
    }

    /// The set that verifiers and signers share.
    pub fn keys(&self) -> SharedKeys {
        Arc::clone(&self.keys)
    }

    /// Every key, the oldest first.
    pub fn list(&self) -> Vec<KeyInfo> {
        self.keys.load().list()
    }

    /// Every key with what this node has of it, the oldest first.
    pub fn describe(&self) -> Vec<KeyDescription> {
        self.keys.load().describe()
    }

    /// The document at `/.well-known/jwks.json`.
    pub fn jwks(&self) -> Value {
        self.keys.load().jwks(self.clock.now())
    }

    /// The public halves of the internal keys as a JWK Set, for a tool server that verifies assertions itself.
    pub fn internal_jwks(&self) -> Value {
        self.keys.load().internal_jwks(self.clock.now())
    }

    /// Reads table and file again, since another node may have changed the ring. Returns whether something changed.
    ///
    /// # Errors
    /// As [`Self::open`]; the old keys then stay.
    pub async fn reload(&self) -> Result<bool, KeyError> {
        let _turn = self.turn.lock().await;
        self.read().await
    }

    /// Makes what a ring must have: an active RS256 key (ID tokens default to it), an active one of `algorithm`, and an internal
    /// one. A private key that the file holds and the table does not is taken over instead of a new one.
    ///
    /// # Errors
    /// When a key cannot be recorded, made or stored.
    pub async fn ensure(&self, algorithm: SigningAlgorithm, ledger: &Ledger) -> Result<(), KeyError> {
        let _turn = self.turn.lock().await;
        for (key_use, wanted) in [
            (KeyUse::Sig, SigningAlgorithm::Rs256),
            (KeyUse::Sig, algorithm),
            (KeyUse::Internal, SigningAlgorithm::EdDsa),
        ] {
            let has_active = self.list().iter().any(|key| {
                key.state == KeyState::Active && key.key_use == key_use && key.alg == wanted.as_str()
            });
            if !has_active {
                self.add(key_use, wanted, KeyState::Active, ledger, None).await?;
            }
        }
        Ok(())
    }

    /// Makes a key that is published from now on and signs after a rotation (state `next`).
    ///
    /// # Errors
    /// When the key cannot be recorded, made or stored; an internal key of another algorithm than EdDSA.
    pub async fn generate(
        &self,
        key_use: KeyUse,
        algorithm: SigningAlgorithm,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<KeyInfo, KeyError> {
        if key_use == KeyUse::Internal && algorithm != SigningAlgorithm::EdDsa {
            return Err(KeyError::Unsupported);
        }
        let _turn = self.turn.lock().await;
        let kid = self.add(key_use, algorithm, KeyState::Next, ledger, context).await?;
        self.info(&kid)
    }

    /// Record, then the private part, then the row: what a crash leaves behind is a private key that no table names.
    async fn add(
        &self,
        key_use: KeyUse,
        algorithm: SigningAlgorithm,
        state: KeyState,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<String, KeyError> {
        let set = self.keys.load_full();
        // A key that somebody brought along is meant for tokens.
        let spare = set
            .private_keys()
            .filter(|_| key_use == KeyUse::Sig)
            .find(|key| {
                key.algorithm() == algorithm && !set.list().iter().any(|info| *info.kid == *key.kid())
            })
            .cloned();
        let key = match spare {
            Some(key) => key,
            None => Arc::new(blocking(move || PrivateKey::generate(algorithm)).await?),
        };

        let draft = draft(EntryKind::OauthKeyGenerated, "generated", context);
        let mut unit = Unit::new();
        let entry = unit.record(
            draft
                .with("kid", key.kid())
                .with("alg", algorithm.as_str())
                .with("use", key_use.as_str())
                .with("state", state.as_str()),
        );
        let _permit = ledger.commit(unit).await?;
        self.store_private(&set, Some(&key)).await?;
        let row = NewKeyRow { kid: key.kid(), algorithm, key_use, state, public_jwk: key.public().to_jwk() };
        self.repository.insert(row, self.clock.now(), &entry).await?;
        self.read().await?;
        Ok(key.kid().to_owned())
    }

    /// Writes the file: the private parts that still sign or will, and `new`. What has ended leaves the file with this.
    async fn store_private(&self, set: &KeySet, new: Option<&Arc<PrivateKey>>) -> Result<(), KeyError> {
        let list = set.list();
        let is_over = |key: &PrivateKey| {
            list.iter().any(|info| {
                *info.kid == *key.kid() && !matches!(info.state, KeyState::Next | KeyState::Active)
            })
        };
        let mut private: Vec<Arc<PrivateKey>> =
            set.private_keys().filter(|key| !is_over(key)).cloned().collect();
        if let Some(new) = new.filter(|new| !private.iter().any(|known| known.kid() == new.kid())) {
            private.push(Arc::clone(new));
        }
        private.sort_by(|a, b| a.kid().cmp(b.kid()));
        let path = self.path.clone();
        blocking(move || file::store(&path, private.iter().map(AsRef::as_ref))).await
    }

    fn info(&self, kid: &str) -> Result<KeyInfo, KeyError> {
        let found = self.list().into_iter().find(|key| *key.kid == *kid);
        found.ok_or_else(|| KeyError::Unknown(kid.to_owned()))
    }

    async fn read(&self) -> Result<bool, KeyError> {
        let public = self.repository.all().await?;
        let path = self.path.clone();
        let private = blocking(move || file::load(&path)).await?.into_iter().map(Arc::new).collect();
        let old = self.keys.load();
        let mut new = KeySet::new(old.epoch, public, private);
        let changed = !new.infos_equal(&old);
        new.epoch += u64::from(changed);
        self.keys.store(Arc::new(new));
        Ok(changed)
    }
}

fn draft(kind: EntryKind, outcome: &'static str, context: Option<&RequestContext>) -> Draft {
    match context {
        Some(context) => Draft::new(kind, context, outcome),
        None => Draft::system(kind, outcome),
    }
}

/// Key generation and file access, off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| KeyError::Interrupted)?
}

#[cfg(test)]
mod tests;
