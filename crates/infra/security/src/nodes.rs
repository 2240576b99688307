//! The nodes that share this database: each says every few seconds that it lives, and counts those that do. The limits of the
//! edge, which every node counts for itself, are divided by that number (SEC-32).
//!
//! On SQLite there is one node, and nothing is written.

use crate::repository::nodes::{self, NodeRow};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use systemprompt_database::{Db, Engine};
use systemprompt_models::ids::uuid_v4;
use systemprompt_models::{Clock, Millis};

/// How long a node counts after it said that it lives.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often it says so.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the row of a node that is gone is kept.
const KEPT_MS: Millis = 86_400_000;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    pub instance_id: String,
    pub address: String,
    pub version: &'static str,
}

/// This node among the others. Clones are the same one.
#[derive(Clone)]
pub struct Nodes(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Arc<dyn Clock>,
    name: NodeName,
    boot_id: String,
    started_at: Millis,
    live: AtomicU32,
}

impl Nodes {
    /// A node that has not been told of yet; [`Self::beat`] does.
    pub fn new(db: Db, clock: Arc<dyn Clock>, name: NodeName) -> Self {
        let started_at = clock.now();
        let boot_id = uuid_v4().simple().to_string();
        Self(Arc::new(Inner { db, clock, name, boot_id, started_at, live: AtomicU32::new(1) }))
    }

    /// How many nodes lived at the last heartbeat, this one included; at least one.
    pub fn live(&self) -> u32 {
        self.0.live.load(Ordering::Relaxed)
    }

    /// Says that this node lives, and counts the others. If the database does not answer, the last count stays.
    ///
    /// # Errors
    /// When the database did not answer.
    pub async fn beat(&self) -> Result<(), sqlx::Error> {
        let own = &self.0;
        if own.db.engine() == Engine::Sqlite {
            return Ok(());
        }
        let now = own.clock.now();
        nodes::put(&own.db, self.row(now + LEASE.as_millis() as Millis, "serving")).await?;
        nodes::forget(&own.db, now - KEPT_MS).await?;
        let live = nodes::count(&own.db, now).await?;
        own.live.store(u32::try_from(live).unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
        Ok(())
    }

    /// Says that this node ends, so that the others need not wait for its lease.
    ///
    /// # Errors
    /// When the database did not answer.
    pub async fn leave(&self) -> Result<(), sqlx::Error> {
        if self.0.db.engine() == Engine::Sqlite {
            return Ok(());
        }
        nodes::put(&self.0.db, self.row(self.0.clock.now(), "left")).await
    }

    fn row(&self, lease_until: Millis, state: &'static str) -> NodeRow<'_> {
        let Inner { name, boot_id, started_at, .. } = &*self.0;
        NodeRow { name, boot_id, started_at: *started_at, lease_until, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::GovernanceExtension;
    use systemprompt_database::testing::databases;
    use systemprompt_extension::Extension;
    use systemprompt_models::ManualClock;

    #[tokio::test]
    async fn nodes_count_while_they_say_that_they_live() {
        for db in databases(&GovernanceExtension.migrations()).await {
            let shared = db.engine() == Engine::Postgres;
            let clock = ManualClock::at(1_795_000_000_000);
            let node = |id: &str| {
                let name = NodeName { instance_id: id.into(), address: "127.0.0.1:1".into(), version: "1" };
                Nodes::new((*db).clone(), Arc::new(clock.clone()), name)
            };
            let (a, b) = (node("a"), node("b"));
            assert_eq!(a.live(), 1);
            for node in [&a, &b, &a] {
                node.beat().await.unwrap();
            }
            assert_eq!((a.live(), b.live()), if shared { (2, 2) } else { (1, 1) });
            // A node that is silent for longer than its lease does not count, and one that starts again counts once.
            clock.advance(15_000);
            a.beat().await.unwrap();
            assert_eq!(a.live(), 1);
            let again = node("b");
            for node in [&again, &b, &a] {
                node.beat().await.unwrap();
            }
            assert_eq!(a.live(), if shared { 2 } else { 1 });
            again.leave().await.unwrap();
            a.beat().await.unwrap();
            assert_eq!(a.live(), 1);
        }
    }
}
