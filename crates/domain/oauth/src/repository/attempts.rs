//! Rows of failed sign-ins.

use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

/// How long failures are remembered.
const MEMORY: Millis = 86_400_000;

/// Until when a key must wait; only windows that began behind `since` count.
pub(crate) async fn blocked_until(db: &Db, key: &str, since: Millis) -> sqlx::Result<Millis> {
    let (until,): (Option<i64>,) = on!(db, pool => sqlx::query_as(sql!(
        "SELECT MAX(blocked_until) FROM auth_attempts WHERE key_digest = $1 AND window_start > $2"
    )).bind(key).bind(since).fetch_one(pool).await)?;
    Ok(until.unwrap_or_default())
}

/// What a failure beyond the bound waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// A time; 0 where the wait grows instead.
    pub until: Millis,
    /// Longest wait that grows.
    pub longest: Millis,
}

/// Counts a failure in the window that began at `start`. From the `most`th on there is a wait, either until a time, or twice as long as
/// the one before, from a second on. Returns how many the window has; nothing if there is a wait already.
pub(crate) async fn count(
    db: &Db,
    key: &str,
    start: Millis,
    most: i64,
    wait: Wait,
    now: Millis,
) -> sqlx::Result<Option<i64>> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM auth_attempts WHERE window_start < $1"))
        .bind(now - MEMORY).execute(&mut *conn).await.map(drop))?;
    let failures: Option<(i64,)> = on_tx!(tx, conn => sqlx::query_as(sql!(
        "INSERT INTO auth_attempts (key_digest, window_start, failures, blocked_until) VALUES ($1, $2, 1, 0)
         ON CONFLICT (key_digest, window_start) DO UPDATE SET
             failures = auth_attempts.failures + 1,
             blocked_until = CASE
                 WHEN auth_attempts.failures + 1 < $3 THEN 0
                 WHEN $4 > 0 THEN $4
                 WHEN auth_attempts.failures + 1 >= $3 + 10 THEN CAST($5 AS BIGINT) + CAST($6 AS BIGINT)
                 WHEN 1000 * (1 << CAST(auth_attempts.failures + 1 - $3 AS INTEGER)) > $6 THEN $5 + $6
                 ELSE $5 + 1000 * (1 << CAST(auth_attempts.failures + 1 - $3 AS INTEGER)) END
         WHERE auth_attempts.blocked_until <= $5
         RETURNING failures"
    ))
        .bind(key).bind(start).bind(most).bind(wait.until).bind(now).bind(wait.longest)
        .fetch_optional(&mut *conn).await)?;
    tx.commit().await?;
    Ok(failures.map(|(failures,)| failures))
}

/// Takes one failure back from the window that began at `start`, and the wait if it is not due any more.
pub(crate) async fn uncount(db: &Db, key: &str, start: Millis, most: i64) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!(
        "UPDATE auth_attempts SET failures = failures - 1,
             blocked_until = CASE WHEN failures - 1 < $1 THEN 0 ELSE blocked_until END
         WHERE key_digest = $2 AND window_start = $3 AND failures > 0"
    )).bind(most).bind(key).bind(start).execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}

/// In how many windows that began behind `since` a key came to its bound.
pub(crate) async fn full_windows(db: &Db, key: &str, most: i64, since: Millis) -> sqlx::Result<i64> {
    let (count,): (i64,) = on!(db, pool => sqlx::query_as(sql!(
        "SELECT COUNT(*) FROM auth_attempts WHERE key_digest = $1 AND window_start > $2 AND failures >= $3"
    )).bind(key).bind(since).bind(most).fetch_one(pool).await)?;
    Ok(count)
}

/// Forgets the failures of a key.
pub(crate) async fn clear(db: &Db, key: &str) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM auth_attempts WHERE key_digest = $1"))
        .bind(key).execute(&mut *conn).await.map(drop))?;
    tx.commit().await
}
