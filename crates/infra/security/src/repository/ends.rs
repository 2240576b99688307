//! What ends sessions and tokens before their time. Whatever ends any takes the next epoch before them: its row is locked until the
//! commit, so epochs become visible in their order and a poll behind one of them misses nothing.
//!
//! Locks are taken in one order, by the guards of units and by what ends things: users and clients, their credentials, keys and
//! consents, grants, the epoch, sessions with the parent before the child, codes, refresh tokens. Of many rows of one table the
//! order is the engine's, a sign-in has what was shown before the user, whom it may have made, the end of one grant has its consents
//! behind it, and what ends a person's or a session's grants looks at these again behind the sessions: some still meet. Then the
//! ledger's writer steps back and tries again, and whoever else is chosen begins anew (`systemprompt_database::retry_contended`).

use super::tokens::{RevokedRow, TokenRepository};
use super::tree::TreeEnd;
use crate::session::revoked::{Cutoff, CutoffKind};
use systemprompt_database::{WriteTx, on, on_tx, retry_contended, sql};
use systemprompt_models::ids::{EntryId, Jti, SessionId, UserId};
use systemprompt_models::{JwtClaims, Millis};

/// Why sessions ended that were exchanged for a token.
const TOKEN_REVOKED: &str = "token_revoked";
/// How far the clock of a node that exchanged a token may be behind that of the one that signed it.
const CLOCKS_DIFFER: Millis = 300_000;

impl TokenRepository {
    /// Ends one session and those that came from it. Returns those that were live.
    pub(crate) async fn revoke_session(
        &self,
        id: &SessionId,
        reason: &str,
        now: Millis,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            let epoch = next_epoch(&mut tx).await?;
            let rows = TreeEnd { epoch, reason, now, keep: None }.end(&mut tx, id).await?;
            // What was dead is no news.
            if rows.is_empty() {
                tx.rollback().await?;
            } else {
                tx.commit().await?;
            }
            Ok(rows)
        })
        .await
    }

    /// How many live sessions end with a token that is ended: what was exchanged for it, and what came from that.
    pub(crate) async fn count_exchanged(&self, claims: &JwtClaims, now: Millis) -> Result<i64, sqlx::Error> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT id FROM user_sessions
                 WHERE parent_session_id = $1 AND source = 'exchange' AND created_at >= $2 AND expires_at <= $3
                     AND revoked_at IS NULL AND expires_at > $4
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             SELECT COUNT(*) FROM user_sessions
             WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $4"
        ))
            .bind(claims.session_id.as_str()).bind(exchanged_from(claims)).bind(claims.exp.saturating_mul(1000))
            .bind(now).fetch_one(pool).await)?;
        Ok(count)
    }

    /// Ends a token, and what was exchanged for it if it is `shown`. Whether it was not revoked before, and the sessions that ended.
    pub(crate) async fn revoke_token(
        &self,
        jti: &Jti,
        expires_at: Millis,
        shown: Option<&JwtClaims>,
        now: Millis,
    ) -> Result<(bool, Vec<RevokedRow>), sqlx::Error> {
        retry_contended(|| async {
            let mut tx = self.db.write_tx().await?;
            let epoch = next_epoch(&mut tx).await?;
            if let Some(claims) = shown {
                // An exchange holds this row until it is written: either it is seen below, or it sees the revocation.
                on_tx!(tx, conn => sqlx::query(sql!(
                    "UPDATE user_sessions SET last_seen_at = last_seen_at WHERE id = $1"
                )).bind(claims.session_id.as_str()).execute(&mut *conn).await.map(drop))?;
            }
            let inserted = on_tx!(tx, conn => sqlx::query(sql!(
                "INSERT INTO oauth_jti_revocations (jti, expires_at, revoked_at, epoch) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (jti) DO NOTHING"
            ))
                .bind(jti.as_str()).bind(expires_at).bind(now).bind(epoch)
                .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
            let ended = match shown {
                Some(claims) => end_exchanged(&mut tx, claims, (epoch, now)).await?,
                None => Vec::new(),
            };
            tx.commit().await?;
            Ok((inserted == 1, ended))
        })
        .await
    }
}

/// Ends what was exchanged for a token, and what came from that. The session of a grant has many tokens and no row tells for which
/// of them an exchange was made: what came from another one within the life of this one, or a little before, ends too.
async fn end_exchanged(
    tx: &mut WriteTx,
    claims: &JwtClaims,
    (epoch, now): (i64, Millis),
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "UPDATE user_sessions SET revoked_at = $1, revoked_reason = $2, revoked_epoch = $3
         WHERE parent_session_id = $4 AND source = 'exchange' AND created_at >= $5 AND expires_at <= $6
             AND revoked_at IS NULL AND expires_at > $1 RETURNING id, expires_at"
    ))
        .bind(now).bind(TOKEN_REVOKED).bind(epoch).bind(claims.session_id.as_str())
        .bind(exchanged_from(claims)).bind(claims.exp.saturating_mul(1000)).fetch_all(&mut *conn).await)?;
    TreeEnd { epoch, reason: TOKEN_REVOKED, now, keep: None }.complete(tx, rows).await
}

/// From when on a session may come from a token.
fn exchanged_from(claims: &JwtClaims) -> Millis {
    claims.iat.saturating_mul(1000).saturating_sub(CLOCKS_DIFFER)
}

/// Takes the next number of a change that other nodes must learn of. Its row stays locked until the end of the transaction.
///
/// # Errors
/// When the row cannot be written.
pub async fn next_epoch(tx: &mut WriteTx) -> Result<i64, sqlx::Error> {
    let (epoch,): (i64,) = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "UPDATE revocation_epoch SET epoch = epoch + 1 WHERE one = 1 RETURNING epoch"
    )).fetch_one(&mut *conn).await)?;
    Ok(epoch)
}

/// Ends what was issued up to a moment; an earlier cut of the same subject moves, a later one stays. Of a user also every session
/// ends. Returns those.
pub(crate) async fn cut_off(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    now: Millis,
    entry: &EntryId,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    insert_cutoff(tx, cutoff, epoch, entry).await?;
    match cutoff.kind {
        CutoffKind::User => {
            end_sessions(tx, (&UserId::from(cutoff.id.as_str()), None), &cutoff.reason, now, epoch).await
        }
        CutoffKind::Client | CutoffKind::All => Ok(Vec::new()),
    }
}

/// Ends the tokens of a client up to a moment, its sessions and those that came from them. Returns these.
pub(crate) async fn end_client(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    now: Millis,
    entry: &EntryId,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    insert_cutoff(tx, cutoff, epoch, entry).await?;
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "UPDATE user_sessions SET revoked_at = $1, revoked_reason = $2, revoked_epoch = $3
         WHERE client_id = $4 AND revoked_at IS NULL AND expires_at > $1 RETURNING id, expires_at"
    )).bind(now).bind(&cutoff.reason).bind(epoch).bind(&cutoff.id).fetch_all(&mut *conn).await)?;
    TreeEnd { epoch, reason: &cutoff.reason, now, keep: None }.complete(tx, rows).await
}

/// Ends the sessions of a user but one, those of the clients that serve them, and those that came from any of them.
async fn end_sessions(
    tx: &mut WriteTx,
    (user, keep): (&UserId, Option<&SessionId>),
    reason: &str,
    now: Millis,
    epoch: i64,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "UPDATE user_sessions SET revoked_at = $1, revoked_reason = $2, revoked_epoch = $3
         WHERE (user_id = $4 OR owner_id = $4) AND id <> $5 AND revoked_at IS NULL AND expires_at > $1
         RETURNING id, expires_at"
    ))
        .bind(now).bind(reason).bind(epoch).bind(user.as_str()).bind(keep.map_or("", SessionId::as_str))
        .fetch_all(&mut *conn).await)?;
    TreeEnd { epoch, reason, now, keep }.complete(tx, rows).await
}

async fn insert_cutoff(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    epoch: i64,
    entry: &EntryId,
) -> Result<(), sqlx::Error> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO token_cutoffs (kind, id, not_before, reason, expires_at, epoch, ledger_opened)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (kind, id) DO UPDATE SET not_before = excluded.not_before, reason = excluded.reason,
             expires_at = excluded.expires_at, epoch = excluded.epoch, ledger_opened = excluded.ledger_opened
         WHERE token_cutoffs.not_before < excluded.not_before"
    ))
        .bind(cutoff.kind.as_str())
        .bind(&cutoff.id)
        .bind(cutoff.not_before)
        .bind(&cutoff.reason)
        .bind(cutoff.expires_at)
        .bind(epoch)
        .bind(entry.as_str())
        .execute(&mut *conn).await.map(drop))
}

/// Ends every session of a user but one.
pub(crate) async fn end_user(
    tx: &mut WriteTx,
    user: &UserId,
    keep: Option<&SessionId>,
    reason: &str,
    now: Millis,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    end_sessions(tx, (user, keep), reason, now, epoch).await
}

/// Ends a user's tokens up to a moment, and the sessions for which no refresh brings others.
pub(crate) async fn end_told(
    tx: &mut WriteTx,
    cutoff: &Cutoff,
    now: Millis,
    entry: &EntryId,
) -> Result<Vec<RevokedRow>, sqlx::Error> {
    let epoch = next_epoch(tx).await?;
    insert_cutoff(tx, cutoff, epoch, entry).await?;
    let rows = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "UPDATE user_sessions SET revoked_at = $1, revoked_reason = $2, revoked_epoch = $3
         WHERE (user_id = $4 AND grant_id IS NULL OR owner_id = $4) AND revoked_at IS NULL AND expires_at > $1
         RETURNING id, expires_at"
    )).bind(now).bind(&cutoff.reason).bind(epoch).bind(&cutoff.id).fetch_all(&mut *conn).await)?;
    TreeEnd { epoch, reason: &cutoff.reason, now, keep: None }.complete(tx, rows).await
}
