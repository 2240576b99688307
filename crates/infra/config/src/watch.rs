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

/// Outcome of one reload.
pub enum Reload {
    /// A valid configuration: a file changed, or it was asked for.
    Accepted(Box<Loaded>),
    /// Why the new one is refused; the old one stays.
    Refused(Vec<Diagnostic>),
}

impl From<Result<Loaded, Vec<Diagnostic>>> for Reload {
    fn from(result: Result<Loaded, Vec<Diagnostic>>) -> Self {
        match result {
            Ok(loaded) => Self::Accepted(Box::new(loaded)),
            Err(findings) => Self::Refused(findings),
        }
    }
}

/// A running watch. Dropping it ends the watch.
pub struct Watch {
    pub reloads: mpsc::Receiver<Reload>,
    now: Arc<Notify>,
}

impl Watch {
    /// Starts watching the profile, the services folder and the secrets file of a loaded configuration.
    pub fn start(options: LoadOptions, loaded: &Loaded, tasks: &Tasks) -> Self {
        let (sender, reloads) = mpsc::channel(BACKLOG);
        let now = Arc::new(Notify::new());
        let mut watched = FileEvents::new(&loaded.paths);
        let (paths, mut seen) = (loaded.paths.clone(), loaded.fingerprint.clone());
        let shutdown = tasks.shutdown_token();
        let asked = Arc::clone(&now);
        tasks.spawn("config-watch", async move {
            // The first round sees what changed between loading and watching.
            let mut forced = false;
            loop {
                watched.attach();
                let current = fingerprint(&paths).await;
                if forced || current.as_ref().is_some_and(|c| *c != seen) {
                    seen = current.unwrap_or(seen);
                    let options = options.clone();
                    if let Ok(result) = tokio::task::spawn_blocking(move || validate(&options)).await
                        && sender.send(result.into()).await.is_err()
                    {
                        return;
                    }
                }
                forced = tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sender.closed() => return,
                    () = asked.notified() => true,
                    () = settled(&watched.touched) => false,
                    () = tokio::time::sleep(POLL) => false,
                };
            }
        });
        Self { reloads, now }
    }

    /// Lets a signal or a request ask for a reload.
    pub fn trigger(&self) -> Trigger {
        Trigger(Arc::clone(&self.now))
    }
}

/// Asks for a reload whether or not a file changed.
#[derive(Clone)]
pub struct Trigger(Arc<Notify>);

impl Trigger {
    pub fn reload(&self) {
        self.0.notify_one();
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
