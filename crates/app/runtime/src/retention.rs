//! What the profile says of payloads and retention, in the ledger's words, and the daily run.

use crate::context::AppContext;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_audit::payload::{Mode, PayloadPolicy, PayloadRules};
use systemprompt_audit::retention::{
    PayloadDays, RetentionError, RetentionReport, RetentionRules, RetentionState, last_due,
};
use systemprompt_config::Loaded;
use systemprompt_config::profile::audit::kept::PayloadMode;
use systemprompt_models::{Millis, RequestContext};
use systemprompt_security::governance::SecretScanner;

/// How often it is asked whether a run is due.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How often bodies are looked for that no record named.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// How payloads are kept, by the profile.
pub(crate) fn payload_policy(loaded: &Loaded, scanner: &Arc<SecretScanner>) -> PayloadPolicy {
    let modes = &loaded.profile.audit.payloads;
    let mode = |mode: PayloadMode| match mode {
        PayloadMode::Full => Mode::Full,
        PayloadMode::Redacted => Mode::Redacted,
        PayloadMode::HashOnly => Mode::HashOnly,
        PayloadMode::Off => Mode::Off,
    };
    let rules = PayloadRules {
        inference: mode(modes.inference),
        tool: mode(modes.tool),
        change: mode(modes.change),
        client: mode(modes.client),
        note: mode(modes.note),
    };
    PayloadPolicy { rules, redactor: Some(Arc::clone(scanner) as Arc<_>) }
}

/// For how long what is kept, by the profile.
pub fn retention_rules(loaded: &Loaded) -> RetentionRules {
    let retention = &loaded.profile.audit.retention;
    let days = &retention.payloads;
    RetentionRules {
        default_days: retention.default_days,
        kinds: retention.kinds.iter().map(|(kind, days)| (kind.clone(), *days)).collect::<BTreeMap<_, _>>(),
        payloads: PayloadDays {
            inference: days.inference,
            tool: days.tool,
            change: days.change,
            client: days.client,
            note: days.note,
        },
    }
}

/// The job as it stands, and what it goes by.
#[derive(Clone, Debug)]
pub struct RetentionStatus {
    pub rules: RetentionRules,
    pub state: RetentionState,
    /// What the last run did, if one ended.
    pub last: Option<RetentionReport>,
    /// When the next run is due.
    pub next_due: Millis,
}

impl AppContext {
    /// The retention in force, and what its last run did.
    ///
    /// # Errors
    /// When the job cannot be read.
    pub async fn retention_status(&self) -> Result<RetentionStatus, systemprompt_audit::ReadError> {
        let state = self.ledger.retention_state().await?;
        let last = state.last();
        let due = last_due(self.clock.now());
        let is_done = state.started_at.is_some_and(|started| started >= due);
        let next_due = if is_done { due + systemprompt_audit::retention::DAY_MS } else { due };
        Ok(RetentionStatus { rules: retention_rules(&self.config()), state, last, next_due })
    }

    /// Applies the retention now.
    ///
    /// # Errors
    /// When another node is at it, or why it ended early.
    pub async fn retain(&self, by: &RequestContext) -> Result<RetentionReport, RetentionError> {
        self.ledger.retain_now(&retention_rules(&self.config()), by).await
    }

    pub(crate) fn start_retention(&self) {
        let node = self.clone();
        self.tasks.spawn_loop("retention", LOOK_EVERY, move || {
            let node = node.clone();
            async move { node.retain_if_due().await }
        });
        let node = self.clone();
        self.tasks.spawn_loop("payload-bodies", SWEEP_EVERY, move || {
            let node = node.clone();
            async move {
                if let Err(error) = node.ledger.sweep_bodies().await {
                    tracing::warn!(%error, "bodies without a record could not be swept");
                }
            }
        });
    }

    async fn retain_if_due(&self) {
        if !self.ledger.condition().is_ready() {
            return;
        }
        match self.ledger.retain_if_due(&retention_rules(&self.config())).await {
            Ok(None) => {}
            Ok(Some(done)) => tracing::info!(
                payloads = done.payloads.values().sum::<u64>(),
                records = done.records.values().sum::<u64>(),
                rows = done.rows,
                elapsed_ms = done.finished_at - done.started_at,
                "retention applied"
            ),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the retention was not applied to the end; the next run goes on"
            ),
        }
    }
}
