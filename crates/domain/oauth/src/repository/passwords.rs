//! Rows of passwords.

use systemprompt_audit::Guard;
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;

/// Name of the guard of [`unchanged`].
pub(crate) const UNCHANGED: &str = "password_changed";

/// The stored hash of a user's password.
pub(crate) async fn hash(db: &Db, user_id: &str) -> sqlx::Result<Option<String>> {
    let row: Option<(String,)> = on!(db, pool => sqlx::query_as(sql!(
        "SELECT hash FROM user_passwords WHERE user_id = $1"
    )).bind(user_id).fetch_optional(pool).await)?;
    Ok(row.map(|(hash,)| hash))
}

/// Stores a hash in place of the one before. With `expected`, only if that is still the one. Returns whether it was.
pub(crate) async fn store(
    tx: &mut WriteTx,
    user_id: &str,
    expected: Option<&str>,
    hash: &str,
    now: Millis,
) -> sqlx::Result<bool> {
    let done = match expected {
        Some(expected) => on_tx!(*tx, conn => sqlx::query(sql!(
            "UPDATE user_passwords SET hash = $1, changed_at = $2 WHERE user_id = $3 AND hash = $4"
        )).bind(hash).bind(now).bind(user_id).bind(expected).execute(&mut *conn).await.map(|done| done.rows_affected()))?,
        None => on_tx!(*tx, conn => sqlx::query(sql!(
            "INSERT INTO user_passwords (user_id, hash, changed_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO NOTHING"
        )).bind(user_id).bind(hash).bind(now).execute(&mut *conn).await.map(|done| done.rows_affected()))?,
    };
    Ok(done == 1)
}

/// Holds while this is the hash of a user's password: who proved the one before a change is not let in behind it.
pub(crate) fn unchanged(user_id: &str, hash: &str) -> Guard {
    Guard {
        name: UNCHANGED,
        sql: sql!("UPDATE user_passwords SET changed_at = changed_at WHERE user_id = $1 AND hash = $2"),
        cells: vec![user_id.into(), hash.into()],
    }
}

/// Stores the hash that a new user brings.
pub(crate) async fn insert(tx: &mut WriteTx, user_id: &str, hash: &str, now: Millis) -> sqlx::Result<()> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO user_passwords (user_id, hash, changed_at) VALUES ($1, $2, $3)"
    )).bind(user_id).bind(hash).bind(now).execute(&mut *conn).await.map(drop))
}
