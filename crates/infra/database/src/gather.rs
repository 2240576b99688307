//! Look-ups that come at once, in one statement. Under load most of a look-up's cost is the way to the database and back and the
//! setting up of the statement there; whoever comes while others are under way waits for them and asks together with the rest.
//! Nothing is kept: each answer was read after it was asked for. A look-up that the database refuses fails alone; a database that
//! does not answer fails all who wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};

type Answer<V> = Result<V, Arc<sqlx::Error>>;
type Asked<K, V> = (K, oneshot::Sender<Answer<V>>);

/// Most callers who wait; one more is told that it took too long.
const MOST_WAITING: usize = 4096;

/// Look-ups of one kind.
#[derive(Debug)]
pub struct Gather<K, V> {
    waiting: Mutex<Vec<Asked<K, V>>>,
    turns: Semaphore,
    most: usize,
}

impl<K: Clone, V> Gather<K, V> {
    /// `turns` statements at once, each of at most `most` look-ups.
    pub fn new(turns: usize, most: usize) -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(turns), most }
    }

    /// The value of `key`. `read` answers several keys, in their order.
    ///
    /// # Errors
    /// When it cannot be read, or too many wait ([`sqlx::Error::PoolTimedOut`]).
    pub async fn ask<R>(&self, key: K, read: impl Fn(Vec<K>) -> R) -> sqlx::Result<V>
    where
        R: Future<Output = sqlx::Result<Vec<V>>>,
    {
        let mut answer = self.wait(key.clone())?;
        loop {
            let told = tokio::select! {
                biased;
                told = &mut answer => told,
                turn = self.turns.acquire() => {
                    if self.serve(&read).await {
                        continue;
                    }
                    // Nobody waits, so that our look-up is under way elsewhere.
                    drop(turn);
                    (&mut answer).await
                }
            };
            match told {
                Ok(told) => return told.map_err(|cause| sqlx::Error::AnyDriverError(Box::new(cause))),
                // Whoever asked for us went away before the answer.
                Err(_) => answer = self.wait(key.clone())?,
            }
        }
    }

    fn wait(&self, key: K) -> sqlx::Result<oneshot::Receiver<Answer<V>>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_WAITING {
            return Err(sqlx::Error::PoolTimedOut);
        }
        waiting.push((key, sender));
        Ok(receiver)
    }

    /// Answers those who came first. False when nobody waits.
    async fn serve<R>(&self, read: &impl Fn(Vec<K>) -> R) -> bool
    where
        R: Future<Output = sqlx::Result<Vec<V>>>,
    {
        let asked = self.take(self.most);
        if asked.is_empty() {
            return false;
        }
        match read(keys(&asked)).await {
            Ok(values) => tell(asked, values),
            Err(cause) if is_of_store(&cause) => {
                // They asked before it failed.
                fail(asked.into_iter().chain(self.take(usize::MAX)), cause);
            }
            Err(_) if asked.len() > 1 => {
                for one in asked {
                    match read(vec![one.0.clone()]).await {
                        Ok(values) => tell(vec![one], values),
                        Err(cause) => fail([one], cause),
                    }
                }
            }
            Err(cause) => fail(asked, cause),
        }
        true
    }

    /// Those who came first; without those who went away.
    fn take(&self, most: usize) -> Vec<Asked<K, V>> {
        let mut waiting = self.waiting();
        waiting.retain(|(_, sender)| !sender.is_closed());
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Asked<K, V>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys<K: Clone, V>(asked: &[Asked<K, V>]) -> Vec<K> {
    asked.iter().map(|(key, _)| key.clone()).collect()
}

/// Where a value is missing its sender is dropped, and its caller asks again.
fn tell<K, V>(asked: Vec<Asked<K, V>>, values: Vec<V>) {
    for ((_, sender), value) in asked.into_iter().zip(values) {
        drop(sender.send(Ok(value)));
    }
}

fn fail<K, V>(asked: impl IntoIterator<Item = Asked<K, V>>, cause: sqlx::Error) {
    let cause = Arc::new(cause);
    for (_, sender) in asked {
        drop(sender.send(Err(Arc::clone(&cause))));
    }
}

/// Whether no other look-up would fare better.
fn is_of_store(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
    matches!(error, Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed)
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
    async fn a_store_that_does_not_answer_fails_all_who_wait_and_nobody_after_them() {
        let (gather, reads) = (Gather::new(1, 2), AtomicUsize::new(0));
        let fails = |_: Vec<u64>| async {
            reads.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Err::<Vec<u64>, _>(sqlx::Error::PoolTimedOut)
        };
        let asked = (0..5).map(|key| gather.ask(key, fails));
        for answer in futures_util::future::join_all(asked).await {
            assert!(answer.unwrap_err().to_string().contains("timed out"));
        }
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert_eq!(gather.ask(1, |keys| async { Ok(keys) }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn who_is_asked_for_elsewhere_waits_without_work() {
        let (gather, gate) = (Gather::new(2, 8), Semaphore::new(0));
        let read = |keys: Vec<u64>| async {
            drop(gate.acquire().await);
            Ok(keys)
        };
        let mut polls = 0;
        let mut asked = Box::pin(futures_util::future::join_all((0..3).map(|key| gather.ask(key, read))));
        let counted = std::future::poll_fn(|context| {
            polls += 1;
            asked.as_mut().poll(context)
        });
        let opens = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            gate.add_permits(8);
        };
        let (answers, ()) = tokio::join!(counted, opens);
        assert!(answers.into_iter().all(|answer| answer.is_ok()));
        assert!(polls < 20, "{polls}");
    }

    #[tokio::test]
    async fn a_look_up_that_is_refused_fails_alone() {
        let gather = Gather::new(1, 8);
        let refuses = |keys: Vec<u64>| async move {
            tokio::task::yield_now().await;
            if keys.contains(&3) { Err(sqlx::Error::Protocol("no 3".into())) } else { Ok(keys) }
        };
        let asked = (0..6).map(|key| gather.ask(key, refuses));
        for (key, answer) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
            assert_eq!(answer.is_err(), key == 3, "{key}");
        }
    }
}
