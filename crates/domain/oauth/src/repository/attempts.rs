//! Rows of failed sign-ins; the clean-up job deletes them.

use systemprompt_database::{Db, on, on_tx, sql};
use systemprompt_models::Millis;

/// Until when a key must wait; only windows that began behind `since` count.
pub(crate) async fn blocked_until(db: &Db, key: &str, since: Millis) -> sqlx::Result<Millis> {
    let (until,): (Option<i64>,) = on!(db, pool => sqlx::query_as(sql!(
        "SELECT MAX(blocked_until) FROM auth_attempts WHERE key_digest = $1 AND window_start > $2"
    )).bind(key).bind(since).fetch_one(pool).await)?;
    Ok(until.unwrap_or_default())
}

/// Guesses of one key, in the window that began at `start`.
pub(crate) struct Guess {
    pub key: String,
    pub start: Millis,
    /// A wait counts if its window began behind this.
    pub since: Millis,
    /// From this one on there is a wait: until a time or, where that is 0, twice as long as the one before, from a second on.
    pub most: i64,
    pub until: Millis,
    /// Longest wait that grows.
    pub longest: Millis,
}

/// Counts a failure of each, unless one must wait: then none is counted, and the error is until when. Returns how many each window has.
pub(crate) async fn take(db: &Db, guesses: &[Guess], now: Millis) -> sqlx::Result<Result<Vec<i64>, Millis>> {
    let mut tx = db.write_tx().await?;
    for guess in guesses {
        let (until,): (Option<i64>,) = on_tx!(tx, conn => sqlx::query_as(sql!(
            "SELECT MAX(blocked_until) FROM auth_attempts WHERE key_digest = $1 AND window_start > $2"
        )).bind(&guess.key).bind(guess.since).fetch_one(&mut *conn).await)?;
        if let Some(until) = until.filter(|until| *until > now) {
            return Ok(Err(until));
        }
    }
    let mut taken = Vec::with_capacity(guesses.len());
    for guess in guesses {
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
            .bind(&guess.key).bind(guess.start).bind(guess.most).bind(guess.until).bind(now).bind(guess.longest)
            .fetch_optional(&mut *conn).await)?;
        let Some((failures,)) = failures else {
            // Another guess of this key came to the bound since it was read.
            return Ok(Err(now + 1000));
        };
        taken.push(failures);
    }
    tx.commit().await?;
    Ok(Ok(taken))
}

/// Forgets the failures of a key, and takes one back from each of the others, with the wait if it is not due any more.
pub(crate) async fn forgive(db: &Db, forgotten: Option<&str>, back: &[Guess]) -> sqlx::Result<()> {
    let mut tx = db.write_tx().await?;
    if let Some(key) = forgotten {
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM auth_attempts WHERE key_digest = $1"))
            .bind(key).execute(&mut *conn).await.map(drop))?;
    }
    for guess in back {
        on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE auth_attempts SET failures = failures - 1,
                 blocked_until = CASE WHEN failures - 1 < $1 THEN 0 ELSE blocked_until END
             WHERE key_digest = $2 AND window_start = $3 AND failures > 0"
        )).bind(guess.most).bind(&guess.key).bind(guess.start).execute(&mut *conn).await.map(drop))?;
    }
    tx.commit().await
}

/// In how many windows that began behind `since` a key came to its bound.
pub(crate) async fn full_windows(db: &Db, key: &str, most: i64, since: Millis) -> sqlx::Result<i64> {
    let (count,): (i64,) = on!(db, pool => sqlx::query_as(sql!(
        "SELECT COUNT(*) FROM auth_attempts WHERE key_digest = $1 AND window_start > $2 AND failures >= $3"
    )).bind(key).bind(since).bind(most).fetch_one(pool).await)?;
    Ok(count)
}
