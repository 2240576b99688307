//! Reload: everything new is built first, then swapped in. An error changes nothing and shows in log and health (PL-15).

use crate::boot::{build_pipeline, hold_values};
use crate::context::AppContext;
use std::sync::Arc;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_config::{Diagnostic, LoadOptions, Loaded, Reload, Watch};
use tokio::signal::unix::{SignalKind, signal};

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
                _ = hung_up => watch.trigger().reload(),
                reload = watch.reloads.recv() => match reload {
                    None => return,
                    Some(Reload::Accepted(loaded)) => node.accept(*loaded).await,
                    Some(Reload::Refused(findings)) => node.refuse(&findings).await,
                },
            }
        }
    });
}

impl AppContext {
    async fn accept(&self, loaded: Loaded) {
        let old = self.config();
        let changed = loaded.changed_keys(&old);
        let same_services = loaded.hash == old.hash;
        let (loaded, pending) = loaded.kept_running(&old);
        let pipeline = match build_pipeline(&loaded, &self.pipeline_parts) {
            Ok(pipeline) => pipeline,
            Err(error) => return self.refuse_text(&error.to_string()).await,
        };
        let holds = hold_values(&self.leak, &loaded);
        // The gateway checks routes and providers; it is the last that may still refuse.
        if let Err(error) = self.gateway.reload(&loaded.profile.gateway, &loaded.secrets) {
            return self.refuse_text(&error.to_string()).await;
        }
        self.plane.swap_pipeline(pipeline);
        self.mcp.configure(&loaded.services.mcp_servers, &loaded.secrets);
        self.holds.store(Arc::new(holds));
        let (before, after) = (old.hash.clone(), loaded.hash.clone());
        self.config.store(Arc::new(loaded));
        self.reload_error.store(None);
        if same_services && changed.is_empty() {
            return;
        }
        tracing::info!(changed = ?changed, pending_restart = ?pending, "configuration reloaded");
        let draft = Draft::system(EntryKind::ConfigReload, "ok")
            .with("before", before)
            .with("after", after)
            .with("changed", changed.into_iter().take(64).collect::<Vec<_>>());
        self.record_reload(draft).await;
    }

    async fn refuse(&self, findings: &[Diagnostic]) {
        let text = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        self.refuse_text(&text).await;
    }

    async fn refuse_text(&self, why: &str) {
        if self.reload_error().as_deref() == Some(why) {
            return;
        }
        tracing::error!(why, "the new configuration is refused; the old one stays");
        self.reload_error.store(Some(Arc::new(why.to_owned())));
        let draft = Draft::system(EntryKind::ConfigReload, "refused").with_reason("invalid_configuration");
        self.record_reload(draft).await;
    }

    async fn record_reload(&self, draft: Draft) {
        let mut unit = Unit::new();
        unit.record(draft);
        if let Err(error) = self.ledger.append(unit).await {
            tracing::warn!(%error, "a reload could not be recorded");
        }
    }
}
