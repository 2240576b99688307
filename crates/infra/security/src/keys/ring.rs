//! The key ring: public parts and states in a table that all nodes share, private parts in a file of mode 0600.

use super::set::{KeySet, KeyState, SharedKeys};
use super::{KeyError, KeyInfo, PrivateKey, SigningAlgorithm, file};
use crate::repository::tokens::{NewKeyRow, TokenRepository};
use arc_swap::ArcSwap;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_database::Db;
use systemprompt_models::{Clock, RequestContext};
use tokio::sync::Mutex;

/// The key ring of one node.
pub struct KeyRing {
    repository: TokenRepository,
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
            repository: TokenRepository::new(db),
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

    /// The document at `/.well-known/jwks.json`.
    pub fn jwks(&self) -> Value {
        self.keys.load().jwks(self.clock.now())
    }

    /// Reads table and file again, since another node may have changed the ring. Returns whether something changed.
    ///
    /// # Errors
    /// As [`Self::open`]; the old keys then stay.
    pub async fn reload(&self) -> Result<bool, KeyError> {
        let _turn = self.turn.lock().await;
        self.read().await
    }

    /// Makes what a ring must have: an active RS256 key (ID tokens default to it) and an active one of `algorithm`. A private
    /// key that the file holds and the table does not is taken over instead of a new one.
    ///
    /// # Errors
    /// When a key cannot be recorded, made or stored.
    pub async fn ensure(&self, algorithm: SigningAlgorithm, ledger: &Ledger) -> Result<(), KeyError> {
        let _turn = self.turn.lock().await;
        for wanted in [SigningAlgorithm::Rs256, algorithm] {
            let has_active =
                self.list().iter().any(|key| key.state == KeyState::Active && key.alg == wanted.as_str());
            if !has_active {
                self.add(wanted, KeyState::Active, ledger, None).await?;
            }
        }
        Ok(())
    }

    /// Makes a key that is published from now on and signs after a rotation (state `next`).
    ///
    /// # Errors
    /// When the key cannot be recorded, made or stored.
    pub async fn generate(
        &self,
        algorithm: SigningAlgorithm,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<KeyInfo, KeyError> {
        let _turn = self.turn.lock().await;
        let kid = self.add(algorithm, KeyState::Next, ledger, context).await?;
        self.list().into_iter().find(|key| *key.kid == *kid).ok_or(KeyError::Generate)
    }

    /// Record, then the private part, then the row: what a crash leaves behind is a private key that no table names.
    async fn add(
        &self,
        algorithm: SigningAlgorithm,
        state: KeyState,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<String, KeyError> {
        let set = self.keys.load_full();
        let spare = set
            .private_keys()
            .find(|key| {
                key.algorithm() == algorithm && !set.list().iter().any(|info| *info.kid == *key.kid())
            })
            .cloned();
        let key = match spare {
            Some(key) => key,
            None => Arc::new(blocking(move || PrivateKey::generate(algorithm)).await?),
        };

        let draft = match context {
            Some(context) => Draft::new(EntryKind::OauthKeyGenerated, context, "generated"),
            None => Draft::system(EntryKind::OauthKeyGenerated, "generated"),
        };
        let mut unit = Unit::new();
        let entry = unit.record(
            draft.with("kid", key.kid()).with("alg", algorithm.as_str()).with("state", state.as_str()),
        );
        let _permit = ledger.commit(unit).await?;

        let mut private: Vec<Arc<PrivateKey>> = set.private_keys().cloned().collect();
        if !private.iter().any(|known| known.kid() == key.kid()) {
            private.push(Arc::clone(&key));
        }
        private.sort_by(|a, b| a.kid().cmp(b.kid()));
        let path = self.path.clone();
        blocking(move || file::store(&path, private.iter().map(AsRef::as_ref))).await?;
        let row = NewKeyRow { kid: key.kid(), algorithm, state, public_jwk: key.public().to_jwk() };
        self.repository.insert_key(row, self.clock.now(), &entry).await?;
        self.read().await?;
        Ok(key.kid().to_owned())
    }

    async fn read(&self) -> Result<bool, KeyError> {
        let public = self.repository.keys().await?;
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

/// Key generation and file access, off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| KeyError::Interrupted)?
}

#[cfg(test)]
mod tests;
