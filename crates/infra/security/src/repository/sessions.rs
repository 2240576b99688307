//! The rows of sessions: how the ledger's writer inserts one, how one is read for a list, and the guards that hold one while a unit
//! is written.

use crate::session::row::SessionRow;
use systemprompt_audit::{Cell, Col, Guard, OpenRow, Table};
use systemprompt_database::sql;
use systemprompt_models::Millis;
use systemprompt_models::ids::{ClientId, GrantId, Jti, SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource};

/// Sessions whose rows the ledger's writer inserts. It vouches for none of them: they end and go.
pub(crate) static SESSIONS: Table = Table {
    name: "user_sessions",
    key: "id",
    open: &[
        Col::text("id"),
        Col::text("user_id"),
        Col::text("source"),
        Col::int("created_at"),
        Col::int("last_seen_at"),
        Col::int("expires_at"),
        Col::int("ends_at"),
        Col::int("auth_time"),
        Col::text("acr"),
        Col::text("amr"),
        Col::text("ip_prefix"),
        Col::text("user_agent"),
        Col::text("client_id"),
        Col::text("owner_id"),
        Col::text("grant_id"),
        Col::text("parent_session_id"),
    ],
    close: &[],
    opened_by: None,
    mirror: &[],
    mirror_closed: &[],
};

/// The row of a new session, to be opened in the unit of the record that tells of it.
#[derive(Debug)]
pub struct SessionOpened {
    session: CreateSessionInput,
    now: Millis,
}

impl SessionOpened {
    /// The row of a session that begins at `now`.
    pub fn new(session: CreateSessionInput, now: Millis) -> Self {
        Self { session, now }
    }
}

impl OpenRow for SessionOpened {
    const TABLE: &'static Table = &SESSIONS;

    fn cells(self) -> Vec<Cell> {
        let text = |text: &str| Cell::Text(text.into());
        let maybe = |text: Option<&str>| text.map_or(Cell::Null, |text| Cell::Text(text.into()));
        let CreateSessionInput { id, user_id, source, expires_at, facts } = self.session;
        vec![
            text(id.as_str()),
            maybe(user_id.as_ref().map(UserId::as_str)),
            text(source.as_str()),
            Cell::Int(self.now),
            Cell::Int(self.now),
            Cell::Int(expires_at),
            facts.ends_at.map_or(Cell::Null, Cell::Int),
            facts.auth_time.map_or(Cell::Null, Cell::Int),
            maybe(facts.acr.as_deref()),
            maybe(facts.amr.as_deref()),
            maybe(facts.ip_prefix.as_deref()),
            maybe(facts.user_agent.as_deref().map(shortened)),
            maybe(facts.client_id.as_ref().map(ClientId::as_str)),
            maybe(facts.owner_id.as_ref().map(UserId::as_str)),
            maybe(facts.grant_id.as_ref().map(GrantId::as_str)),
            maybe(facts.parent.as_ref().map(SessionId::as_str)),
        ]
    }
}

/// As much of a user agent as is kept.
fn shortened(agent: &str) -> &str {
    agent.get(..agent.floor_char_boundary(256)).unwrap_or(agent)
}

/// The columns of a session.
#[derive(sqlx::FromRow)]
pub(super) struct ListRow {
    id: String,
    user_id: Option<String>,
    source: String,
    created_at: Millis,
    last_seen_at: Millis,
    expires_at: Millis,
    revoked_at: Option<Millis>,
    revoked_reason: Option<String>,
    ends_at: Option<Millis>,
    auth_time: Option<i64>,
    acr: Option<String>,
    amr: Option<String>,
    ip_prefix: Option<String>,
    user_agent: Option<String>,
    client_id: Option<String>,
    owner_id: Option<String>,
    grant_id: Option<String>,
    parent_session_id: Option<String>,
}

impl ListRow {
    pub fn listed(self) -> SessionRow {
        SessionRow {
            id: SessionId::from(self.id),
            user_id: self.user_id.map(UserId::from),
            source: SessionSource::parse(&self.source),
            created_at: self.created_at,
            last_seen_at: self.last_seen_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            revoked_reason: self.revoked_reason,
            ends_at: self.ends_at,
            auth_time: self.auth_time,
            acr: self.acr,
            amr: self.amr,
            ip_prefix: self.ip_prefix,
            user_agent: self.user_agent,
            client_id: self.client_id.map(ClientId::from),
            owner_id: self.owner_id.map(UserId::from),
            grant_id: self.grant_id.map(GrantId::from),
            parent_session_id: self.parent_session_id.map(SessionId::from),
        }
    }
}

/// Name of the guard of [`session_lives`].
pub const SESSION_ENDED: &str = "session_ended";

/// Holds if a session counts, and keeps it from ending before the unit is written.
pub fn session_lives(id: &SessionId, now: Millis) -> Guard {
    Guard {
        name: SESSION_ENDED,
        sql: sql!(
            "UPDATE user_sessions SET last_seen_at = CASE WHEN last_seen_at < $1 THEN $1 ELSE last_seen_at END
             WHERE id = $2 AND revoked_at IS NULL AND expires_at > $1"
        ),
        cells: vec![now.into(), id.as_str().into()],
    }
}

/// Name of the guard of [`token_stands`].
pub const TOKEN_ENDED: &str = "token_ended";

/// Holds if a token of a session is not revoked. It comes behind [`session_lives`], which waits for a revocation under way.
pub fn token_stands(session: &SessionId, jti: &Jti) -> Guard {
    Guard {
        name: TOKEN_ENDED,
        sql: sql!(
            "UPDATE user_sessions SET last_seen_at = last_seen_at
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM oauth_jti_revocations WHERE jti = $2)"
        ),
        cells: vec![session.as_str().into(), jti.as_str().into()],
    }
}
