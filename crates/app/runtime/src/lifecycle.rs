//! Loops of a running node, the signals that end it, and its orderly end.

use crate::context::AppContext;
use std::sync::PoisonError;
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_events::{Channel, Notice};
use systemprompt_security::nodes::HEARTBEAT;
use tokio::signal::unix::{SignalKind, signal};

/// How often other nodes' revocations and rule changes are asked for.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(1);
const RULES_EVERY: Duration = Duration::from_secs(5);
const BANS_EVERY: Duration = Duration::from_secs(1);
/// How often rows of ended allowances and forgotten blocks are deleted.
const GOVERNANCE_SWEEP_EVERY: Duration = Duration::from_mins(10);
const BAN_HITS_EVERY: Duration = Duration::from_secs(10);
const COUNTERS_EVERY: Duration = Duration::from_mins(1);
const REFUSALS_EVERY: Duration = Duration::from_mins(1);
const KEYS_EVERY: Duration = Duration::from_secs(30);
const CHILDREN_EVERY: Duration = Duration::from_secs(5);
/// How often it is asked whether the clean-up of identity rows is due, and counted refusals are recorded.
const OAUTH_CLEANUP_LOOK: Duration = Duration::from_mins(1);
/// Longest wait for tasks that close what they opened.
const DRAIN_TASKS: Duration = Duration::from_secs(10);

/// Starts what runs besides requests.
pub(crate) fn start_loops(context: &AppContext) {
    let tasks = context.tasks.clone();
    follow_nodes(context);
    context.bridge.start(&tasks);
    let node = context.clone();
    tasks.spawn_loop("revocations", REVOCATIONS_EVERY, move || {
        let node = node.clone();
        async move { node.refresh_revocations().await }
    });
    let node = context.clone();
    tasks.spawn_loop("rules", RULES_EVERY, move || {
        let node = node.clone();
        async move {
            if let Err(error) = node.rules.refresh().await {
                tracing::warn!(%error, age_ms = node.rules.age(), "the rules could not be confirmed");
            }
        }
    });
    let node = context.clone();
    tasks.spawn_loop("bans", BANS_EVERY, move || {
        let node = node.clone();
        async move {
            if let Err(error) = node.bans.refresh().await {
                tracing::warn!(%error, age_ms = node.bans.age(), "the bans could not be confirmed");
            }
        }
    });
    let node = context.clone();
    tasks.spawn_loop("allow-list", BANS_EVERY, move || {
        let node = node.clone();
        async move {
            if let Err(error) = node.allowed.refresh().await {
                tracing::warn!(%error, "the allow list could not be confirmed");
            }
        }
    });
    let node = context.clone();
    tasks.spawn_loop("governance-sweep", GOVERNANCE_SWEEP_EVERY, move || {
        let node = node.clone();
        async move {
            let swept = node.allowed.sweep().await.map_err(|e| e.to_string());
            let swept = swept.and(node.plane.sweep().await.map_err(|e| e.to_string()));
            if let Err(error) = swept {
                tracing::warn!(%error, "ended entries of the governance tables could not be deleted");
            }
        }
    });
    let node = context.clone();
    tasks.spawn_loop("ban-hits", BAN_HITS_EVERY, move || {
        let node = node.clone();
        async move {
            if let Err(error) = node.bans.sweep().await {
                tracing::warn!(%error, "hits and ends of bans could not be written");
            }
        }
    });
    let node = context.clone();
    tasks.spawn_loop("heartbeat", HEARTBEAT, move || {
        let node = node.clone();
        async move {
            if let Err(error) = node.nodes.beat().await {
                tracing::warn!(%error, "the other nodes could not be told that this one lives");
            }
        }
    });
    let node = context.clone();
    tasks.spawn_loop("counters", COUNTERS_EVERY, move || {
        let node = node.clone();
        async move { node.sweep_counters().await }
    });
    let node = context.clone();
    tasks.spawn_loop("refusals", REFUSALS_EVERY, move || {
        let node = node.clone();
        async move { node.record_refusals().await }
    });
    let node = context.clone();
    tasks.spawn_loop("keys", KEYS_EVERY, move || {
        let node = node.clone();
        async move { node.refresh_keys().await }
    });
    context.start_retention();
    let node = context.clone();
    tasks.spawn_loop("oauth-cleanup", OAUTH_CLEANUP_LOOK, move || {
        let node = node.clone();
        async move {
            node.oauth.record_refusals().await;
            if let Err(error) = node.oauth.measure().await {
                tracing::warn!(%error, "sessions and clients could not be counted");
            }
            let name = crate::boot::instance_id(&node.config());
            match node.oauth.clean_up_if_due(&name).await {
                Ok(None) => {}
                Ok(Some(done)) => {
                    let rows = done.deleted.values().sum::<u64>();
                    tracing::info!(rows, elapsed_ms = done.elapsed_ms, deleted = ?done.deleted, "ended identity rows deleted");
                }
                Err(error) => tracing::warn!(%error, "ended identity rows could not be deleted"),
            }
        }
    });
    let node = context.clone();
    tasks.spawn_loop("mcp-children", CHILDREN_EVERY, move || {
        let node = node.clone();
        async move { node.mcp.sweep().await }
    });
}

/// Reads what another node says it changed, at once. Polling finds it too, later.
fn follow_nodes(context: &AppContext) {
    let (node, mut rules) = (context.clone(), context.bridge.subscribe(Channel::Rules));
    follow(context, "rules-notices", async move {
        while let Some(notice) = rules.next().await {
            // This node's own changes are in force already.
            if is_newer(&notice, node.rules.rules().epoch())
                && let Err(error) = node.rules.refresh().await
            {
                tracing::warn!(%error, "changed rules could not be read");
            }
        }
    });
    let (node, mut bans) = (context.clone(), context.bridge.subscribe(Channel::Bans));
    follow(context, "bans-notices", async move {
        while bans.next().await.is_some() {
            if let Err(error) = node.bans.refresh().await {
                tracing::warn!(%error, "changed bans could not be read");
            }
        }
    });
    let (node, mut revocations) = (context.clone(), context.bridge.subscribe(Channel::Revocations));
    follow(context, "revocation-notices", async move {
        while revocations.next().await.is_some() {
            node.refresh_revocations().await;
        }
    });
}

fn is_newer(notice: &Notice, epoch: i64) -> bool {
    match notice {
        Notice::Id(told) => told.parse().map_or(true, |told: i64| told > epoch),
        Notice::Missed => true,
    }
}

/// Runs until the node begins to stop.
fn follow(context: &AppContext, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let shutdown = context.tasks.shutdown_token();
    context.tasks.spawn(name, async move {
        let _ = shutdown.run_until_cancelled(task).await;
    });
}

/// Completes when the process is told to end (SIGTERM or SIGINT). It listens from this call on, not from the first poll: whoever is
/// told that the node is ready may end it at once, and a signal that nobody listens for kills the process.
pub fn shutdown_signal() -> impl Future<Output = ()> + Send + 'static {
    let listeners = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut term), Ok(mut int)) = listeners else {
            tracing::error!("signals cannot be listened to; the node ends only by being killed");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: draining"),
            _ = int.recv() => tracing::info!("SIGINT: draining"),
        }
    }
}

impl AppContext {
    /// Removes rows that only mattered for a while: counters that ran out, ids of signed messages, old hook events.
    async fn sweep_counters(&self) {
        let now = self.clock.now();
        if let Err(error) = self.pipeline_parts.limiter.sweep(now).await {
            tracing::warn!(%error, "counters of the call limit that ran out could not be removed");
        }
        if let Err(error) = self.replays.sweep(now).await {
            tracing::warn!(%error, "ids of old signed messages could not be removed");
        }
        if let Err(error) = self.hook_events.sweep(now).await {
            tracing::warn!(%error, "old hook events could not be removed");
        }
    }

    /// Records what was refused since the last time, if anything was (AUD-19).
    async fn record_refusals(&self) {
        let Some(draft) = self.refusals.take() else { return };
        let mut unit = Unit::new();
        unit.record(draft);
        if let Err(error) = self.ledger.append(unit).await {
            tracing::warn!(%error, "the minute's refusals could not be recorded");
        }
    }

    /// Ends the rooms, once nothing more comes in: children, tasks that close records, the ledger, the pools.
    pub async fn close(&self) {
        self.set_draining();
        self.mcp.drain().await;
        if !self.tasks.drain(DRAIN_TASKS).await {
            tracing::warn!("tasks were still running at the end of the drain");
        }
        self.record_refusals().await;
        if let Err(error) = self.nodes.leave().await {
            tracing::warn!(%error, "the other nodes could not be told that this one ends");
        }
        let mut unit = Unit::new();
        unit.record(Draft::system(EntryKind::SystemStop, "ok"));
        if let Err(error) = self.ledger.append(unit).await {
            tracing::warn!(%error, "the stop could not be recorded");
        }
        self.ledger.stop().await;
        self.db.close().await;
        // Only now may another process have the database.
        drop(self.claim.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_counts_before_anybody_waits_for_it() {
        let told_to_end = shutdown_signal();
        let own = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
        tokio::time::timeout(Duration::from_secs(5), told_to_end).await.unwrap();
    }
}
