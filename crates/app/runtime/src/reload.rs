//! Reload: everything new is built first, recorded, then swapped in. An error changes nothing and shows in the answer, log,
//! metric and health (PL-15).

use crate::boot::{build_pipeline, hold_values};
use crate::context::AppContext;
use crate::declared::declared;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_config::watch::Trigger;
use systemprompt_config::{Diagnostic, LoadOptions, Loaded, Reload, Watch};
use systemprompt_models::RequestContext;
use systemprompt_oauth::Settings;
use systemprompt_security::authz::AuthzError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Names that a record repeats of a longer list.
const MAX_NAMES: usize = 64;

/// What a reload did.
#[derive(Clone, Debug, Serialize)]
pub struct Reloaded {
    pub result: ReloadResult,
    pub hash: String,
    pub previous_hash: String,
    /// Setting keys, and `services/…` and `secrets` as wholes; never a value.
    pub changed: Vec<String>,
    /// Changed settings that a running node cannot take over.
    pub pending_restart: Vec<String>,
    pub warnings: Vec<Diagnostic>,
}

/// How a reload ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    Applied,
    Unchanged,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the new configuration is not valid; the old one stays in force")]
    Invalid(Vec<Diagnostic>),
    #[error("the reload could not be recorded; the old configuration stays in force")]
    Ledger(#[from] LedgerError),
    #[error("the declared entities and rules could not be written; the old configuration stays in force")]
    Rules(#[source] AuthzError),
    #[error("this node does not watch its configuration")]
    NotWatched,
    #[error("too many reloads are waiting, or the node is stopping")]
    Busy,
}

/// Somebody who asked for a reload and waits for its outcome. A signal waits for nothing.
pub(crate) struct Asked(Option<(RequestContext, oneshot::Sender<Result<Reloaded, ReloadError>>)>);

/// Reloads since the start, by how they ended.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    applied: AtomicU64,
    unchanged: AtomicU64,
    refused: AtomicU64,
}

/// Counts of reloads at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadCounts {
    pub applied: u64,
    pub unchanged: u64,
    pub refused: u64,
}

/// Follows the configuration files, SIGHUP and requests for a reload.
pub(crate) fn watch(context: &AppContext, load: LoadOptions) {
    let mut watch = Watch::start(load, &context.config(), &context.tasks);
    context.reload_trigger.store(Some(Arc::new(watch.trigger())));
    let node = context.clone();
    let shutdown = context.tasks.shutdown_token();
    context.tasks.spawn("reload", async move {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                // When many wait already, one of them reads what the signal was sent for.
                _ = hung_up => drop(watch.trigger().reload(Asked(None))),
                reload = watch.reloads.recv() => match reload {
                    None => return,
                    Some(Reload { result, asked }) => node.reloaded(result, asked).await,
                },
            }
        }
    });
}

impl AppContext {
    /// Reads the configuration again and puts it in force.
    ///
    /// # Errors
    /// Why the old one stays.
    pub async fn reload(&self, by: &RequestContext) -> Result<Reloaded, ReloadError> {
        let trigger: Arc<Trigger<Asked>> = self.reload_trigger.load_full().ok_or(ReloadError::NotWatched)?;
        let (reply, answer) = oneshot::channel();
        trigger.reload(Asked(Some((by.clone(), reply)))).map_err(|_| ReloadError::Busy)?;
        answer.await.map_err(|_| ReloadError::Busy)?
    }

    /// Reloads since the start.
    pub fn reload_counts(&self) -> ReloadCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.reload_counters;
        ReloadCounts {
            applied: of(&counters.applied),
            unchanged: of(&counters.unchanged),
            refused: of(&counters.refused),
        }
    }

    /// Carries out one reading and tells everyone who asked for it.
    async fn reloaded(&self, result: Result<Box<Loaded>, Vec<Diagnostic>>, asked: Vec<Asked>) {
        let mut waiting: Vec<_> = asked.into_iter().filter_map(|asked| asked.0).collect();
        let by = waiting.first().map(|(by, _)| by.clone());
        let done = match result {
            Ok(loaded) => self.accept(*loaded, by.as_ref()).await,
            Err(findings) => Err(ReloadError::Invalid(findings)),
        };
        let counters = &self.reload_counters;
        let counter = match &done {
            Ok(Reloaded { result: ReloadResult::Applied, .. }) => &counters.applied,
            Ok(Reloaded { result: ReloadResult::Unchanged, .. }) => &counters.unchanged,
            Err(_) => &counters.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match &done {
            Ok(_) => self.reload_error.store(None),
            Err(error) => self.refused(error, by.as_ref()).await,
        }
        let last = waiting.pop();
        for (_, reply) in waiting {
            let _ = reply.send(repeated(&done));
        }
        if let Some((_, reply)) = last {
            let _ = reply.send(done);
        }
    }

    async fn accept(&self, loaded: Loaded, by: Option<&RequestContext>) -> Result<Reloaded, ReloadError> {
        let old = self.config();
        let is_same = loaded.is_same_as(&old);
        let mut changed = loaded.changed_keys(&old);
        let (loaded, pending_restart) = loaded.kept_running(&old);
        let invalid = |message: String, file: &std::path::Path| {
            ReloadError::Invalid(vec![Diagnostic::error("invalid_configuration", message).in_file(file)])
        };
        let pipeline = build_pipeline(&loaded, &self.pipeline_parts)
            .map_err(|error| invalid(error.to_string(), &loaded.paths.services.join("governance")))?;
        let rules = self.rules.compare(declared(&loaded)).await.map_err(ReloadError::Rules)?;
        if is_same && rules.is_empty() {
            changed.clear();
            return Ok(reloaded(ReloadResult::Unchanged, &old, &loaded, changed, pending_restart));
        }
        if is_same {
            changed = vec!["services/access-control".to_owned()];
        }
        // The gateway checks routes and providers; it is the last that may find the configuration wrong.
        self.gateway
            .reload(&loaded.profile.gateway, &loaded.secrets)
            .map_err(|error| invalid(error.to_string(), &loaded.paths.profile_file))?;
        let done = reloaded(ReloadResult::Applied, &old, &loaded, changed, pending_restart);
        let draft = draft("ok", by).with("before", &*old.hash).with("after", &*loaded.hash);
        let draft = rules
            .note(draft)
            .with("changed", names(&done.changed))
            .with("pending_restart", names(&done.pending_restart));
        let recorded = match self.record(draft).await {
            Ok(()) => self.rules.follow(rules).await.map_err(ReloadError::Rules),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = recorded {
            // It was in force before, so it can be again.
            if let Err(error) = self.gateway.reload(&old.profile.gateway, &old.secrets) {
                tracing::error!(%error, "the gateway's old configuration could not be put back");
            }
            return Err(error);
        }
        self.oauth.configure(Settings::of(&loaded.profile));
        self.plane.swap_pipeline(pipeline);
        self.ledger.keep_payloads(crate::retention::payload_policy(&loaded, &self.pipeline_parts.scanner));
        self.mcp.configure(&loaded.services.mcp_servers, &loaded.secrets);
        self.holds.store(Arc::new(hold_values(&self.leak, &loaded)));
        self.config.store(Arc::new(loaded));
        tracing::info!(changed = ?done.changed, pending_restart = ?done.pending_restart, "configuration reloaded");
        Ok(done)
    }

    /// Logs and records a refusal: each that somebody asked for, and of those that files cause each text once.
    async fn refused(&self, error: &ReloadError, by: Option<&RequestContext>) {
        let why = match error {
            ReloadError::Invalid(findings) => {
                findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            error => match std::error::Error::source(error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
        };
        if by.is_none() && self.reload_error().as_deref() == Some(&*why) {
            return;
        }
        tracing::error!(why, "the new configuration is refused; the old one stays");
        self.reload_error.store(Some(Arc::new(why)));
        let ReloadError::Invalid(findings) = error else { return };
        let mut draft = draft("refused", by)
            .with_reason("invalid_configuration")
            .with("before", &*self.config().hash)
            .with("findings", findings.len());
        if let Some(first) = findings.iter().find(|finding| finding.is_error()) {
            draft = draft
                .with("code", first.code)
                .with("file", first.file.as_ref().map(|file| bounded(&file.display().to_string())))
                .with("line", (first.line > 0).then_some(first.line))
                .with("column", (first.line > 0).then_some(first.column))
                .with("key", (!first.key.is_empty()).then(|| bounded(&first.key)));
        }
        if let Err(error) = self.record(draft).await {
            tracing::warn!(%error, "a refused reload could not be recorded");
        }
    }

    async fn record(&self, draft: Draft) -> Result<(), LedgerError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.ledger.append(unit).await?;
        Ok(())
    }
}

/// A record of whoever asked, else of the system.
fn draft(outcome: &'static str, by: Option<&RequestContext>) -> Draft {
    match by {
        Some(by) => Draft::new(EntryKind::ConfigReload, by, outcome),
        None => Draft::system(EntryKind::ConfigReload, outcome),
    }
}

fn reloaded(
    result: ReloadResult,
    old: &Loaded,
    new: &Loaded,
    changed: Vec<String>,
    pending_restart: Vec<String>,
) -> Reloaded {
    Reloaded {
        result,
        hash: new.hash.clone(),
        previous_hash: old.hash.clone(),
        changed,
        pending_restart,
        warnings: new.warnings.clone(),
    }
}

/// The outcome for a further asker of the same reading.
fn repeated(done: &Result<Reloaded, ReloadError>) -> Result<Reloaded, ReloadError> {
    match done {
        Ok(done) => Ok(done.clone()),
        Err(ReloadError::Invalid(findings)) => Err(ReloadError::Invalid(findings.clone())),
        Err(_) => Err(ReloadError::Busy),
    }
}

fn names(all: &[String]) -> Vec<String> {
    all.iter().take(MAX_NAMES).map(|name| bounded(name)).collect()
}

/// The end of a text, which says most of a path, within what a record takes.
pub(crate) fn bounded(text: &str) -> String {
    let excess = text.chars().count().saturating_sub(systemprompt_audit::record::MAX_DETAIL_STRING);
    text.chars().skip(excess).collect()
}
