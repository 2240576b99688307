//! The tree of sessions: a session ends with all that came from it, from that again, and so on. Here alone it is walked.
//!
//! On PostgreSQL a statement sees what was there when it began. It waits for a unit that holds a session alive, ends that session,
//! and does not see the one that the unit has added beneath it. Once ended, a session gets no more; so whatever ends a tree looks
//! again. SQLite has one writer, and the second look finds nobody: it reads a few index entries, and both engines run one code.

use super::tokens::{RevokedRow, TokenRepository};
use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::{GrantId, SessionId, UserId};

/// More than exchanges stand in a chain.
const MOST: usize = 16;

/// What ends with all that came from it.
#[derive(Clone, Copy, Debug)]
pub enum Root<'a> {
    /// It need not have a row: an API key stands above its sessions with its own id.
    Session(&'a SessionId),
    /// The session of a grant, which all its access tokens are of.
    Grant(&'a GrantId),
}

impl Root<'_> {
    fn session(&self) -> Option<&str> {
        match self {
            Self::Session(id) => Some(id.as_str()),
            Self::Grant(_) => None,
        }
    }

    fn grant(&self) -> Option<&str> {
        match self {
            Self::Grant(id) => Some(id.as_str()),
            Self::Session(_) => None,
        }
    }
}

impl TokenRepository {
    /// The live sessions that end with `root`.
    pub(crate) async fn tree(&self, root: Root<'_>, now: Millis) -> Result<Vec<RevokedRow>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT CAST($1 AS TEXT)
                 UNION
                 SELECT id FROM user_sessions WHERE grant_id = $2
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             SELECT id, expires_at FROM user_sessions
             WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $3"
        )).bind(root.session()).bind(root.grant()).bind(now).fetch_all(pool).await)
    }
}

/// Which sessions of a user end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of<'a> {
    /// All but one.
    All(Option<&'a SessionId>),
    /// Those for which no refresh brings others.
    Told,
}

impl TokenRepository {
    /// How many live sessions end with those of a user: those of the clients that serve them and what came from any come along.
    pub(crate) async fn count_of(&self, user: &UserId, of: Of<'_>, now: Millis) -> Result<i64, sqlx::Error> {
        let (keep, told) = match of {
            Of::All(keep) => (keep.map_or("", SessionId::as_str), 0),
            Of::Told => ("", 1),
        };
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT id FROM user_sessions
                 WHERE (user_id = $1 AND (CAST($2 AS BIGINT) = 0 OR grant_id IS NULL) OR owner_id = $1)
                     AND id <> $3 AND revoked_at IS NULL AND expires_at > $4
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             SELECT COUNT(*) FROM user_sessions
             WHERE id IN (SELECT id FROM tree) AND id <> $3 AND revoked_at IS NULL AND expires_at > $4"
        )).bind(user.as_str()).bind(told).bind(keep).bind(now).fetch_one(pool).await)?;
        Ok(count)
    }
}

/// Changes of a unit that end the sessions of `root`. The last is there twice, to look again.
pub(crate) fn tree_ends(root: Root<'_>, reason: &str, now: Millis) -> [Guard; 3] {
    let epoch = Guard {
        name: "revocation_epoch",
        sql: sql!("UPDATE revocation_epoch SET epoch = epoch + 1 WHERE one = 1"),
        cells: Vec::new(),
    };
    let id = |id: Option<&str>| id.map_or(Cell::Null, Cell::from);
    let sessions = Guard {
        name: "sessions_end",
        sql: sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT CAST($1 AS TEXT)
                 UNION
                 SELECT id FROM user_sessions WHERE grant_id = $2
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             UPDATE user_sessions SET revoked_at = $3, revoked_reason = $4,
                 revoked_epoch = (SELECT epoch FROM revocation_epoch WHERE one = 1)
             WHERE id IN (SELECT id FROM tree) AND revoked_at IS NULL AND expires_at > $3"
        ),
        cells: vec![id(root.session()), id(root.grant()), now.into(), reason.into()],
    };
    [epoch, sessions.clone(), sessions]
}

/// How sessions end under one epoch, in a transaction.
#[derive(Clone, Copy)]
pub(super) struct TreeEnd<'a> {
    pub epoch: i64,
    pub reason: &'a str,
    pub now: Millis,
    /// The session that goes on, if any.
    pub keep: Option<&'a SessionId>,
}

impl TreeEnd<'_> {
    /// Ends a session and what came from it.
    pub async fn end(self, tx: &mut WriteTx, root: &SessionId) -> Result<Vec<RevokedRow>, sqlx::Error> {
        self.end_below(tx, Some(root), Vec::new()).await
    }

    /// Adds to `ended`, what this epoch has ended, what came from it.
    pub async fn complete(
        self,
        tx: &mut WriteTx,
        ended: Vec<RevokedRow>,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        if ended.is_empty() {
            return Ok(ended);
        }
        self.end_below(tx, None, ended).await
    }

    async fn end_below(
        self,
        tx: &mut WriteTx,
        root: Option<&SessionId>,
        mut ended: Vec<RevokedRow>,
    ) -> Result<Vec<RevokedRow>, sqlx::Error> {
        for _ in 0..MOST {
            let more = self.walk(tx, root).await?;
            if more.is_empty() {
                return Ok(ended);
            }
            ended.extend(more);
        }
        Err(sqlx::Error::Protocol("sessions are added faster than they end".into()))
    }

    async fn walk(self, tx: &mut WriteTx, root: Option<&SessionId>) -> Result<Vec<RevokedRow>, sqlx::Error> {
        on_tx!(*tx, conn => sqlx::query_as(sql!(
            "WITH RECURSIVE tree (id) AS (
                 SELECT CAST($1 AS TEXT)
                 UNION
                 SELECT id FROM user_sessions WHERE revoked_epoch = $2
                 UNION
                 SELECT s.id FROM user_sessions s JOIN tree ON s.parent_session_id = tree.id)
             UPDATE user_sessions SET revoked_at = $3, revoked_reason = $4, revoked_epoch = $2
             WHERE id IN (SELECT id FROM tree) AND id <> $5 AND revoked_at IS NULL AND expires_at > $3
             RETURNING id, expires_at"
        ))
            .bind(root.map(SessionId::as_str)).bind(self.epoch).bind(self.now).bind(self.reason)
            .bind(self.keep.map_or("", SessionId::as_str))
            .fetch_all(&mut *conn).await)
    }
}
