//! Rows of recovery codes.

use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

/// Puts a new set in the place of the one before.
pub(crate) async fn replace(db: &Db, user_id: &str, digests: &[String], now: Millis) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    // Two sets at once must see each other, or both would count.
    on_tx!(tx, conn => sqlx::query(sql!("UPDATE users SET updated_at = updated_at WHERE id = $1"))
        .bind(user_id).execute(&mut *conn).await.map(drop))?;
    on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM user_recovery_codes WHERE user_id = $1"))
        .bind(user_id).execute(&mut *conn).await.map(drop))?;
    for digest in digests {
        on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO user_recovery_codes (code_digest, user_id, created_at) VALUES ($1, $2, $3)"
        )).bind(digest).bind(user_id).bind(now).execute(&mut *conn).await.map(drop))?;
    }
    tx.commit().await
}

/// How many of a user's codes were not used.
pub(crate) async fn left(db: &Db, user_id: &str) -> sqlx::Result<i64> {
    let (left,): (i64,) = on!(db, pool => sqlx::query_as(sql!(
        "SELECT COUNT(*) FROM user_recovery_codes WHERE user_id = $1 AND used_at IS NULL"
    )).bind(user_id).fetch_one(pool).await)?;
    Ok(left)
}

/// Whose unused code this is.
pub(crate) async fn owner(db: &Db, (present, previous): (&str, &str)) -> sqlx::Result<Option<String>> {
    let row: Option<(String,)> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT user_id FROM user_recovery_codes WHERE code_digest IN ($1, $2) AND used_at IS NULL"
    )).bind(present).bind(previous).fetch_optional(pool).await)?;
    Ok(row.map(|(user_id,)| user_id))
}

/// Uses a code up.
pub(crate) fn used((present, previous): (&str, &str), now: Millis) -> Guard {
    Guard {
        name: "recovery_code",
        sql: sql!(
            "UPDATE user_recovery_codes SET used_at = $1 WHERE code_digest IN ($2, $3) AND used_at IS NULL"
        ),
        cells: vec![Cell::Int(now), Cell::Text(present.into()), Cell::Text(previous.into())],
    }
}
