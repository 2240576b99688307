//! The end of sessions that were added while those that they came from were about to end.
//!
//! On PostgreSQL a statement sees what was there when it began. It waits for a unit that holds a session alive, ends that session,
//! and does not see the one that the unit has added beneath it. Once ended, a session gets no more; so what came from those that
//! ended is ended in turn until there is none left. SQLite has one writer and finds none.

use super::tokens::RevokedRow;
use systemprompt_database::{WriteTx, on_tx, sql};
use systemprompt_models::Millis;

/// More than exchanges stand in a chain.
const MOST: usize = 16;

/// How the sessions of one epoch end.
#[derive(Clone, Copy)]
pub(super) struct Latecomers<'a> {
    pub epoch: i64,
    pub reason: &'a str,
    pub now: Millis,
    /// The session that goes on, if any.
    pub keep: &'a str,
}

impl Latecomers<'_> {
    /// Adds to `ended`, what this epoch has ended, what came from it.
    pub async fn complete(
        self,
        tx: &mut WriteTx,
        mut ended: Vec<RevokedRow>,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        if ended.is_empty() {
            return Ok(ended);
        }
        for _ in 0..MOST {
            let late = self.end(tx).await?;
            if late.is_empty() {
                return Ok(ended);
            }
            ended.extend(late);
        }
        Err(sqlx::Error::Protocol("sessions are added faster than they end".into()))
    }

    async fn end(self, tx: &mut WriteTx) -> Result<Vec<RevokedRow>, sqlx::Error> {
        on_tx!(*tx, conn => sqlx::query_as(sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT id FROM user_sessions WHERE revoked_epoch = $1
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             UPDATE user_sessions SET revoked_at = $2, revoked_reason = $3, revoked_epoch = $1
             WHERE id IN (SELECT id FROM tree) AND id <> $4 AND revoked_at IS NULL AND expires_at > $2
             RETURNING id, expires_at"
        ))
            .bind(self.epoch).bind(self.now).bind(self.reason).bind(self.keep)
            .fetch_all(&mut *conn).await)
    }
}
