//! Making, changing and ending clients.

use super::ClientRepository;
use super::inserts::{insert_lists, insert_secret, insert_user};
use crate::at_rest::Digest;
use crate::models::clients::{ClientKind, OAuthClient};
use crate::repository::turns::turn;
use systemprompt_database::{WriteTx, on_tx, sql};
use systemprompt_models::ids::UserId;
use systemprompt_models::{JwtAudience, Millis};

/// What is stored of a new client beside itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    pub secret: Option<Digest>,
    pub registration: Option<Digest>,
}

/// How many clients there may be, with a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// It is not counted.
    None,
    /// Of its kind.
    Kind(i64),
    /// Of its owner.
    Owner(i64),
}

/// How an insert ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Done,
    /// There is a client of this id.
    Taken,
    /// There are as many as there may be.
    Full,
}

/// Why what a client was given ended.
pub(crate) const CLIENT_DISABLED: &str = "client_disabled";
/// How long the management token before the present one still counts, in milliseconds (ID-20).
pub(crate) const OLD_REGISTRATION: Millis = 60_000;

impl ClientRepository {
    /// Writes a client with its user, unless there are as many as `bound` says.
    pub(crate) async fn insert(
        &self,
        client: &OAuthClient,
        credentials: &Credentials,
        bound: Bound,
    ) -> sqlx::Result<Inserted> {
        let owner = client.owner_user_id.as_ref().map(UserId::as_str);
        let (of_kind, of_owner) = match bound {
            Bound::None => (None, None),
            Bound::Kind(most) => (Some(most), None),
            Bound::Owner(most) => (None, Some(most)),
        };
        let mut tx = self.db.write_tx().await?;
        if of_kind.is_some() {
            turn("registration", "").holds_in(&mut tx).await?;
        }
        if of_owner.is_some() {
            turn("own clients", owner.unwrap_or_default()).holds_in(&mut tx).await?;
        }
        let id = client.client_id.as_str();
        let audiences: Vec<&str> = client.allowed_audiences.iter().map(JwtAudience::as_str).collect();
        let pepper = credentials.registration.as_ref().map(|digest| digest.pepper_id.to_string());
        let inserted = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_clients (client_id, name, kind, auth_method, application_type, first_party, status, user_id,
                 owner_user_id, plugin_id, allowed_audiences, jwks, jwks_uri, client_uri, logo_uri, policy_uri, tos_uri,
                 software_id, software_version, id_token_signed_response_alg, registration_digest, metadata_digest, pepper_id,
                 created_at, updated_at, version)
             SELECT $1, $2, $3, $4, $5, CAST($6 AS BIGINT), $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21, $22, $23, CAST($24 AS BIGINT), CAST($24 AS BIGINT), 1
             WHERE (CAST($25 AS BIGINT) IS NULL OR (SELECT COUNT(*) FROM oauth_clients WHERE kind = $3) < $25)
               AND (CAST($26 AS BIGINT) IS NULL OR (SELECT COUNT(*) FROM oauth_clients WHERE owner_user_id = $9) < $26)
             ON CONFLICT (client_id) DO NOTHING"
        ))
            .bind(id).bind(&client.name).bind(client.kind.as_str()).bind(client.auth_method.as_str())
            .bind(client.application_type.as_str()).bind(i64::from(client.first_party)).bind(client.status.as_str())
            .bind(client.user_id.as_str()).bind(owner)
            .bind(&client.plugin_id).bind(audiences.join(" ")).bind(&client.jwks).bind(&client.jwks_uri)
            .bind(&client.client_uri).bind(&client.logo_uri).bind(&client.policy_uri).bind(&client.tos_uri)
            .bind(&client.software_id).bind(&client.software_version)
            .bind(client.id_token_signed_response_alg.as_str())
            .bind(credentials.registration.as_ref().map(|digest| digest.hex.as_str()))
            .bind(&client.metadata_digest).bind(pepper).bind(client.created_at).bind(of_kind).bind(of_owner)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if inserted == 0 {
            let known: Option<(String,)> = on_tx!(tx, conn => sqlx::query_as(sql!(
                "SELECT client_id FROM oauth_clients WHERE client_id = $1"
            )).bind(id).fetch_optional(&mut *conn).await)?;
            tx.rollback().await?;
            return Ok(if known.is_some() { Inserted::Taken } else { Inserted::Full });
        }
        insert_user(&mut tx, client).await?;
        insert_lists(&mut tx, client).await?;
        if let Some(secret) = &credentials.secret {
            insert_secret(&mut tx, id, secret, client.created_at).await?;
        }
        tx.commit().await?;
        Ok(Inserted::Done)
    }

    /// Writes a changed client over `version`, with the end of what `cut` says, in the transaction that it returns. Nothing when the
    /// row has another version.
    pub(crate) async fn update(
        &self,
        client: &OAuthClient,
        version: i64,
        cut: Cut,
    ) -> sqlx::Result<Option<WriteTx>> {
        let id = client.client_id.as_str();
        let audiences: Vec<&str> = client.allowed_audiences.iter().map(JwtAudience::as_str).collect();
        let mut tx = self.db.write_tx().await?;
        let updated = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_clients SET name = $1, auth_method = $2, application_type = $3, first_party = $4, status = $5,
                 owner_user_id = $6, plugin_id = $7, allowed_audiences = $8, jwks = $9, jwks_uri = $10, client_uri = $11,
                 logo_uri = $12, policy_uri = $13, tos_uri = $14, software_id = $15, software_version = $16,
                 id_token_signed_response_alg = $17, metadata_digest = $18, updated_at = $19, version = version + 1
             WHERE client_id = $20 AND version = $21"
        ))
            .bind(&client.name).bind(client.auth_method.as_str()).bind(client.application_type.as_str())
            .bind(i64::from(client.first_party)).bind(client.status.as_str())
            .bind(client.owner_user_id.as_ref().map(UserId::as_str)).bind(&client.plugin_id)
            .bind(audiences.join(" ")).bind(&client.jwks).bind(&client.jwks_uri).bind(&client.client_uri)
            .bind(&client.logo_uri).bind(&client.policy_uri).bind(&client.tos_uri).bind(&client.software_id)
            .bind(&client.software_version).bind(client.id_token_signed_response_alg.as_str())
            .bind(&client.metadata_digest).bind(client.updated_at).bind(id).bind(version)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        if updated == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        super::relations::replace(&mut tx, client).await?;
        if client.is_public() {
            on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM oauth_client_secrets WHERE client_id = $1"))
                .bind(id).execute(&mut *conn).await.map(drop))?;
        }
        match cut {
            Cut::Nothing => {}
            Cut::Consents => end_consents(&mut tx, id, client.updated_at).await?,
            Cut::Everything => end_all(&mut tx, id, CLIENT_DISABLED, client.updated_at).await?,
        }
        Ok(Some(tx))
    }

    /// Removes a client and ends what it was given, in the transaction that it returns. Nothing when the row is gone or has another
    /// version.
    pub(crate) async fn delete(
        &self,
        id: &str,
        version: Option<i64>,
        reason: &str,
        now: Millis,
    ) -> sqlx::Result<Option<WriteTx>> {
        let mut tx = self.db.write_tx().await?;
        let deleted: Option<(String, Option<Millis>, String)> = on_tx!(tx, conn => sqlx::query_as(sql!(
            "DELETE FROM oauth_clients WHERE client_id = $1 AND (CAST($2 AS BIGINT) IS NULL OR version = $2)
             RETURNING kind, last_used_at, user_id"
        )).bind(id).bind(version).fetch_optional(&mut *conn).await)?;
        let Some((kind, last_used_at, user)) = deleted else {
            tx.rollback().await?;
            return Ok(None);
        };
        end_all(&mut tx, id, reason, now).await?;
        if kind == ClientKind::Registered.as_str() && last_used_at.is_none() {
            // Nothing was ever issued to it that could name its user.
            on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM users WHERE id = $1 AND kind = 'client'"))
                .bind(&user).execute(&mut *conn).await.map(drop))?;
        } else {
            on_tx!(tx, conn => sqlx::query(sql!(
                "UPDATE users SET status = 'deleted', updated_at = $1, version = version + 1
                 WHERE id = $2 AND kind = 'client'"
            )).bind(now).bind(&user).execute(&mut *conn).await.map(drop))?;
        }
        Ok(Some(tx))
    }

    /// Adds a secret and sets the end of the others. Returns whether there was room: two count at once.
    pub(crate) async fn rotate_secret(
        &self,
        id: &str,
        secret: &Digest,
        others_until: Millis,
        now: Millis,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        // The row of the client keeps two rotations apart.
        let touched = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_clients SET updated_at = $1, version = version + 1 WHERE client_id = $2"
        )).bind(now).bind(id).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "DELETE FROM oauth_client_secrets WHERE client_id = $1 AND expires_at <= $2"
        )).bind(id).bind(now).execute(&mut *conn).await.map(drop))?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_client_secrets SET expires_at = $1
             WHERE client_id = $2 AND (expires_at IS NULL OR expires_at > $1)"
        )).bind(others_until).bind(id).execute(&mut *conn).await.map(drop))?;
        if others_until <= now {
            on_tx!(tx, conn => sqlx::query(sql!(
                "DELETE FROM oauth_client_secrets WHERE client_id = $1 AND expires_at <= $2"
            )).bind(id).bind(now).execute(&mut *conn).await.map(drop))?;
        }
        let (others,): (i64,) = on_tx!(tx, conn => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM oauth_client_secrets WHERE client_id = $1"
        )).bind(id).fetch_one(&mut *conn).await)?;
        if touched == 0 || others > 1 {
            tx.rollback().await?;
            return Ok(false);
        }
        insert_secret(&mut tx, id, secret, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Gives a secret the digest under the present pepper.
    pub(crate) async fn redigest_secret(&self, id: &str, old: &str, new: &Digest) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_client_secrets SET secret_digest = $1, pepper_id = $2 WHERE client_id = $3 AND secret_digest = $4"
        )).bind(&new.hex).bind(&*new.pepper_id).bind(id).bind(old).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// The same for a management token, the present one or that before it.
    pub(crate) async fn redigest_registration(&self, id: &str, old: &str, new: &Digest) -> sqlx::Result<()> {
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_clients SET
                 pepper_id = CASE WHEN registration_digest = $1 THEN $2 ELSE pepper_id END,
                 registration_digest_old = CASE WHEN registration_digest_old = $1 THEN $3 ELSE registration_digest_old END,
                 registration_digest = CASE WHEN registration_digest = $1 THEN $3 ELSE registration_digest END
             WHERE client_id = $4 AND (registration_digest = $1 OR registration_digest_old = $1)"
        ))
            .bind(old).bind(&*new.pepper_id).bind(&new.hex).bind(id).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Puts a management token in the place of the present one. `shown` counts for a minute from its first replacement, so that a lost
    /// answer can be asked for again. Returns whether `shown` counted.
    pub(crate) async fn rotate_registration(
        &self,
        id: &str,
        shown: &str,
        new: &Digest,
        now: Millis,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let rotated = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_clients SET registration_digest = $1,
                 registration_old_until = CASE WHEN registration_digest = $2 THEN $3 ELSE registration_old_until END,
                 registration_digest_old = $2, pepper_id = $4
             WHERE client_id = $5
               AND (registration_digest = $2 OR (registration_digest_old = $2 AND registration_old_until > $6))"
        )).bind(&new.hex).bind(shown).bind(now + OLD_REGISTRATION).bind(&*new.pepper_id).bind(id).bind(now)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(rotated == 1)
    }

    /// Notes that a client was used, exact to a day; `client` is as it was just read.
    pub(crate) async fn touch(&self, client: &OAuthClient, now: Millis) -> sqlx::Result<()> {
        const DAY: Millis = 86_400_000;
        if client.last_used_at.is_some_and(|used| used >= now - DAY) {
            return Ok(());
        }
        let id = client.client_id.as_str();
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE oauth_clients SET last_used_at = $1 WHERE client_id = $2 AND (last_used_at IS NULL OR last_used_at < $1)"
        )).bind(now).bind(id).execute(&mut *conn).await.map(drop))?;
        tx.commit().await
    }

    /// Counts one registration from a network in the present hour. Returns whether there was one left.
    pub(crate) async fn count_registration(
        &self,
        key_digest: &str,
        hour: Millis,
        most: i64,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let counted = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO auth_attempts (key_digest, window_start, failures, blocked_until) VALUES ($1, $2, 1, 0)
             ON CONFLICT (key_digest, window_start) DO UPDATE SET failures = auth_attempts.failures + 1
             WHERE auth_attempts.failures < $3"
        )).bind(key_digest).bind(hour).bind(most).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(counted == 1)
    }
}

/// What a change of a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Nothing,
    Consents,
    Everything,
}

/// Ends what people consented to for a client.
pub(super) async fn end_consents(tx: &mut WriteTx, id: &str, now: Millis) -> sqlx::Result<()> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "UPDATE oauth_consents SET revoked_at = $1 WHERE client_id = $2 AND revoked_at IS NULL"
    )).bind(now).bind(id).execute(&mut *conn).await.map(drop))
}

/// Ends every consent and grant of a client. Behind it its sessions end, then what [`end_issued`] ends.
async fn end_all(tx: &mut WriteTx, id: &str, reason: &str, now: Millis) -> sqlx::Result<()> {
    end_consents(tx, id, now).await?;
    end_grants(tx, id, reason, now).await
}

async fn end_grants(tx: &mut WriteTx, id: &str, reason: &str, now: Millis) -> sqlx::Result<()> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "UPDATE oauth_grants SET revoked_at = $1, revoked_reason = $2 WHERE client_id = $3 AND revoked_at IS NULL"
    )).bind(now).bind(reason).bind(id).execute(&mut *conn).await.map(drop))
}

/// Ends every refresh token, code and open request of a client whose grants ended, and the grants that were given meanwhile.
pub(crate) async fn end_issued(tx: &mut WriteTx, id: &str, reason: &str, now: Millis) -> sqlx::Result<()> {
    end_grants(tx, id, reason, now).await?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_auth_codes WHERE client_id = $1 AND used_at IS NULL"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_device_codes WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_par_requests WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_authorize_requests WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!(
        "UPDATE oauth_refresh_tokens SET revoked_at = $1
         WHERE revoked_at IS NULL AND grant_id IN (SELECT grant_id FROM oauth_grants WHERE client_id = $2)"
    )).bind(now).bind(id).execute(&mut *conn).await.map(drop))
}
