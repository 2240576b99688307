//! The shared counters of the call limit (SEC-84), on PostgreSQL alone: SQLite has one node, which counts in memory. A batch of
//! charges is one statement over arrays, which has no portable form; only refusals need another one in its transaction.
//!
//! Rows are locked in one order everywhere (calls, sessions, users, each by key), so that two nodes never wait for each other.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, Transaction};
use std::collections::HashMap;
use systemprompt_models::Millis;

/// Charges counters, given with how many calls each is asked for, as many as their rate allows.
macro_rules! charge {
    ($keys:literal from $asked:literal at $cost:literal up to $depth:literal) => {
        concat!(
            "INSERT INTO governance_rate AS r (key, tat, asked, granted)
             SELECT ",
            $keys,
            ", $11 + LEAST(n, ",
            $depth,
            " / ",
            $cost,
            ") * ",
            $cost,
            ", n, LEAST(n, ",
            $depth,
            " / ",
            $cost,
            ")
             FROM ",
            $asked,
            " ORDER BY ",
            $keys,
            "
             ON CONFLICT (key) DO UPDATE SET
                 asked = EXCLUDED.asked,
                 granted = LEAST(EXCLUDED.asked, GREATEST(0, ($11 + ",
            $depth,
            " - GREATEST(r.tat, $11)) / ",
            $cost,
            ")),
                 tat = GREATEST(r.tat, $11) + ",
            $cost,
            "
                     * LEAST(EXCLUDED.asked, GREATEST(0, ($11 + ",
            $depth,
            " - GREATEST(r.tat, $11)) / ",
            $cost,
            "))
             RETURNING key, granted, tat"
        )
    };
}

/// Marks the doors of a batch's calls, then charges the sessions of those that were not paid for at another door, then the users of
/// what the sessions let through; each part needs all rows of the one before it. $1 to $4 are the calls, $5 the present, $6 when a
/// mark is too old; a call costs $7 of a session and $9 of a user, whose counters may be $8 and $10 ahead of the present, $11.
///
/// Parts of the answer: 0 the calls with what was known of them (0 nothing, 1 another door, 2 this very door), 1 sessions and 2 users
/// with what they allowed.
const CHARGE: &str = concat!(
    "WITH wanted AS (
         SELECT * FROM UNNEST($1, $2, $3, $4) AS t (call, door, session, person)
     ), claims AS (
         INSERT INTO governance_charges AS c (key, doors, seen, charged_at)
         SELECT call, door, 0, $5 FROM wanted WHERE call IS NOT NULL ORDER BY call
         ON CONFLICT (key) DO UPDATE SET
             seen = CASE WHEN c.charged_at <= $6 THEN 0 WHEN c.doors & EXCLUDED.doors = 0 THEN 1 ELSE 2 END,
             doors = CASE WHEN c.charged_at <= $6 THEN EXCLUDED.doors ELSE c.doors | EXCLUDED.doors END,
             charged_at = CASE WHEN c.charged_at <= $6 THEN EXCLUDED.charged_at ELSE c.charged_at END
         RETURNING key, seen
     ), asked AS (
         SELECT w.session, w.person, COUNT(*) AS n FROM wanted w LEFT JOIN claims c ON c.key = w.call
         WHERE c.seen IS DISTINCT FROM 1 GROUP BY w.session, w.person
     ), sessions AS (",
    charge!("session" from "asked" at "$7" up to "$8"),
    "), asked_of_persons AS (
         SELECT a.person, CAST(SUM(s.granted) AS BIGINT) AS n FROM asked a JOIN sessions s ON s.key = a.session
         GROUP BY a.person HAVING SUM(s.granted) > 0
     ), persons AS (",
    charge!("person" from "asked_of_persons" at "$9" up to "$10"),
    ")
     SELECT 0, key, seen, 0 FROM claims
     UNION ALL SELECT 1, key, granted, tat FROM sessions
     UNION ALL SELECT 2, key, granted, tat FROM persons"
);

const UNCLAIM: &str = "DELETE FROM governance_charges WHERE key = ANY($1)";

/// Gives counters time back; the charge before it has locked their rows.
const REFUND: &str = "
    UPDATE governance_rate AS r SET tat = r.tat - t.back FROM UNNEST($1, $2) AS t (k, back) WHERE r.key = t.k";

/// Calls that are too old to be met at another door, some at a time.
const SWEEP_CALLS: &str = "
    DELETE FROM governance_charges WHERE key IN (
        SELECT key FROM governance_charges WHERE charged_at <= $1 LIMIT 10000)";

/// Counters that ran out say the same as none.
const SWEEP_RATES: &str = "DELETE FROM governance_rate WHERE tat <= $1";

/// What was known of a call before it was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    New,
    /// Charged at another door.
    Paid,
    /// Charged at this door: a call of its own, whatever id it claims.
    Again,
}

impl Claim {
    fn of(seen: i64) -> Self {
        match seen {
            0 => Self::New,
            1 => Self::Paid,
            _ => Self::Again,
        }
    }
}

/// What a counter allowed, and where it stands after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub calls: i64,
    /// Theoretical arrival time, in nanoseconds since the epoch.
    pub tat: i64,
}

/// The price of a call, how far a counter may be ahead, and the present, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub cost: i64,
    pub depth: i64,
    pub now: i64,
}

/// The calls of a batch, column by column; no two of one key.
#[derive(Debug, Default)]
pub(crate) struct Calls<'c> {
    /// Of calls that may be met at another door.
    pub keys: Vec<Option<&'c str>>,
    pub doors: Vec<i64>,
    pub sessions: Vec<&'c str>,
    pub users: Vec<&'c str>,
}

/// What the calls of a batch cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prices {
    pub at: Millis,
    /// Claims of then or before count as none.
    pub expired: Millis,
    pub session: Terms,
    pub user: Terms,
}

/// What became of a batch, by the keys of its rows.
#[derive(Debug, Default)]
pub(crate) struct Charged {
    pub claims: HashMap<String, Claim>,
    pub sessions: HashMap<String, Granted>,
    pub users: HashMap<String, Granted>,
}

/// A connection for the counters alone.
pub(crate) struct RateConnection {
    options: PgConnectOptions,
    open: Option<PgConnection>,
}

impl RateConnection {
    /// Connects when it is first used.
    pub(crate) fn of(pool: &PgPool) -> Self {
        Self { options: (*pool.connect_options()).clone(), open: None }
    }

    /// A transaction; dropped without [`RateTx::commit`] nothing was charged.
    pub(crate) async fn begin(&mut self) -> Result<RateTx<'_>, sqlx::Error> {
        let open = if let Some(open) = self.open.take() {
            open
        } else {
            let mut conn = PgConnection::connect_with(&self.options).await?;
            // A server that crashes may forget the charges of its last moments, which frees a few calls at most; whoever
            // waits for a decision does not wait for the disk twice.
            conn.execute("SET synchronous_commit = off").await?;
            // The plan is the same for every batch.
            conn.execute("SET plan_cache_mode = force_generic_plan").await?;
            conn
        };
        self.open.insert(open).begin().await.map(RateTx)
    }

    /// Forgets a connection whose state is not known; the next transaction opens another one.
    pub(crate) fn forget(&mut self) {
        self.open = None;
    }
}

/// One transaction over the counters.
pub(crate) struct RateTx<'c>(Transaction<'c, Postgres>);

impl RateTx<'_> {
    /// Claims and charges calls.
    pub(crate) async fn charge(
        &mut self,
        calls: &Calls<'_>,
        prices: &Prices,
    ) -> Result<Charged, sqlx::Error> {
        let rows: Vec<(i32, String, i64, i64)> = sqlx::query_as(CHARGE)
            .bind(&calls.keys)
            .bind(&calls.doors)
            .bind(&calls.sessions)
            .bind(&calls.users)
            .bind(prices.at)
            .bind(prices.expired)
            .bind(prices.session.cost)
            .bind(prices.session.depth)
            .bind(prices.user.cost)
            .bind(prices.user.depth)
            .bind(prices.session.now)
            .fetch_all(&mut *self.0)
            .await?;
        let mut charged = Charged::default();
        for (part, key, number, tat) in rows {
            match part {
                0 => drop(charged.claims.insert(key, Claim::of(number))),
                1 => drop(charged.sessions.insert(key, Granted { calls: number, tat })),
                _ => drop(charged.users.insert(key, Granted { calls: number, tat })),
            }
        }
        Ok(charged)
    }

    /// Takes back the claims of calls that were refused.
    pub(crate) async fn unclaim(&mut self, keys: Vec<&str>) -> Result<(), sqlx::Error> {
        sqlx::query(UNCLAIM).bind(keys).execute(&mut *self.0).await.map(drop)
    }

    /// Gives counters time back, in nanoseconds.
    pub(crate) async fn refund(&mut self, back: &HashMap<&str, i64>) -> Result<(), sqlx::Error> {
        let (keys, nanos): (Vec<&str>, Vec<i64>) = back.iter().map(|(key, nanos)| (*key, *nanos)).unzip();
        sqlx::query(REFUND).bind(keys).bind(nanos).execute(&mut *self.0).await.map(drop)
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}

/// Removes what says nothing any more; returns how many rows went.
pub(crate) async fn sweep(pool: &PgPool, expired: Millis, idle_nanos: i64) -> Result<u64, sqlx::Error> {
    let calls = sqlx::query(SWEEP_CALLS).bind(expired).execute(pool).await?.rows_affected();
    let rates = sqlx::query(SWEEP_RATES).bind(idle_nanos).execute(pool).await?.rows_affected();
    Ok(calls + rates)
}
