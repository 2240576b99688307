//! The shared counters of the call limit (SEC-84), on PostgreSQL alone: SQLite has one node, which counts in memory. A batch of
//! charges is a few statements over arrays in one transaction, which have no portable form.
//!
//! Rows are locked in one order everywhere (calls, sessions, users, each by key), so that two nodes never wait for each other.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use std::collections::HashMap;
use systemprompt_models::Millis;

/// Marks a call as charged through its doors. Returned is what the row said before: 0 nothing, 1 another door (the call is paid
/// for), 2 this very door.
const CLAIM: &str = "
    INSERT INTO governance_charges AS c (key, doors, seen, charged_at)
    SELECT k, d, 0, $3 FROM UNNEST($1, $2) AS t (k, d) ORDER BY k
    ON CONFLICT (key) DO UPDATE SET
        seen = CASE WHEN c.charged_at <= $4 THEN 0 WHEN c.doors & EXCLUDED.doors = 0 THEN 1 ELSE 2 END,
        doors = CASE WHEN c.charged_at <= $4 THEN EXCLUDED.doors ELSE c.doors | EXCLUDED.doors END,
        charged_at = CASE WHEN c.charged_at <= $4 THEN EXCLUDED.charged_at ELSE c.charged_at END
    RETURNING key, seen";

const UNCLAIM: &str = "DELETE FROM governance_charges WHERE key = ANY($1)";

/// Charges each key as many of the calls asked for as its rate allows: $3 is what a call costs, $4 how far a counter may be ahead
/// of the present, $5 the present.
const CHARGE: &str = "
    INSERT INTO governance_rate AS r (key, tat, asked, granted)
    SELECT k, $5 + LEAST(n, $4 / $3) * $3, n, LEAST(n, $4 / $3) FROM UNNEST($1, $2) AS t (k, n) ORDER BY k
    ON CONFLICT (key) DO UPDATE SET
        asked = EXCLUDED.asked,
        granted = LEAST(EXCLUDED.asked, GREATEST(0, ($5 + $4 - GREATEST(r.tat, $5)) / $3)),
        tat = GREATEST(r.tat, $5)
            + LEAST(EXCLUDED.asked, GREATEST(0, ($5 + $4 - GREATEST(r.tat, $5)) / $3)) * $3
    RETURNING key, granted, tat";

const REFUND: &str = "
    UPDATE governance_rate AS r SET tat = r.tat - t.back FROM UNNEST($1, $2) AS t (k, back) WHERE r.key = t.k";

/// Calls that are too old to be met at another door, some at a time.
const SWEEP_CALLS: &str = "
    DELETE FROM governance_charges WHERE key IN (
        SELECT key FROM governance_charges WHERE charged_at <= $1 ORDER BY charged_at LIMIT 10000)";

/// Counters that ran out say the same as none.
const SWEEP_RATES: &str = "DELETE FROM governance_rate WHERE tat <= $1";

/// What a row said of a call before it was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    New,
    /// Charged at another door.
    Paid,
    /// Charged at this door: a call of its own, whatever id it claims.
    Again,
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
        let open = match self.open.take() {
            Some(open) => open,
            None => PgConnection::connect_with(&self.options).await?,
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
    fn conn(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Claims calls, given with their doors; those charged at `expired` or before count as new.
    pub(crate) async fn claim(
        &mut self,
        calls: &HashMap<&str, i64>,
        now: Millis,
        expired: Millis,
    ) -> Result<HashMap<String, Claim>, sqlx::Error> {
        let (keys, doors): (Vec<&str>, Vec<i64>) = calls.iter().map(|(key, doors)| (*key, *doors)).unzip();
        let rows: Vec<(String, i64)> = sqlx::query_as(CLAIM)
            .bind(keys)
            .bind(doors)
            .bind(now)
            .bind(expired)
            .fetch_all(self.conn())
            .await?;
        let claim = |seen| match seen {
            0 => Claim::New,
            1 => Claim::Paid,
            _ => Claim::Again,
        };
        Ok(rows.into_iter().map(|(key, seen)| (key, claim(seen))).collect())
    }

    /// Takes back the claims of calls that were refused.
    pub(crate) async fn unclaim(&mut self, keys: Vec<&str>) -> Result<(), sqlx::Error> {
        sqlx::query(UNCLAIM).bind(keys).execute(self.conn()).await.map(drop)
    }

    /// Charges counters, given with how many calls each is asked for.
    pub(crate) async fn charge<'k>(
        &mut self,
        asked: &HashMap<&'k str, i64>,
        terms: Terms,
    ) -> Result<HashMap<&'k str, Granted>, sqlx::Error> {
        let (keys, calls): (Vec<&'k str>, Vec<i64>) = asked.iter().map(|(key, n)| (*key, *n)).unzip();
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(CHARGE)
            .bind(keys)
            .bind(calls)
            .bind(terms.cost)
            .bind(terms.depth)
            .bind(terms.now)
            .fetch_all(self.conn())
            .await?;
        let known = |key: &str| asked.get_key_value(key).map(|(key, _)| *key);
        Ok(rows
            .into_iter()
            .filter_map(|(key, calls, tat)| Some((known(&key)?, Granted { calls, tat })))
            .collect())
    }

    /// Gives counters time back, in nanoseconds.
    pub(crate) async fn refund(&mut self, back: &HashMap<&str, i64>) -> Result<(), sqlx::Error> {
        let (keys, nanos): (Vec<&str>, Vec<i64>) = back.iter().map(|(key, nanos)| (*key, *nanos)).unzip();
        sqlx::query(REFUND).bind(keys).bind(nanos).execute(self.conn()).await.map(drop)
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
