//! Reload when a file changes: file events, settled for 250 ms, and a poll of the content every 5 s, which also sees what
//! events miss (a swapped link, a network folder). A bad configuration is reported and changes nothing.

use crate::data_dir::DataPaths;
use crate::diagnostic::Diagnostic;
use crate::load::{LoadOptions, Loaded, validate};
use aws_lc_rs::digest::{Context, SHA256};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_models::Tasks;
use tokio::sync::{Notify, mpsc};

const SETTLE: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_secs(5);
/// Reloads that wait for their taker. When it is full the watcher waits; it reads the newest state after that.
const BACKLOG: usize = 4;
/// Requests for a reload that may wait; one reading answers all of them.
const ASKS: usize = 16;

/// One reading of the configuration.
pub struct Reload<A> {
    /// A valid configuration, or why the new one is refused; the old one stays then.
    pub result: Result<Box<Loaded>, Vec<Diagnostic>>,
    /// Who asked for it; nobody, when a file changed.
    pub asked: Vec<A>,
}

/// A running watch. Dropping it ends the watch. `A` is what somebody hands over who asks for a reload.
pub struct Watch<A> {
    pub reloads: mpsc::Receiver<Reload<A>>,
    asks: mpsc::Sender<A>,
}

impl<A: Send + 'static> Watch<A> {
    /// Starts watching the profile, the services folder and the secrets file of a loaded configuration.
    pub fn start(options: LoadOptions, loaded: &Loaded, tasks: &Tasks) -> Self {
        let (sender, reloads) = mpsc::channel(BACKLOG);
        let (asks, mut asking) = mpsc::channel(ASKS);
        let mut watched = FileEvents::new(&loaded.paths);
        let (paths, mut seen) = (loaded.paths.clone(), loaded.fingerprint.clone());
        let shutdown = tasks.shutdown_token();
        tasks.spawn("config-watch", async move {
            // The first round sees what changed between loading and watching.
            let mut asked = Vec::new();
            loop {
                watched.attach();
                let current = fingerprint(&paths).await;
                if !asked.is_empty() || current.as_ref().is_some_and(|c| *c != seen) {
                    seen = current.unwrap_or(seen);
                    let options = options.clone();
                    let asked = std::mem::take(&mut asked);
                    if let Ok(result) = tokio::task::spawn_blocking(move || validate(&options)).await
                        && sender.send(Reload { result: result.map(Box::new), asked }).await.is_err()
                    {
                        return;
                    }
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sender.closed() => return,
                    Some(first) = asking.recv() => {
                        asked.push(first);
                        asked.extend(std::iter::from_fn(|| asking.try_recv().ok()).take(ASKS));
                    }
                    () = settled(&watched.touched) => {}
                    () = polled(&paths, &seen) => {}
                }
            }
        });
        Self { reloads, asks }
    }

    /// Lets a signal or a request ask for a reload.
    pub fn trigger(&self) -> Trigger<A> {
        Trigger(self.asks.clone())
    }
}

/// Asks for a reload whether or not a file changed.
pub struct Trigger<A>(mpsc::Sender<A>);

impl<A> Trigger<A> {
    /// Hands `ask` to the next reading.
    ///
    /// # Errors
    /// `ask` itself, when too many wait or the watch has ended.
    pub fn reload(&self, ask: A) -> Result<(), A> {
        self.0.try_send(ask).map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// Waits for the next look at the content, and where it differs for quiet: nothing is read while it is being written.
async fn polled(paths: &DataPaths, seen: &[u8]) {
    tokio::time::sleep(POLL).await;
    if fingerprint(paths).await.is_some_and(|current| current != seen) {
        tokio::time::sleep(SETTLE).await;
    }
}

/// Waits for a change and then for quiet.
async fn settled(touched: &Notify) {
    touched.notified().await;
    while tokio::time::timeout(SETTLE, touched.notified()).await.is_ok() {}
}

/// File events, as far as the system gives them; the poll covers the rest.
struct FileEvents {
    touched: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Folders that did not exist when they were last looked for.
    missing: Vec<(PathBuf, RecursiveMode)>,
}

impl FileEvents {
    fn new(paths: &DataPaths) -> Self {
        let touched = Arc::new(Notify::new());
        let signal = Arc::clone(&touched);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                signal.notify_one();
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "no file events here; changes are seen within 5 s"))
        .ok();
        let mut missing = vec![
            (paths.location.profile_dir(), RecursiveMode::NonRecursive),
            (paths.services.clone(), RecursiveMode::Recursive),
        ];
        missing.extend(
            paths
                .secrets_file
                .parent()
                .filter(|folder| *folder != paths.location.profile_dir())
                .map(|folder| (folder.to_owned(), RecursiveMode::NonRecursive)),
        );
        Self { touched, watcher, missing }
    }

    /// Watches the folders that exist by now.
    fn attach(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            self.missing.retain(|(folder, mode)| watcher.watch(folder, *mode).is_err());
        }
    }
}

async fn fingerprint(paths: &DataPaths) -> Option<Vec<u8>> {
    let paths = paths.clone();
    tokio::task::spawn_blocking(move || digest(&paths)).await.ok()
}

/// Digest of what a reload would read. It stays in memory, for it covers the secrets file.
pub(crate) fn digest(paths: &DataPaths) -> Vec<u8> {
    let mut files = vec![paths.profile_file.clone(), paths.secrets_file.clone()];
    for folder in ["access-control", "governance", "mcp"] {
        let mut inside = list(&paths.services.join(folder));
        inside.sort();
        files.append(&mut inside);
    }
    let mut context = Context::new(&SHA256);
    for file in files {
        let name = file.as_os_str().as_encoded_bytes();
        let content = std::fs::read(&file).unwrap_or_default();
        for part in [name, &content] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    context.finish().as_ref().to_vec()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .collect()
}

#[cfg(test)]
mod tests;
