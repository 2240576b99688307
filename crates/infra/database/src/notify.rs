//! Notifications of PostgreSQL (`NOTIFY`, `LISTEN`). SQLite has none and needs none: one process serves a file.

use crate::Db;
use sqlx::postgres::{PgListener, PgPoolOptions};
use std::time::Duration;

/// Name under which the listening connection shows in `pg_stat_activity`.
pub const LISTENER_NAME: &str = "systemprompt-notify";
/// Silence after which the connection is tried: a peer that vanished without a word would be waited for for ever.
const TRY_AFTER: Duration = Duration::from_secs(15);
/// How long opening or trying the connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A notification as it came. Anybody who may write to the database can send one, so it is a hint and never a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub channel: String,
    pub payload: String,
}

/// One connection that listens. Dropping it ends it.
pub struct Notifications(PgListener);

impl std::fmt::Debug for Notifications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifications").finish_non_exhaustive()
    }
}

impl Notifications {
    /// The next notification.
    ///
    /// # Errors
    /// When the connection is lost; what was sent since is lost with it.
    pub async fn next(&mut self) -> Result<Notification, sqlx::Error> {
        loop {
            match tokio::time::timeout(TRY_AFTER, self.0.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    let (channel, payload) = (notification.channel(), notification.payload());
                    return Ok(Notification { channel: channel.to_owned(), payload: payload.to_owned() });
                }
                Ok(Ok(None)) => return Err(sqlx::Error::WorkerCrashed),
                Ok(Err(error)) => return Err(error),
                Err(_) => self.try_out().await?,
            }
        }
    }

    async fn try_out(&mut self) -> Result<(), sqlx::Error> {
        let asked = sqlx::query("SELECT 1").execute(&mut self.0);
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| sqlx::Error::PoolTimedOut)?.map(drop)
    }
}

impl Db {
    /// Sends a notification, at most 8,000 bytes; on SQLite nothing happens.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn notify(&self, channel: &str, payload: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(pool) => sqlx::query("SELECT pg_notify($1, $2)")
                .bind(channel)
                .bind(payload)
                .execute(pool)
                .await
                .map(drop),
        }
    }

    /// Listens on a connection of its own, beside the pool. `None` on SQLite.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn listen(&self, channels: &[&str]) -> Result<Option<Notifications>, sqlx::Error> {
        let Self::Postgres(pool) = self else { return Ok(None) };
        let options = (*pool.connect_options()).clone().application_name(LISTENER_NAME);
        let own = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&own).await?;
        listener.ignore_pool_close_event(true);
        // A lost connection is told, so that whoever listens looks at everything again.
        listener.eager_reconnect(false);
        listener.listen_all(channels.iter().copied()).await?;
        Ok(Some(Notifications(listener)))
    }
}
