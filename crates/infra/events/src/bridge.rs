//! The bridge between nodes: a node says that something changed, the others hear it within milliseconds and read it.
//!
//! On PostgreSQL it is `NOTIFY` and one listening connection a node; on SQLite there is one process, and the bridge stays inside
//! it. A notice is a hint: it holds an id and no content, it may be lost, and it may be forged by whoever writes to the database.
//! So a subscriber reads the rows it names, and polls besides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use systemprompt_database::{Db, Engine, Notification, Notifications};
use systemprompt_models::Tasks;
use systemprompt_models::ids::uuid_v7;
use tokio::sync::broadcast;

/// Notices that wait for a subscriber; one that is slower gets [`Notice::Missed`] instead of the oldest.
const QUEUE: usize = 1024;
/// Longest id that a notice carries, in bytes; a longer one is sent as [`Notice::Missed`].
const MAX_ID: usize = 512;
/// Pause before a lost connection is opened again; polling covers the time between.
const RECONNECT: Duration = Duration::from_secs(1);

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Rules, entities and departments; the id is the epoch.
    Rules,
    /// Bans; the id is the ban's.
    Bans,
    /// Sessions and tokens that no longer count.
    Revocations,
}

impl Channel {
    const ALL: [Self; 3] = [Self::Rules, Self::Bans, Self::Revocations];

    /// Name of the channel in the database.
    fn name(self) -> &'static str {
        match self {
            Self::Rules => "systemprompt_rules",
            Self::Bans => "systemprompt_bans",
            Self::Revocations => "systemprompt_revocations",
        }
    }
}

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The thing of this id changed.
    Id(Arc<str>),
    /// Notices were lost: anything may have changed.
    Missed,
}

/// Tells nodes of changes. Clones are the same bridge.
#[derive(Clone, Debug)]
pub struct Bridge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Absent where there is no other node to talk to.
    db: Option<Db>,
    /// Marks what this node sent, which its own subscribers have heard already.
    node: String,
    channels: [broadcast::Sender<Notice>; Channel::ALL.len()],
    connected: AtomicBool,
}

impl Default for Bridge {
    /// A bridge inside this process alone.
    fn default() -> Self {
        Self::of(None)
    }
}

impl Bridge {
    /// A bridge to every node of the same database.
    pub fn new(db: &Db) -> Self {
        Self::of((db.engine() == Engine::Postgres).then(|| db.clone()))
    }

    fn of(db: Option<Db>) -> Self {
        Self(Arc::new(Inner {
            db,
            node: uuid_v7().simple().to_string(),
            channels: [(); Channel::ALL.len()].map(|()| broadcast::Sender::new(QUEUE)),
            connected: AtomicBool::new(false),
        }))
    }

    /// Begins to listen to other nodes, until `tasks` are drained. Without it, and while the connection is lost, only this
    /// node's own notices arrive.
    pub fn start(&self, tasks: &Tasks) {
        let Some(db) = self.0.db.clone() else { return };
        let (bridge, shutdown) = (self.clone(), tasks.shutdown_token());
        tasks.spawn("bridge", async move {
            let _ = shutdown.run_until_cancelled(bridge.listen(&db)).await;
            bridge.0.connected.store(false, Ordering::Relaxed);
        });
    }

    /// Whether other nodes' notices arrive now; true where there is no other node.
    pub fn is_connected(&self) -> bool {
        self.0.db.is_none() || self.0.connected.load(Ordering::Relaxed)
    }

    /// Tells everyone who is subscribed, here at once and on other nodes soon. A notice that the database does not take is
    /// logged and lost: polling finds the change.
    pub async fn publish(&self, channel: Channel, id: &str) {
        let id = if id.len() <= MAX_ID { id } else { "" };
        self.deliver(channel, notice(id));
        if let Some(db) = &self.0.db
            && let Err(error) = db.notify(channel.name(), &format!("{}:{id}", self.0.node)).await
        {
            tracing::warn!(%error, channel = channel.name(), "other nodes were not notified and will find the change by polling");
        }
    }

    /// Hears of changes from now on.
    pub fn subscribe(&self, channel: Channel) -> Subscription {
        Subscription(self.sender(channel).subscribe())
    }

    fn sender(&self, channel: Channel) -> &broadcast::Sender<Notice> {
        let [rules, bans, revocations] = &self.0.channels;
        match channel {
            Channel::Rules => rules,
            Channel::Bans => bans,
            Channel::Revocations => revocations,
        }
    }

    fn deliver(&self, channel: Channel, notice: Notice) {
        // An error means that nobody is subscribed.
        let _ = self.sender(channel).send(notice);
    }

    async fn listen(&self, db: &Db) {
        let names = Channel::ALL.map(Channel::name);
        loop {
            match db.listen(&names).await {
                Ok(Some(notifications)) => self.follow(notifications).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "the connection for notifications cannot be opened");
                }
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn follow(&self, mut notifications: Notifications) {
        self.0.connected.store(true, Ordering::Relaxed);
        tracing::info!("listening for notifications of other nodes");
        // What happened before the connection stood was not heard.
        for channel in Channel::ALL {
            self.deliver(channel, Notice::Missed);
        }
        loop {
            match notifications.next().await {
                Ok(notification) => self.take(&notification),
                Err(error) => {
                    self.0.connected.store(false, Ordering::Relaxed);
                    tracing::warn!(%error, "notifications of other nodes are lost; polling goes on");
                    return;
                }
            }
        }
    }

    fn take(&self, notification: &Notification) {
        let Some(channel) = Channel::ALL.into_iter().find(|c| c.name() == notification.channel) else {
            return;
        };
        match notification.payload.split_once(':') {
            Some((node, _)) if node == self.0.node => {}
            Some((_, id)) if id.len() <= MAX_ID => self.deliver(channel, notice(id)),
            _ => self.deliver(channel, Notice::Missed),
        }
    }
}

fn notice(id: &str) -> Notice {
    if id.is_empty() { Notice::Missed } else { Notice::Id(id.into()) }
}

/// One who hears of changes.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Notice>);

impl Subscription {
    /// The next notice; `None` when the bridge is gone.
    pub async fn next(&mut self) -> Option<Notice> {
        match self.0.recv().await {
            Ok(notice) => Some(notice),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Notice::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests;
