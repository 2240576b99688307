//! How much is fetched at once and from whom (SEC-102): so many under way in all and per host, so many a minute per host, and one
//! fetch for all who want the same.

use super::{EgressError, Fetched};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Fetches under way.
pub const MAX_IN_FLIGHT: usize = 256;
/// Fetches under way from one host, and begun within a minute.
pub const MAX_PER_HOST: usize = 16;
pub const MAX_PER_MINUTE: usize = 60;
const MINUTE: Duration = Duration::from_mins(1);
/// Most hosts that are remembered; with more a new one is refused until some were silent for a minute.
const MAX_HOSTS: usize = 4096;

type Shared = OnceCell<Result<Fetched, EgressError>>;

/// The fetches of one client.
#[derive(Clone, Debug)]
pub(super) struct Traffic(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Host>>,
    shared: Mutex<HashMap<String, Weak<Shared>>>,
}

#[derive(Debug, Default)]
struct Host {
    in_flight: usize,
    begun: VecDeque<Instant>,
}

impl Host {
    fn forget(&mut self, now: Instant) {
        while self.begun.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            self.begun.pop_front();
        }
    }
}

/// Holds a fetch's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    traffic: Traffic,
    host: Option<String>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(host) = &self.host else { return };
        let mut hosts = self.traffic.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get_mut(host) {
            host.in_flight = host.in_flight.saturating_sub(1);
        }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self(Arc::new(Inner {
            slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            hosts: Mutex::default(),
            shared: Mutex::default(),
        }))
    }
}

impl Traffic {
    /// A place for a fetch; the limits per host count where one is named.
    pub fn enter(&self, host: Option<&str>, now: Instant) -> Result<Place, EgressError> {
        let slot = Arc::clone(&self.0.slots).try_acquire_owned().map_err(|_| EgressError::Busy)?;
        let host = host.map(str::to_ascii_lowercase);
        if let Some(name) = &host {
            self.enter_host(name, now)?;
        }
        Ok(Place { traffic: self.clone(), host, _slot: slot })
    }

    fn enter_host(&self, name: &str, now: Instant) -> Result<(), EgressError> {
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(name) {
            hosts.retain(|_, host| {
                host.forget(now);
                host.in_flight > 0 || !host.begun.is_empty()
            });
            if hosts.len() >= MAX_HOSTS {
                return Err(EgressError::Busy);
            }
        }
        let host = hosts.entry(name.to_owned()).or_default();
        host.forget(now);
        if host.in_flight >= MAX_PER_HOST || host.begun.len() >= MAX_PER_MINUTE {
            return Err(EgressError::Busy);
        }
        host.in_flight += 1;
        host.begun.push_back(now);
        Ok(())
    }

    /// Runs `fetch`, or waits for the one that is under way under the same key. Whoever asks after its end fetches anew.
    pub async fn once<F>(&self, key: String, fetch: impl FnOnce() -> F) -> Result<Fetched, EgressError>
    where
        F: Future<Output = Result<Fetched, EgressError>>,
    {
        let cell = {
            let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
            // What nobody waits for any more is gone; the rest is bounded by the places.
            shared.retain(|_, cell| cell.strong_count() > 0);
            let known = shared.get(&key).and_then(Weak::upgrade).filter(|cell| !cell.initialized());
            known.unwrap_or_else(|| {
                let cell = Arc::new(Shared::new());
                shared.insert(key, Arc::downgrade(&cell));
                cell
            })
        };
        cell.get_or_init(fetch).await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_16_places_and_60_fetches_a_minute() {
        let (traffic, now) = (Traffic::default(), Instant::now());
        let places: Vec<Place> = (0..16).map(|_| traffic.enter(Some("a.test"), now).unwrap()).collect();
        assert!(matches!(traffic.enter(Some("A.test"), now), Err(EgressError::Busy)));
        assert!(traffic.enter(Some("b.test"), now).is_ok());
        drop(places);
        for _ in 16..60 {
            assert!(traffic.enter(Some("a.test"), now).is_ok());
        }
        assert!(matches!(traffic.enter(Some("a.test"), now), Err(EgressError::Busy)));
        assert!(traffic.enter(Some("a.test"), now + MINUTE).is_ok());
    }

    #[test]
    fn there_are_256_places_in_all_and_a_bound_on_hosts() {
        let (traffic, now) = (Traffic::default(), Instant::now());
        let places: Vec<Place> =
            (0..256).map(|i| traffic.enter(Some(&format!("h{i}.test")), now).unwrap()).collect();
        assert!(matches!(traffic.enter(Some("other.test"), now), Err(EgressError::Busy)));
        assert!(matches!(traffic.enter(None, now), Err(EgressError::Busy)));
        drop(places);
        for i in 256..MAX_HOSTS {
            drop(traffic.enter(Some(&format!("h{i}.test")), now).unwrap());
        }
        assert!(matches!(traffic.enter(Some("one-more.test"), now), Err(EgressError::Busy)));
        assert!(traffic.enter(Some("one-more.test"), now + MINUTE).is_ok());
    }

    #[tokio::test]
    async fn who_wants_the_same_waits_for_one_fetch_and_failures_are_not_kept() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (traffic, count) = (Traffic::default(), AtomicUsize::new(0));
        let fetch = |fails: bool| {
            let count = &count;
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                let fetched =
                    Fetched { body: bytes::Bytes::from_static(b"x"), media_type: None, fresh_for: None };
                if fails { Err(EgressError::Status(500)) } else { Ok(fetched) }
            }
        };
        let asked = (0..8).map(|_| traffic.once("k".to_owned(), || fetch(true)));
        for answer in join(asked).await {
            assert!(matches!(answer, Err(EgressError::Status(500))));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(traffic.once("k".to_owned(), || fetch(false)).await.is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert!(traffic.once("other".to_owned(), || fetch(false)).await.is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }

    /// Polls all of them together to their ends.
    async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
        let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
        std::future::poll_fn(|cx| {
            for (future, done) in &mut waiting {
                if done.is_none()
                    && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
                {
                    *done = Some(output);
                }
            }
            if waiting.iter().all(|(_, done)| done.is_some()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        waiting.into_iter().filter_map(|(_, done)| done).collect()
    }
}
