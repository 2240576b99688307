//! Look-ups that come at once, in one statement. Under load most of a look-up's cost is the way to the database and back and the
//! setting up of the statement there; whoever comes while others are under way waits for them and asks together with the rest.
//! Nothing is kept: each answer was read after it was asked for.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

type Answer<V> = Result<V, Arc<sqlx::Error>>;

/// Look-ups of one kind.
#[derive(Debug)]
pub struct Gather<K, V> {
    waiting: Mutex<Vec<(K, oneshot::Sender<Answer<V>>)>>,
    turns: Semaphore,
    most: usize,
}

impl<K: Clone, V> Gather<K, V> {
    /// `turns` statements at once, each of at most `most` look-ups. As many wait as there are callers.
    pub fn new(turns: usize, most: usize) -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(turns), most }
    }

    /// The value of `key`. `read` answers several keys, in their order.
    ///
    /// # Errors
    /// When they cannot be read: the cause is told to each.
    pub async fn ask<R>(&self, key: K, read: impl Fn(Vec<K>) -> R) -> sqlx::Result<V>
    where
        R: Future<Output = sqlx::Result<Vec<V>>>,
    {
        let mut answer = self.wait(key.clone());
        loop {
            tokio::select! {
                biased;
                told = &mut answer => match told {
                    Ok(told) => return told.map_err(|cause| sqlx::Error::AnyDriverError(Box::new(cause))),
                    // Whoever asked for us went away before the answer.
                    Err(_) => answer = self.wait(key.clone()),
                },
                _turn = self.turns.acquire() => {
                    let (keys, asking) = self.take();
                    if !keys.is_empty() {
                        tell(asking, read(keys).await);
                    }
                }
            }
        }
    }

    fn wait(&self, key: K) -> oneshot::Receiver<Answer<V>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((key, sender));
        receiver
    }

    /// Those who came first; without those who went away.
    fn take(&self) -> (Vec<K>, Vec<oneshot::Sender<Answer<V>>>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, sender)| !sender.is_closed());
        let count = waiting.len().min(self.most);
        waiting.drain(..count).unzip()
    }
}

fn tell<V>(asking: Vec<oneshot::Sender<Answer<V>>>, read: sqlx::Result<Vec<V>>) {
    match read {
        // Where a value is missing its sender is dropped, and its caller asks again.
        Ok(values) => {
            for (asked, value) in asking.into_iter().zip(values) {
                drop(asked.send(Ok(value)));
            }
        }
        Err(cause) => {
            let cause = Arc::new(cause);
            for asked in asking {
                drop(asked.send(Err(Arc::clone(&cause))));
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a caller that goes away runs beside the others")]
mod tests {
    use super::Gather;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn who_comes_while_others_are_asked_for_is_asked_for_together() {
        let (gather, gate, reads) =
            (Arc::new(Gather::new(1, 8)), Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for key in 0..17_u64 {
            let (gather, gate, reads) = (Arc::clone(&gather), Arc::clone(&gate), Arc::clone(&reads));
            callers.spawn(async move {
                let read = |keys: Vec<u64>| async {
                    assert!(keys.len() <= 8);
                    reads.fetch_add(1, Ordering::SeqCst);
                    drop(gate.acquire().await);
                    Ok(keys.into_iter().map(|key| key * 2).collect())
                };
                (key, gather.ask(key, read).await.unwrap())
            });
        }
        // The first is under way alone; the others wait.
        tokio::time::sleep(Duration::from_millis(20)).await;
        gate.add_permits(10);
        for (key, value) in callers.join_all().await {
            assert_eq!(value, key * 2);
        }
        assert_eq!(reads.load(Ordering::SeqCst), 3, "one, and sixteen in two readings");
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_leaves_the_others_their_answers() {
        let gather = Arc::new(Gather::new(1, 8));
        let never = |_: Vec<u64>| std::future::pending::<sqlx::Result<Vec<u64>>>();
        let mut first = Box::pin(gather.ask(1, never));
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut first).await.is_err());
        let of_others = Arc::clone(&gather);
        let other = tokio::spawn(async move { of_others.ask(2, |keys| async { Ok(keys) }).await });
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!other.is_finished());
        drop(first);
        assert_eq!(other.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_who_asked_and_to_nobody_after_them() {
        let gather = Gather::new(1, 8);
        let fails = |_: Vec<u64>| async { Err::<Vec<u64>, _>(sqlx::Error::PoolTimedOut) };
        assert!(gather.ask(1, fails).await.unwrap_err().to_string().contains("timed out"));
        assert_eq!(gather.ask(1, |keys| async { Ok(keys) }).await.unwrap(), 1);
    }
}
