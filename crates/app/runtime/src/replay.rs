//! Replay of recorded decisions against a draft of rules and policies: recorded as an act of whoever asks, and otherwise without effect.

use crate::context::AppContext;
use aws_lc_rs::digest::{SHA256, digest};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_config::services::draft::PolicyDraft;
use systemprompt_models::{Millis, RequestContext};
use systemprompt_security::authz::AuthzError;
use systemprompt_security::authz::replay::{ReplayReport, ReplayScope, ReplaySource, replay};
use systemprompt_security::governance::replay::TriedPolicies;
use systemprompt_security::governance::{Parts, PipelineError};

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Rules(#[from] AuthzError),
    #[error(transparent)]
    Policies(#[from] PipelineError),
    #[error("the replay could not be recorded")]
    Ledger(#[from] LedgerError),
    #[error("the ledger cannot be read")]
    Read(#[from] systemprompt_audit::ReadError),
}

impl AppContext {
    /// The policies in force with those of `draft` laid over them.
    ///
    /// # Errors
    /// A policy of the draft that cannot be made.
    pub fn tried_policies(&self, draft: &PolicyDraft) -> Result<TriedPolicies, PipelineError> {
        let loaded = self.config();
        let mut config = loaded.services.governance.clone();
        config.enabled &= loaded.profile.governance.pipeline.enabled;
        let parts =
            Parts { history: loaded.profile.governance.pipeline.history, ..self.pipeline_parts.clone() };
        TriedPolicies::of(&config, &draft.policies, &parts)
    }

    /// Decides what was recorded between `since` and `until` anew, with `draft`.
    ///
    /// # Errors
    /// Rules or a ledger that cannot be read, or a replay that could not be recorded.
    pub async fn replay(
        &self,
        by: &RequestContext,
        draft: &PolicyDraft,
        since: Millis,
        until: Millis,
    ) -> Result<ReplayReport, ReplayError> {
        let policies = self.tried_policies(draft)?;
        let tried = self.rules.tried(Some(draft)).await?;
        let text = serde_json::to_vec(draft).unwrap_or_default();
        let mut unit = Unit::new();
        unit.record(
            Draft::new(EntryKind::AdminRuleReplayed, by, "ok")
                .with("draft_sha256", hex::encode(digest(&SHA256, &text)))
                .with("set_hash", tried.rules.set_hash().to_string())
                .with("rules", draft.rules.len())
                .with("policies", draft.policies.len())
                .with("since", since)
                .with("until", until),
        );
        self.ledger.append(unit).await?;
        let actors = self.config().profile.governance.authz.actor_check;
        let reader = self.ledger.reader();
        let source = ReplaySource { reader: &reader, decisions: &self.decisions };
        Ok(replay(source, &tried, &policies, ReplayScope { since, until, actors }).await?)
    }
}
