//! Rows of signing keys. What changes one raises the epoch of revocations in its own transaction, so that other nodes read the
//! ring again within their next poll.

use super::ends::next_epoch;
use crate::keys::{Jwk, KeyError, KeyInfo, KeyState, KeyUse, SigningAlgorithm, VerificationKey};
use serde_json::Value;
use sqlx::types::Json;
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::EntryId;

/// Reads and writes `signing_keys`.
#[derive(Clone, Debug)]
pub(crate) struct KeyRepository {
    db: Db,
}

/// A key to insert.
pub(crate) struct NewKeyRow<'a> {
    pub kid: &'a str,
    pub algorithm: SigningAlgorithm,
    pub key_use: KeyUse,
    pub state: KeyState,
    pub public_jwk: Value,
}

type KeyRow =
    (String, String, String, String, Json<Value>, Millis, Option<Millis>, Option<Millis>, Option<Millis>);

impl KeyRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Every key of the ring. A row that is no acceptable key is an error: the ring is then not used at all.
    pub async fn all(&self) -> Result<Vec<VerificationKey>, KeyError> {
        let rows: Vec<KeyRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT kid, alg, use, state, public_jwk, created_at, activated_at, retired_at, verify_until
             FROM signing_keys ORDER BY created_at, kid"
        )).fetch_all(pool).await)?;
        rows.into_iter().map(key).collect()
    }

    /// Inserts a key unless the table has it, or has an active one of its use and algorithm already (two nodes on their first
    /// start).
    pub async fn insert(&self, row: NewKeyRow<'_>, now: Millis, entry: &EntryId) -> Result<(), sqlx::Error> {
        let activated_at = (row.state == KeyState::Active).then_some(now);
        let mut tx = self.db.write_tx().await?;
        next_epoch(&mut tx).await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO signing_keys (kid, alg, use, state, public_jwk, created_at, activated_at, ledger_opened)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"
        ))
            .bind(row.kid)
            .bind(row.algorithm.as_str())
            .bind(row.key_use.as_str())
            .bind(row.state.as_str())
            .bind(Json(&row.public_jwk))
            .bind(now)
            .bind(activated_at)
            .bind(entry.as_str())
            .execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Lets `next` sign in place of `active`, which verifies until `verify_until`. Returns false, and changes nothing, if
    /// either is no longer what it was taken for.
    pub async fn rotate(
        &self,
        next: &str,
        active: Option<&str>,
        now: Millis,
        verify_until: Millis,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        next_epoch(&mut tx).await?;
        let retired = match active {
            Some(kid) => retire(&mut tx, kid, now, verify_until).await?,
            None => 1,
        };
        let activated = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE signing_keys SET state = 'active', activated_at = $1 WHERE kid = $2 AND state = 'next'"
        )).bind(now).bind(next).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if retired != 1 || activated != 1 {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Retires the key that signs, without another one in its place. Returns whether it was still `active`.
    pub async fn retire_active(
        &self,
        kid: &str,
        now: Millis,
        verify_until: Millis,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        next_epoch(&mut tx).await?;
        let changed = retire(&mut tx, kid, now, verify_until).await?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Ends the publication of a key that never signed. Returns whether it was still `next`.
    pub async fn withdraw(&self, kid: &str, now: Millis) -> Result<bool, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        next_epoch(&mut tx).await?;
        let changed = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE signing_keys SET state = 'removed', retired_at = $1 WHERE kid = $2 AND state = 'next'"
        )).bind(now).bind(kid).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Rejects a key from now on, whatever its state. Returns whether it was not revoked before.
    pub async fn revoke(&self, kid: &str, now: Millis) -> Result<bool, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        next_epoch(&mut tx).await?;
        let changed = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE signing_keys SET state = 'revoked', retired_at = COALESCE(retired_at, $1), verify_until = NULL
             WHERE kid = $2 AND state <> 'revoked'"
        )).bind(now).bind(kid).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Marks retired keys whose time is over. Returns how many there were.
    pub async fn remove_ended(&self, now: Millis) -> Result<u64, sqlx::Error> {
        let mut tx = self.db.write_tx().await?;
        next_epoch(&mut tx).await?;
        let changed = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE signing_keys SET state = 'removed' WHERE state = 'retired' AND verify_until <= $1"
        )).bind(now).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(changed)
    }
}

async fn retire(tx: &mut WriteTx, kid: &str, now: Millis, verify_until: Millis) -> Result<u64, sqlx::Error> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "UPDATE signing_keys SET state = 'retired', retired_at = $1, verify_until = $2
         WHERE kid = $3 AND state = 'active'"
    )).bind(now).bind(verify_until).bind(kid).execute(&mut *conn).await.map(|done| done.rows_affected()))
}

fn key(row: KeyRow) -> Result<VerificationKey, KeyError> {
    let (kid, alg, key_use, state, Json(jwk), created_at, activated_at, retired_at, verify_until) = row;
    let jwk = Jwk::parse(&jwk)?;
    let algorithm = SigningAlgorithm::parse(&alg).filter(|alg| *alg == jwk.key.algorithm());
    let algorithm = algorithm.ok_or(KeyError::Unsupported)?;
    if jwk.kid != kid || jwk.key.thumbprint() != kid {
        return Err(KeyError::KidNotThumbprint);
    }
    let key_use = KeyUse::parse(&key_use).ok_or(KeyError::NotAJwk("an unknown use"))?;
    let state = KeyState::parse(&state).ok_or(KeyError::NotAJwk("an unknown state"))?;
    let alg = algorithm.as_str();
    let info =
        KeyInfo { kid: kid.into(), alg, key_use, state, created_at, activated_at, retired_at, verify_until };
    Ok(VerificationKey::new(info, jwk.key, jwk.may_verify))
}
