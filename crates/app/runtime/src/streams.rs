//! Places among the event streams of a node (SEC-31): so many in all, so many a user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct Open {
    all: u32,
    by_user: HashMap<String, u32>,
}

/// Counts open event streams. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct StreamSlots(Arc<Mutex<Open>>);

/// A place; given back when dropped.
#[derive(Debug)]
pub struct StreamSlot {
    slots: StreamSlots,
    user: String,
}

impl StreamSlots {
    /// Takes a place, unless `max` are taken or `user` holds `max_per_user`.
    pub fn take(&self, user: &str, max: u32, max_per_user: u32) -> Option<StreamSlot> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.by_user.get(user).copied().unwrap_or_default();
        if open.all >= max || own >= max_per_user {
            return None;
        }
        open.all += 1;
        open.by_user.insert(user.to_owned(), own + 1);
        Some(StreamSlot { slots: self.clone(), user: user.to_owned() })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut open = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Some(own) = open.by_user.get_mut(&self.user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_user_and_in_all_and_come_back() {
        let slots = StreamSlots::default();
        let first = slots.take("ann", 3, 2);
        let second = slots.take("ann", 3, 2);
        assert!(first.is_some() && second.is_some() && slots.take("ann", 3, 2).is_none());
        let third = slots.take("bob", 3, 2);
        assert!(third.is_some() && slots.take("cay", 3, 2).is_none());
        drop(first);
        assert!(slots.take("ann", 3, 2).is_some());
    }
}
