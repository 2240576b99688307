//! Rows of what bridges tell of themselves.

use systemprompt_database::{Db, Deleted, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::SessionId;

/// What a bridge tells of one of its user's sessions.
#[derive(Clone, Debug)]
pub(crate) struct Beat<'a> {
    pub session_id: &'a str,
    pub user_id: &'a str,
    pub bridge_version: &'a str,
    pub os: &'a str,
    pub hostname: &'a str,
    pub last_activity_at: Option<Millis>,
    pub forwarded_total: i64,
    pub tokens_in_total: i64,
    pub tokens_out_total: i64,
}

/// Reads and writes what bridges tell.
#[derive(Clone, Debug)]
pub struct BridgeSessionRepository {
    db: Db,
}

impl BridgeSessionRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Stores a beat of a live session of this user; counters never fall. False if there is no such session.
    pub(crate) async fn beat(&self, beat: &Beat<'_>, now: Millis) -> sqlx::Result<bool> {
        let live: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id FROM user_sessions WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $3"
        )).bind(beat.session_id).bind(beat.user_id).bind(now).fetch_optional(pool).await)?;
        if live.is_none() {
            return Ok(false);
        }
        let mut tx = self.db.write_tx().await?;
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO bridge_sessions (session_id, user_id, bridge_version, os, hostname, forwarded_total, tokens_in_total,
                 tokens_out_total, last_activity_at, last_seen_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (session_id) DO UPDATE SET bridge_version = excluded.bridge_version, os = excluded.os,
                 hostname = excluded.hostname, last_seen_at = excluded.last_seen_at,
                 last_activity_at = COALESCE(excluded.last_activity_at, bridge_sessions.last_activity_at),
                 forwarded_total = CASE WHEN excluded.forwarded_total > bridge_sessions.forwarded_total
                     THEN excluded.forwarded_total ELSE bridge_sessions.forwarded_total END,
                 tokens_in_total = CASE WHEN excluded.tokens_in_total > bridge_sessions.tokens_in_total
                     THEN excluded.tokens_in_total ELSE bridge_sessions.tokens_in_total END,
                 tokens_out_total = CASE WHEN excluded.tokens_out_total > bridge_sessions.tokens_out_total
                     THEN excluded.tokens_out_total ELSE bridge_sessions.tokens_out_total END"
        ))
            .bind(beat.session_id).bind(beat.user_id).bind(beat.bridge_version).bind(beat.os).bind(beat.hostname)
            .bind(beat.forwarded_total).bind(beat.tokens_in_total).bind(beat.tokens_out_total)
            .bind(beat.last_activity_at).bind(now)
            .execute(&mut *conn).await.map(drop))?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes at most `limit` rows of bridges that were last seen before `before`. Ids of sessions tell when they
    /// began, so that no younger one is looked at.
    pub(crate) async fn delete_unseen(&self, before: Millis, limit: i64) -> sqlx::Result<Deleted> {
        let statement = sql!(
            "DELETE FROM bridge_sessions WHERE session_id IN
                 (SELECT session_id FROM bridge_sessions WHERE last_seen_at < $1 AND session_id < $2
                  ORDER BY session_id LIMIT $3)"
        );
        let below = format!("{}{before:012x}", SessionId::PREFIX);
        self.db.delete_some(statement, before, Some(&below), limit).await
    }

    /// (forwarded, tokens in, tokens out) of a session.
    #[cfg(test)]
    pub(crate) async fn totals(&self, session: &str) -> sqlx::Result<Option<(i64, i64, i64)>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT forwarded_total, tokens_in_total, tokens_out_total FROM bridge_sessions WHERE session_id = $1"
        )).bind(session).fetch_optional(pool).await)
    }
}
