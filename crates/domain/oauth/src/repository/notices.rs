//! Rows that tell a person what happened to their account, in the unit of what happened (ID-87, ID-89).

use crate::services::refusals::ip_prefix;
use serde::Serialize;
use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::ids::{UserId, uuid_v7};
use systemprompt_models::{Millis, RequestContext};

/// Most notices of one user; the oldest go.
pub(crate) const MAX_NOTICES: i64 = 50;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    PasskeyAdded,
    PasskeyRemoved,
    /// Its counter stood still: there may be a copy, and it signs nobody in any more.
    PasskeySuspect,
    PasswordChanged,
    RecoveryCodesMade,
    RecoveryUsed,
}

impl NoticeKind {
    pub const ALL: [Self; 6] = [
        Self::PasskeyAdded,
        Self::PasskeyRemoved,
        Self::PasskeySuspect,
        Self::PasswordChanged,
        Self::RecoveryCodesMade,
        Self::RecoveryUsed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::PasskeyAdded => "passkey_added",
            Self::PasskeyRemoved => "passkey_removed",
            Self::PasskeySuspect => "passkey_suspect",
            Self::PasswordChanged => "password_changed",
            Self::RecoveryCodesMade => "recovery_codes_made",
            Self::RecoveryUsed => "recovery_used",
        }
    }
}

/// A notice as its person reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Notice {
    pub id: String,
    pub kind: String,
    /// Name of the passkey, where it is about one.
    pub about: Option<String>,
    /// Where whoever did it came from.
    pub ip_prefix: Option<String>,
    pub created_at: Millis,
}

/// Tells `user` what the caller does, in every session but the caller's own.
pub(crate) fn tell(
    context: &RequestContext,
    user: &UserId,
    kind: NoticeKind,
    about: Option<&str>,
    now: Millis,
) -> Guard {
    let text = |value: &str| Cell::Text(value.into());
    let by = &context.principal;
    let session = (!by.is_anonymous() && by.user_id == *user).then_some(by.session_id.as_str());
    Guard {
        name: "notice",
        sql: sql!(
            "INSERT INTO user_notices (id, user_id, kind, about, session_id, ip_prefix, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)"
        ),
        cells: vec![
            text(&uuid_v7().to_string()),
            text(user.as_str()),
            text(kind.as_str()),
            about.map_or(Cell::Null, text),
            session.map_or(Cell::Null, text),
            ip_prefix(context).as_deref().map_or(Cell::Null, text),
            Cell::Int(now),
        ],
    }
}

/// The newest notices for a user that another session caused, the newest first.
pub(crate) async fn of(db: &Db, user: &UserId, session: &str) -> sqlx::Result<Vec<Notice>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT id, kind, about, ip_prefix, created_at FROM user_notices
         WHERE user_id = $1 AND (session_id IS NULL OR session_id <> $2) ORDER BY id DESC LIMIT $3"
    )).bind(user.as_str()).bind(session).bind(MAX_NOTICES).fetch_all(pool).await)
}

/// Deletes a notice. False if the user has none of this id.
pub(crate) async fn dismiss(db: &Db, user: &UserId, id: &str) -> sqlx::Result<bool> {
    let mut tx = db.write_tx().await?;
    let done = on_tx!(tx, conn => sqlx::query(sql!(
        "DELETE FROM user_notices WHERE id = $1 AND user_id = $2"
    )).bind(id).bind(user.as_str()).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(done == 1)
}

/// Deletes what is more than [`MAX_NOTICES`].
pub(crate) async fn trim(db: &Db, user: &UserId) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "DELETE FROM user_notices WHERE user_id = $1 AND id NOT IN
             (SELECT id FROM user_notices WHERE user_id = $1 ORDER BY id DESC LIMIT $2)"
    )).bind(user.as_str()).bind(MAX_NOTICES).execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
