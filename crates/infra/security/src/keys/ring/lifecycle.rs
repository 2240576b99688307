//! The life of a key after it was made (ID-30, SEC-51): rotation, retirement, revocation, removal. Each change is recorded, then
//! written under a guard on the state that it starts from, then read back; other nodes read the ring again with their next poll.

use super::{KeyRing, MIN_PUBLISHED, VERIFIES_FOR, draft};
use crate::keys::{KeyError, KeyInfo, KeyState, KeyUse, SigningAlgorithm};
use serde::Serialize;
use systemprompt_audit::{EntryKind, Ledger, Unit};
use systemprompt_models::{Millis, RequestContext};

/// What a rotation did.
#[derive(Clone, Debug, Serialize)]
pub struct Rotation {
    /// The key that signs from now on.
    pub active: KeyInfo,
    /// The one that signed before; it verifies until its `verify_until`.
    pub retired: Option<KeyInfo>,
}

impl KeyRing {
    /// Lets the oldest key of state `next` sign, and retires the one that did. It must have been published for ten minutes,
    /// unless nothing signs at the moment.
    ///
    /// # Errors
    /// No such key, one that is too young or has no private part here, or a change that could not be recorded or written.
    pub async fn rotate(
        &self,
        key_use: KeyUse,
        algorithm: SigningAlgorithm,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<Rotation, KeyError> {
        let _turn = self.turn.lock().await;
        self.read().await?;
        self.rotate_locked(key_use, algorithm, ledger, context).await
    }

    async fn rotate_locked(
        &self,
        key_use: KeyUse,
        algorithm: SigningAlgorithm,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<Rotation, KeyError> {
        let now = self.clock.now();
        let fits = |key: &KeyInfo| key.key_use == key_use && key.alg == algorithm.as_str();
        let list: Vec<KeyInfo> = self.list().into_iter().filter(fits).collect();
        let next = list.iter().find(|key| key.state == KeyState::Next).ok_or(KeyError::NoNext(algorithm))?;
        let active = list.iter().find(|key| key.state == KeyState::Active);
        let wait = next.created_at.saturating_add(MIN_PUBLISHED).saturating_sub(now);
        if wait > 0 && active.is_some() {
            return Err(KeyError::TooYoung { kid: next.kid.to_string(), wait_s: (wait + 999) / 1000 });
        }
        if !self.keys.load().private_keys().any(|key| *key.kid() == *next.kid) {
            return Err(KeyError::NoSigner(algorithm));
        }
        let verify_until = now.saturating_add(VERIFIES_FOR);
        let mut unit = Unit::new();
        let rotated = draft(EntryKind::OauthKeyRotated, "rotated", context)
            .with("kid", &*next.kid)
            .with("alg", algorithm.as_str())
            .with("use", key_use.as_str())
            .with("state", KeyState::Active.as_str());
        unit.record(rotated);
        if let Some(active) = active {
            unit.record(retired(active, Some(verify_until), context));
        }
        ledger.append(unit).await?;
        let replaced = active.map(|key| &*key.kid);
        if !self.repository.rotate(&next.kid, replaced, now, verify_until).await? {
            self.read().await?;
            return Err(KeyError::Changed);
        }
        self.read().await?;
        Ok(Rotation {
            active: self.info(&next.kid)?,
            retired: active.map(|key| self.info(&key.kid)).transpose()?,
        })
    }

    /// Whether the ring must have a key of this algorithm: ID tokens default to RS256, and the profile names the other.
    pub fn needs(algorithm: SigningAlgorithm, configured: SigningAlgorithm) -> bool {
        algorithm == SigningAlgorithm::Rs256 || algorithm == configured
    }

    /// Takes a key out of use. One that never signed leaves the published set at once; the one that signs is retired if nothing
    /// needs its algorithm (`configured` is the algorithm of the profile).
    ///
    /// # Errors
    /// No such key, one that is needed or has ended, or a change that could not be recorded or written.
    pub async fn retire(
        &self,
        kid: &str,
        configured: SigningAlgorithm,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<KeyInfo, KeyError> {
        let _turn = self.turn.lock().await;
        self.read().await?;
        let key = self.info(kid)?;
        let algorithm = SigningAlgorithm::parse(key.alg).ok_or(KeyError::Unsupported)?;
        let now = self.clock.now();
        match key.state {
            KeyState::Retired => return Ok(key),
            KeyState::Removed | KeyState::Revoked => {
                return Err(KeyError::Ended { kid: kid.to_owned(), state: key.state.as_str() });
            }
            KeyState::Next => {
                self.record(retired(&key, None, context), ledger).await?;
                if !self.repository.withdraw(kid, now).await? {
                    return Err(KeyError::Changed);
                }
            }
            KeyState::Active => {
                if key.key_use == KeyUse::Internal || Self::needs(algorithm, configured) {
                    return Err(KeyError::StillNeeded { kid: kid.to_owned(), algorithm });
                }
                let verify_until = now.saturating_add(VERIFIES_FOR);
                self.record(retired(&key, Some(verify_until), context), ledger).await?;
                if !self.repository.retire_active(kid, now, verify_until).await? {
                    return Err(KeyError::Changed);
                }
            }
        }
        self.read().await?;
        self.store_private(&self.keys.load_full(), None).await?;
        self.info(kid)
    }

    /// Rejects a key from now on, with every token under it. Where it was the one that signs, the oldest key of state `next`
    /// takes its place at once, or a new one.
    ///
    /// # Errors
    /// No such key, one that is revoked, or a change that could not be recorded or written.
    pub async fn revoke(
        &self,
        kid: &str,
        ledger: &Ledger,
        context: Option<&RequestContext>,
    ) -> Result<KeyInfo, KeyError> {
        let _turn = self.turn.lock().await;
        self.read().await?;
        let key = self.info(kid)?;
        if key.state == KeyState::Revoked {
            return Err(KeyError::Ended { kid: kid.to_owned(), state: key.state.as_str() });
        }
        let algorithm = SigningAlgorithm::parse(key.alg).ok_or(KeyError::Unsupported)?;
        let record = draft(EntryKind::OauthKeyRevoked, "revoked", context)
            .with("kid", kid)
            .with("alg", key.alg)
            .with("use", key.key_use.as_str())
            .with("before", key.state.as_str());
        self.record(record, ledger).await?;
        self.repository.revoke(kid, self.clock.now()).await?;
        self.read().await?;
        if key.state == KeyState::Active {
            match self.rotate_locked(key.key_use, algorithm, ledger, context).await {
                Ok(_) => {}
                Err(KeyError::NoNext(_) | KeyError::NoSigner(_)) => {
                    self.add(key.key_use, algorithm, KeyState::Active, ledger, context).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.store_private(&self.keys.load_full(), None).await?;
        self.info(kid)
    }

    /// Reads the ring again and marks retired keys whose time is over. Returns whether something changed. Called now and then,
    /// and when another node said that it changed something.
    ///
    /// # Errors
    /// As [`KeyRing::open`]; the old keys then stay.
    pub async fn refresh(&self) -> Result<bool, KeyError> {
        let _turn = self.turn.lock().await;
        let changed = self.read().await?;
        let now = self.clock.now();
        let is_over = |key: &KeyInfo| {
            key.state == KeyState::Retired && key.verify_until.is_none_or(|until| until <= now)
        };
        if !self.list().iter().any(is_over) {
            return Ok(changed);
        }
        self.repository.remove_ended(now).await?;
        self.read().await
    }

    async fn record(&self, draft: systemprompt_audit::Draft, ledger: &Ledger) -> Result<(), KeyError> {
        let mut unit = Unit::new();
        unit.record(draft);
        ledger.append(unit).await?;
        Ok(())
    }
}

fn retired(
    key: &KeyInfo,
    verify_until: Option<Millis>,
    context: Option<&RequestContext>,
) -> systemprompt_audit::Draft {
    draft(EntryKind::OauthKeyRetired, "retired", context)
        .with("kid", &*key.kid)
        .with("alg", key.alg)
        .with("use", key.key_use.as_str())
        .with("before", key.state.as_str())
        .with("verify_until", verify_until)
}
