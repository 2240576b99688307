//! Rows on the way to an authorization: stored requests, pushed requests, grants and codes.

use super::OAuthRepository;
use super::auth_code::stored_nonce;
use crate::repository::turns::turn;
use systemprompt_audit::{Cell, Col, Guard, OpenRow, Table};
use systemprompt_database::{on, on_tx, sql};
use systemprompt_models::Millis;

/// Most stored requests of one browser.
pub(crate) const MAX_OF_FLOW: i64 = 20;
/// Most of all, 100,000, in 256 parts by the beginning of the browser's digest: each is counted by itself, in a moment, and holds
/// whatever the others do. Digests spread evenly, so that the parts fill up together.
pub(crate) const MAX_OF_PART: i64 = 100_000 / 256;

/// Grants, inserted with the record of the authorization.
pub(crate) static GRANTS: Table = Table {
    name: "oauth_grants",
    key: "grant_id",
    open: &[
        Col::text("grant_id"),
        Col::text("user_id"),
        Col::text("client_id"),
        Col::text("session_id"),
        Col::text("kind"),
        Col::text("scopes"),
        Col::text("resources"),
        Col::int("offline"),
        Col::int("created_at"),
        Col::int("family_expires_at"),
        Col::text("claims"),
    ],
    close: &[],
    opened_by: None,
    mirror: &[],
    mirror_closed: &[],
};

/// A grant as it is given.
#[derive(Clone, Debug)]
pub struct NewGrant {
    pub grant_id: String,
    pub user_id: String,
    pub client_id: String,
    /// The browser session in which it was given.
    pub session_id: Option<String>,
    /// `code` or `device`.
    pub kind: &'static str,
    pub scopes: String,
    pub resources: String,
    pub offline: bool,
    pub created_at: Millis,
    pub family_expires_at: Millis,
    /// What the `claims` parameter asked for, JSON.
    pub claims: Option<String>,
}

impl OpenRow for NewGrant {
    const TABLE: &'static Table = &GRANTS;

    fn cells(self) -> Vec<Cell> {
        vec![
            text(self.grant_id),
            text(self.user_id),
            text(self.client_id),
            self.session_id.map_or(Cell::Null, text),
            Cell::Text(self.kind.into()),
            text(self.scopes),
            text(self.resources),
            Cell::Int(i64::from(self.offline)),
            Cell::Int(self.created_at),
            Cell::Int(self.family_expires_at),
            self.claims.map_or(Cell::Null, text),
        ]
    }
}

/// Codes, inserted with the record of the authorization.
pub(crate) static CODES: Table = Table {
    name: "oauth_auth_codes",
    key: "code_digest",
    open: &[
        Col::text("code_digest"),
        Col::text("client_id"),
        Col::text("user_id"),
        Col::text("session_id"),
        Col::text("grant_id"),
        Col::text("redirect_uri"),
        Col::int("redirect_uri_given"),
        Col::text("code_challenge"),
        Col::text("scopes"),
        Col::text("resources"),
        Col::text("nonce"),
        Col::text("claims"),
        Col::int("auth_time"),
        Col::text("acr"),
        Col::text("amr"),
        Col::text("pepper_id"),
        Col::int("created_at"),
        Col::int("expires_at"),
    ],
    close: &[],
    opened_by: None,
    mirror: &[],
    mirror_closed: &[],
};

/// A code as it is given.
#[derive(Clone, Debug)]
pub struct NewCode {
    pub code_digest: String,
    pub client_id: String,
    pub user_id: String,
    pub session_id: String,
    pub grant_id: String,
    pub redirect_uri: String,
    /// Whether the request named it; then the token request must.
    pub redirect_uri_given: bool,
    pub code_challenge: String,
    pub scopes: String,
    pub resources: String,
    pub nonce: Option<String>,
    pub claims: Option<String>,
    /// Epoch seconds.
    pub auth_time: i64,
    pub acr: Option<String>,
    pub amr: Option<String>,
    pub pepper_id: String,
    pub created_at: Millis,
    pub expires_at: Millis,
}

impl OpenRow for NewCode {
    const TABLE: &'static Table = &CODES;

    fn cells(self) -> Vec<Cell> {
        let maybe = |value: Option<String>| value.map_or(Cell::Null, text);
        vec![
            text(self.code_digest),
            text(self.client_id),
            text(self.user_id),
            text(self.session_id),
            text(self.grant_id),
            text(self.redirect_uri),
            Cell::Int(i64::from(self.redirect_uri_given)),
            text(self.code_challenge),
            text(self.scopes),
            text(self.resources),
            maybe(self.nonce.as_deref().map(stored_nonce)),
            maybe(self.claims),
            Cell::Int(self.auth_time),
            maybe(self.acr),
            maybe(self.amr),
            text(self.pepper_id),
            Cell::Int(self.created_at),
            Cell::Int(self.expires_at),
        ]
    }
}

fn text(value: String) -> Cell {
    Cell::Text(value.into())
}

/// What became of an attempt to store a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Done,
    /// This browser has begun too many.
    FlowFull,
    /// There are too many of all browsers.
    Full,
}

/// A stored request.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StoredRequest {
    pub parameters: String,
    pub created_at: Millis,
}

/// Takes a stored request away; it must be there, once.
pub(crate) fn take_request((present, previous): (&str, &str)) -> Guard {
    Guard {
        name: "authorize_request",
        sql: sql!("DELETE FROM oauth_authorize_requests WHERE request_digest IN ($1, $2)"),
        cells: vec![Cell::Text(present.into()), Cell::Text(previous.into())],
    }
}

impl OAuthRepository {
    /// Stores a request of a browser unless there are too many.
    pub async fn store_request(
        &self,
        digest: &str,
        client_id: &str,
        parameters: &str,
        (flow_digest, pepper_id): (&str, &str),
        (now, expires_at): (Millis, Millis),
    ) -> sqlx::Result<Stored> {
        let part = flow_digest.get(..2).unwrap_or(flow_digest);
        let mut tx = self.db.write_tx().await?;
        turn("authorize", part).holds_in(&mut tx).await?;
        let (of_flow, of_part): (i64, i64) = on_tx!(tx, conn => sqlx::query_as(sql!(
            "SELECT (SELECT COUNT(*) FROM oauth_authorize_requests WHERE flow_digest = $1 AND expires_at > $2),
                    (SELECT COUNT(*) FROM oauth_authorize_requests
                     WHERE flow_digest >= $3 AND flow_digest < $4 AND expires_at > $2)"
        )).bind(flow_digest).bind(now).bind(part).bind(format!("{part}g")).fetch_one(&mut *conn).await)?;
        if of_flow >= MAX_OF_FLOW || of_part >= MAX_OF_PART {
            tx.rollback().await?;
            return Ok(if of_flow >= MAX_OF_FLOW { Stored::FlowFull } else { Stored::Full });
        }
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_authorize_requests (request_digest, client_id, parameters, flow_digest, state, pepper_id, created_at,
                 expires_at)
             VALUES ($1, $2, $3, $4, '', $5, $6, $7)"
        ))
            .bind(digest).bind(client_id).bind(parameters).bind(flow_digest).bind(pepper_id).bind(now).bind(expires_at)
            .execute(&mut *conn).await.map(drop))?;
        tx.commit().await?;
        Ok(Stored::Done)
    }

    /// A live request of this browser.
    pub async fn stored_request(
        &self,
        (present, previous): (&str, &str),
        (flow, flow_previous): (&str, &str),
        now: Millis,
    ) -> sqlx::Result<Option<StoredRequest>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT parameters, created_at FROM oauth_authorize_requests
             WHERE request_digest IN ($1, $2) AND flow_digest IN ($3, $4) AND expires_at > $5"
        )).bind(present).bind(previous).bind(flow).bind(flow_previous).bind(now).fetch_optional(pool).await)
    }

    /// Ends a stored request. Returns whether it was there.
    pub async fn drop_request(&self, (present, previous): (&str, &str)) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        let gone = on_tx!(tx, conn => sqlx::query(sql!(
            "DELETE FROM oauth_authorize_requests WHERE request_digest IN ($1, $2)"
        )).bind(present).bind(previous).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(gone > 0)
    }

    /// Stores the parameters of a pushed request; false if `most` of its client are open.
    pub async fn store_pushed(
        &self,
        digest: &str,
        (client_id, parameters, pepper_id): (&str, &str, &str),
        (now, expires_at): (Millis, Millis),
        most: i64,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.write_tx().await?;
        turn("par", client_id).holds_in(&mut tx).await?;
        let stored = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_par_requests (request_digest, client_id, parameters, pepper_id, created_at, expires_at)
             SELECT $1, $2, $3, $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT)
             WHERE (SELECT COUNT(*) FROM oauth_par_requests WHERE client_id = $2 AND expires_at > $5) < CAST($7 AS BIGINT)"
        ))
            .bind(digest).bind(client_id).bind(parameters).bind(pepper_id).bind(now).bind(expires_at).bind(most)
            .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(stored == 1)
    }

    /// Takes a pushed request: once, and only for its client.
    pub async fn take_pushed(
        &self,
        (present, previous): (&str, &str),
        client_id: &str,
        now: Millis,
    ) -> sqlx::Result<Option<String>> {
        let mut tx = self.db.write_tx().await?;
        let row: Option<(String,)> = on_tx!(tx, conn => sqlx::query_as(sql!(
            "DELETE FROM oauth_par_requests
             WHERE request_digest IN ($1, $2) AND client_id = $3 AND expires_at > $4 RETURNING parameters"
        )).bind(present).bind(previous).bind(client_id).bind(now).fetch_optional(&mut *conn).await)?;
        tx.commit().await?;
        Ok(row.map(|(parameters,)| parameters))
    }
}
