//! The lifecycle's task tracker: every detached task has a name and is waited for when the node drains.

use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tracks detached tasks; clones share one tracker.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// Runs `task` to its end, detached. A panic in it is logged with `name`.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "this is the tracker")]
        let handle = tokio::spawn(self.tracker.track_future(task));
        self.tracker.spawn(async move {
            if let Err(error) = handle.await
                && error.is_panic()
            {
                tracing::error!(task = name, "task panicked");
            }
        });
    }

    /// Runs a loop until shutdown: `step` again and again, `pause` apart. A panic in one step is logged and the loop goes on.
    pub fn spawn_loop<F, S>(&self, name: &'static str, pause: Duration, mut step: F)
    where
        F: FnMut() -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        let tracker = self.tracker.clone();
        self.tracker.spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                #[expect(clippy::disallowed_methods, reason = "this is the tracker")]
                let handle = tokio::spawn(tracker.track_future(step()));
                if handle.await.is_err_and(|e| e.is_panic()) {
                    tracing::error!(task = name, "loop step panicked; the loop goes on");
                }
            }
        });
    }

    /// Cancelled when the node begins to stop its loops.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Ends the loops and waits for every task, at most `limit`. Returns whether all ended.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}
