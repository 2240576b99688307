//! Rows of one-time set-up tokens.

use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct SetupRow {
    pub purpose: String,
    pub user_id: Option<String>,
    pub email: Option<String>,
    /// Space-separated.
    pub roles: String,
    pub issued_by: String,
    pub pepper_id: String,
    pub created_at: Millis,
    pub expires_at: Millis,
    pub used_at: Option<Millis>,
}

/// Stores a token. The unused one of a first administrator is replaced: there is one of it at most.
pub(crate) async fn insert(db: &Db, digest: &str, row: &SetupRow) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "INSERT INTO setup_tokens (token_digest, purpose, user_id, email, roles, issued_by, pepper_id, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (purpose) WHERE purpose = 'bootstrap' AND used_at IS NULL
         DO UPDATE SET token_digest = excluded.token_digest, issued_by = excluded.issued_by, pepper_id = excluded.pepper_id,
             created_at = excluded.created_at, expires_at = excluded.expires_at"
    ))
        .bind(digest).bind(&row.purpose).bind(&row.user_id).bind(&row.email).bind(&row.roles).bind(&row.issued_by)
        .bind(&row.pepper_id).bind(row.created_at).bind(row.expires_at)
        .execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}

/// The token under one of two digests, with the digest that it stands under.
pub(crate) async fn find(db: &Db, (present, previous): (&str, &str)) -> sqlx::Result<Option<SetupRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT purpose, user_id, email, roles, issued_by, pepper_id, created_at, expires_at, used_at
         FROM setup_tokens WHERE token_digest IN ($1, $2)"
    )).bind(present).bind(previous).fetch_optional(pool).await)
}

/// Uses a token up. One for a first administrator counts only while there is none.
pub(crate) fn used((present, previous): (&str, &str), now: Millis) -> Guard {
    Guard {
        name: "setup_token",
        sql: sql!(
            "UPDATE setup_tokens SET used_at = $1
             WHERE token_digest IN ($2, $3) AND used_at IS NULL AND expires_at > $1
               AND (purpose <> 'bootstrap'
                    OR NOT EXISTS (SELECT 1 FROM users u JOIN user_roles r ON r.user_id = u.id
                                   WHERE r.role = 'admin' AND u.status = 'active'
                                     AND EXISTS (SELECT 1 FROM webauthn_credentials c WHERE c.user_id = u.id AND c.status = 'active')))"
        ),
        cells: vec![Cell::Int(now), Cell::Text(present.into()), Cell::Text(previous.into())],
    }
}

/// Whether an active administrator can sign in.
pub(crate) async fn has_administrator(db: &Db) -> sqlx::Result<bool> {
    let found: Option<(String,)> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT u.id FROM users u JOIN user_roles r ON r.user_id = u.id
         WHERE r.role = 'admin' AND u.status = 'active'
           AND EXISTS (SELECT 1 FROM webauthn_credentials c WHERE c.user_id = u.id AND c.status = 'active') LIMIT 1"
    )).fetch_optional(pool).await)?;
    Ok(found.is_some())
}
