//! Rows of the bridge's exchange codes.

use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{Db, on, sql};
use systemprompt_models::Millis;

/// Most codes of a user that are open at once.
pub(crate) const MAX_OPEN: i64 = 5;

/// Takes a user's row for this unit, so that codes made at once see each other.
pub(crate) fn lock_user(user_id: &str) -> Guard {
    Guard {
        name: "user",
        sql: sql!(
            "UPDATE users SET updated_at = updated_at WHERE id = $1 AND status = 'active' AND kind = 'person'"
        ),
        cells: vec![Cell::Text(user_id.into())],
    }
}

/// Adds a code, unless the user has too many that are open.
pub(crate) fn add(
    (digest, pepper_id): (&str, &str),
    user_id: &str,
    issued_by: &str,
    now: Millis,
    expires_at: Millis,
) -> Guard {
    Guard {
        name: "exchange_code",
        sql: sql!(
            "INSERT INTO bridge_exchange_codes (code_digest, user_id, issued_by, pepper_id, created_at, expires_at)
             SELECT $1, $2, $3, $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT)
             WHERE (SELECT COUNT(*) FROM bridge_exchange_codes WHERE user_id = $2 AND expires_at > $5) < CAST($7 AS BIGINT)"
        ),
        cells: vec![
            Cell::Text(digest.into()),
            Cell::Text(user_id.into()),
            Cell::Text(issued_by.into()),
            Cell::Text(pepper_id.into()),
            Cell::Int(now),
            Cell::Int(expires_at),
            Cell::Int(MAX_OPEN),
        ],
    }
}

/// Whose open code this is.
pub(crate) async fn owner(
    db: &Db,
    (present, previous): (&str, &str),
    now: Millis,
) -> sqlx::Result<Option<String>> {
    let row: Option<(String,)> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT user_id FROM bridge_exchange_codes WHERE code_digest IN ($1, $2) AND expires_at > $3"
    )).bind(present).bind(previous).bind(now).fetch_optional(pool).await)?;
    Ok(row.map(|(user_id,)| user_id))
}

/// Takes a code; only one unit gets it.
pub(crate) fn taken((present, previous): (&str, &str), now: Millis) -> Guard {
    Guard {
        name: "exchange_code",
        sql: sql!("DELETE FROM bridge_exchange_codes WHERE code_digest IN ($1, $2) AND expires_at > $3"),
        cells: vec![Cell::Text(present.into()), Cell::Text(previous.into()), Cell::Int(now)],
    }
}
