//! How many calls of a server may run and wait (MCP-79): in all, and for one principal, so that nobody takes all of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use systemprompt_config::services::mcp::McpLimits;
use systemprompt_models::ids::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest wait for a slot.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The slots of one server.
pub struct Slots {
    all: Arc<Semaphore>,
    per_principal: usize,
    principals: Arc<Mutex<HashMap<UserId, usize>>>,
    queue: usize,
    waiting: AtomicUsize,
}

/// No slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is busy; try again in a moment")]
pub struct Busy;

/// A slot, free again when it is dropped.
pub struct Slot {
    _all: OwnedSemaphorePermit,
    _own: OwnCount,
}

struct OwnCount {
    principals: Arc<Mutex<HashMap<UserId, usize>>>,
    user: UserId,
}

impl Slots {
    pub fn new(limits: &McpLimits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.max_concurrent as usize)),
            per_principal: limits.per_principal as usize,
            principals: Arc::default(),
            queue: limits.queue as usize,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes a slot for `user`, waiting in the queue if it has room.
    ///
    /// # Errors
    /// [`Busy`]: the principal has all its slots, the queue is full, or the wait was too long.
    pub async fn acquire(&self, user: &UserId) -> Result<Slot, Busy> {
        let own = self.count(user).ok_or(Busy)?;
        let all = match Arc::clone(&self.all).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait().await?,
        };
        Ok(Slot { _all: all, _own: own })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, Busy> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.queue {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(Busy);
        }
        let waiting = Waiting(&self.waiting);
        let permit = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.all).acquire_owned()).await;
        drop(waiting);
        permit.map_err(|_| Busy)?.map_err(|_| Busy)
    }

    fn count(&self, user: &UserId) -> Option<OwnCount> {
        let mut principals = self.principals.lock().unwrap_or_else(PoisonError::into_inner);
        let used = principals.entry(user.clone()).or_default();
        if *used >= self.per_principal {
            return None;
        }
        *used += 1;
        Some(OwnCount { principals: Arc::clone(&self.principals), user: user.clone() })
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for OwnCount {
    fn drop(&mut self) {
        let mut principals = self.principals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = principals.get_mut(&self.user) {
            *used -= 1;
            if *used == 0 {
                principals.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max_concurrent: u32, per_principal: u32, queue: u32) -> Slots {
        Slots::new(&McpLimits { max_concurrent, per_principal, queue, ..McpLimits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_principal_and_the_server_have_their_bounds() {
        let (ada, bob) = (UserId::new("ada"), UserId::new("bob"));
        let slots = slots(3, 2, 0);
        let first = slots.acquire(&ada).await.unwrap();
        let _second = slots.acquire(&ada).await.unwrap();
        assert!(slots.acquire(&ada).await.is_err(), "ada has her two");
        let _third = slots.acquire(&bob).await.unwrap();
        assert!(slots.acquire(&bob).await.is_err(), "the server has its three and no queue");
        drop(first);
        assert!(slots.acquire(&bob).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queued_call_gets_the_next_slot_or_gives_up() {
        let ada = UserId::new("ada");
        let slots = slots(1, 9, 1);
        let held = slots.acquire(&ada).await.unwrap();
        assert!(slots.acquire(&ada).await.is_err(), "after five seconds");
        let (next, ()) = tokio::join!(slots.acquire(&ada), async {
            assert!(slots.acquire(&ada).await.is_err(), "the queue holds one");
            drop(held);
        });
        assert!(next.is_ok());
    }
}
