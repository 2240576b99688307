//! Wake-ups by topic.

use std::sync::Arc;
use tokio::sync::watch;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The ledger's head moved.
    Ledger,
}

const TOPICS: usize = 1;

/// Wakes the listeners of a topic. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    topics: Arc<[watch::Sender<u64>; TOPICS]>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { topics: Arc::new([(); TOPICS].map(|()| watch::Sender::new(0))) }
    }
}

impl Hub {
    fn topic(&self, topic: Topic) -> &watch::Sender<u64> {
        let [ledger] = &*self.topics;
        match topic {
            Topic::Ledger => ledger,
        }
    }

    /// Wakes everyone who listens. Wake-ups that nobody awaited yet fold into one.
    pub fn notify(&self, topic: Topic) {
        self.topic(topic).send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Listens from now on.
    pub fn listen(&self, topic: Topic) -> Listener {
        Listener(self.topic(topic).subscribe())
    }

    /// How many listen to a topic.
    pub fn listeners(&self, topic: Topic) -> usize {
        self.topic(topic).receiver_count()
    }
}

/// One who listens to a topic.
#[derive(Debug)]
pub struct Listener(watch::Receiver<u64>);

impl Listener {
    /// Returns when the topic was notified since the last return (or since `listen`); false when the hub is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
